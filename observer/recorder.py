"""Writes what the observer reads to a recording, without ever holding it up.

In:        items from the reader thread and from the loop, through a bounded queue.
Out:       a recording (recording.py).
Elsewhere: sources.py replays recordings.

The recorder's thread owns the file. A slow disk costs the recording events, which it notes as a gap; a full disk ends
the recording; neither costs the observer anything.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

import structlog

from model.events import EventBatch
from observer.recording import Gap, Hello, Item, JsonRecords, State, pack, preamble
from service.failure import Failure

log = structlog.get_logger(component="recorder")

LARGEST_BACKLOG: Final = 32 * 2**20
"""Bytes of items that may wait for the disk."""


class Recorder:
    """Records items to a file, which it replaces."""

    def __init__(self, path: str) -> None:
        """
        Raises: Failure when the file cannot be written.
        """
        self.path = Path(path)
        self.missed = 0
        """Events that the recording lacks because the disk was too slow."""
        self._condition = threading.Condition()
        self._waiting: deque[tuple[Item, int]] = deque()
        self._backlog = 0
        self._gap = 0
        self._stopped = False
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise Failure(f"cannot record to {path}: {error.strerror}; choose a file in a writable folder") from error
        self._size = 0
        self._failed = not self._write(preamble())
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def offer(self, item: Item) -> None:
        """Record `item`, or note a gap when too much is waiting. Never blocks; any thread."""
        size = _size(item)
        with self._condition:
            if self._failed or self._stopped:
                return
            if self._backlog + size > LARGEST_BACKLOG and self._waiting:
                self._gap += _events(item)
                self.missed += _events(item)
                return
            if self._gap:
                self._waiting.append((Gap(self._gap, time.time_ns()), 0))
                self._gap = 0
            self._waiting.append((item, size))
            self._backlog += size
            self._condition.notify()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, then close the file."""
        with self._condition:
            self._stopped = True
            self._condition.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._stopped:
                    self._condition.wait()
                if not self._waiting:
                    break
                item, size = self._waiting.popleft()
                self._backlog -= size
            if not self._record(item):
                break
        with self._condition:
            self._failed = True
            self._waiting.clear()
            self._backlog = 0
        os.close(self._file)

    def _record(self, item: Item) -> bool:
        try:
            frame = pack(item)
        except ValueError as error:
            log.warning("item left out of the recording", error=str(error))
            return True
        return self._write(frame)

    def _write(self, data: bytes) -> bool:
        """Append `data` whole, or take back what was written of it and say so once."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            log.error("recording stopped", file=str(self.path), error=error.strerror, bytes=self._size)
            with contextlib.suppress(OSError):  # a device has no length
                os.ftruncate(self._file, self._size)
            return False
        self._size += len(data)
        return True


def _size(item: Item) -> int:
    match item:
        case EventBatch():
            return int(item.data.nbytes) + 32 * len(item)
        case JsonRecords():
            return sum(map(len, item.lines))
        case State():
            return len(item.text)
        case Gap() | Hello():
            return 0


def _events(item: Item) -> int:
    match item:
        case EventBatch():
            return len(item) + sum(one.count for one in item.lost)
        case JsonRecords():
            return len(item.lines)
        case Gap():
            return item.events
        case State() | Hello():
            return 0
