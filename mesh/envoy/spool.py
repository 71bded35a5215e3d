"""What Envoy writes down about requests, carried to the observer as it is, each record once or counted as lost.

In:        a file that Envoy appends lines to; Envoy's own count of them.
Out:       blocks of whole lines, to mesh/records.py; a count of what could not be carried.
Elsewhere: records.py says what the lines are; progress.py remembers how far they were read.

A file never makes Envoy wait, whoever reads it or does not: it has a largest size, and what Envoy cannot write there it
throws away. Envoy counts every record before that, so what it counted and nobody read is what was lost. File and
progress outlive the agent: the next one goes on where the last one has stopped. What an Envoy that dies has not written
yet, 20 ms at most, nobody knows of.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from mesh.envoy.admin import Admin, AdminError
from mesh.envoy.progress import Progress, ProgressFile
from mesh.inotify import MODIFIED, Inotify
from mesh.records import DATAGRAM, Records
from service.failure import Failure

LIMIT: Final = 32 * 2**20
"""Bytes of a file: about 150,000 records. Of these there are two at most."""
SEGMENT: Final = 8 * 2**20
"""A file that is longer is followed by a new one."""
READ: Final = DATAGRAM
"""What is read together travels together: it is sent, or it is not."""
RETRY_S: Final = 0.02
TICK_S: Final = 0.5
SETTLED: Final = 6
"""After so many ticks, whatever Envoy has counted is written or thrown away."""
HANDOVER_S: Final = 40.0
"""While an Envoy takes over from another one, both write and their counts are of no use."""

log = structlog.get_logger(component="envoy")


class Spool:
    """The reading end. Belongs to one loop."""

    def __init__(self, path: Path, records: Records, admin: Admin, generation: Callable[[], int]) -> None:
        """`generation` tells the Envoy that runs from every other one; 0: none runs."""
        self.path = path
        self.is_exact = True
        """False while Envoy writes other logs too, and so counts more than our records."""
        self._old = path.with_name(f"{path.name}.old")
        self._records = records
        self._admin = admin
        self._generation = generation
        self._progress = ProgressFile(path.with_name(f"{path.name}.progress"))
        self._at = Progress()
        self._descriptor = -1
        self._inotify: Inotify | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._at_end = False
        self._is_current = True
        """Whether the file that is read is the one that Envoy was last told of: only we put it aside."""
        self._is_settled = False
        self._reopen = True
        self._is_final = False
        """Whether Envoy writes no more to the old file."""
        self._usable_s = 0.0
        self._counts: list[int] = []

    def open(self) -> None:
        """Go on where the last agent stopped. Raises: Failure."""
        try:
            self._make()
            self._at = self._progress.open()
            self._records.lose(self._at.untold)
            self._inotify = Inotify(self._notified)
            self._inotify.watch(self.path, MODIFIED)
            self._start_reading()
        except OSError as error:
            raise Failure(f"cannot keep records in {self.path}: {error.strerror}; check the folder's owner") from error
        self._task = asyncio.get_running_loop().create_task(self._run(), name="envoy-records")
        self.read()

    def close(self) -> None:
        """Read no more; what Envoy writes from now on waits for whoever opens it next."""
        if self._inotify is None:
            return
        if self._task is not None:
            self._task.cancel()
        if self._retry is not None:
            self._retry.cancel()
        self.read(again=False)
        self._inotify.close()
        self._inotify = None
        os.close(self._descriptor)
        self._progress.close()

    def begin(self) -> None:
        """A new Envoy is about to start, and no other runs: it will count from nothing."""
        if self._inotify is None:
            return
        with self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                # The last one has died while it wrote.
                file.write(b"\n")
        self._at.mark = self._at.lines + self._unread_lines()
        self._at.process = 0
        self._counts.clear()
        self._usable_s = 0.0

    # ---- reading ----

    def _make(self) -> None:
        if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
            self.path.unlink()
        os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def _start_reading(self) -> None:
        """Open the file that the progress speaks of; else the oldest one, from its beginning."""
        for path in (self._old, self.path):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == self._at.inode:
                    self._take(path, self._at.offset)
                    break
        else:
            self._take(self._old if self._old.exists() else self.path, 0)
        if self._is_current:
            self._old.unlink(missing_ok=True)

    def _take(self, path: Path, offset: int) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._at.inode, self._at.offset = os.fstat(self._descriptor).st_ino, offset
        self._is_current = self.path.stat().st_ino == self._at.inode

    def _notified(self) -> None:
        self._is_settled = False
        self.read()

    def read(self, again: bool = True) -> None:
        """Pass on what is there, as long as the observer has room; `again` when it has not, try later."""
        self._at_end = False
        while True:
            if self._records.is_behind:
                if again and self._retry is None:
                    self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._read_later)
                return
            self._save()
            # Before the last look at the old file: Envoy writes no more there once it has written to the new one.
            follows = not self._is_current and (self._is_final or self.path.stat().st_size > 0)
            data = os.pread(self._descriptor, READ, self._at.offset)
            end = data.rfind(b"\n") + 1
            if end:
                self._records.add(data[: end - 1])
                self._records.flush()
                self._at.offset += end
                self._at.lines += data.count(b"\n", 0, end)
                if len(data) < READ and self._is_current and not self._records.is_behind:
                    # What follows will be told of.
                    self._at_end = True
                    self._save()
                    return
            elif len(data) == READ:
                # No record of ours is so long. What comes of its end is for the observer to refuse.
                self._at.offset += READ
            elif follows:
                self._take(self.path, 0)
                self._old.unlink(missing_ok=True)
            else:
                self._at_end = True
                return

    def _read_later(self) -> None:
        self._retry = None
        self.read()

    def _save(self) -> None:
        self._at.untold = self._records.untold
        self._progress.write(self._at)

    def _unread_lines(self) -> int:
        paths = [self.path] if self._is_current else [self._old, self.path]
        count = 0
        for path, offset in zip(paths, (self._at.offset, 0), strict=False):
            with path.open("rb") as file:
                file.seek(offset)
                while data := file.read(2**20):
                    count += data.count(b"\n")
        return count

    # ---- now and then ----

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self._rotate()
                if not self._is_settled:
                    await self._settle()
                self._records.tell()
                self._save()
            except AdminError:
                # It is not there, or only just coming.
                self._counts.clear()
            except OSError as error:
                log.error("records of requests cannot be kept", error=str(error))

    async def _rotate(self) -> None:
        long = self._is_current and self.path.stat().st_size > SEGMENT
        if long and asyncio.get_running_loop().time() >= self._usable_s:
            os.rename(self.path, self._old)
            self._is_current = False
            self._make()
            assert self._inotify is not None
            self._inotify.watch(self.path, MODIFIED)
            self._reopen, self._is_final = True, False
        if self._is_current:
            return
        if self._reopen:
            await self._admin.reopen_logs()
            self._reopen = False
        else:
            # What it was just writing then is written by now.
            self._is_final = True
            self.read()

    async def _settle(self) -> None:
        """Find out what Envoy has counted and nobody will ever read."""
        found = await self._admin.counters("^filesystem.write")
        process = self._generation()
        counted, waiting = found["filesystem.write_buffered"], found["filesystem.write_total_buffered"]
        self.read()
        if not self._is_known(process, counted, waiting) or not self.is_exact or not self._at_end:
            self._counts.clear()
            return
        quiet = not waiting and self._counts[-1:] == [counted]
        self._counts = [*self._counts[-SETTLED:], counted]
        if quiet:
            self._lose(counted)
            self._is_settled = True
        elif len(self._counts) > SETTLED:
            self._lose(self._counts[0])

    def _lose(self, counted: int) -> None:
        missing = counted - (self._at.lines - self._at.mark)
        if missing > 0:
            log.warning("Envoy could not write records of requests", count=missing)
            self._at.lines += missing
            self._records.lose(missing)

    def _is_known(self, process: int, counted: int, waiting: int) -> bool:
        """Whether this Envoy's count means something to us."""
        if not process or self._at.process == process:
            return bool(process)
        now_s = asyncio.get_running_loop().time()
        if not self._at.process:
            self._at.process = process
            return True
        if not self._usable_s:
            self._usable_s = now_s + HANDOVER_S
        if now_s >= self._usable_s and not waiting and self._at_end:
            self._at.process, self._at.mark = process, self._at.lines - counted
            self._usable_s = 0.0
        return False
