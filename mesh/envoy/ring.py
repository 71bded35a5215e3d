"""A ring of records in a file: one worker of an Envoy writes, the agent reads.

In:        a file that module/ring.c has made.
Out:       whole records, in order; what the writer has lost.
Elsewhere: module/ring.h says what is where; carrier.py reads the rings of a node.

Positions stand in the file, so a reader that comes back goes on where the last one has stopped. The writer holds a lock
on the file as long as it lives.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path
from typing import Final

HEAD: Final = 4096
LARGEST: Final = 16 * 2**20
"""Bytes of a ring: some 80,000 records."""
_MAGIC: Final = b"flowrec1"
_CAPACITY, _WRITTEN, _LOST, _READ, _LOST_TOLD, _WAITING = 1, 8, 9, 16, 17, 18
"""Numbers of 64 bits from the start of the file."""


class BrokenRing(ValueError):
    """A file that is no ring."""


class Ring:
    """The reading end."""

    def __init__(self, path: Path) -> None:
        """Raises: OSError, BrokenRing."""
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(self._file).st_size
            if size <= HEAD:
                raise BrokenRing(f"{path}: too short for a ring of records")
            self._bytes = mmap.mmap(self._file, size)
            self._data = memoryview(self._bytes)[HEAD:]
            self._head = memoryview(self._bytes)[:HEAD].cast("Q")
            self._capacity = self._head[_CAPACITY]
            if self._bytes[: len(_MAGIC)] != _MAGIC or self._capacity != len(self._data):
                raise BrokenRing(f"{path}: not a ring of records")
        except BaseException:
            os.close(self._file)
            raise
        self._at = self._head[_READ]

    def take(self, most: int) -> bytes:
        """The next records, `most` bytes at most, line feeds and all; empty: there is none yet."""
        written = self._head[_WRITTEN]
        size = min(written - self._at, most, self._capacity)
        if size <= 0:
            return b""
        at = self._at % self._capacity
        found = bytes(self._data[at : at + size])
        if len(found) < size:
            found += bytes(self._data[: size - len(found)])
        if size < written - self._at:
            # No record is as long as what is read together.
            found = found[: found.rfind(b"\n") + 1]
        self._at += len(found)
        return found

    def keep(self) -> None:
        """What was taken has arrived: the writer may use the room."""
        self._head[_READ] = self._at

    def new_losses(self) -> int:
        """Records that found no room since this was last asked."""
        lost = self._head[_LOST]
        told, self._head[_LOST_TOLD] = self._head[_LOST_TOLD], lost
        return lost - told

    def sleep(self) -> None:
        """Have the writer modify the file with the next record."""
        self._head[_WAITING] = 1

    def is_abandoned(self) -> bool:
        """Whether the writer is gone: what is there now is all that there will ever be."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Read no more; what was not kept waits for the next reader."""
        self._head.release()
        self._data.release()
        self._bytes.close()
        os.close(self._file)

    def remove(self) -> None:
        """And nobody else will."""
        self.close()
        self.path.unlink(missing_ok=True)
