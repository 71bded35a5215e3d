"""Many messages per write: the fast way out of a server-streaming call.

In:        buffers of ready gRPC messages (framing.py), any number and any size.
Out:       HTTP/2 DATA frames as large as the peer takes, several in one write to the socket.
Elsewhere: everything else of the protocol (headers, settings, windows coming in) is grpclib's and h2's.

h2 spends about 25 us per DATA frame on state machines and three copies, and peers usually take 16 KiB per frame, so
this writes the frames itself. It touches nothing of h2 but the two counters that flow control is made of.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

import h2.stream
from grpclib.protocol import Stream

_HEADER: Final = struct.Struct(">HBBBI")
"""RFC 9113, section 4.1: 24 bits length, type (0: DATA), flags, stream."""

CHUNK: Final = 256 * 1024
"""Bytes per write to the socket. Bounds what waits in the transport (with its high-water mark, see server.py) and how
long one stream keeps the event loop."""

LONG: Final = 16 * 1024
"""After so many bytes `send` lets others run. A turn of the loop for each small message would cost a stream that
trickles a tenth of its time."""


class ClientGone(Exception):
    """The client cancelled the call, or its connection ended."""


class PackedWriter:
    """Writes ready messages to one stream; one owner at a time."""

    __slots__ = ("_connection", "_http2", "_id", "_stream", "_transport", "_written")

    def __init__(self, stream: Stream) -> None:
        assert stream.id is not None
        self._id: int = stream.id
        self._stream = stream
        self._connection = stream.connection
        self._http2 = stream._h2_connection
        self._transport = stream._transport
        self._written = 0
        """Bytes since others could run."""

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Hand `data` to the connection, waiting for the peer's windows and for the socket.

        At return nothing of `data` is referred to any more, and at most a few hundred KiB wait in the transport.
        Raises: ClientGone.
        """
        with memoryview(data).cast("B") as view:
            position, size = 0, len(view)
            while position < size:
                window = await self._window()
                position += self._write(view, position, min(window, size - position, CHUNK))
        self._written += size
        if self._written >= LONG:
            # A client that keeps up never makes us wait above; the other streams of this loop must run all the same.
            self._written = 0
            await asyncio.sleep(0)

    async def _window(self) -> int:
        """Bytes that may go out now, at least one."""
        while True:
            if not self._connection.write_ready.is_set():
                await self._connection.write_ready.wait()
            window = min(self._http2.outbound_flow_control_window, self._open_stream().outbound_flow_control_window)
            if window > 0:
                return window
            self._stream.window_updated.clear()
            await self._stream.window_updated.wait()

    def _open_stream(self) -> h2.stream.H2Stream:
        stream = self._http2.streams.get(self._id)
        if stream is None or stream.closed or self._transport.is_closing():
            raise ClientGone
        return stream

    def _write(self, view: memoryview, start: int, count: int) -> int:
        """Write `count` bytes as frames; the caller has checked the window. Returns `count`."""
        largest = self._http2.max_outbound_frame_size
        pieces: list[bytes | memoryview] = []
        end = start + count
        for offset in range(start, end, largest):
            length = min(largest, end - offset)
            pieces.append(_HEADER.pack(length >> 8, length & 0xFF, 0, 0, self._id))
            pieces.append(view[offset : offset + length])
        # What h2 still holds (an acknowledgement, say) was written earlier, so it goes first.
        self._connection.flush()
        self._transport.write(b"".join(pieces))
        self._http2.outbound_flow_control_window -= count
        self._open_stream().outbound_flow_control_window -= count
        return count
