"""Agent notifications and debug messages."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from model.decode import Decoder
from model.decode.agent_events import agent_event
from model.decode.debug_events import debug_message
from model.knowledge import Knowledge
from model.row import Kind
from model.tables import Node, Tables
from proto.flow import flow_pb2


def new_decoder() -> Decoder:
    tables = Tables()
    return Decoder(tables, Knowledge(), tables.nodes.intern(Node("worker")))


def test_a_notification_becomes_the_event_of_its_number() -> None:
    event = agent_event(9, {"cidr": "10.0.0.1/32", "id": 7, "old-id": 0, "host-ip": "172.18.0.2"})
    assert event.type == flow_pb2.IPCACHE_UPSERTED
    assert (event.ipcache_update.cidr, event.ipcache_update.HasField("old_identity")) == ("10.0.0.1/32", True)
    assert agent_event(10, {"cidr": "10.0.0.1/32", "id": 7}).ipcache_update.HasField("old_identity") is False


def test_a_notification_that_nobody_knows_is_shown_as_json() -> None:
    event = agent_event(1, {"text": "a<b"})
    assert event.type == flow_pb2.AGENT_EVENT_UNKNOWN
    assert (event.unknown.type, event.unknown.notification) == ("1", '{"text":"a\\u003cb"}')


def test_notifications_become_rows_and_broken_ones_are_counted() -> None:
    good = {"type": 7, "message": {"id": 5, "pod-name": "web", "namespace": "shop"}}
    decoded = new_decoder().decode_agent([good, {"type": 7}, good | {"message": {"id": "five"}}], [1, 2, 3])
    assert decoded.rows["kind"].tolist() == [Kind.AGENT]
    assert decoded.rows["sub_type"].tolist() == [flow_pb2.ENDPOINT_CREATED]
    assert decoded.errors == {"invalid_agent_message_type": 2}


VALUES: Any = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=4), st.lists(st.text())
)


@settings(max_examples=200)
@given(st.integers(0, 12), st.dictionaries(st.sampled_from(["id", "cidr", "time", "revision", "labels"]), VALUES))
def test_any_notification_is_a_row_or_counted(number: int, notification: dict[str, Any]) -> None:
    decoded = new_decoder().decode_agent([{"type": number, "message": notification}], [1])
    assert len(decoded.rows) + sum(decoded.errors.values()) == 1


@settings(max_examples=200)
@given(st.integers(0, 255), *[st.integers(0, 2**32 - 1)] * 3)
def test_every_debug_message_has_a_text(kind: int, a: int, b: int, c: int) -> None:
    assert debug_message(kind, a, b, c)


def test_error_numbers_are_told_in_words() -> None:
    assert debug_message(64, 98, 0, 0) == "Socket assign: address already in use"
    assert debug_message(64, 4000, 0, 0) == "Socket assign: errno 4000"
