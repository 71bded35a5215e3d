"""The account of the soak sees what it is there to see."""

from __future__ import annotations

from collections.abc import Iterable

from model.flow_id import flow_uuid
from model.tables import Node
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from tests.support.grpcio_client import check

NODE = Node("n1", (), 0x1234_5678_9ABC_DEF0)


def flows(numbers: Iterable[int]) -> list[bytes]:
    messages = [
        observer_pb2.GetFlowsResponse(node_name="n1", flow=flow_pb2.Flow(uuid=flow_uuid(NODE, number)))
        for number in numbers
    ]
    return [message.SerializeToString() for message in messages]


def test_a_whole_stream_has_neither_gaps_nor_repeats() -> None:
    account = check(flows(range(7, 25_007)), 25_000)
    assert (account.flows, account.gaps, account.repeats, account.lost, account.others) == (25_000, 0, 0, 0, 0)


def test_skipped_swapped_and_doubled_flows_are_counted_also_between_checks() -> None:
    account = check(flows([*range(9_999), 10_000, *range(10_002, 10_010), 10_011, 10_010, 10_010]), 20_000)
    assert (account.gaps, account.repeats) == (1 + 1 + 1, 2)


def test_lost_events_and_other_messages_are_no_flows() -> None:
    lost = observer_pb2.GetFlowsResponse(lost_events=flow_pb2.LostEvent(num_events_lost=5))
    other = observer_pb2.GetFlowsResponse(node_name="n1")
    account = check([*flows([1]), lost.SerializeToString(), other.SerializeToString(), *flows([2])], 7)
    assert (account.flows, account.gaps, account.lost, account.others) == (2, 0, 5, 1)


def test_what_was_reported_lost_is_not_waited_for() -> None:
    lost = observer_pb2.GetFlowsResponse(lost_events=flow_pb2.LostEvent(num_events_lost=5))
    account = check([*flows([1]), lost.SerializeToString(), *flows([2])], 6)
    assert (account.flows, account.lost) == (1, 5)
