"""Keyword arguments become the request that the command line would send."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from cli.filters import FILTER_FLAGS
from flowscope import WORDS, FlowFilter, FlowscopeError, filters_of, request_of
from model.filter_words import FilterSet


def shown(**words: Any) -> dict[str, Any]:
    return dict(MessageToDict(request_of(**words), preserving_proto_field_name=True))


def test_a_word_for_either_side_is_two_filters_and_a_sided_one_is_one() -> None:
    assert shown(pod="shop/cart")["whitelist"] == [{"source_pod": ["shop/cart"]}, {"destination_pod": ["shop/cart"]}]
    assert shown(from_pod="shop/cart", verdict="DROPPED")["whitelist"] == [
        {"source_pod": ["shop/cart"], "verdict": ["DROPPED"]}
    ]


def test_words_of_one_side_stay_on_one_side() -> None:
    assert shown(ip="10.0.0.1", port=[80, 443])["whitelist"] == [
        {"source_ip": ["10.0.0.1"], "source_port": ["80", "443"]},
        {"destination_ip": ["10.0.0.1"], "destination_port": ["80", "443"]},
    ]


def test_types_identities_workloads_and_flags_are_read_as_the_cli_reads_them() -> None:
    filters = shown(type="drop", to_identity="world", to_workload="Deployment/web", tcp_flags="syn,ack")["whitelist"]
    assert filters == [
        {
            "event_type": [{"type": 1}],
            "destination_identity": [2],
            "destination_workload": [{"kind": "Deployment", "name": "web"}],
            "tcp_flags": [{"SYN": True, "ACK": True}],
        }
    ]


def test_every_filter_flag_of_the_command_line_is_a_word() -> None:
    for flag in FILTER_FLAGS:
        if flag.name != "not":
            assert flag.name.replace("-", "_") in WORDS
            value = _EXAMPLES.get(flag.name.removeprefix("from-").removeprefix("to-"), "1")
            typed = FilterSet()
            typed.use(flag.name, value)
            word = {flag.name.replace("-", "_"): value if flag.value_name else True}
            assert filters_of(**word) == [FlowFilter(**one) for one in typed.allow()], flag.name


_EXAMPLES = {
    "verdict": "DROPPED",
    "drop-reason-desc": "POLICY_DENIED",
    "tcp-flags": "SYN",
    "type": "drop",
    "traffic-direction": "ingress",
    "http-header": "a:b",
    "identity": "world",
}


def test_words_are_read_in_any_case_and_under_shorter_names() -> None:
    assert filters_of(verdict="dropped", drop_reason="policy_denied") == filters_of(
        verdict="DROPPED", drop_reason_desc="POLICY_DENIED"
    )
    assert filters_of(node="n1", cel="true") == filters_of(node_name="n1", cel_expression="true")


def test_replies_and_questions_of_dns_have_words_though_they_have_no_flags() -> None:
    assert shown(reply=False, dns_query="cilium")["whitelist"] == [{"reply": [False], "dns_query": ["cilium"]}]
    assert shown(pod="a/b", reply=True)["whitelist"] == [
        {"source_pod": ["a/b"], "reply": [True]},
        {"destination_pod": ["a/b"], "reply": [True]},
    ]


def test_what_is_excluded_goes_to_the_deny_list() -> None:
    assert shown(exclude={"namespace": "kube-system"})["blacklist"] == [
        {"source_pod": ["kube-system/"]},
        {"destination_pod": ["kube-system/"]},
    ]
    assert shown(exclude=[{"to_port": 53}, {"verdict": "DROPPED", "to_port": 80}])["blacklist"] == [
        {"destination_port": ["53"]},
        {"verdict": ["DROPPED"], "destination_port": ["80"]},
    ]


def test_filters_of_ones_own_stand_beside_the_words() -> None:
    own = FlowFilter(source_pod=["a/b"])
    request = request_of(verdict="DROPPED", allowlist=[own], denylist=filters_of(to_port=53), field_mask=["source"])
    assert list(request.whitelist) == [*filters_of(verdict="DROPPED"), own]
    assert list(request.blacklist) == [FlowFilter(destination_port=["53"])]
    assert list(request.field_mask.paths) == ["source"]


def test_how_many_and_from_which_end() -> None:
    assert shown(last=5) == {"number": "5"}
    assert shown(first=5) == {"number": "5", "first": True}
    assert shown(last=5, follow=True) == {"number": "5", "follow": True}
    assert shown() == {}


def test_times_are_datetimes_spans_or_text() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert shown(since=moment)["since"] == shown(since="2026-01-02T03:04:05Z")["since"] == "2026-01-02T03:04:05Z"
    assert shown(until=moment)["until"] == "2026-01-02T03:04:05Z"
    for span in ("1d", timedelta(days=1), "24h"):
        day = request_of(since=span).since.ToDatetime(tzinfo=UTC)
        assert abs(datetime.now(UTC) - timedelta(days=1) - day) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"prot": "x"}, "prot='x': no such word; did you mean"),
        ({"qqqq": "x"}, "qqqq='x': no such word; see flowscope.WORDS"),
        ({"not": True}, "not=True: no such word"),
        ({"verdict": "MAYBE"}, "verdict='MAYBE': invalid verdict value: MAYBE"),
        ({"since": "yesterday"}, "since='yesterday': expected 5m or 2d"),
        ({"until": 5}, "until=5: expected"),
        ({"first": 1, "follow": True}, "first and follow cannot be combined"),
        ({"first": 1, "last": 1}, "first and last cannot be combined"),
        ({"until": "1m", "follow": True}, "until and follow cannot be combined"),
        ({"last": -1}, "last=-1: expected a number of flows"),
        ({"identity": "nobody"}, "identity='nobody': invalid security identity"),
        ({"tcp_flags": "SYN,FUN"}, "tcp_flags='SYN,FUN': unknown tcp flag: FUN"),
        ({"ip": "10.0.0.1", "pod": "a/b"}, "filters ip and pod cannot be combined"),
        ({"ipv4": False}, "ipv4=False: can only be True"),
        ({"port": []}, r"port=\[\]: the list is empty"),
        ({"port": 5.5}, "port=5.5"),
        ({"pod": True}, "pod=True: expected text or a number, got bool"),
        ({"field_mask": "nonsense"}, "field_mask: flow.Flow has no nonsense"),
        ({"exclude": {"verdict": "NO"}}, "verdict='NO'"),
    ],
)
def test_a_wrong_word_is_named(words: dict[str, Any], said: str) -> None:
    with pytest.raises(FlowscopeError, match=said) as error:
        request_of(**words)
    assert error.value.code == "InvalidArgument"


@given(st.dictionaries(st.sampled_from(sorted(WORDS)), st.text(max_size=5) | st.integers() | st.booleans(), max_size=3))
def test_any_words_are_a_request_or_refused_by_name(words: dict[str, Any]) -> None:
    try:
        request = request_of(**words)
    except FlowscopeError as error:
        refusal = error.message
    else:
        refusal = ""
        assert request.whitelist or not words
    assert not refusal or any(refusal.startswith(f"{word}=") for word in words)
