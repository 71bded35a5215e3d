"""Hearing from the kernel that files were written.

In:        paths of files.
Out:       a call on the loop for each burst of changes.
Elsewhere: store.py watches its bell, mesh/envoy the records of requests. Source: inotify(7).
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.failure import Failure

MODIFIED: Final = 0x2
MOVED_HERE: Final = 0x80
"""Of a folder: a file has got a name in it."""
CLOSED_AFTER_WRITING: Final = 0x8

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Belongs to the running loop."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Raises: Failure."""
        self._changed = changed
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise Failure(f"inotify: {os.strerror(ctypes.get_errno())}; raise fs.inotify.max_user_instances")
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._drain)

    def watch(self, path: Path, mask: int) -> None:
        """Raises: Failure."""
        if _libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask) < 0:
            raise Failure(f"cannot watch {path}: {os.strerror(ctypes.get_errno())}; raise fs.inotify.max_user_watches")

    def close(self) -> None:
        """Watch no more."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _drain(self) -> None:
        try:
            while os.read(self._descriptor, 65536):
                pass
        except BlockingIOError:
            pass
        self._changed()
