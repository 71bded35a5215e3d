"""How full the pinned maps of a node are.

In:        the folder of a node's pins.
Out:       per map its entries and its size, for status reports; nothing is changed.
Elsewhere: datapath.py owns the maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bpf import maps
from bpf.handles import Map
from bpf.libbpf import BpfError

_UNCOUNTED: Final = frozenset({2, 3, 4, 6, 12, 27})
"""Types that have all their entries from the beginning, or none to read: arrays of all sorts and the ring buffer."""
_EVICTING: Final = frozenset({9, 10})
"""Types that are least-recently-used."""
_COUNTED: Final = {
    maps.CT4_TCP: 0,
    maps.CT4_ANY: 1,
    maps.CT6_TCP: 2,
    maps.CT6_ANY: 3,
    maps.NAT4: 4,
    maps.NAT6: 5,
    maps.LB4_AFFINITY: 12,
    maps.LB6_AFFINITY: 13,
    maps.FRAGMENTS: 14,
}
"""As in enum counted_map of include/layouts.h."""
_REMOVED: Final = 6
"""So much behind stands what user space has removed."""


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
    evicted: int | None = None
    """How many it has; None for maps in which nobody counts."""


def census(pin_dir: Path) -> list[MapUse]:
    """All maps below `pin_dir`, by name. Raises: BpfError when they cannot be opened, as by who is not root."""
    found = []
    thrown_out = evictions(pin_dir)
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
        found.append(MapUse(path.name, table.max_entries, entries, table.type in _EVICTING, thrown_out.get(path.name)))
    return found


def evictions(pin_dir: Path) -> dict[str, int]:
    """Entries that full maps had to give up, by map: made, not removed, and not there.

    What they count meanwhile is off by what happens meanwhile. Empty when nobody counts there.
    """
    if not (pin_dir / maps.INSERTS).exists():
        return {}
    inserts = Map.pinned(pin_dir / maps.INSERTS)
    try:
        found = {}
        for name, index in _COUNTED.items():
            if index + _REMOVED >= inserts.max_entries:
                continue  # made by an earlier version, which counted less
            made, removed = _total(inserts, index), _total(inserts, index + _REMOVED)
            table = Map.pinned(pin_dir / name)
            try:
                found[name] = max(0, made - removed - table.count())
            finally:
                table.close()
        return found
    finally:
        inserts.close()


def note_removed(inserts: Map, name: str, count: int) -> None:
    """Say that `count` entries of a map have not been thrown out but were removed."""
    key = (_COUNTED[name] + _REMOVED).to_bytes(4, "little")
    found = inserts.lookup(key)
    if found is None:
        return
    per_cpu = np.frombuffer(found, "<u8").copy()
    per_cpu[0] += count
    inserts.update(key, per_cpu.tobytes())


def _total(inserts: Map, index: int) -> int:
    return int(np.frombuffer(inserts.lookup(index.to_bytes(4, "little")) or b"", "<u8").sum())
