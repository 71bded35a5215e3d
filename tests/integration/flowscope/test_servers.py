"""The client against servers that are ours, Hubble's, broken, or gone for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flowscope import Client, FlowscopeError, Tls
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from proto.relay import relay_pb2
from rpc.framing import frame
from rpc.server import Call, Server
from rpc.status import RpcError, Status
from rpc.tls import ServerTls
from tests.support.certificates import Authority
from tests.support.fake_nodes import FIRST_NS, FakeObserver, Flows
from tests.support.observer_service import serving
from tests.support.small_rows import flow_rows, lost_row


def answer(number: int) -> observer_pb2.GetFlowsResponse:
    """A flow of a server that is not ours."""
    response = observer_pb2.GetFlowsResponse(node_name="n1")
    response.time.FromNanoseconds(FIRST_NS + number)
    response.flow.CopyFrom(flow_pb2.Flow(uuid=f"flow-{number}", node_name="n1", verdict=flow_pb2.FORWARDED))
    response.flow.time.CopyFrom(response.time)
    return response


def packed(*responses: observer_pb2.GetFlowsResponse) -> bytes:
    return b"".join(map(frame, responses))


@asynccontextmanager
async def foreign(folder: Path, flows: Flows, tls: ServerTls | None = None) -> AsyncIterator[tuple[str, FakeObserver]]:
    """A server without columns."""
    observer = FakeObserver("n1", flows)
    server = Server([observer])
    try:
        if tls:
            yield "tls://" + await server.listen("127.0.0.1:0", tls=tls), observer
        else:
            yield await server.listen(f"unix://{folder}/foreign.sock"), observer
    finally:
        await server.close(0)


async def test_large_answers_of_our_servers_come_as_columns_and_count_what_was_lost(tmp_path: Path) -> None:
    async with serving(tmp_path) as ours, Client(ours.address) as client:
        ours.add(flow_rows(range(FIRST_NS, FIRST_NS + 10)))
        ours.add(lost_row(ours.ring.tables, 7, FIRST_NS + 10))
        ours.add(flow_rows(range(FIRST_NS + 11, FIRST_NS + 20)))
        for _ in range(2):
            stream = client.flows()
            table = await stream.to_arrow()
            assert client.has_columns
            assert (table.num_rows, stream.lost) == (19, 7)
        stream = client.flows()
        assert len([flow async for flow in stream]) == 19
        assert stream.lost == 7


async def test_any_hubble_server_gives_the_same_tables(tmp_path: Path) -> None:
    async def flows(_request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        lost = observer_pb2.GetFlowsResponse(lost_events=flow_pb2.LostEvent(num_events_lost=3))
        lost.node_name = "n2"
        status = observer_pb2.GetFlowsResponse()
        status.node_status.state_change = relay_pb2.NODE_UNAVAILABLE
        status.node_status.node_names.extend(["n1", "n2"])
        await call.send(packed(status, *map(answer, range(3)), lost, answer(3)))

    async with foreign(tmp_path, flows) as (address, observer), Client(address) as client:
        stream = client.flows()
        table = await stream.to_arrow()
        assert client.has_columns is False
        assert table["uuid"].to_pylist() == [f"flow-{number}" for number in range(4)]
        assert (stream.lost, stream.nodes) == (3, {"n1": "NODE_UNAVAILABLE", "n2": "NODE_UNAVAILABLE"})
        assert [flow.uuid async for flow in stream] == table["uuid"].to_pylist()
        assert len(observer.requests) == 2


async def test_a_server_that_lost_its_columns_is_asked_again_in_hubbles_way(tmp_path: Path) -> None:
    async def flows(_request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        await call.send(packed(answer(1)))

    async with foreign(tmp_path, flows) as (address, _), Client(address) as client:
        client.has_columns = True
        assert (await client.flows().to_arrow()).num_rows == 1
        assert client.has_columns is False


async def test_a_follower_connects_again_says_so_and_resumes_behind_its_newest_flow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def flows(request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        resumed = request.HasField("since")
        await call.send(packed(answer(2 if resumed else 1)))
        await asyncio.Event().wait()

    caplog.set_level(logging.WARNING, "flowscope")
    async with foreign(tmp_path, flows) as (address, _), Client(address) as client:
        stream = client.flows(follow=True, last=1)
        seen = aiter(stream)
        assert (await anext(seen)).uuid == "flow-1"
        next_one = asyncio.ensure_future(anext(seen))
        await asyncio.sleep(0)
        await _hang_up(client)
        (tmp_path / "foreign.sock").unlink()
        async with foreign(tmp_path, flows) as (_, observer):
            assert (await asyncio.wait_for(next_one, 10)).uuid == "flow-2"
            await seen.aclose()
    (request,) = observer.requests
    assert (request.number, request.since.ToNanoseconds(), request.follow) == (0, FIRST_NS + 2, True)
    assert stream.reconnects == 1
    assert [text.partition(" ")[0] for text in caplog.messages] == ["connection", "connected"]


async def _hang_up(client: Client) -> None:
    """Break the connection as a network does: without a word."""
    http2 = client.channel._http2
    assert http2 is not None
    assert http2._transport is not None
    http2._transport.abort()


@pytest.mark.parametrize("code", [Status.UNKNOWN, Status.PERMISSION_DENIED, Status.UNAVAILABLE])
async def test_a_follower_that_is_refused_does_not_try_again(tmp_path: Path, code: Status) -> None:
    async def flows(_request: observer_pb2.GetFlowsRequest, _call: Call) -> None:
        raise RpcError(code, "no, thank you")

    async with foreign(tmp_path, flows) as (address, observer), Client(address) as client:
        with pytest.raises(FlowscopeError, match=f"{code.text}: no, thank you") as error:
            await anext(aiter(client.flows(follow=True)))
        assert (error.value.code, error.value.message) == (code.text, "no, thank you")
        assert len(observer.requests) == 1


async def test_nonsense_from_a_server_is_one_line(tmp_path: Path) -> None:
    async def flows(_request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        await call.send(b"\0\0\0\0\3\xff\xff\xff")

    async with foreign(tmp_path, flows) as (address, _), Client(address) as client:
        for ask in (client.flows().to_arrow(), anext(aiter(client.flows()))):
            with pytest.raises(FlowscopeError) as error:
                await ask
            assert error.value.code == "Internal"
            assert "\n" not in str(error.value)


async def test_tokens_and_passwords_reach_a_server_over_tls_with_files_of_ones_own(tmp_path: Path) -> None:
    async def flows(_request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        await call.send(packed(answer(1)))

    authority = Authority(tmp_path)
    server, mine = authority.issue("server", "127.0.0.1"), authority.issue("me")
    files = Tls(ca_files=(authority.ca,), cert_file=mine.cert, key_file=mine.key)
    strict = ServerTls(cert_file=server.cert, key_file=server.key, client_ca_files=(authority.ca,))
    async with foreign(tmp_path, flows, strict) as (address, observer):
        async with Client(address, tls=files, token="abc") as client:
            assert len([flow async for flow in client.flows(last=1)]) == 1
        async with Client(address, tls=files, username="me", password="secret") as client:
            assert len([flow async for flow in client.flows(last=1)]) == 1
        async with Client(address, tls=True) as client:
            with pytest.raises(FlowscopeError, match="certificate") as error:
                await client.status()
            assert error.value.code == "Unavailable"
    assert [seen["authorization"] for seen in observer.metadata] == ["Bearer abc", "Basic bWU6c2VjcmV0"]


async def test_leaving_a_loop_tells_the_server_to_stop(tmp_path: Path) -> None:
    stopped = asyncio.Event()

    async def flows(_request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        await call.send(packed(answer(1)))
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with foreign(tmp_path, flows) as (address, _), Client(address) as client:
        async for _ in client.flows(follow=True):
            break
        await asyncio.wait_for(stopped.wait(), 5)
