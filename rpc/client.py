"""Channels: calls to one server, with streams read in batches.

In:        a target, TLS files, metadata.
Out:       replies; for streams, buffers of whole messages as they came off the socket.
Elsewhere: http2.py is the connection; target.py reads addresses; server.py is the other side.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, Protocol, TypeVar, cast

from rpc.framing import Message, frame
from rpc.http2 import STREAM_WINDOW, Batch, Connection, Incoming
from rpc.status import RpcError, Status
from rpc.target import Target, join_host_port
from rpc.tls import ClientTls, TlsError, client_context

__all__ = ["Batch", "Channel", "Stream", "basic_auth", "parse"]

CONNECT_TIMEOUT_S: Final = 20.0

State = Literal["idle", "connecting", "ready", "failed", "closed"]
Metadata = Sequence[tuple[str, str]]


class Reply(Message, Protocol):
    """A protobuf message class, as far as replies need it."""

    def ParseFromString(self, data: bytes, /) -> int: ...  # noqa: N802


R = TypeVar("R")


def basic_auth(user: str, password: str) -> tuple[str, str]:
    """Metadata for HTTP basic authentication (RFC 7617)."""
    return "authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


class Channel:
    """A connection to one server, made when needed and made again after it broke."""

    def __init__(
        self,
        target: Target | str,
        *,
        tls: ClientTls | None = None,
        metadata: Metadata = (),
        stream_window: int = STREAM_WINDOW,
        user_agent: str = "flowscope",
        nap: Callable[[], float] | None = None,
    ) -> None:
        """TLS is used when `tls` is given or the target says `tls://`.

        stream_window  bytes of each stream that may wait here unread.
        nap            for a client of many servers that trickle: seconds between two small reads.
        Raises: ValueError for a broken target.
        """
        self.target = Target.parse(target) if isinstance(target, str) else target
        self.tls = tls if tls is not None else ClientTls() if self.target.tls else None
        self.state: State = "idle"
        self._metadata = list(metadata)
        self._stream_window = stream_window
        self._user_agent = user_agent
        self._nap = nap
        self._http2: Connection | None = None
        self._connecting = asyncio.Lock()
        self._down = asyncio.Event()

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect now, if not connected. Raises: RpcError UNAVAILABLE, with Go's text."""
        await self._connection()

    async def disconnected(self) -> None:
        """Until there is no connection (any more)."""
        if self.state == "ready":
            await self._down.wait()

    async def close(self) -> None:
        """Hang up; open streams end with CANCELLED."""
        self.state = "closed"
        self._down.set()
        if self._http2 is not None:
            self._http2.leave()

    async def unary(
        self,
        path: str,
        request: Message,
        reply: type[R],
        *,
        timeout_s: float | None = None,
        metadata: Metadata = (),
        headers: dict[str, str] | None = None,
    ) -> R:
        """One request, one reply. `headers` receives the response metadata.

        path    `/package.Service/Method`
        Raises: RpcError; DEADLINE_EXCEEDED after `timeout_s` seconds.
        """
        try:
            async with (
                asyncio.timeout(timeout_s),
                self.stream(path, request, metadata=metadata, timeout_s=timeout_s) as stream,
            ):
                bodies = [body async for batch in stream for body in batch.bodies()]
                if headers is not None:
                    headers.update(stream.headers)
        except TimeoutError:
            raise RpcError(Status.DEADLINE_EXCEEDED, "context deadline exceeded") from None
        if len(bodies) != 1:
            raise RpcError(Status.INTERNAL, f"expected one reply message, got {len(bodies)}")
        return parse(reply, bodies[0])

    def stream(
        self,
        path: str,
        request: Message,
        *,
        metadata: Metadata = (),
        timeout_s: float | None = None,
        window: int = 0,
    ) -> Stream:
        """A server-streaming call; use it with `async with`, which cancels what was not read.

        window  bytes that may wait here unread, when more than the channel's `stream_window`.
        """
        headers = [
            (":method", "POST"),
            (":scheme", "http" if self.tls is None else "https"),
            (":path", path),
            (":authority", self._authority()),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", self._user_agent),
            *self._metadata,
            *metadata,
        ]
        if timeout_s is not None:
            headers.append(("grpc-timeout", f"{max(1, round(timeout_s * 1000))}m"))
        return Stream(self._connection, headers, frame(request), window)

    def _authority(self) -> str:
        if self.tls is not None and self.tls.server_name:
            return self.tls.server_name
        return "localhost" if self.target.kind == "unix" else str(self.target)

    async def _connection(self) -> Connection:
        async with self._connecting:
            if self.state == "closed":
                raise RpcError(Status.CANCELLED, "grpc: the client connection is closing")
            if self._http2 is None or self._http2.ended:
                self.state = "connecting"
                try:
                    self._http2 = await self._open()
                except BaseException:
                    if self.state == "connecting":
                        self.state = "failed"
                    raise
                self.state = "ready"
                self._down.clear()
            return self._http2

    async def _open(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await self._dial()
                # The socket alone proves little: a server that speaks something else accepts it too.
                await connection.greeted()
        except TlsError as error:
            raise RpcError(Status.UNAVAILABLE, str(error)) from error
        except TimeoutError as error:
            raise _unavailable(f"transport: Error while dialing: dial {self._dialled()}: i/o timeout") from error
        return connection

    async def _dial(self) -> Connection:
        loop = asyncio.get_running_loop()
        context = None if self.tls is None else client_context(self.tls)
        name = None if self.tls is None else self.tls.server_name or self.target.host or "localhost"
        try:
            sock = await self._socket(loop)
        except OSError as error:
            # asyncio puts its own words into strerror.
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            what = f"dial {self._dialled()}: connect: {reason}"
            if isinstance(error, socket.gaierror):
                what = f"dial tcp: lookup {self.target.host}: no such host"
            raise _unavailable(f"transport: Error while dialing: {what}") from error
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._stream_window, self._lost, self._nap),
                sock=sock,
                ssl=context,
                server_hostname=name,
            )
        except OSError as error:
            sock.close()
            reason = (
                getattr(error, "verify_message", "") or error.strerror or getattr(error, "reason", "") or str(error)
            )
            raise _unavailable(f"transport: authentication handshake failed: {reason}") from error
        return connection

    async def _socket(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """A connected socket to the first address that answers. Raises: OSError of the last one."""
        if self.target.kind == "unix":
            return await _connected(loop, socket.AF_UNIX, self.target.path)
        found = await loop.getaddrinfo(self.target.host or "localhost", self.target.port, type=socket.SOCK_STREAM)
        refused: OSError = OSError("no address")
        for family, _, _, _, address in found:
            try:
                return await _connected(loop, family, address)
            except OSError as error:
                refused = error
        raise refused

    def _dialled(self) -> str:
        if self.target.kind == "unix":
            return f"unix {self.target.path}"
        return f"tcp {join_host_port(self.target.host, self.target.port)}"

    def _lost(self) -> None:
        if self.state == "ready":
            self.state = "failed"
            self._down.set()


async def _connected(loop: asyncio.AbstractEventLoop, family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A peer that vanished without a word is noticed within a minute, also on a stream that only receives.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
                if hasattr(socket, option):
                    sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        await loop.sock_connect(sock, address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


def _unavailable(what: str) -> RpcError:
    return RpcError(Status.UNAVAILABLE, f'connection error: desc = "{what}"')


class Stream:
    """One server-streaming call. Iterate over batches or `messages`; or `open` it and `take` what there is."""

    def __init__(
        self,
        connection: Callable[[], Awaitable[Connection]],
        headers: list[tuple[str, str]],
        request: bytes,
        window: int,
    ) -> None:
        self._connect = connection
        self._request_headers = headers
        self._request = request
        self._window = window
        self._incoming: Incoming | None = None

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    @property
    def headers(self) -> Mapping[str, str]:
        """Response metadata; empty until the server has answered."""
        return {} if self._incoming is None else self._incoming.headers

    @property
    def trailers(self) -> Mapping[str, str]:
        """Trailing metadata; empty until the call has ended."""
        return {} if self._incoming is None else self._incoming.trailers

    @property
    def ended(self) -> bool:
        """Nothing more arrives; what arrived can still be taken, then `check` tells how it ended."""
        return self._incoming is not None and self._incoming.ended

    async def open(self, on_news: Callable[[], None] | None = None) -> None:
        """Connect and send the request. Raises: RpcError UNAVAILABLE.

        on_news  called whenever something arrived or the stream ended.
        """
        if self._incoming is None:
            connection = await self._connect()
            self._incoming = connection.request(self._request_headers, self._request, self._window)
            self._incoming.on_news = on_news

    async def start(self) -> Mapping[str, str]:
        """Send the request and wait for the response metadata. Raises: RpcError."""
        incoming = await self._opened()
        while not incoming.headers and not incoming.ended:
            await incoming.wait()
        if not incoming.headers:
            incoming.check()
        return incoming.headers

    def take(self) -> Batch | None:
        """All whole messages that have arrived; None when there is none."""
        return None if self._incoming is None else self._incoming.take()

    def check(self) -> None:
        """Raises: RpcError when the stream ended with an error."""
        if self._incoming is not None:
            self._incoming.check()

    def cancel(self) -> None:
        """Tell the server to stop, if it has not ended by itself."""
        if self._incoming is not None:
            self._incoming.on_news = None
            self._incoming.cancel()

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self._batches()

    async def messages(self, reply: type[R]) -> AsyncIterator[R]:
        """Message by message. Raises: RpcError."""
        async for batch in self:
            for body in batch.bodies():
                yield parse(reply, body)

    async def _batches(self) -> AsyncIterator[Batch]:
        incoming = await self._opened()
        while True:
            batch = incoming.take()
            if batch is not None:
                yield batch
            elif incoming.ended:
                incoming.check()
                return
            else:
                await incoming.wait()

    async def _opened(self) -> Incoming:
        await self.open()
        assert self._incoming is not None
        return self._incoming


def parse(reply: type[R], body: bytes) -> R:
    """A reply from its bytes. Raises: RpcError INTERNAL when they are not one."""
    from google.protobuf.message import DecodeError

    message = reply()
    try:
        cast(Reply, message).ParseFromString(body)
    except DecodeError as error:
        raise RpcError(Status.INTERNAL, f"grpc: failed to unmarshal the received message: {error}") from error
    return message
