"""How many records are lost without the observer knowing: a small file that is right even when its writer is killed.

In:        a number, whenever it changes.
Out:       the same number, for the next agent.
Elsewhere: carrier.py carries records; where a ring was read to stands in the ring itself.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

_FORM: Final = struct.Struct("<Q")


class ProgressFile:
    """One writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._written = 0

    def open(self) -> int:
        """What the last writer has left; 0 when there was none. Raises: OSError."""
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = os.pread(self._descriptor, _FORM.size, 0)
        self._written = _FORM.unpack(found)[0] if len(found) == _FORM.size else 0
        return self._written

    def write(self, untold: int) -> None:
        """Remember this. Whoever kills us kills us before or after it. Raises: OSError."""
        if untold != self._written:
            os.pwrite(self._descriptor, _FORM.pack(untold), 0)
            self._written = untold

    def close(self) -> None:
        """Remember no more."""
        os.close(self._descriptor)
