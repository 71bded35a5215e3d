"""The relay in front of real observers: their messages pass through, their columns become one set of tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from model.columns import from_arrow_ipc
from model.encode import Encoder
from model.ingest import rows_from_responses
from model.row import Rows
from model.tables import Tables
from proto.flowscope import columns_pb2
from proto.flowscope.cost_pb2 import GetCostRequest, GetCostResponse
from proto.observer import observer_pb2
from relay.forms import COLUMNS_PATH, HUBBLE_PATH
from rpc.client import Channel
from rpc.server import Server
from tests.support.fake_nodes import FakeObserver, delivers
from tests.support.observer_service import Served, serving
from tests.support.relay_service import everything, running, statuses, texts
from tests.support.rows import make_rows
from tests.support.waiting import eventually_async

FLOWS = 600


@pytest.fixture
async def observers(tmp_path: Path) -> AsyncIterator[list[Served]]:
    """Three observers; flow i is at i ms, on node i % 3."""
    async with AsyncExitStack() as stack:
        served = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            served.append(await stack.enter_async_context(serving(folder)))
            rows, tables = make_rows(FLOWS // 3, seed=number, step_ns=3_000_000)
            served[-1].add(stored(served[-1], rows, tables, number))
        yield served


def stored(one: Served, rows: Rows, tables: Tables, number: int) -> Rows:
    rows = one.ring.tables.adopt(rows, tables)
    rows["ts_ns"] += number * 1_000_000
    return rows


def addresses(observers: list[Served]) -> tuple[str, ...]:
    return tuple(f"node-{number}={one.address}" for number, one in enumerate(observers))


async def rows_of(channel: Channel, request: observer_pb2.GetFlowsRequest) -> tuple[Rows, Tables, list[str]]:
    """All rows of a columns call, and which states it told."""
    tables, parts, states = Tables(), [], []
    async with asyncio.timeout(10), channel.stream(COLUMNS_PATH, request) as stream:
        async for one in stream.messages(columns_pb2.ColumnsResponse):
            if one.HasField("node_status"):
                states += list(one.node_status.node_names)
            else:
                parts.append(from_arrow_ipc(one.batch, tables))
    return np.concatenate(parts), tables, states


async def test_messages_pass_through_by_time(tmp_path: Path, observers: list[Served]) -> None:
    async with running(tmp_path, peers=addresses(observers)) as channel:
        responses = await everything(channel, observer_pb2.GetFlowsRequest())
        times = [one.time.ToNanoseconds() for one in responses if one.HasField("flow")]
        assert len(times) == FLOWS
        assert times == sorted(times)
        direct = []
        for one in observers:
            async with Channel(one.address) as node:
                direct += await everything(node, observer_pb2.GetFlowsRequest())
        by_time = sorted(direct, key=lambda one: one.time.ToNanoseconds())
        assert [one for one in responses if one.HasField("flow")] == by_time


async def test_columns_say_the_same_as_messages(tmp_path: Path, observers: list[Served]) -> None:
    async with running(tmp_path, peers=addresses(observers)) as channel:
        responses = await everything(channel, observer_pb2.GetFlowsRequest())
        rows, tables, names = await rows_of(channel, observer_pb2.GetFlowsRequest())
    assert sorted(names) == ["node-0", "node-1", "node-2"]
    flows = [one.flow for one in responses if one.HasField("flow")]
    assert Encoder(tables).flows(rows) == flows


async def test_a_node_that_only_speaks_hubble_is_part_of_the_columns(tmp_path: Path, observers: list[Served]) -> None:
    async with Channel(observers[0].address) as node:
        foreign = await everything(node, observer_pb2.GetFlowsRequest())
    server_of = FakeObserver("foreign", delivers(foreign))

    server = Server([server_of])
    address = await server.listen(f"unix://{tmp_path}/foreign.sock")
    peers = (*addresses(observers[1:2]), f"foreign={address}")
    async with running(tmp_path, peers=peers) as channel:
        rows, tables, _ = await rows_of(channel, observer_pb2.GetFlowsRequest())
    await server.close(0)
    assert len(rows) == 2 * FLOWS // 3
    times = rows["ts_ns"]
    assert (times[1:] >= times[:-1]).all()
    mine = Tables()
    expected = Encoder(mine).flows(rows_from_responses(foreign, mine))
    got = [flow.SerializeToString(deterministic=True) for flow in Encoder(tables).flows(rows)]
    assert {flow.SerializeToString(deterministic=True) for flow in expected} <= set(got)


async def test_a_node_that_is_asked_for_columns_and_sends_junk_is_reported(
    tmp_path: Path, observers: list[Served]
) -> None:
    class Junk(FakeObserver):
        descriptor = columns_pb2.DESCRIPTOR.services_by_name["Columns"]

    async def junk(request: object, call: object) -> None:
        await call.send_message(columns_pb2.ColumnsResponse(batch=b"junk"))  # type: ignore[attr-defined]

    server = Server([Junk("junk", junk)])
    address = await server.listen(f"unix://{tmp_path}/junk.sock")
    async with running(tmp_path, peers=(*addresses(observers[:1]), f"junk={address}")) as channel:
        rows, _, names = await rows_of(channel, observer_pb2.GetFlowsRequest())
    await server.close(0)
    assert len(rows) == FLOWS // 3
    assert names.count("junk") == 2  # connected, then the error


async def test_a_follower_sees_new_flows_of_a_busy_node_although_the_others_are_idle(
    tmp_path: Path, observers: list[Served]
) -> None:
    # The drain timeout never comes to help: idle observers say that they are up to date.
    settings = {"peers": addresses(observers), "sort_buffer_drain_timeout_s": 60.0}
    async with (
        running(tmp_path, **settings) as channel,
        channel.stream(HUBBLE_PATH, observer_pb2.GetFlowsRequest(follow=True)) as stream,
    ):
        got: list[observer_pb2.GetFlowsResponse] = []

        async def read() -> None:
            async for one in stream.messages(observer_pb2.GetFlowsResponse):
                got.append(one)

        reading = asyncio.create_task(read())
        await eventually_async(lambda: bool(statuses(got)))
        await eventually_async(lambda: len(texts(got)) == 3)  # each node's newest, stored long ago
        rows, tables = make_rows(10, seed=9)
        observers[0].add(stored(observers[0], rows, tables, 0))
        await eventually_async(lambda: len(texts(got)) == 13)
        assert all(one.WhichOneof("response_types") for one in got)
        reading.cancel()


async def test_the_cost_of_all_is_told_by_the_relay_with_a_reason_where_it_is_not_known(
    tmp_path: Path, observers: list[Served]
) -> None:
    plain = Server([FakeObserver("cilium", delivers([]))])
    await plain.listen(f"unix://{tmp_path}/cilium.sock")
    peers = (*addresses(observers), f"cilium=unix://{tmp_path}/cilium.sock", f"gone=unix://{tmp_path}/gone.sock")
    async with running(tmp_path, peers=peers) as channel:
        reply = await channel.unary("/flowscope.Cost/GetCost", GetCostRequest(), GetCostResponse, timeout_s=10)
    await plain.close(0)
    relay, *nodes = reply.processes
    assert (relay.role, relay.problem) == ("relay", "")
    assert [node.role for node in nodes] == ["observer"] * 5
    told = {node.node_name: node for node in nodes}
    assert told["node-1"].memory_bytes > 1_000_000
    assert told["node-1"].cpu_ns > 0
    assert told["node-1"].uptime_ns > 0
    assert told["node-1"].kernel_problem == "this observer reads no kernel's events"
    assert told["cilium"].problem == "does not tell what it costs"
    assert told["gone"].problem
