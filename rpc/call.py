"""Services and calls as the rooms see them: plain coroutines, no HTTP/2.

In:        requests as protobuf messages, metadata.
Out:       replies: messages, or buffers of many messages at once.
Elsewhere: server.py finds the method, reads the request and turns errors into a status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

from google.protobuf.descriptor import ServiceDescriptor
from grpclib.metadata import encode_grpc_message
from grpclib.protocol import Stream
from h2.errors import ErrorCodes

from rpc.framing import Message, frame
from rpc.packed import ClientGone, PackedWriter
from rpc.status import Status
from rpc.target import join_host_port

__all__ = ["Call", "ClientGone", "Headers", "Service"]

Headers = list[tuple[str, str]]


class Service:
    """One gRPC service. A subclass sets `descriptor` and defines coroutines named like its methods.

    unary             async def Name(self, request, call) -> reply
    server streaming  async def Name(self, request, call) -> None, with call.send or call.send_message
    bidirectional     async def Name(self, requests, call) -> None, `requests` an async iterator
    Methods that the subclass does not define answer UNIMPLEMENTED.
    """

    descriptor: ClassVar[ServiceDescriptor]


class Call:
    """What a handler knows of its call, and its way to answer."""

    __slots__ = ("_headers", "_headers_sent", "_stream", "_writer", "metadata", "peer", "stop", "trailers")

    def __init__(self, stream: Stream, metadata: Mapping[str, str], headers: Headers, stop: asyncio.Event) -> None:
        self._stream = stream
        self._writer = PackedWriter(stream)
        self._headers = headers
        self._headers_sent = False
        self.metadata = metadata
        """Of the request; keys are lower case, values as sent (binary ones in base64)."""
        self.peer = _peer_name(stream._transport)
        """`10.0.0.1:4711`, or `unix`."""
        self.stop = stop
        """Set when the server drains: end the stream soon."""
        self.trailers: dict[str, str] = {}
        """Sent behind the status; set before returning."""

    @property
    def stopping(self) -> bool:
        """The server drains."""
        return self.stop.is_set()

    async def send(self, frames: bytes | bytearray | memoryview) -> None:
        """Send messages that already have their prefix (framing.py), with back-pressure.

        Raises: ClientGone.
        """
        await self.start()
        await self._writer.send(frames)

    async def send_message(self, message: Message) -> None:
        """Send one message. Raises: ClientGone."""
        await self.send(frame(message))

    async def start(self) -> None:
        """Send the response metadata now; otherwise it goes out with the first message."""
        if not self._headers_sent:
            self._headers_sent = True
            await send_headers(self._stream, self._headers)

    async def finish(self, status: Status, message: str = "") -> None:
        """End the call. The server does this when the handler returns or raises."""
        # Response metadata goes out even when the call fails: Hubble's clients read versions from it.
        await self.start()
        trailers = [("grpc-status", str(int(status)))]
        if message:
            trailers.append(("grpc-message", encode_grpc_message(message)))
        trailers.extend(self.trailers.items())
        await send_headers(self._stream, trailers, end_stream=True)
        if self._stream.closable:
            # The client has not ended its side; NO_ERROR asks it to stop without losing the reply (RFC 9113, 8.1).
            self._stream.reset_nowait(ErrorCodes.NO_ERROR)


async def send_headers(stream: Stream, headers: Headers, end_stream: bool = False) -> None:
    """Send headers or trailers. Raises: ClientGone."""
    if not stream.closable:
        raise ClientGone
    await stream.send_headers(headers, end_stream=end_stream)


def _peer_name(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return join_host_port(peer[0], peer[1]) if isinstance(peer, tuple) else "unix"
