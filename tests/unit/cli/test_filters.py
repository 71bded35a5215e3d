"""Filter flags become the filters that Hubble's client would send."""

from __future__ import annotations

from typing import Any

import pytest

from cli.command import Flags, UsageError
from cli.filters import FILTER_FLAGS, filters_of
from proto.flow import flow_pb2

FLAGS = Flags(FILTER_FLAGS)


def parse(*arguments: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    values, words = FLAGS.parse(arguments)
    assert not words
    filters = filters_of(values)
    return filters.allow(), filters.deny()


def complaint(*arguments: str) -> str:
    with pytest.raises(UsageError) as error:
        parse(*arguments)
    return str(error.value)


def test_flags_without_sides_describe_one_end() -> None:
    assert parse("--ip", "1.1.1.1", "--port", "80") == (
        [
            {"source_ip": ["1.1.1.1"], "source_port": ["80"]},
            {"destination_ip": ["1.1.1.1"], "destination_port": ["80"]},
        ],
        [],
    )


def test_equal_sides_are_sent_once() -> None:
    assert parse("--from-ip", "1.1.1.1", "--protocol", "tcp") == (
        [{"source_ip": ["1.1.1.1"], "protocol": ["tcp"]}],
        [],
    )


def test_not_is_for_the_next_flag_only_and_all_negated_flags_share_one_pair() -> None:
    allow, deny = parse("--not", "--pod", "a/b", "--not", "--port", "80", "--protocol", "udp")
    assert allow == [{"protocol": ["udp"]}]
    assert deny == [
        {"source_pod": ["a/b"], "source_port": ["80"]},
        {"destination_pod": ["a/b"], "destination_port": ["80"]},
    ]


@pytest.mark.parametrize(
    ("arguments", "allow"),
    [
        (("-n", "a"), [{"source_pod": ["a/"]}, {"destination_pod": ["a/"]}]),
        (("-A",), [{"source_pod": ["/"]}, {"destination_pod": ["/"]}]),
        (
            ("-n", "a", "--pod", "x", "--pod", "a/y"),
            [{"source_pod": ["a/x", "a/y"]}, {"destination_pod": ["a/x", "a/y"]}],
        ),
        (
            ("--from-namespace", "a", "--service", "s"),
            [
                {"source_service": ["a/s"]},
                {"destination_service": ["s"], "source_pod": ["a/"]},
            ],
        ),
    ],
)
def test_namespaces_complete_pods_and_services(arguments: tuple[str, ...], allow: list[dict[str, Any]]) -> None:
    assert parse(*arguments)[0] == allow


@pytest.mark.parametrize(
    ("arguments", "event_type"),
    [
        (("-t", "l7"), {"type": 129}),
        (("-t", "129"), {"type": 129}),
        (("-t", "trace:to-endpoint"), {"type": 4, "match_sub_type": True, "sub_type": 0}),
        (("-t", "drop:181"), {"type": 1, "match_sub_type": True, "sub_type": 181}),
        (("-t", "agent:policy-updated"), {"type": 130, "match_sub_type": True, "sub_type": 5}),
    ],
)
def test_event_types_have_names_and_numbers(arguments: tuple[str, ...], event_type: dict[str, Any]) -> None:
    assert parse(*arguments)[0] == [{"event_type": [event_type]}]


@pytest.mark.parametrize(
    ("text", "workload"),
    [
        ("barn", {"name": "barn"}),
        ("Deployment/barn", {"name": "barn", "kind": "Deployment"}),
        ("Job/", {"kind": "Job"}),
        ("a/b/c", {"name": "b/c", "kind": "a"}),
        ("", {}),
    ],
)
def test_workloads_are_split_at_the_first_slash(text: str, workload: dict[str, str]) -> None:
    assert parse("--from-workload", text)[0] == [{"source_workload": [workload]}]


@pytest.mark.parametrize(
    ("text", "number"), [("host", 1), ("overlay-to-encrypt", 11), ("0x20", 32), ("010", 8), ("0b11", 3), ("1_0", 10)]
)
def test_identities_have_names_and_numbers(text: str, number: int) -> None:
    assert parse("--from-identity", text)[0] == [{"source_identity": [number]}]


def test_switches_ignore_what_is_behind_the_equals_sign() -> None:
    assert parse("--encrypted=false")[0] == [{"encrypted": [True]}]
    assert parse("--not=false", "-4")[1] == [{"ip_version": [1]}]


def test_every_filter_is_one_that_the_wire_knows() -> None:
    allow, _ = parse(
        *("--http-header", "a:b:c", "--tcp-flags", "syn,ACK", "--interface", "eth0", "--ip-trace-id", "7"),
        *("--cel-expression", "true", "--cel-expression", "false", "--verdict", "DROPPED", "--ip-version", "zzz"),
        *("--traffic-direction", "INGRESS", "--drop-reason-desc", "POLICY_DENIED", "--workload", "x"),
    )
    left = flow_pb2.FlowFilter(**allow[0])
    assert left.http_header[0].value == "b:c"
    assert (left.tcp_flags[0].SYN, left.tcp_flags[0].ACK, left.tcp_flags[0].FIN) == (True, True, False)
    assert list(left.experimental.cel_expression) == ["true", "false"]
    assert list(left.ip_version) == [flow_pb2.IP_NOT_USED]


@pytest.mark.parametrize(
    ("arguments", "flag", "text"),
    [
        (("--not", "--not"), "--not", "consecutive --not statements"),
        (("--verdict", "x"), "--verdict", "invalid --verdict value: x"),
        (("--drop-reason-desc", ""), "--drop-reason-desc", "empty --drop-reason-desc value"),
        (("--tcp-flags", "syn, ack"), "--tcp-flags", "unknown tcp flag:  ack"),
        (("--http-header", "a"), "--http-header", 'invalid http-header value "a", expected name:value'),
        (("--ip-trace-id", "0"), "--ip-trace-id", "invalid --ip-trace-id value; must be greater than 0"),
        (
            ("--traffic-direction", "UP"),
            "--traffic-direction",
            "up: invalid traffic direction, expected ingress or egress",
        ),
        (
            ("-t", "4:to-proxy"),
            "-t, --type",
            "unable to parse event sub-type 'to-proxy', not a known sub-type name and unable to parse as numeric value"
            ': strconv.ParseUint: parsing "to-proxy": invalid syntax',
        ),
        (
            ("-n", "a", "-A"),
            "-A, --all-namespaces",
            "filters --namespace and --all-namespaces cannot be combined",
        ),
        (("--pod", "a/b", "--from-pod", "c"), "--from-pod", "filters --from-pod and --pod cannot be combined"),
        (
            ("--from-pod", "a/b", "--from-service", "c/d"),
            "--from-service",
            'namespace of service "c/d" conflict with pod "a"',
        ),
        (
            ("--from-pod", "a/x", "--to-pod", "a/y", "--from-namespace", "b", "--to-namespace", "c"),
            "--from-namespace",
            'namespace conflict: "b" does not contain "a/x"',
        ),
    ],
)
def test_contradictions_are_refused_at_the_flag_that_makes_them(
    arguments: tuple[str, ...], flag: str, text: str
) -> None:
    at = max(place for place, word in enumerate(arguments) if word in flag.split(", "))
    values = {"--not": "true", "-A": "true"}
    value = values.get(arguments[at]) or arguments[at + 1]
    assert complaint(*arguments) == f'invalid argument "{value}" for "{flag}" flag: {text}'


def test_the_same_flags_may_be_used_for_allowing_and_denying() -> None:
    allow, deny = parse("--from-ip", "1.1.1.1", "--not", "--ip", "2.2.2.2")
    assert (len(allow), len(deny)) == (1, 2)
