"""A small HTTP/1.1 server: enough for curl, wrk and Envoy to be content.

In:        bytes of connections; a function that answers a Request.
Out:       responses with Content-Length, keep-alive, HEAD, pipelining; 400 and 431 for what is no request.
Elsewhere: http_echo.py and json_echo.py are the functions. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import email.utils
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

MAX_HEAD: Final = 16384
"""Bytes of request line and headers."""
MAX_BODY: Final = 1 << 20
"""Bytes of a body that we read and throw away; larger ones end the connection."""

REASONS: Final = {
    200: "OK", 201: "Created", 204: "No Content", 304: "Not Modified", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large", 417: "Expectation Failed",
    431: "Request Header Fields Too Large", 501: "Not Implemented", 505: "HTTP Version Not Supported",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One request; the body has been skipped."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case; the last of several wins."""
    peer: str
    """Address of the client, as the socket tells it."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(frozen=True, slots=True)
class Response:
    """What to answer. Date, Content-Length and Connection are added."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Request], Response]


class BadRequest(Exception):
    """The connection ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def parse_head(head: bytes, peer: str = "") -> tuple[Request, int]:
    """Read request line and headers (without the empty line); also says how many bytes of body follow.

    Raises: BadRequest.
    """
    try:
        lines = head.decode("ascii", "surrogateescape").split("\r\n")
        method, target, version = lines[0].split(" ")
    except ValueError:
        raise BadRequest(400) from None
    if not version.startswith("HTTP/1."):
        raise BadRequest(505 if version.startswith("HTTP/") else 400)
    if not method.isalpha() or not target:
        raise BadRequest(400)
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(400)
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise BadRequest(501)  # nobody in the lab uploads in chunks
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise BadRequest(400)
    if int(length) > MAX_BODY:
        raise BadRequest(413)
    if version == "HTTP/1.0" and "connection" not in headers:
        headers["connection"] = "close"
    return Request(method, target, headers, peer), int(length)


_KEEPING: Final = ("Connection", "Keep-Alive")


def render(response: Response, head_only: bool = False, close: bool = False) -> bytes:
    """The response as it goes over the wire."""
    lines = [f"HTTP/1.1 {response.status} {REASONS.get(response.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in response.headers if not close or name not in _KEEPING]
    lines.append(f"Date: {_now()}")
    lines.append(f"Content-Length: {len(response.body)}")
    if close:
        lines.append("Connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head if head_only else head + response.body


@dataclass(slots=True)
class _Clock:
    second: int = 0
    text: str = ""


_clock: Final = _Clock()


def _now() -> str:
    """The Date header; formatting it costs more than the rest of a response, so once per second."""
    second = int(time.time())
    if second != _clock.second:
        _clock.second, _clock.text = second, email.utils.formatdate(second, usegmt=True)
    return _clock.text


@dataclass(slots=True)
class Connection(asyncio.Protocol):
    """One client."""

    handler: Handler
    transport: asyncio.Transport | None = None
    buffer: bytearray = field(default_factory=bytearray)
    skip: int = 0
    """Bytes of the present body still to come."""
    waiting: Request | None = None
    """The request whose body is being skipped."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        peer = transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        try:
            while self._step():
                pass
        except BadRequest as bad:
            self._send(Response(bad.status, f"{REASONS[bad.status]}\n".encode()), close=True)

    def _step(self) -> bool:
        """Handle one request of the buffer; False when more bytes are needed."""
        assert self.transport is not None
        if self.transport.is_closing():
            return False
        if self.waiting is None:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD:
                if len(self.buffer) > MAX_HEAD:
                    raise BadRequest(431)
                return False
            peername = self.transport.get_extra_info("peername") or ("",)
            self.waiting, self.skip = parse_head(bytes(self.buffer[:end]), str(peername[0]))
            del self.buffer[: end + 4]
            if self.skip and self.waiting.headers.get("expect", "").lower() == "100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        skipped = min(self.skip, len(self.buffer))
        del self.buffer[:skipped]
        self.skip -= skipped
        if self.skip:
            return False
        request, self.waiting = self.waiting, None
        close = request.headers.get("connection", "").lower() == "close"
        self._send(self.handler(request), head_only=request.method == "HEAD", close=close)
        return bool(self.buffer)

    def _send(self, response: Response, head_only: bool = False, close: bool = False) -> None:
        assert self.transport is not None
        self.transport.write(render(response, head_only, close))
        if close:
            self.transport.close()


def serve(handler: Handler, port: int, host: str = "", secure: tuple[int, ssl.SSLContext] | None = None) -> int:
    """Serve until SIGTERM; returns the exit code. An empty host means every address, IPv4 and IPv6.

    `secure` is another port, for TLS.
    """
    doors: list[tuple[socket.socket, ssl.SSLContext | None]] = []
    for number, context in ((port, None), *((secure,) if secure else ())):
        try:
            doors.append((listen(host, number), context))
        except OSError as error:
            print(f"cannot listen on {host or '*'}:{number}: {error.strerror}", file=sys.stderr)
            return 1
    asyncio.run(_run(handler, doors))
    return 0


def listen(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A bound (for TCP: listening) socket; with an empty host one for both address families."""
    family = socket.AF_INET if "." in host or not socket.has_ipv6 else socket.AF_INET6
    server = socket.socket(family, kind)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if ":" in host and host != "::" else 0)
        server.bind((host or ("::" if family == socket.AF_INET6 else "0.0.0.0"), port))
        if kind == socket.SOCK_STREAM:
            server.listen(1024)
        server.setblocking(False)
    except OSError:
        server.close()
        raise
    return server


async def _run(handler: Handler, doors: Sequence[tuple[socket.socket, ssl.SSLContext | None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as servers:
        for listener, context in doors:
            await servers.enter_async_context(
                await loop.create_server(lambda: Connection(handler), sock=listener, ssl=context)
            )
        await stop.wait()
