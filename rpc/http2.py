"""The client's end of an HTTP/2 connection, made for streams that never pause.

In:        bytes from the socket.
Out:       per stream: headers, buffers of whole gRPC messages, trailers; windows granted as they are read.
Elsewhere: client.py dials and gives the calls their form; framing.py splits messages.

h2 does the protocol, and DATA and GOAWAY frames alone go past it. DATA, because h2 spends about 30 us per frame and a
fast stream is nothing else: here a whole read from the socket is cut into frames and handed on without copies. GOAWAY,
because h2 takes it as the end of the connection while gRPC means "finish what is open".
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from h2.errors import ErrorCodes

from rpc.framing import PREFIX_SIZE, BrokenFraming, split
from rpc.status import RpcError, Status

FRAME_BYTES: Final = 1024 * 1024
"""Largest frame that we take. Servers that use it (ours do) spend little on frames."""

STREAM_WINDOW: Final = 4 * 1024 * 1024
"""Bytes of one stream that may wait here unread: the bound of its memory."""

CONNECTION_WINDOW: Final = 2**31 - 1
"""Streams bound themselves; a shared bound would let one that is not read stop the others."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Larger messages are refused. A batch of columns is a few MiB at most."""

NAP_BYTES: Final = 16 * 1024
"""A read of fewer bytes costs more for the read than for the bytes."""

SOCKET_BUFFER: Final = 1024 * 1024
"""Receive buffer of unix sockets, whose default is 208 KiB; TCP sizes its own."""

_HEADER: Final = struct.Struct(">HBBBI")
"""RFC 9113, section 4.1: 24 bits length, type, flags, stream."""
_HEADER_SIZE: Final = _HEADER.size
_WINDOW_UPDATE: Final = struct.Struct(">HBBBII")
_WINDOW_UPDATE_TYPE: Final = 0x8
_GOAWAY: Final = struct.Struct(">II")

_DATA_TYPE: Final = 0x0
_SETTINGS_TYPE: Final = 0x4
_GOAWAY_TYPE: Final = 0x7
_END_STREAM: Final = 0x1
_PADDED: Final = 0x8

_RESET_STATUS: Final = {
    ErrorCodes.NO_ERROR: Status.INTERNAL,
    ErrorCodes.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCodes.CANCEL: Status.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
"""What a reset stream means. Source: the gRPC documentation, "gRPC over HTTP2", table of errors."""

_HTTP_STATUS: Final = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
"""Source: the gRPC documentation, "HTTP to gRPC Status Code Mapping"."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Whole messages that arrived together."""

    buffer: bytes
    """Messages one behind the other, each with its 5-byte prefix."""
    ends: list[int]
    """Where each message ends in `buffer`."""

    def __len__(self) -> int:
        return len(self.ends)

    def bodies(self) -> list[bytes]:
        """The messages without prefixes, copied out one by one. For streams of few or large messages."""
        starts = [0, *self.ends[:-1]]
        return [self.buffer[start + PREFIX_SIZE : end] for start, end in zip(starts, self.ends, strict=True)]


class Incoming:
    """What has arrived on one stream and was not taken yet: at most its window, plus one message being completed."""

    __slots__ = (
        "_chunks",
        "_connection",
        "_news",
        "_size",
        "_wanted",
        "_window",
        "ended",
        "error",
        "headers",
        "id",
        "on_news",
        "room",
        "trailers",
    )

    def __init__(self, connection: Connection, number: int, window: int) -> None:
        self.id = number
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.ended = False
        self.error: RpcError | None = None
        self.room = window
        """Bytes that the server may still send."""
        self._connection = connection
        self._window = window
        self._chunks: list[bytes | memoryview] = []
        self._size = 0
        self._wanted = PREFIX_SIZE
        """Bytes that the first message needs to be complete, as far as known."""
        self._news = asyncio.Event()
        self.on_news: Callable[[], None] | None = None
        """Called whenever something arrived or the stream ended, for whoever waits for several streams at once."""

    def feed(self, data: memoryview) -> None:
        """Payload of a DATA frame; the caller has counted it against the window."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= self._wanted:
            self._tell()
        else:
            # A message larger than the window: nobody takes it before it is complete, so make room for its rest.
            self._make_room()

    def take(self) -> Batch | None:
        """All complete messages so far; None when there is none."""
        if self._size < self._wanted:
            return None
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        try:
            ends, wanted = split(data, MAX_MESSAGE_BYTES)
        except BrokenFraming as error:
            self.refuse(RpcError(Status.RESOURCE_EXHAUSTED, f"grpc: {error}"))
            return None
        whole = ends[-1] if ends else 0
        with memoryview(data) as view:
            rest = bytes(view[whole:])
            buffer = data if isinstance(data, bytes) and not rest else bytes(view[:whole])
        self._chunks = [rest] if rest else []
        self._size = len(rest)
        self._wanted = wanted or PREFIX_SIZE
        self._make_room()
        return Batch(buffer, ends) if ends else None

    async def wait(self) -> None:
        """Until something arrives or the stream ends."""
        self._news.clear()
        if not self.ended and self._size < self._wanted:
            await self._news.wait()

    def answer(self, headers: dict[str, str]) -> None:
        """Response headers arrived."""
        self.headers = headers
        self._tell()

    def fail(self, error: RpcError) -> None:
        """End with `error`, unless ended already. What arrived before can still be taken."""
        if not self.ended:
            self.ended, self.error = True, error
        self._tell()

    def refuse(self, error: RpcError) -> None:
        """End with `error` and tell the server to stop."""
        self._chunks, self._size = [], 0
        if not self.ended:
            self._connection.reset(self.id)
        self.ended, self.error = True, error
        self._tell()

    def finish(self) -> None:
        """The server ended the stream; its status is in the trailers, or in the headers when there are only those."""
        fields = self.trailers or self.headers
        number = fields.get("grpc-status", "")
        if not number:
            self.fail(_not_grpc(self.headers))
            return
        code = Status.of(int(number)) if number.isdecimal() and number.isascii() else Status.UNKNOWN
        if code is not Status.OK:
            self.fail(RpcError(code, unquote(fields.get("grpc-message", ""))))
        self.ended = True
        self._tell()

    def check(self) -> None:
        """Raise what the stream ended with, if that is not OK."""
        if self.error is not None:
            raise self.error
        if self._size:
            raise RpcError(Status.INTERNAL, "the stream ends inside a message")

    def cancel(self) -> None:
        """Nobody reads any more."""
        self._chunks, self._size = [], 0
        if not self.ended:
            self.ended = True
            self._connection.reset(self.id)
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        if self.on_news is not None:
            self.on_news()

    def _make_room(self) -> None:
        # Many small updates cost both sides more than they help; half a window keeps a server sending.
        used = self._window - self.room
        if used >= self._window // 2 and not self.ended:
            self.room = self._window
            self._connection.grant(self.id, used)


class Connection(asyncio.Protocol):
    """One HTTP/2 connection. `lost` is called once, when no further request can start on it."""

    def __init__(self, stream_window: int, lost: Callable[[], None], nap: Callable[[], float] | None = None) -> None:
        """`nap`: seconds between two reads of a socket that brings little at a time (NAP_BYTES); None: read at once."""
        self.ended = False
        """No new request here: the server is leaving, or gone."""
        self._stream_window = stream_window
        self._lost = lost
        self._nap = nap
        self._transport: asyncio.Transport | None = None
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._streams: dict[int, Incoming] = {}
        self._unsent: dict[int, memoryview] = {}
        self._received = 0
        """Bytes since the connection's window was last filled up."""
        self._partial = b""
        """Front of a frame that has not arrived completely (never of DATA)."""
        self._data_left = 0
        """Payload of the current DATA frame still to come."""
        self._data_end = False
        self._data_id = 0
        self._http2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._http2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: stream_window,
                h2.settings.SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 64 * 1024,
            },
        )

    # Calls

    async def greeted(self) -> None:
        """Until the server has proved that it speaks HTTP/2. Raises: RpcError UNAVAILABLE."""
        await self._greeted

    def request(self, headers: list[tuple[str, str]], body: bytes, window: int = 0) -> Incoming:
        """Start a call with one request message.

        window  bytes that may wait unread, when more than the connection's default for streams.
        Raises: RpcError UNAVAILABLE.
        """
        number = self._http2.get_next_available_stream_id()
        try:
            self._http2.send_headers(number, headers)
        except h2.exceptions.ProtocolError as error:
            raise RpcError(Status.UNAVAILABLE, f"transport: {error}") from error
        incoming = self._streams[number] = Incoming(self, number, max(window, self._stream_window))
        self._unsent[number] = memoryview(body)
        self._send_bodies()
        if window > self._stream_window:
            self.grant(number, window - self._stream_window)
        return incoming

    def grant(self, number: int, count: int) -> None:
        """Let the server send `count` more bytes on a stream."""
        self._write(_WINDOW_UPDATE.pack(0, 4, _WINDOW_UPDATE_TYPE, 0, number, count))

    def reset(self, number: int) -> None:
        """Cancel a stream."""
        self._streams.pop(number, None)
        self._unsent.pop(number, None)
        try:
            self._http2.reset_stream(number, ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            return
        self._flush()

    def leave(self) -> None:
        """Hang up."""
        self._end(RpcError(Status.CANCELLED, "grpc: the client connection is closing"))
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        self._http2.initiate_connection()
        self._http2.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        reason = "EOF" if exc is None else getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
        self._end(RpcError(Status.UNAVAILABLE, f"error reading from server: {reason.lower() if exc else reason}"))

    def data_received(self, data: bytes) -> None:
        if self._nap is not None and len(data) < NAP_BYTES and self._greeted.done():
            self._rest(self._nap())
        if self._partial:
            data = self._partial + data
            self._partial = b""
        try:
            self._partial = self._consume(memoryview(data))
        except RpcError as error:
            self._end(error)
            self._abort()
        except Exception as error:  # h2 raises ProtocolError, and others for bytes that no server sends
            self._end(RpcError(Status.UNAVAILABLE, f"connection error: the server breaks the protocol: {error}"))
            self._abort()

    def _rest(self, nap_s: float) -> None:
        """Read no more for a moment, so that what comes meanwhile is read at once."""
        if nap_s > 0 and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(nap_s, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # Frames

    def _consume(self, view: memoryview) -> bytes:
        """Cut into frames and process them; returns the front of an incomplete one."""
        position, size = 0, len(view)
        while position < size:
            if self._data_left:
                step = min(self._data_left, size - position)
                self._data_left -= step
                self._take_data(view[position : position + step])
                position += step
                continue
            if size - position < _HEADER_SIZE:
                break
            high, low, kind, flags, number = _HEADER.unpack_from(view, position)
            length = high << 8 | low
            if not self._greeted.done():
                self._check_greeting(kind, length)
            if length > FRAME_BYTES:
                raise RpcError(Status.UNAVAILABLE, f"connection error: the server sent a frame of {length} bytes")
            if kind == _DATA_TYPE and not flags & _PADDED:
                position += _HEADER_SIZE
                self._data_id, self._data_left, self._data_end = number, length, bool(flags & _END_STREAM)
                if not length:
                    self._take_data(view[:0])
                continue
            end = position + _HEADER_SIZE + length
            if end > size:
                break
            self._take_frame(kind, number, view[position:end])
            position = end
        return bytes(view[position:])

    def _take_data(self, payload: memoryview) -> None:
        count = len(payload)
        self._received += count
        if self._received >= CONNECTION_WINDOW // 2:
            self.grant(0, self._received)
            self._received = 0
        incoming = self._streams.get(self._data_id)
        if incoming is None:
            return  # cancelled here; the server does not know yet
        if count:
            incoming.room -= count
            if incoming.room < 0:
                incoming.refuse(RpcError(Status.INTERNAL, "the server sends more than its window allows"))
                return
            incoming.feed(payload)
        if self._data_end and not self._data_left:
            # h2 has to know that the stream ended; an empty frame tells it.
            self._tell_h2(_HEADER.pack(0, 0, _DATA_TYPE, _END_STREAM, self._data_id))

    def _take_frame(self, kind: int, number: int, data: memoryview) -> None:
        if kind == _GOAWAY_TYPE:
            self._take_goaway(data[_HEADER_SIZE:])
        elif kind == _DATA_TYPE:
            self._take_padded(number, data)
        else:
            self._tell_h2(bytes(data))

    def _take_padded(self, number: int, data: memoryview) -> None:
        body = data[_HEADER_SIZE:]
        padding = body[0] if len(body) else 0
        if padding >= len(body):
            raise RpcError(Status.UNAVAILABLE, "connection error: the server sent a frame with too much padding")
        incoming = self._streams.get(number)
        if incoming is not None:
            incoming.room -= padding + 1
        self._received += padding + 1
        self._data_id, self._data_end = number, bool(data[4] & _END_STREAM)
        self._take_data(body[1 : len(body) - padding])

    def _take_goaway(self, body: memoryview) -> None:
        if len(body) < _GOAWAY.size:
            raise RpcError(Status.UNAVAILABLE, "connection error: the server sent a short GOAWAY")
        last, code = _GOAWAY.unpack_from(body)
        self._no_more()
        said = bytes(body[_GOAWAY.size : _GOAWAY.size + 200]).decode("utf-8", "replace")
        error = RpcError(Status.UNAVAILABLE, f"the server is leaving (GOAWAY, code {code}{': ' if said else ''}{said})")
        for number in [number for number in self._streams if number > last & 0x7FFFFFFF]:
            self._streams.pop(number).fail(error)
        if code:
            self._end(error)
        if not self._streams:
            self._abort()

    def _check_greeting(self, kind: int, length: int) -> None:
        if kind != _SETTINGS_TYPE or length > 1024:
            raise RpcError(
                Status.UNAVAILABLE,
                'connection error: desc = "error reading server preface: the server does not speak gRPC (HTTP/2)"',
            )

    def _tell_h2(self, data: bytes) -> None:
        for event in self._http2.receive_data(data):
            self._process(event)
        self._flush()
        self._send_bodies()

    def _process(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=number, headers=headers):
                if incoming := self._streams.get(number or 0):
                    incoming.answer(_fields(headers))
            case h2.events.TrailersReceived(stream_id=number, headers=headers):
                if incoming := self._streams.get(number or 0):
                    incoming.trailers = _fields(headers)
            case h2.events.StreamEnded(stream_id=number):
                if incoming := self._streams.pop(number or 0, None):
                    incoming.finish()
                self._leave_when_done()
            case h2.events.StreamReset(stream_id=number, error_code=code):
                if incoming := self._streams.pop(number or 0, None):
                    incoming.fail(_reset_error(int(code or 0)))
                self._unsent.pop(number or 0, None)
                self._leave_when_done()
            case h2.events.RemoteSettingsChanged():
                if not self._greeted.done():
                    self._greeted.set_result(None)
            case _:
                pass

    # Out

    def _send_bodies(self) -> None:
        """Send what the server's windows allow of the request messages."""
        for number, body in list(self._unsent.items()):
            while len(body):
                room = min(self._http2.local_flow_control_window(number), self._http2.max_outbound_frame_size)
                if room <= 0:
                    break
                part, body = body[:room], body[room:]
                self._http2.send_data(number, bytes(part), end_stream=not len(body))
            if len(body):
                self._unsent[number] = body
            else:
                del self._unsent[number]
        self._flush()

    def _flush(self) -> None:
        data = self._http2.data_to_send()
        if data:
            self._write(data)

    def _write(self, data: bytes) -> None:
        # Little goes out (requests, windows), so the transport's buffer stays small without waiting for it.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # End

    def _no_more(self) -> None:
        if not self.ended:
            self.ended = True
            self._lost()

    def _end(self, error: RpcError) -> None:
        self._no_more()
        if not self._greeted.done():
            self._greeted.set_exception(_before_greeting(error))
        self._unsent.clear()
        streams, self._streams = self._streams, {}
        for incoming in streams.values():
            incoming.fail(error)

    def _leave_when_done(self) -> None:
        if self.ended and not self._streams:
            self._abort()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _fields(headers: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in cast("list[tuple[str, str]]", headers or [])}


def _reset_error(number: int) -> RpcError:
    try:
        code = ErrorCodes(number)
    except ValueError:
        return RpcError(Status.INTERNAL, f"stream terminated by RST_STREAM with error code: {number}")
    status = _RESET_STATUS.get(code, Status.INTERNAL)
    return RpcError(status, f"stream terminated by RST_STREAM with error code: {code.name}")


def _not_grpc(headers: dict[str, str]) -> RpcError:
    number = headers.get(":status", "")
    http = int(number) if number.isascii() and number.isdecimal() else 0
    if headers.get("content-type", "").startswith("application/grpc") and http == 200:
        return RpcError(Status.INTERNAL, "server closed the stream without sending trailers")
    kind = headers.get("content-type", "")
    return RpcError(
        _HTTP_STATUS.get(http, Status.UNKNOWN),
        f"unexpected HTTP status code received from server: {http}; "
        f'transport: received unexpected content-type "{kind}"',
    )


def _before_greeting(error: RpcError) -> RpcError:
    if error.message.startswith("connection error"):
        return error
    reason = error.message.removeprefix("error reading from server: ")
    return RpcError(Status.UNAVAILABLE, f'connection error: desc = "error reading server preface: {reason}"')
