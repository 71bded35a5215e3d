"""Keyword arguments become the request that the command line would send."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from flowscope import Client, FlowscopeError, request_of


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


def test_what_is_excluded_goes_to_the_deny_list() -> None:
    assert shown(exclude={"namespace": "kube-system"})["blacklist"] == [
        {"source_pod": ["kube-system/"]},
        {"destination_pod": ["kube-system/"]},
    ]


def test_times_are_datetimes_spans_or_text() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert shown(since=moment)["since"] == shown(since="2026-01-02T03:04:05Z")["since"] == "2026-01-02T03:04:05Z"
    day = request_of(since="1d").since.ToDatetime(tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(days=1) - day) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"pot": "x"}, "unknown word 'pot'"),
        ({"verdict": "MAYBE"}, "verdict='MAYBE'"),
        ({"since": "yesterday"}, "since='yesterday'"),
        ({"first": 1, "follow": True}, "first cannot be combined"),
        ({"identity": "nobody"}, "identity='nobody'"),
        ({"tcp_flags": "SYN,FUN"}, "tcp_flags"),
    ],
)
def test_a_wrong_word_is_named(words: dict[str, Any], said: str) -> None:
    with pytest.raises(FlowscopeError, match=said) as error:
        request_of(**words)
    assert error.value.code == "InvalidArgument"


def test_a_password_is_not_sent_in_the_clear() -> None:
    with pytest.raises(FlowscopeError, match="needs TLS"):
        Client("localhost:4245", username="me", password="secret")
