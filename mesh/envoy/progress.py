"""How far Envoy's records were read: a small file that is right even when its writer is killed.

In:        numbers, after each datagram that was sent.
Out:       the same numbers, for the next agent.
Elsewhere: spool.py reads the records.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Final

_FORM: Final = struct.Struct("<QQqqQQ")


@dataclass(slots=True)
class Progress:
    """Where a reader is."""

    inode: int = 0
    """Of the file that is read."""
    offset: int = 0
    lines: int = 0
    """Records read or lost, ever."""
    mark: int = 0
    """Of these, those before the first one that the running Envoy has counted."""
    process: int = 0
    """The Envoy that counts, told from others by when it started; 0: it is only just starting."""
    untold: int = 0
    """Records that were lost, and of which the observer has not heard."""


_VALUES: Final = attrgetter(*(one.name for one in fields(Progress)))


class ProgressFile:
    """One writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._written = b""

    def open(self) -> Progress:
        """What the last writer has left; zeros when there was none. Raises: OSError."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = os.pread(self._descriptor, _FORM.size, 0)
        return Progress(*_FORM.unpack(found)) if len(found) == _FORM.size else Progress()

    def write(self, progress: Progress) -> None:
        """Remember this. Whoever kills us kills us before or after it. Raises: OSError."""
        data = _FORM.pack(*_VALUES(progress))
        if data != self._written:
            os.pwrite(self._descriptor, data, 0)
            self._written = data

    def close(self) -> None:
        """Remember no more."""
        os.close(self._descriptor)
