"""Records for the observer, from proxies beside the kernel: access logs become flows there.

In:        JSON objects or lines of fields as bytes, one after the other, on the loop that runs.
Out:       unix datagrams of many lines each, to the observer's records socket; a count of what found no room.
Elsewhere: observer/records_socket.py receives; model/decode/ says what they hold (accesslog.py, lines.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Final

FLUSH_S: Final = 0.005
"""A flow may wait so long for others to travel with."""
DATAGRAM: Final = 80 * 1024
"""Bytes sent at once: well below what a Unix socket takes by default. Longer ones need more than four pages in a row,
which a kernel with little memory may not find."""
LARGEST_WAITING: Final = 4 * 2**20
"""Bytes kept while the observer is behind."""
RETRY_S: Final = 0.05


class Records:
    """Belongs to one loop. A slow or absent observer never slows a proxy: what has no room is counted, then told."""

    def __init__(self, path: str) -> None:
        """`path` is the observer's records socket; empty: records are thrown away."""
        self.lost = 0
        """Records that did not reach the observer, ever."""
        self._untold = 0
        self._path = path
        self._lines: list[bytes] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    @property
    def is_behind(self) -> bool:
        """Whether something waits for the observer to have room; to be asked after `flush`."""
        return bool(self._lines)

    @property
    def untold(self) -> int:
        """Lost records of which the observer has not heard."""
        return self._untold

    def lose(self, count: int) -> None:
        """Count records that were lost before they came here."""
        self.lost += count
        self._untold += count

    def tell(self) -> None:
        """Tell of losses, though no record follows them."""
        if self._untold and not self._lines:
            with contextlib.suppress(OSError):
                self._socket.sendto(_loss(self._untold), self._path)
                self._untold = 0

    def add(self, lines: bytes) -> None:
        """Send records soon, a line feed between two. Longer ones than DATAGRAM travel alone."""
        if self._takes(lines) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def send(self, lines: bytes) -> None:
        """As `add`, with what waits already, at once."""
        if self._takes(lines):
            self.flush()

    def _takes(self, lines: bytes) -> bool:
        if not self._path:
            return False
        if self._bytes > LARGEST_WAITING:
            self._lose([lines])
            return False
        self._lines.append(lines)
        self._bytes += len(lines) + 1
        return True

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._bytes = self._lines, [], 0
        at = 0
        while at < len(lines):
            end, size = at, 0
            while end < len(lines) and (end == at or size + len(lines[end]) < DATAGRAM):
                size += len(lines[end]) + 1
                end += 1
            told = self._untold
            loss = [_loss(told)] if told else []
            try:
                self._socket.sendto(b"\n".join((*loss, *lines[at:end])), self._path)
            except BlockingIOError:
                # It lives, and is behind.
                self._lines = lines[at:]
                self._bytes = sum(map(len, self._lines)) + len(self._lines)
                self._timer = asyncio.get_running_loop().call_later(RETRY_S, self.flush)
                return
            except OSError:
                self._lose(lines[at:end])
            else:
                self._untold -= told
            at = end

    def close(self) -> None:
        """Send what waits, then no more."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
        self._lose(self._lines)
        self._socket.close()

    def _lose(self, lines: Sequence[bytes]) -> None:
        self.lose(len(lines) + sum(one.count(b"\n") for one in lines))


def _loss(count: int) -> bytes:
    return b'{"type":"Lost","count":%d}' % count
