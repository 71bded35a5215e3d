"""The merge by time, as a value: items of several sources go in, sorted items come out.

In:        arrays of items, each with a `ts_ns` (rows of model/row.py, or messages of wire.py), per source.
Out:       items no older than those that came out before; what comes too late is let through, counted and marked.
Elsewhere: collect.py reads the sources and decides how long to wait for a silent one.

A source delivers in order of time, but for a small disorder. So the newest time seen from it tells what it has still
to say, and the oldest such time over all sources is the bound up to which everything is known. The original keeps a
heap of 100 flows and lets the oldest out when it is full, whatever is still to come: at full speed every twentieth flow
comes out of order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Items = npt.NDArray[np.void]

NEVER: Final = -(2**63)
FOREVER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Released:
    """Items in order of time."""

    items: Items
    late: int
    """How many, at the front, are older than something released before."""


class Merge:
    """Pending items of all sources. Pure: no clock, no waiting."""

    def __init__(self, dtype: np.dtype[Any], disorder_ns: int = 0) -> None:
        """`disorder_ns`: an item of a source may be this much older than one that came before it."""
        self._none: Items = np.zeros(0, dtype)
        self._disorder_ns = disorder_ns
        self._pending: dict[int, Items] = {}
        self._progress: dict[int, int] = {}
        self._next = 0
        self._last_ns = NEVER
        self.late = 0
        """Items released after newer ones, ever."""

    def add(self) -> int:
        """A new source, of which nothing is known; returns its handle."""
        source = self._next
        self._next += 1
        self._progress[source] = NEVER
        return source

    def push(self, source: int, items: Items) -> None:
        """What a source delivered next."""
        if not len(items):
            return
        times = items["ts_ns"]
        newest = int(times.max())
        if (times[1:] < times[:-1]).any():
            items = items[np.argsort(times, kind="stable")]
        pending = self._pending.get(source)
        if pending is not None:
            in_order = pending["ts_ns"][-1] <= items["ts_ns"][0]
            items = np.concatenate((pending, items))
            if not in_order:
                items = items[np.argsort(items["ts_ns"], kind="stable")]
        self._pending[source] = items
        if source in self._progress:
            self.promise(source, newest - self._disorder_ns)

    def promise(self, source: int, ts_ns: int) -> None:
        """The source has delivered everything older than `ts_ns`, or we shall not wait for it."""
        if ts_ns > self._progress[source]:
            self._progress[source] = ts_ns

    def end(self, source: int) -> None:
        """The source delivers nothing more; what is pending stays."""
        self._progress.pop(source, None)

    def pending(self, source: int) -> int:
        """Items of a source that wait."""
        return len(self._pending.get(source, ()))

    def size(self) -> int:
        """Items that wait, of all sources."""
        return sum(map(len, self._pending.values()))

    def bound(self) -> int:
        """Up to this time everything is known; FOREVER when no source is left."""
        return min(self._progress.values(), default=FOREVER)

    def progress(self, source: int) -> int:
        """Up to this time a source has delivered."""
        return self._progress[source]

    def oldest(self) -> int:
        """The time of the oldest item that waits; FOREVER when none does."""
        return min((int(items["ts_ns"][0]) for items in self._pending.values()), default=FOREVER)

    def release(self, bound: int) -> Released:
        """Items up to and including `bound`, sorted; equal times in the order of the sources."""
        parts = []
        for source, items in list(self._pending.items()):
            if items["ts_ns"][0] > bound:
                continue
            count = int(np.searchsorted(items["ts_ns"], bound, side="right"))
            parts.append(items[:count])
            if count == len(items):
                del self._pending[source]
            else:
                self._pending[source] = items[count:]
        if not parts:
            return Released(self._none, 0)
        items = parts[0]
        if len(parts) > 1:
            items = np.concatenate(parts)
            items = items[np.argsort(items["ts_ns"], kind="stable")]
        late = int(np.searchsorted(items["ts_ns"], self._last_ns, side="left"))
        self.late += late
        self._last_ns = max(self._last_ns, int(items["ts_ns"][-1]))
        return Released(items, late)

    def live(self) -> list[Items]:
        """The arrays that wait, for whoever renumbers what they point at (model.tables.Tables.compact)."""
        for source, items in self._pending.items():
            # A slice of a released array: detach it, so that it alone is renumbered (and the rest is freed).
            self._pending[source] = items.copy()
        return list(self._pending.values())
