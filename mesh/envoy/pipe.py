"""What Envoy writes down about requests, carried to the observer as it is.

In:        a named pipe that Envoy writes lines to.
Out:       blocks of whole lines, to mesh/records.py; a count of what could not be carried.
Elsewhere: records.py says what the lines are.

The pipe is always read, whatever becomes of the records then: Envoy keeps what it cannot write.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from mesh.records import DATAGRAM, Records
from service.failure import Failure

CAPACITY: Final = 2**20
READ: Final = 256 * 1024
LONGEST_LINE: Final = 64 * 1024


class RecordsPipe:
    """The reading end. Belongs to one loop."""

    def __init__(self, path: Path, records: Records) -> None:
        self.path = path
        self._records = records
        self._descriptor = -1
        self._rest = b""

    def open(self) -> None:
        """Make the pipe and start to read. Raises: Failure."""
        try:
            if self.path.exists() and not stat.S_ISFIFO(self.path.stat().st_mode):
                self.path.unlink()
            with contextlib.suppress(FileExistsError):
                os.mkfifo(self.path, 0o600)
            # Opened for writing too, so that it has no end when Envoy goes, and Envoy does not wait for us.
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Failure(f"cannot make the pipe {self.path}: {error.strerror}; check the folder's owner") from error
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, CAPACITY)
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """Read no more. What Envoy writes from now on is lost until somebody opens the pipe again."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ)
        except BlockingIOError:
            return
        for block in self._blocks(self._rest + data):
            self._records.add(block)

    def _blocks(self, data: bytes) -> list[bytes]:
        """Whole lines, as many together as fit into a datagram; keeps what follows the last line feed."""
        found = []
        at = 0
        while True:
            end = data.rfind(b"\n", at, at + DATAGRAM)
            if end < 0:
                end = data.find(b"\n", at)
            if end < 0:
                break
            found.append(data[at:end])
            at = end + 1
        self._rest = data[at:]
        if len(self._rest) > LONGEST_LINE:
            # No record of ours is so long; with its beginning gone, its end will not be taken for one.
            self._rest = b"\0"
        return found
