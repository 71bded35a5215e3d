"""gRPC's own framing inside HTTP/2 DATA: every message is preceded by five bytes.

Shape:  one byte 0 (not compressed), then the length as 32 bits, big endian.
Source: the gRPC documentation, "gRPC over HTTP2".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, Protocol

PREFIX: Final = struct.Struct(">BI")
PREFIX_SIZE: Final = PREFIX.size


class Message(Protocol):
    """What we need of a protobuf message."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 (protobuf's word)


class BrokenFraming(Exception):
    """The bytes are not gRPC messages, or one is larger than allowed."""


def frame(message: Message) -> bytes:
    """One message, serialised, with its prefix."""
    body = message.SerializeToString()
    return PREFIX.pack(0, len(body)) + body


def frames(messages: Iterable[Message]) -> bytes:
    """Several messages, each with its prefix."""
    return b"".join(map(frame, messages))


def split(data: bytes | bytearray | memoryview, limit: int) -> tuple[list[int], int]:
    """Where each complete message at the front of `data` ends.

    Returns the ends (offsets into `data`, prefixes included) and how many bytes the incomplete message behind them
    needs in total, prefix included (0 when not even its prefix is there).
    Raises: BrokenFraming for a compressed message and for one longer than `limit` bytes.
    """
    # One step per message is unavoidable, since each prefix tells where the next one is; the loop does nothing else
    # (about 0.1 us per message).
    ends: list[int] = []
    add = ends.append
    unpack = PREFIX.unpack_from
    position, size = 0, len(data)
    last = size - PREFIX_SIZE
    while position <= last:
        compressed, length = unpack(data, position)
        if compressed or length > limit:
            raise BrokenFraming(_what_is_wrong(compressed, length, limit))
        position += length + PREFIX_SIZE
        if position > size:
            return ends, length + PREFIX_SIZE
        add(position)
    return ends, 0


def _what_is_wrong(compressed: int, length: int, limit: int) -> str:
    if compressed == 1:
        return "compressed message without a negotiated encoding"
    if compressed:
        return f"received unexpected payload format {compressed}"
    return f"received message larger than max ({length} vs. {limit})"
