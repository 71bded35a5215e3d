"""Our client against grpcio's server, and against servers that are none: one line for each failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from proto.flow import flow_pb2
from proto.observer import observer_pb2, observer_pb2_grpc
from rpc.client import Channel, basic_auth
from rpc.status import RpcError, Status
from rpc.tls import ClientTls
from tests.support.certificates import Authority

FLOWS = "/observer.Observer/GetFlows"
STATUS = "/observer.Observer/ServerStatus"
Request = observer_pb2.GetFlowsRequest
Response = observer_pb2.GetFlowsResponse

Servicer: Any = observer_pb2_grpc.ObserverServicer


class Flows(Servicer):  # type: ignore[misc]
    """grpcio's own way to serve numbered flows."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.ended = asyncio.Event()

    async def GetFlows(self, request: Request, context: Any) -> AsyncIterator[Response]:  # noqa: N802
        self.metadata = dict(context.invocation_metadata())
        await context.send_initial_metadata((("hubble-server-version", "1.19.4"),))
        context.add_done_callback(lambda _: self.ended.set())
        number = 0
        while number < request.number or request.follow:
            yield Response(flow=flow_pb2.Flow(uuid=str(number), Summary="s" * (100 + number % 3000)))
            number += 1
        if request.first:
            await context.abort(grpc.StatusCode.UNKNOWN, "ä problem")

    async def ServerStatus(self, request: object, context: Any) -> observer_pb2.ServerStatusResponse:  # noqa: N802
        await asyncio.sleep(request.ByteSize() and 30)  # type: ignore[attr-defined]
        return observer_pb2.ServerStatusResponse(version="x")


@asynccontextmanager
async def serving(credentials: Any = None) -> AsyncIterator[tuple[str, Flows]]:
    server, flows = grpc.aio.server(), Flows()
    observer_pb2_grpc.add_ObserverServicer_to_server(flows, server)  # type: ignore[no-untyped-call]
    add = server.add_insecure_port if credentials is None else server.add_secure_port
    port = add("127.0.0.1:0", *([] if credentials is None else [credentials]))
    await server.start()
    try:
        yield f"127.0.0.1:{port}", flows
    finally:
        await server.stop(0)


@asynccontextmanager
async def pretending(answer: bytes) -> AsyncIterator[str]:
    """A TCP server that says `answer` and hangs up."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def status_of(channel: Channel, **options: Any) -> observer_pb2.ServerStatusResponse:
    return await channel.unary(STATUS, observer_pb2.ServerStatusRequest(), observer_pb2.ServerStatusResponse, **options)


async def test_a_stream_arrives_whole_and_in_order() -> None:
    async with serving() as (address, flows), Channel(address, metadata=[basic_auth("x", "y")]) as channel:
        async with channel.stream(FLOWS, Request(number=3000), metadata=[("extra", "1")]) as stream:
            headers = await stream.start()
            numbers = [int(one.flow.uuid) async for one in stream.messages(Response)]
        assert numbers == list(range(3000))
        assert headers["hubble-server-version"] == "1.19.4"
        assert (flows.metadata["authorization"], flows.metadata["extra"]) == ("Basic eDp5", "1")


async def test_a_slow_reader_holds_the_server_back_and_loses_nothing() -> None:
    async with (
        serving() as (address, _),
        Channel(address, stream_window=65_535) as channel,
        channel.stream(FLOWS, Request(number=2000)) as stream,
    ):
        numbers = []
        async for batch in stream:
            numbers += [int(Response.FromString(body).flow.uuid) for body in batch.bodies()]
            await asyncio.sleep(0.002)
    assert numbers == list(range(2000))


async def test_leaving_a_stream_cancels_it_on_the_server() -> None:
    async with serving() as (address, flows), Channel(address) as channel:
        async with channel.stream(FLOWS, Request(follow=True)) as stream:
            async for _ in stream:
                break
        await asyncio.wait_for(flows.ended.wait(), 5)
        assert (await status_of(channel)).version == "x"


async def test_an_error_behind_flows_is_raised_behind_flows() -> None:
    async with (
        serving() as (address, _),
        Channel(address) as channel,
        channel.stream(FLOWS, Request(number=5, first=True)) as stream,
    ):
        got: list[bytes] = []

        async def read() -> None:
            async for batch in stream:
                got.extend(batch.bodies())

        with pytest.raises(RpcError) as caught:
            await read()
    assert len(got) == 5
    assert (caught.value.code, caught.value.message) == (Status.UNKNOWN, "ä problem")


async def test_a_call_that_takes_too_long_ends_as_in_go() -> None:
    slow = Request(number=1)  # any request that is not empty makes the server wait
    async with serving() as (address, _), Channel(address) as channel:
        with pytest.raises(RpcError, match="code = DeadlineExceeded desc = context deadline exceeded"):
            await channel.unary(STATUS, slow, observer_pb2.ServerStatusResponse, timeout_s=0.1)


async def test_a_method_that_the_server_lacks_is_unimplemented() -> None:
    async with serving() as (address, _), Channel(address) as channel:
        with pytest.raises(RpcError, match="code = Unimplemented"):
            await channel.unary("/flowscope.Columns/GetFlows", Request(), Response)


async def test_a_channel_connects_again_after_the_server_was_restarted() -> None:
    async with serving() as (address, _):
        channel = Channel(address)
        await status_of(channel)
    await asyncio.wait_for(channel.disconnected(), 5)
    with pytest.raises(RpcError, match="connection refused"):
        await status_of(channel)
    assert channel.state == "failed"
    await channel.close()


async def test_a_refused_connection_is_told_in_gos_words() -> None:
    async with Channel("127.0.0.1:1") as channel:
        with pytest.raises(RpcError) as caught:
            await channel.connect()
    assert str(caught.value) == (
        'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: '
        'dial tcp 127.0.0.1:1: connect: connection refused"'
    )


async def test_a_missing_socket_is_told_in_gos_words(tmp_path: Path) -> None:
    async with Channel(f"unix://{tmp_path}/none.sock") as channel:
        with pytest.raises(RpcError, match=f"dial unix {tmp_path}/none.sock: connect: no such file or directory"):
            await channel.connect()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak gRPC"),
        (b"220 mail ready\r\n", "does not speak gRPC"),
        (b"", "error reading server preface: EOF"),
        (b"\0" * 9, "does not speak gRPC"),
    ],
)
async def test_a_server_that_speaks_no_grpc_is_one_line(answer: bytes, said: str) -> None:
    async with pretending(answer) as address, Channel(address) as channel:
        with pytest.raises(RpcError) as caught:
            await asyncio.wait_for(status_of(channel), 5)
    assert caught.value.code is Status.UNAVAILABLE
    assert said in caught.value.message
    assert "\n" not in str(caught.value)


def credentials(authority: Authority, name: str, mutual: bool = False) -> Any:
    pair = authority.issue("server", name)
    return grpc.ssl_server_credentials(
        [(Path(pair.key).read_bytes(), Path(pair.cert).read_bytes())],
        root_certificates=Path(authority.ca).read_bytes() if mutual else None,
        require_client_auth=mutual,
    )


async def test_tls_checks_the_name_and_the_authority(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    async with serving(credentials(authority, "node.example")) as (address, _):
        good = ClientTls(ca_files=(authority.ca,), server_name="node.example")
        async with Channel(address, tls=good) as channel:
            assert (await status_of(channel)).version == "x"
        for tls, said in (
            (ClientTls(ca_files=(stranger.ca,), server_name="node.example"), "unable to get local issuer certificate"),
            (ClientTls(ca_files=(authority.ca,), server_name="other.example"), "other.example"),
            (ClientTls(ca_files=(authority.ca,)), "127.0.0.1"),
        ):
            async with Channel(address, tls=tls) as channel:
                with pytest.raises(RpcError, match="authentication handshake failed") as caught:
                    await status_of(channel)
                assert said in caught.value.message
        async with Channel(address, tls=ClientTls(insecure=True)) as channel:
            assert (await status_of(channel)).version == "x"


async def test_mtls_shows_our_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.issue("client")
    async with serving(credentials(authority, "node", mutual=True)) as (address, _):
        shown = ClientTls(ca_files=(authority.ca,), server_name="node", cert_file=ours.cert, key_file=ours.key)
        async with Channel(address, tls=shown) as channel:
            assert (await status_of(channel)).version == "x"
        async with Channel(address, tls=ClientTls(ca_files=(authority.ca,), server_name="node")) as channel:
            with pytest.raises(RpcError, match="Unavailable"):
                await status_of(channel)


async def test_tls_towards_a_plain_server_is_one_line() -> None:
    async with serving() as (address, _), Channel(f"tls://{address}") as channel:
        with pytest.raises(RpcError, match=r"code = Unavailable .*authentication handshake failed"):
            await status_of(channel)


async def test_plain_towards_a_tls_server_is_one_line(tmp_path: Path) -> None:
    async with serving(credentials(Authority(tmp_path), "node")) as (address, _), Channel(address) as channel:
        with pytest.raises(RpcError, match=r"code = Unavailable .*error reading server preface"):
            await asyncio.wait_for(status_of(channel), 5)


async def test_a_certificate_that_cannot_be_read_is_named() -> None:
    async with Channel("127.0.0.1:1", tls=ClientTls(ca_files=("/none.pem",))) as channel:
        with pytest.raises(RpcError, match=r"cannot load cert '/none\.pem'"):
            await channel.connect()
