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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.whole_rows import joined, take

Items = npt.NDArray[np.void]

MOST_RUNS: Final = 32
"""What waits is put together when there are so many arrays of it: not each time something arrives, since much may wait
for one slow source."""

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
        self._disorder_ns = disorder_ns
        self._none: Items = np.zeros(0, dtype)
        self._runs: list[tuple[int, Items]] = []
        """Sorted arrays in order of arrival, each with its first time. Few: see MOST_RUNS."""
        self._seen: dict[int, int] = {}
        """Per source: everything older was delivered, by what it delivered."""
        self._promised: dict[int, int] = {}
        """The same, by promise; forgotten when the source speaks again, since then its own times count."""
        self._next = 0
        self._last_ns = NEVER
        self.late = 0
        """Items released after newer ones, ever."""

    def add(self) -> int:
        """A new source, of which nothing is known; returns its handle."""
        source = self._next
        self._next += 1
        self._seen[source] = self._promised[source] = NEVER
        return source

    def push(self, sources: Sequence[int], counts: Sequence[int], items: Items) -> None:
        """What several sources delivered next: `items` of the first, then those of the second, ...; `counts` of each.

        All at once, because with hundreds of sources each delivers little at a time.
        """
        if not len(items):
            return
        sizes = np.array(counts, np.int64)
        filled = np.flatnonzero(sizes)
        newest = np.maximum.reduceat(items["ts_ns"], (np.cumsum(sizes) - sizes)[filled])
        for index, ts_ns in zip(filled.tolist(), newest.tolist(), strict=True):
            source = sources[index]
            if source in self._seen:
                self._seen[source] = max(self._seen[source], ts_ns - self._disorder_ns)
                self._promised[source] = NEVER
        if len(self._runs) >= MOST_RUNS:
            together = by_time([run for _, run in self._runs])
            self._runs = [(int(together["ts_ns"][0]), together)]
        run = by_time([items])
        self._runs.append((int(run["ts_ns"][0]), run))

    def promise(self, source: int, ts_ns: int) -> None:
        """The source has delivered everything older than `ts_ns`, or we shall not wait for it."""
        if source in self._seen:
            self._promised[source] = max(self._promised[source], ts_ns)

    def end(self, source: int) -> None:
        """The source delivers nothing more; what is pending stays."""
        self._seen.pop(source, None)
        self._promised.pop(source, None)

    def size(self) -> int:
        """Items that wait."""
        return sum(len(run) for _, run in self._runs)

    def bound(self) -> int:
        """Up to this time everything is known; FOREVER when no source is left."""
        return min(map(max, self._seen.values(), self._promised.values()), default=FOREVER)

    def progress(self, source: int) -> int:
        """Up to this time a source has delivered; FOREVER for one that ended."""
        return max(self._seen[source], self._promised[source]) if source in self._seen else FOREVER

    def release(self, bound: int) -> Released:
        """Items up to and including `bound`, sorted; equal times in the order of arrival."""
        parts: list[Items] = []
        left: list[tuple[int, Items]] = []
        for first, run in self._runs:
            if first > bound:
                left.append((first, run))
                continue
            count = int(np.searchsorted(run["ts_ns"], bound, side="right"))
            parts.append(run[:count])
            if count < len(run):
                left.append((int(run["ts_ns"][count]), run[count:]))
        self._runs = left
        if not parts:
            return Released(self._none, 0)
        items = by_time(parts)
        late = int(np.searchsorted(items["ts_ns"], self._last_ns, side="left"))
        self.late += late
        self._last_ns = max(self._last_ns, int(items["ts_ns"][-1]))
        return Released(items, late)

    def pending(self) -> Items:
        """All that waits, in one array of its own, for whoever renumbers what the items point at."""
        if not self._runs:
            return self._none
        together = by_time([run for _, run in self._runs]).copy()
        self._runs = [(int(together["ts_ns"][0]), together)]
        return together


def by_time(parts: Sequence[Items]) -> Items:
    """All items sorted by time; equal times stay in the order of the parts."""
    items = joined(parts)
    times = items["ts_ns"].copy()
    if (times[1:] < times[:-1]).any():
        # A stable sort of integers merges the runs that are sorted already, which is nearly all there is.
        items = take(items, np.argsort(times, kind="stable"))
    return items
