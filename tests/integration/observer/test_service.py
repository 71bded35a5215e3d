"""observer/service.py over a real socket, asked by the gRPC library that integrators use."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from model.row import Kind, Rows, empty_rows
from model.tables import Tables
from observer.peers import PeerEntry
from proto.flow import flow_pb2
from proto.flowscope import columns_pb2, columns_pb2_grpc
from proto.observer import observer_pb2, observer_pb2_grpc
from proto.peer import peer_pb2, peer_pb2_grpc
from tests.support.observer_service import NODE, Served, serving
from tests.support.waiting import eventually_async

S = 1_000_000_000
BASE = 1_700_000_000 * S

Request = observer_pb2.GetFlowsRequest

# grpcio's generated stubs carry no types.
ObserverStub: Any = observer_pb2_grpc.ObserverStub
ColumnsStub: Any = columns_pb2_grpc.ColumnsStub
PeerStub: Any = peer_pb2_grpc.PeerStub


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as one:
        yield one


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(served.address.replace("unix://", "unix:")) as one:
        yield one


@pytest.fixture
def observer(channel: grpc.aio.Channel) -> Any:
    return ObserverStub(channel)


def flows(tables: Tables, count: int, start: int = 0) -> Rows:
    """Flows one second apart; every third is dropped; pods web-0 and web-1 in turn."""
    rows = empty_rows(count)
    number = np.arange(start, start + count)
    rows["ts_ns"] = BASE + number * S
    rows["verdict"] = np.where(number % 3 == 0, flow_pb2.DROPPED, flow_pb2.FORWARDED)
    rows["flow_type"] = flow_pb2.L3_L4
    rows["node"] = tables.nodes.intern(NODE)
    pods = [flow_pb2.Endpoint(namespace="shop", pod_name=f"web-{pod}").SerializeToString() for pod in range(2)]
    rows["src"] = np.array([tables.endpoints.intern(pod) for pod in pods])[number % 2]
    return rows


def at(seconds: int) -> Timestamp:
    return Timestamp(seconds=BASE // S + seconds)


async def numbers(observer: Any, request: Request) -> list[int]:
    """Which flows come, by their second."""
    return [int(one.flow.time.seconds) - BASE // S async for one in observer.GetFlows(request) if one.HasField("flow")]


async def test_the_last_flows_come_oldest_first(served: Served, observer: Any) -> None:
    served.add(flows(served.ring.tables, 50))
    assert await numbers(observer, Request(number=3)) == [47, 48, 49]
    assert await numbers(observer, Request(number=3, first=True)) == [0, 1, 2]
    assert await numbers(observer, Request(since=at(10), until=at(12))) == [10, 11, 12]
    assert await numbers(observer, Request()) == list(range(50))


async def test_a_filter_applies_before_the_count(served: Served, observer: Any) -> None:
    served.add(flows(served.ring.tables, 50))
    dropped = flow_pb2.FlowFilter(verdict=[flow_pb2.DROPPED])
    web_1 = flow_pb2.FlowFilter(source_pod=["shop/web-1"])
    assert await numbers(observer, Request(number=3, whitelist=[dropped])) == [42, 45, 48]
    assert await numbers(observer, Request(number=3, whitelist=[dropped], blacklist=[web_1])) == [36, 42, 48]


async def test_a_response_carries_node_and_time_outside_too(served: Served, observer: Any) -> None:
    served.add(flows(served.ring.tables, 1))
    (one,) = [one async for one in observer.GetFlows(Request())]
    assert one.node_name == one.flow.node_name == "node-1"
    assert one.time == one.flow.time == at(0)
    assert one.flow.source.pod_name == "web-0"
    assert one.flow.uuid


async def test_a_field_mask_cuts_flows(served: Served, observer: Any) -> None:
    served.add(flows(served.ring.tables, 1))
    mask = FieldMask(paths=["source.pod_name", "verdict"])
    (one,) = [one async for one in observer.GetFlows(Request(field_mask=mask))]
    expected = flow_pb2.Flow(source=flow_pb2.Endpoint(pod_name="web-0"), verdict=flow_pb2.DROPPED)
    assert one == observer_pb2.GetFlowsResponse(flow=expected)


async def test_a_follower_gets_the_newest_flow_then_each_new_one_at_once(served: Served, observer: Any) -> None:
    served.add(flows(served.ring.tables, 10))
    stream = observer.GetFlows(Request(follow=True))
    assert (await stream.read()).time == at(9)
    for number in (10, 11):
        served.add(flows(served.ring.tables, 1, number))
        sent = time.monotonic()
        assert (await stream.read()).time == at(number)
        assert time.monotonic() - sent < 0.5
    stream.cancel()


async def test_an_overtaken_follower_is_told_how_many_it_missed(served: Served, observer: Any) -> None:
    stream = observer.GetFlows(Request(follow=True))
    await stream.initial_metadata()
    served.ring.append(flows(served.ring.tables, 2000))
    served.bell.ring()
    first = await stream.read()
    assert first.lost_events.source == flow_pb2.HUBBLE_RING_BUFFER
    assert first.lost_events.num_events_lost == 2000 - 1023
    assert not first.lost_events.HasField("cpu")
    assert first.lost_events.HasField("first")
    assert first.node_name == "node-1"
    assert (await stream.read()).time == at(2000 - 1023)
    stream.cancel()


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (Request(first=True, follow=True), "INVALID_ARGUMENT", "first cannot be specified with follow"),
        (Request(whitelist=[flow_pb2.FlowFilter(source_port=["x"])]), "UNKNOWN", "source port"),
        (Request(blacklist=[flow_pb2.FlowFilter(source_pod=[""])]), "UNKNOWN", "source_pod"),
        (Request(field_mask=FieldMask(paths=["no_such"])), "UNKNOWN", "invalid fieldmask"),
        (Request(since=Timestamp(nanos=-5)), "UNKNOWN", "invalid since"),
        (Request(until=Timestamp(seconds=2**60)), "UNKNOWN", "invalid until"),
        (
            Request(whitelist=[flow_pb2.FlowFilter.FromString(b"\xf8\x7f\x01")]),
            "INVALID_ARGUMENT",
            "whitelist has a filter that this server does not know",
        ),
    ],
)
async def test_what_hubble_refuses_is_refused_with_its_code_naming_the_field(
    observer: Any, channel: grpc.aio.Channel, request_: Request, code: str, text: str
) -> None:
    for stub in (observer, ColumnsStub(channel)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [one async for one in stub.GetFlows(request_)]
        assert caught.value.code().name == code
        assert text in (caught.value.details() or "")


async def test_agent_and_debug_events_have_streams_of_their_own(served: Served, observer: Any) -> None:
    tables = served.ring.tables
    rows = empty_rows(2)
    rows["kind"] = [Kind.AGENT, Kind.DEBUG]
    rows["ts_ns"] = [BASE, BASE + S]
    rows["aux"] = [
        tables.aux.intern(flow_pb2.AgentEvent(type=flow_pb2.AGENT_STARTED).SerializeToString()),
        tables.aux.intern(flow_pb2.DebugEvent(type=flow_pb2.DBG_ENCAP).SerializeToString()),
    ]
    served.add(rows)
    served.add(flows(tables, 3))
    agent = [one async for one in observer.GetAgentEvents(observer_pb2.GetAgentEventsRequest(number=5))]
    assert [(one.agent_event.type, one.node_name, one.time) for one in agent] == [
        (flow_pb2.AGENT_STARTED, "node-1", at(0))
    ]
    debug = [one async for one in observer.GetDebugEvents(observer_pb2.GetDebugEventsRequest())]
    assert [(one.debug_event.type, one.time) for one in debug] == [(flow_pb2.DBG_ENCAP, at(1))]
    # The walk back counts events of every kind.
    assert [one async for one in observer.GetAgentEvents(observer_pb2.GetAgentEventsRequest(number=3))] == []


async def test_status_counts_what_is_stored_and_seen(served: Served, observer: Any) -> None:
    rows = flows(served.ring.tables, 1500)
    rows["ts_ns"] = time.time_ns() - 10 * S
    served.add(rows)
    call = observer.ServerStatus(observer_pb2.ServerStatusRequest())
    status = await call
    assert (status.num_flows, status.max_flows, status.seen_flows) == (1023, 1023, 1500)
    assert status.flows_rate == pytest.approx(102.3, rel=0.1)
    assert status.uptime_ns > 0
    assert not status.HasField("num_connected_nodes")
    assert dict(await call.initial_metadata())["hubble-server-version"] == "1.19.4"


async def test_old_flows_do_not_count_for_the_rate(served: Served, observer: Any) -> None:
    rows = flows(served.ring.tables, 130)
    rows["ts_ns"][:10] = time.time_ns() - 100 * S
    rows["ts_ns"][10:] = time.time_ns() - S
    served.add(rows)
    assert (await observer.ServerStatus(observer_pb2.ServerStatusRequest())).flows_rate == 2.0


async def test_a_node_knows_no_nodes_but_namespaces(served: Served, observer: Any) -> None:
    served.add(flows(served.ring.tables, 3))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await observer.GetNodes(observer_pb2.GetNodesRequest())
    assert (caught.value.code().name, caught.value.details()) == ("UNIMPLEMENTED", "GetNodes not implemented")
    answer = await observer.GetNamespaces(observer_pb2.GetNamespacesRequest())
    assert [(one.cluster, one.namespace) for one in answer.namespaces] == [("", "shop")]


async def test_peers_are_told_and_then_each_change(served: Served, channel: grpc.aio.Channel) -> None:
    served.peers.set([PeerEntry("node-1", "unix:///one.sock")])
    stream = PeerStub(channel).Notify(peer_pb2.NotifyRequest())
    one = await stream.read()
    assert (one.name, one.address, one.type) == ("node-1", "unix:///one.sock", peer_pb2.PEER_ADDED)
    served.peers.set([PeerEntry("node-1", "10.0.0.1:4244"), PeerEntry("node-2")])
    changes = [await stream.read() for _ in range(2)]
    assert [(one.name, one.type) for one in changes] == [
        ("node-2", peer_pb2.PEER_ADDED),
        ("node-1", peer_pb2.PEER_UPDATED),
    ]
    stream.cancel()


async def test_columns_give_the_same_flows(served: Served, channel: grpc.aio.Channel) -> None:
    from model.columns import from_arrow_ipc

    served.add(flows(served.ring.tables, 50))
    stub = ColumnsStub(channel)
    request = Request(number=2, whitelist=[flow_pb2.FlowFilter(verdict=[flow_pb2.DROPPED])])
    tables = Tables()
    answers: list[columns_pb2.ColumnsResponse] = [one async for one in stub.GetFlows(request)]
    rows = np.concatenate([from_arrow_ipc(one.batch, tables) for one in answers])
    assert ((rows["ts_ns"] - BASE) // S).tolist() == [45, 48]
    assert tables.nodes[int(rows["node"][0])] == NODE


async def test_a_client_that_does_not_read_delays_nobody(served: Served, observer: Any) -> None:
    options = [("grpc.http2.lookahead_bytes", 16384)]
    async with grpc.aio.insecure_channel(served.address.replace("unix://", "unix:"), options) as other:
        slow = ObserverStub(other).GetFlows(Request(follow=True, number=1))
        await slow.initial_metadata()
        stream = observer.GetFlows(Request(follow=True))
        await stream.initial_metadata()
        for start in range(0, 60_000, 1000):
            served.add(flows(served.ring.tables, 1000, start))
            await asyncio.sleep(0.001)
        served.add(flows(served.ring.tables, 1, 99_999))
        got = 0
        while True:
            one = await asyncio.wait_for(stream.read(), 10)
            got += one.lost_events.num_events_lost if one.HasField("lost_events") else 1
            if one.time == at(99_999):
                break
        assert got == 60_001
        slow.cancel()


async def test_followers_end_when_the_server_stops(served: Served, observer: Any) -> None:
    stream = observer.GetFlows(Request(follow=True))
    await stream.initial_metadata()
    await eventually_async(lambda: bool(served.bell._waiting))
    served.bell.stop()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert (caught.value.code().name, caught.value.details()) == ("UNAVAILABLE", "server is stopping")
