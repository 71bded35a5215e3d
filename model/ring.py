"""Bounded in-memory history of one node's flows.

In:        decoded rows, from exactly one writer.
Out:       cursors for any number of readers; a reader that was overtaken learns exactly how many events it missed.
Elsewhere: observer/window.py turns a request into a start, an end and a selection; services encode and send.

A position is the number of a row since the ring began; a node's ring makes it the row's `seq`. Rows live at
position % capacity. Nothing here waits, locks or looks at a clock: one thread owns the ring.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from model.row import ROW, Kind, Rows
from model.tables import Tables
from model.whole_rows import put
from proto.flow import flow_pb2

DEFAULT_CAPACITY: Final = 65_535
LARGEST_CAPACITY: Final = 2**20 - 1

COMPACT_SLACK: Final = 16_384
"""Values that the tables may hold beyond one and a half of what the last compaction left, before the next one. A
compaction looks at every stored row (4 ms for 65,535), so it must be rare; a value may be 400 bytes of L7 details."""
COMPACT_LOOK: Final = 1024
"""Rows between two looks at how large the tables have become."""


class InvalidCapacity(ValueError):
    """A capacity that is not 2**k - 1."""


def check_capacity(capacity: int) -> int:
    """`capacity` when it is one of 1, 3, 7, ..., 2**20 - 1.

    Raises: InvalidCapacity.
    Source: Hubble accepts 2**k - 1 up to 65,535; we go on to 1,048,575.
    """
    if not 1 <= capacity <= LARGEST_CAPACITY or capacity & (capacity + 1):
        raise InvalidCapacity(
            f"ring capacity must be one less than a power of two, from 1 to {LARGEST_CAPACITY}, got {capacity}"
        )
    return capacity


@dataclass(frozen=True, slots=True)
class Piece:
    """What a cursor got."""

    missed: int
    """Events overwritten before this cursor reached them; they come before `rows`. A lost-events row that was
    overwritten counts for as many events as it told of."""
    start: int
    """Position of the first row."""
    rows: Rows
    """A view of the ring: valid until the next append or compaction. Empty at the end of what is stored."""


class Ring:
    """Rows and the tables they point into."""

    def __init__(
        self, capacity: int = DEFAULT_CAPACITY, tables: Tables | None = None, *, numbers_rows: bool = True
    ) -> None:
        """`numbers_rows`: whether a stored row's `seq` becomes its position; rows of many nodes keep their own."""
        self.capacity = check_capacity(capacity)
        self._numbers_rows = numbers_rows
        self.tables = Tables() if tables is None else tables
        self.head = 0
        """Position of the next row to be written; rows ever written."""
        self.flows_seen = 0
        """Rows of Kind.FLOW ever written."""
        self.before_compaction: list[Callable[[], None]] = []
        """Called before indices change their meaning, for owners of state that is kept by index."""
        self.after_compaction: list[Callable[[], None]] = []
        self._store = np.zeros(self.capacity, ROW)
        self._lost = _LostRows()
        self._compact_at = COMPACT_SLACK
        self._look_at = 0

    def __len__(self) -> int:
        return min(self.head, self.capacity)

    @property
    def tail(self) -> int:
        """Position of the oldest stored row."""
        return self.head - len(self)

    def append(self, rows: Rows) -> None:
        """Store rows, oldest first, numbering them; they overwrite the oldest."""
        count = len(rows)
        if count == 0:
            return
        self.flows_seen += count
        if rows["kind"].any():
            special = np.flatnonzero(rows["kind"])
            self._note_lost(rows, special)
            self.flows_seen -= len(special)
        kept = rows[-self.capacity :]
        self.head += count
        start = self.head - len(kept)
        place = start % self.capacity
        first = min(len(kept), self.capacity - place)
        self._put(place, start, kept[:first])
        if first < len(kept):
            self._put(0, start + first, kept[first:])
        self._lost.forget_before(self.tail)
        if self.head >= self._look_at:
            self._look_at = self.head + min(COMPACT_LOOK, self.capacity)
            if self.tables.size() > self._compact_at:
                self.compact()

    def compact(self) -> None:
        """Let go of table values that no stored row points at. Positions stay; table indices change."""
        for call in self.before_compaction:
            call()
        self.tables.compact([self._store[: len(self)]])
        self._compact_at = self.tables.size() * 3 // 2 + COMPACT_SLACK
        for call in self.after_compaction:
            call()

    def slice(self, start: int, stop: int) -> Rows:
        """Rows from `start` up to at most `stop` that lie side by side in memory: a view, perhaps shorter.

        Both must lie within [tail, head].
        """
        place = start % self.capacity
        return self._store[place : place + min(stop - start, self.capacity - place)]

    def backwards(self, chunk: int, later_chunks: int) -> Iterator[tuple[int, Rows]]:
        """(position of the first row, rows) from newest to oldest in chunks; each chunk is in order.

        The ring may be written between two steps: the walk then ends where overwriting has come to.
        """
        stop = self.head
        while stop > self.tail:
            start = max(stop - chunk, self.tail)
            lap = (stop - 1) // self.capacity * self.capacity
            start = max(start, lap)  # side by side in memory
            yield start, self.slice(start, stop)
            stop, chunk = start, later_chunks

    def cursor(self, position: int | None = None) -> Cursor:
        """A reader that starts at `position` (default: behind the newest row)."""
        return Cursor(self, self.head if position is None else position)

    def _put(self, place: int, position: int, rows: Rows) -> None:
        target = self._store[place : place + len(rows)]
        put(target, slice(None), rows)
        if self._numbers_rows:
            target["seq"] = np.arange(position, position + len(rows), dtype=np.uint64)

    def _note_lost(self, rows: Rows, special: np.ndarray) -> None:
        lost = special[rows["kind"][special] == Kind.LOST]
        for index in lost.tolist():
            event = flow_pb2.LostEvent.FromString(self.tables.aux[int(rows["aux"][index])] or b"")
            self._lost.add(self.head + index, event.num_events_lost)

    def _told_before(self, position: int) -> int:
        return self._lost.told_before(position)


class Cursor:
    """One reader's place in a ring."""

    __slots__ = ("_ring", "_told", "position")

    def __init__(self, ring: Ring, position: int) -> None:
        self._ring = ring
        self.position = max(position, ring.tail)
        self._told = ring._told_before(self.position)

    def read(self, limit: int, stop: int | None = None) -> Piece:
        """At most `limit` rows and none at or behind position `stop`; moves on behind them."""
        ring = self._ring
        end = ring.head if stop is None else min(stop, ring.head)
        missed = 0
        if self.position < ring.tail:
            reached = min(ring.tail, end)
            told = ring._told_before(ring.tail)
            missed = reached - self.position + (told - self._told)
            self.position, self._told = reached, told
        start = self.position
        rows = ring.slice(start, min(end, start + limit)) if start < end else ring.slice(0, 0)
        self.position += len(rows)
        if len(rows):
            self._told = ring._told_before(self.position)
        return Piece(missed, start, rows)


class _LostRows:
    """How many events the lost-events rows up to a position told of, beyond one each.

    A lost-events row takes one position and stands for many events. Keeping the sums lets a reader that missed such
    rows still report a total that adds up to what the kernel emitted.
    """

    __slots__ = ("_positions", "_sums")

    def __init__(self) -> None:
        self._positions: list[int] = []
        self._sums: list[int] = [0]
        """_sums[i]: told by all rows before _positions[i]; one longer than _positions."""

    def add(self, position: int, events: int) -> None:
        self._positions.append(position)
        self._sums.append(self._sums[-1] + events - 1)

    def told_before(self, position: int) -> int:
        positions = self._positions
        if not positions or positions[-1] < position:
            return self._sums[-1]
        return self._sums[bisect_left(positions, position)]

    def forget_before(self, position: int) -> None:
        # Halving keeps this cheap on average; questions are only asked about positions that are still stored.
        half = len(self._positions) // 2
        if half > 512 and self._positions[half] < position:
            del self._positions[:half]
            del self._sums[:half]
