"""How full the pinned maps of a node are.

In:        the folder of a node's pins.
Out:       per map its entries and its size, for status reports; nothing is changed.
Elsewhere: datapath.py owns the maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bpf.loader import BpfError, Map

_UNCOUNTED: Final = frozenset({2, 3, 4, 6, 12, 27})
"""Types that have all their entries from the beginning, or none to read: arrays of all sorts and the ring buffer."""
_EVICTING: Final = frozenset({9, 10})
"""Types that are least-recently-used."""


@dataclass(frozen=True, slots=True)
class MapUse:
    """One pinned map."""

    name: str
    """Of the pin."""
    max_entries: int
    entries: int | None
    """None for maps in which entries do not come and go."""
    evicts: bool = False
    """A full map throws out what was not used for longest."""


def census(pin_dir: Path) -> list[MapUse]:
    """All maps below `pin_dir`, by name. Raises: BpfError when they cannot be opened, as by who is not root."""
    found = []
    for path in sorted(pin_dir.iterdir() if pin_dir.is_dir() else ()):
        if path.is_dir():
            continue  # programs
        table = Map.pinned(path)
        try:
            entries = None if table.type in _UNCOUNTED else table.count()
        except BpfError:
            entries = None  # of a type that this kernel cannot walk
        finally:
            table.close()
        found.append(MapUse(path.name, table.max_entries, entries, table.type in _EVICTING))
    return found
