"""Tells when a file was written or replaced, without looking at it every second.

In:        the path of a file, which need not exist yet.
Out:       a call per burst of changes.
Elsewhere: state.py reads the file.
Source:    inotify(7). The folder is watched, not the file, because writers replace files by renaming.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

IN_CLOSE_WRITE: Final = 0x008
IN_MOVED_TO: Final = 0x080
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
IN_IGNORED: Final = 0x8000

_EVENT: Final = struct.Struct("iIII")

RETRY_S: Final = 1.0
"""How often we look for a folder that is not there yet; once it is, nothing is polled."""


class FileWatch:
    """Calls `changed` on the running loop whenever the file at `path` was written or replaced."""

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        self._path = path
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._retry: asyncio.TimerHandle | None = None
        self._stamp = _stamp(path)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._read)
        self._watch_folder()

    def close(self) -> None:
        """Stop watching."""
        if self._retry is not None:
            self._retry.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _watch_folder(self) -> None:
        mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF
        folder = os.fsencode(self._path.parent)
        if self._fd < 0 or self._libc.inotify_add_watch(self._fd, folder, mask) < 0:
            # No such folder yet, or no inotify left for this user: look now and then.
            self._retry = self._loop.call_later(RETRY_S, self._watch_folder)
        self._look()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        position, again = 0, False
        while position + _EVENT.size <= len(data):
            _, mask, _, length = _EVENT.unpack_from(data, position)
            again |= bool(mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED))
            position += _EVENT.size + length
        if again and self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._rewatch)
        self._look()

    def _rewatch(self) -> None:
        self._retry = None
        self._watch_folder()

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            if stamp is not None:
                self._changed()


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
