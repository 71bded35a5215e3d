"""A transport without a socket: what a protocol writes can be read, and its buffer can be made full."""

from __future__ import annotations

import asyncio
from typing import Any


class MemoryTransport(asyncio.Transport):
    """Keeps what is written. `peer` is what get_extra_info("peername") says."""

    def __init__(self, peer: object = ("127.0.0.1", 4711)) -> None:
        super().__init__({"peername": peer})
        self.written = bytearray()
        self.writes: list[int] = []
        """Size of each write."""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data
        self.writes.append(len(data))

    def take(self) -> bytes:
        """What was written since the last call."""
        data = bytes(self.written)
        self.written.clear()
        return data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True
