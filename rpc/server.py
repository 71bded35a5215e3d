"""A gRPC server on several listeners.

In:        services (a class each, handlers as plain coroutines), addresses, TLS files.
Out:       calls to the handlers; what they return or raise, on the wire, with the answers that gRPC clients expect.
Elsewhere: call.py is what handlers see; packed.py writes streams; listen.py opens sockets; health.py and reflection.py
           are services that every server has; HTTP/2 itself is grpclib's protocol module over h2.

grpclib's own server module is not used: it answers unknown methods without a content type (Go clients then do not see
UNIMPLEMENTED), drops response metadata of failed calls, and has no limit on the size of a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, cast

import h2.config
import h2.exceptions
import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.message_factory import GetMessageClass
from grpclib.config import Configuration
from grpclib.metadata import Deadline
from grpclib.protocol import AbstractHandler, H2Protocol, Stream
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from rpc.call import Call, ClientGone, Headers, Service, send_headers
from rpc.framing import PREFIX, PREFIX_SIZE, frame
from rpc.health import Health
from rpc.listen import Listener, listen_tcp, listen_unix
from rpc.packed import CHUNK
from rpc.reflection import reflection_services
from rpc.status import RpcError, Status
from rpc.target import Target
from rpc.tls import ServerTls, server_context
from service.failure import Failure

__all__ = ["Call", "ClientGone", "Server", "Service", "frame"]

log = structlog.get_logger(component="rpc")

MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""gRPC's default limit of a received message."""

DRAIN_S: Final = 5.0

LAST_WORDS_S: Final = 0.5
"""How long calls that were cut off may take to tell their clients."""

SOCKET_BUFFER: Final = 1024 * 1024
"""Send buffer of unix sockets, whose default (208 KiB) makes a fast stream wait for the reader's every wake-up. TCP
sizes its own."""


class Server:
    """Services on any number of listeners."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        metadata: Mapping[str, str] | None = None,
        errors: Mapping[type[Exception], Status] | None = None,
        health: Health | None = None,
        reflection: bool = True,
    ) -> None:
        """Health is added to `services`, and reflection unless that is off.

        metadata  sent with every response.
        errors    exceptions of handlers that are answers: status, and str(error) as the message.
        """
        self.health = health or Health()
        everything: list[Service] = [*services, self.health]
        if reflection:
            everything += reflection_services(everything)
        self.methods: dict[str, _Method] = {}
        self.services = {one.descriptor.full_name for one in everything}
        for service in everything:
            self.methods.update(_methods_of(service))
        self.headers: Headers = [(":status", "200"), ("content-type", "application/grpc"), *(metadata or {}).items()]
        self.errors = dict(errors or {})
        self.stop = asyncio.Event()
        self.connections: set[_Connection] = set()
        self._listeners: list[Listener] = []

    async def listen(self, address: str, *, tls: ServerTls | None = None, insecure: bool = False) -> str:
        """Serve on `unix:///path` or `host:port` too; returns the address with the port really bound.

        A TCP listener needs TLS files or `insecure`; a unix socket never has TLS.
        Raises: Failure (port taken, path not writable, no TLS material, ...).
        """
        try:
            target = Target.parse(address)
        except ValueError as error:
            raise Failure(f"cannot listen: {error}") from error
        if target.kind == "unix":
            listener = await listen_unix(target.path, self._protocol)
        else:
            if tls is None and not insecure:
                raise Failure(
                    f"cannot listen on {address} without TLS: "
                    "give a certificate and a key file, or allow plain TCP explicitly"
                )
            context = server_context(tls) if tls is not None else None
            listener = await listen_tcp(target, context, self._protocol)
        self._listeners.append(listener)
        log.info("listening", address=listener.address, tls=tls is not None and target.kind == "tcp")
        return listener.address

    async def close(self, drain_s: float = DRAIN_S) -> None:
        """Accept nothing new, let running calls end for `drain_s`, then end them with UNAVAILABLE."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self.stop.set()
        self.health.shutdown()
        for connection in self.connections:
            connection.go_away()
        tasks = {task for connection in self.connections for task in connection.tasks()}
        if tasks and drain_s > 0:
            await asyncio.wait(tasks, timeout=drain_s)
        for task in tasks:
            task.cancel()
        if tasks:
            # Each still tries to tell its client; one that does not read must not keep us.
            await asyncio.wait(tasks, timeout=LAST_WORDS_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while any(connection.unsent() for connection in self.connections):
                    await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.hang_up()

    def _protocol(self) -> _Protocol:
        connection = _Connection(self)
        connection.protocol = _Protocol(connection)
        return connection.protocol


class _Method:
    """How to run one method."""

    __slots__ = ("client_streaming", "function", "request", "server_streaming")

    def __init__(self, descriptor: MethodDescriptor, function: Callable[..., Any]) -> None:
        self.function = function
        self.request: type[ProtoMessage] = GetMessageClass(descriptor.input_type)
        self.client_streaming: bool = descriptor.client_streaming
        self.server_streaming: bool = descriptor.server_streaming


def _methods_of(service: Service) -> dict[str, _Method]:
    methods = {}
    for method in service.descriptor.methods:
        function = getattr(service, method.name, None)
        if function is not None:
            methods[f"/{service.descriptor.full_name}/{method.name}"] = _Method(method, function)
    return methods


class _Connection(AbstractHandler):
    """The calls of one connection. Lives as long as the connection."""

    protocol: _Protocol

    def __init__(self, server: Server) -> None:
        self._server = server
        self._calls: dict[Stream, asyncio.Task[None]] = {}
        self._leaving = False

    def opened(self) -> None:
        """The connection stands, TLS included: one that never got so far leaves no trace."""
        self._server.connections.add(self)

    def tasks(self) -> list[asyncio.Task[None]]:
        return list(self._calls.values())

    def accept(self, stream: Stream, headers: Any, release_stream: Callable[[], None]) -> None:
        if self._leaving:
            stream.reset_nowait(ErrorCodes.REFUSED_STREAM)
            release_stream()
            return
        task = asyncio.get_running_loop().create_task(_answer(self._server, stream, dict(headers)))
        self._calls[stream] = task

        def done(_: asyncio.Task[None]) -> None:
            self._calls.pop(stream, None)
            release_stream()

        task.add_done_callback(done)

    def cancel(self, stream: Stream) -> None:
        task = self._calls.get(stream)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        for task in self.tasks():
            task.cancel()
        self._server.connections.discard(self)

    def go_away(self) -> None:
        """Tell the peer to open no more streams here. h2's own GOAWAY would forbid us to finish the open ones."""
        self._leaving = True
        connection = self.protocol.connection
        if not connection.is_closing():
            last = connection._connection.highest_inbound_stream_id
            connection.flush()
            connection._transport.write(GoAwayFrame(0, last_stream_id=last).serialize())

    def unsent(self) -> int:
        """Bytes that the socket has not taken."""
        connection = self.protocol.connection
        return 0 if connection.is_closing() else connection._transport.get_write_buffer_size()

    def hang_up(self) -> None:
        """Close the connection, also when the peer does not read what is left."""
        connection = self.protocol.connection
        if self.unsent():
            connection._transport.abort()
        self.protocol.processor.close("server stopped")


class _Protocol(H2Protocol):
    """grpclib's protocol, made robust against what any peer may send."""

    def __init__(self, handler: _Connection) -> None:
        http2 = h2.config.H2Configuration(
            client_side=False,
            header_encoding="utf-8",
            validate_inbound_headers=True,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )
        super().__init__(handler, Configuration().__for_server__(), http2)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Room for one chunk while the socket is busy with the one before.
        cast(asyncio.WriteTransport, transport).set_write_buffer_limits(high=CHUNK, low=CHUNK // 4)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        super().connection_made(transport)
        cast(_Connection, self.handler).opened()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.connection.feed(data)
        except Exception as error:  # h2 raises ProtocolError, and others for bytes that no client sends
            log.debug("connection closed: not HTTP/2 as we know it", error=repr(error))
            if not self.connection.is_closing():
                self.connection.flush()
            self.processor.close("Protocol error")
            return
        self.connection.flush()
        for event in events:
            # The protocol may be extended; RFC 9113, section 5.5: ignore what you do not know.
            process = getattr(self.processor, "processors", {}).get(type(event))
            if process is not None:
                process(event)
        if not self.connection.is_closing():
            self.connection.flush()


async def _answer(server: Server, stream: Stream, headers: dict[str, str]) -> None:
    """One call from its headers to its status."""
    metadata = {key: value for key, value in headers.items() if not key.startswith(":")}
    call = Call(stream, metadata, server.headers, server.stop)
    try:
        try:
            status, message = await _run(server, call, headers)
        except asyncio.CancelledError:
            if not server.stop.is_set() or not stream.closable:
                raise
            status, message = Status.UNAVAILABLE, "server is stopping"
        await call.finish(status, message)
    except (ClientGone, h2.exceptions.ProtocolError):
        return  # nobody is left to answer


async def _run(server: Server, call: Call, headers: dict[str, str]) -> tuple[Status, str]:
    if headers.get(":method") != "POST" or not headers.get("content-type", "").startswith("application/grpc"):
        await send_headers(call._stream, [(":status", "415"), ("content-type", "text/plain")], end_stream=True)
        raise ClientGone
    path = headers.get(":path", "")
    method = server.methods.get(path)
    if method is None:
        return Status.UNIMPLEMENTED, _unknown_method(server, path)
    try:
        deadline = Deadline.from_headers(list(headers.items()))
    except ValueError:
        return Status.INTERNAL, "malformed grpc-timeout"
    timeout = asyncio.timeout(None if deadline is None else deadline.time_remaining())
    try:
        async with timeout:
            await _dispatch(method, call)
    except RpcError as error:
        return error.code, error.message
    except ClientGone:
        raise
    except Exception as error:
        if timeout.expired():
            return Status.DEADLINE_EXCEEDED, "context deadline exceeded"
        for kind, status in server.errors.items():
            if isinstance(error, kind):
                return status, str(error)
        log.exception("call failed", method=path)
        return Status.INTERNAL, f"internal error: {type(error).__name__}"
    return Status.OK, ""


async def _dispatch(method: _Method, call: Call) -> None:
    if method.client_streaming:
        await method.function(_requests(method, call._stream), call)
        return
    request = await _receive(method, call._stream)
    if request is None:
        raise RpcError(Status.INTERNAL, "the call has no request message")
    reply = await method.function(request, call)
    if not method.server_streaming:
        await call.send_message(reply)


async def _requests(method: _Method, stream: Stream) -> AsyncIterator[ProtoMessage]:
    while (request := await _receive(method, stream)) is not None:
        yield request


async def _receive(method: _Method, stream: Stream) -> ProtoMessage | None:
    """The next request message; None when the client has ended its side."""
    try:
        prefix = await stream.recv_data(PREFIX_SIZE)
        if not prefix:
            return None
        compressed, length = PREFIX.unpack(prefix)
        if compressed:
            raise RpcError(Status.UNIMPLEMENTED, "compressed messages are not supported")
        if length > MAX_REQUEST_BYTES:
            raise RpcError(
                Status.RESOURCE_EXHAUSTED,
                f"grpc: received message larger than max ({length} vs. {MAX_REQUEST_BYTES})",
            )
        body = await stream.recv_data(length)
    except AssertionError:  # grpclib's word for a stream that ends inside a message
        raise RpcError(Status.INTERNAL, "the request ends inside a message") from None
    try:
        return method.request.FromString(body)
    except DecodeError as error:
        raise RpcError(Status.INTERNAL, f"grpc: error unmarshalling request: {error}") from error


def _unknown_method(server: Server, path: str) -> str:
    service, _, name = path.removeprefix("/").rpartition("/")
    if service in server.services:
        return f"unknown method {name} for service {service}"
    return f"unknown service {service}"
