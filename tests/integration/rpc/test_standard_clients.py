"""grpcio, a client library that knows nothing of us, against our server: plain, TLS, slow, cancelled, large."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from proto.flow import flow_pb2
from proto.observer import observer_pb2, observer_pb2_grpc
from rpc.framing import frame
from rpc.server import Call, Server, Service
from rpc.status import RpcError, Status
from rpc.tls import ServerTls
from tests.support.certificates import Authority

Request = observer_pb2.GetFlowsRequest


class BadFilter(Exception):
    """An error of the service, which the server has in its table."""


class Flows(Service):
    """Numbered flows; `uuid` is the number."""

    descriptor = observer_pb2.DESCRIPTOR.services_by_name["Observer"]

    def __init__(self) -> None:
        self.size = 900
        self.per_send = 500
        self.sent = 0
        self.ended: BaseException | None = None
        self.metadata: dict[str, str] = {}

    async def GetFlows(self, request: Request, call: Call) -> None:  # noqa: N802
        self.metadata = dict(call.metadata)
        if request.whitelist:
            raise BadFilter("no such field: ü")
        try:
            for first in range(0, request.number, self.per_send):
                last = min(first + self.per_send, request.number)
                await call.send(b"".join(frame(flow(number, self.size)) for number in range(first, last)))
                self.sent = last
            while request.follow:
                await call.send(frame(flow(self.sent, self.size)))
                self.sent += 1
        except BaseException as error:
            self.ended = error
            raise

    async def ServerStatus(self, request: object, call: Call) -> observer_pb2.ServerStatusResponse:  # noqa: N802
        return observer_pb2.ServerStatusResponse(version=call.peer)

    async def GetNodes(self, request: object, call: Call) -> observer_pb2.GetNodesResponse:  # noqa: N802
        raise RpcError(Status.UNIMPLEMENTED, "GetNodes not implemented")

    async def GetNamespaces(self, request: object, call: Call) -> observer_pb2.GetNamespacesResponse:  # noqa: N802
        await asyncio.sleep(30)
        return observer_pb2.GetNamespacesResponse()

    async def GetAgentEvents(self, request: object, call: Call) -> None:  # noqa: N802
        raise ZeroDivisionError("secret")


def flow(number: int, size: int) -> observer_pb2.GetFlowsResponse:
    return observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow(uuid=str(number), Summary="s" * size))


class Served:
    """A server on loopback and what it serves."""

    def __init__(self, service: Flows, server: Server, address: str) -> None:
        self.service, self.server, self.address = service, server, address
        self.channels: list[grpc.aio.Channel] = []

    def stub(self, **options: Any) -> Any:
        channel = grpc.aio.insecure_channel(self.address, options=list(options.items()))
        self.channels.append(channel)
        return observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def serving(address: str = "127.0.0.1:0", tls: ServerTls | None = None) -> AsyncIterator[Served]:
    service = Flows()
    server = Server([service], metadata={"hubble-server-version": "1.19.4"}, errors={BadFilter: Status.UNKNOWN})
    bound = await server.listen(address, tls=tls, insecure=tls is None)
    served = Served(service, server, bound.replace("unix://", "unix:"))
    try:
        yield served
    finally:
        for channel in served.channels:
            await channel.close()
        await server.close(0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_all_flows_arrive_in_order(kind: str, tmp_path: Path) -> None:
    async with serving("127.0.0.1:0" if kind == "tcp" else f"unix://{tmp_path}/s.sock") as served:
        call = served.stub().GetFlows(Request(number=3000))
        numbers = [int(response.flow.uuid) async for response in call]
        assert numbers == list(range(3000))
        assert dict(await call.initial_metadata())["hubble-server-version"] == "1.19.4"


async def test_the_peer_has_a_name() -> None:
    async with serving() as served:
        reply = await served.stub().ServerStatus(observer_pb2.ServerStatusRequest())
        assert reply.version.startswith("127.0.0.1:")


async def test_a_failed_unary_call_has_response_metadata_too() -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub().GetNodes(observer_pb2.GetNodesRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert caught.value.details() == "GetNodes not implemented"
        assert dict(caught.value.initial_metadata())["hubble-server-version"] == "1.19.4"


async def test_a_method_that_the_service_lacks_is_unimplemented() -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in served.stub().GetDebugEvents(observer_pb2.GetDebugEventsRequest()):
                pass
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert caught.value.details() == "unknown method GetDebugEvents for service observer.Observer"


async def test_an_error_of_the_table_is_answered_with_its_status_and_text() -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in served.stub().GetFlows(Request(whitelist=[flow_pb2.FlowFilter()])):
                pass
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNKNOWN, "no such field: ü")


async def test_an_unexpected_error_is_internal_and_tells_no_secrets() -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in served.stub().GetAgentEvents(observer_pb2.GetAgentEventsRequest()):
                pass
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert caught.value.details() == "internal error: ZeroDivisionError"


async def test_request_metadata_reaches_the_handler() -> None:
    async with serving() as served:
        async for _ in served.stub().GetFlows(Request(number=1), metadata=[("authorization", "Basic eDp5")]):
            pass
        assert served.service.metadata["authorization"] == "Basic eDp5"


async def test_a_deadline_ends_the_handler() -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub().GetNamespaces(observer_pb2.GetNamespacesRequest(), timeout=0.1)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_slow_reader_gets_everything_and_the_server_holds_little() -> None:
    async with serving() as served:
        call = served.stub().GetFlows(Request(number=20_000))
        numbers = []
        async for response in call:
            numbers.append(int(response.flow.uuid))
            if len(numbers) == 1:
                await asyncio.sleep(0.3)
                # What left the handler is in socket buffers and in the client: megabytes, not all the 20.
                assert served.service.sent < 18_000
        assert numbers == list(range(20_000))


async def test_a_cancelled_stream_ends_the_handler() -> None:
    async with serving() as served:
        call = served.stub().GetFlows(Request(follow=True))
        await call.read()
        call.cancel()
        await until(lambda: served.service.ended is not None)
        assert isinstance(served.service.ended, asyncio.CancelledError)
        assert (await served.stub().ServerStatus(observer_pb2.ServerStatusRequest())).version


async def test_a_client_that_hangs_up_ends_the_handler() -> None:
    async with serving() as served:
        call = served.stub().GetFlows(Request(follow=True))
        await call.read()
        await served.channels[0].close()
        await until(lambda: served.service.ended is not None)


async def test_messages_larger_than_a_frame_and_a_window_arrive() -> None:
    async with serving() as served:
        served.service.size, served.service.per_send = 3_000_000, 1
        call = served.stub().GetFlows(Request(number=4))
        sizes = [len(response.flow.Summary) async for response in call]
        assert sizes == [3_000_000] * 4


async def test_streams_of_one_connection_do_not_disturb_each_other() -> None:
    async with serving() as served:
        stub = served.stub()
        stalled = stub.GetFlows(Request(follow=True))
        await stalled.read()

        async def read() -> list[int]:
            return [int(response.flow.uuid) async for response in stub.GetFlows(Request(number=2000))]

        assert list(await asyncio.gather(read(), read())) == [list(range(2000))] * 2
        stalled.cancel()


async def test_a_request_beyond_the_limit_is_refused() -> None:
    async with serving() as served:
        request = Request(whitelist=[flow_pb2.FlowFilter(source_pod=["p" * 1_000_000] * 6)])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in served.stub().GetFlows(request):
                pass
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_draining_server_lets_streams_end_and_cuts_off_the_rest() -> None:
    async with serving() as served:
        stub = served.stub()
        call = stub.GetFlows(Request(follow=True))
        await call.read()
        started = time.monotonic()
        closing = asyncio.create_task(served.server.close(0.3))
        with contextlib.suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert await call.details() == "server is stopping"
        await closing
        assert time.monotonic() - started < 3


async def test_a_client_that_does_not_read_does_not_keep_a_draining_server() -> None:
    async with serving() as served:
        call = served.stub().GetFlows(Request(follow=True))
        await call.read()
        async with asyncio.timeout(5):
            await served.server.close(0.1)
        assert not served.server.connections


async def test_health_is_told_per_name_and_watched() -> None:
    async with serving() as served:
        served.stub()
        stub = health_pb2_grpc.HealthStub(served.channels[0])
        for name in ("", "hubble.server.Observer"):
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == 1
        served.server.health.set("", False)
        assert (await watch.read()).status == 2
        watch.cancel()


async def test_tools_learn_the_api_by_reflection() -> None:
    async with serving() as served:

        def ask() -> tuple[list[str], list[str]]:
            with grpc.insecure_channel(served.address) as channel:
                database = ProtoReflectionDescriptorDatabase(channel)
                services = list(database.get_services())
                observer = DescriptorPool(database).FindServiceByName("observer.Observer")
                return services, [method.name for method in observer.methods]

        services, methods = await asyncio.to_thread(ask)
        assert "GetFlows" in methods
        assert services == sorted(services)
        assert {"observer.Observer", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(services)


@asynccontextmanager
async def tls_channel(address: str, ca: str, pair: tuple[str, str] | None, name: str) -> AsyncIterator[Any]:
    credentials = grpc.ssl_channel_credentials(
        Path(ca).read_bytes(),
        None if pair is None else Path(pair[1]).read_bytes(),
        None if pair is None else Path(pair[0]).read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", name)]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        yield observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]


async def test_tls_carries_a_fast_stream(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", "worker.default.hubble-grpc.cilium.io")
    tls = ServerTls(cert_file=pair.cert, key_file=pair.key)
    async with (
        serving(tls=tls) as served,
        tls_channel(served.address, authority.ca, None, "worker.default.hubble-grpc.cilium.io") as stub,
    ):
        numbers = [int(response.flow.uuid) async for response in stub.GetFlows(Request(number=5000))]
        assert numbers == list(range(5000))


async def test_mtls_admits_only_clients_that_the_authority_signed(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    pair, ours, theirs = authority.issue("server", "node"), authority.issue("client"), stranger.issue("other")
    tls = ServerTls(cert_file=pair.cert, key_file=pair.key, client_ca_files=(authority.ca,))
    status = observer_pb2.ServerStatusRequest()
    async with serving(tls=tls) as served:
        async with tls_channel(served.address, authority.ca, (ours.cert, ours.key), "node") as stub:
            assert (await stub.ServerStatus(status)).version
        for shown in (None, (theirs.cert, theirs.key)):
            async with tls_channel(served.address, authority.ca, shown, "node") as stub:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.ServerStatus(status)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_rotated_certificate_is_used_from_the_next_handshake_on(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    pair = old.issue("server", "node")
    status = observer_pb2.ServerStatusRequest()
    async with serving(tls=ServerTls(cert_file=pair.cert, key_file=pair.key)) as served:
        async with tls_channel(served.address, old.ca, None, "node") as stub:
            assert (await stub.ServerStatus(status)).version
        new.issue("server", "node")
        async with tls_channel(served.address, new.ca, None, "node") as stub:
            assert (await stub.ServerStatus(status)).version
        Path(pair.cert).write_text("half a certificate")
        async with tls_channel(served.address, new.ca, None, "node") as stub:
            assert (await stub.ServerStatus(status)).version
