"""Errors of nodes are put together, and said in time."""

from __future__ import annotations

from proto.relay import relay_pb2
from relay.node_errors import NodeErrors


def test_nodes_with_one_error_share_one_event() -> None:
    errors = NodeErrors(10)
    assert errors.add("a", "refused", 0) is None
    assert errors.add("b", "refused", 5) is None
    event = errors.due(10)
    assert event is not None
    assert (event.state_change, list(event.node_names), event.message) == (relay_pb2.NODE_ERROR, ["a", "b"], "refused")
    assert errors.due(30) is None


def test_the_window_begins_with_the_first_error_and_is_not_extended() -> None:
    errors = NodeErrors(10)
    errors.add("a", "refused", 0)
    errors.add("b", "refused", 9.9)
    assert errors.due(9.9) is None
    assert errors.due(10) is not None


def test_another_error_lets_the_held_one_go() -> None:
    errors = NodeErrors(10)
    errors.add("a", "refused", 0)
    event = errors.add("b", "reset", 1)
    assert event is not None
    assert event.message == "refused"
    last = errors.flush()
    assert last is not None
    assert list(last.node_names) == ["b"]


def test_a_node_that_keeps_failing_is_named_once() -> None:
    errors = NodeErrors(10)
    for now_s in range(5):
        errors.add("a", "refused", now_s)
    event = errors.flush()
    assert event is not None
    assert list(event.node_names) == ["a"]


def test_without_errors_there_is_nothing_to_say() -> None:
    assert NodeErrors(10).flush() is None
