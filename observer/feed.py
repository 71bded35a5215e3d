"""The bounded queue between the reader thread and the loop.

In:        items, offered by the reader thread (and by nobody else).
Out:       the same items to the loop, in order; where the loop was too slow, a QueueLoss with the exact count.
Elsewhere: pipeline.py reads and decodes; recording.py names the items.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from model.events import EventBatch
from observer.recording import Item, JsonRecords

ITEM_COST: Final = 64
"""What an item counts against the limit beside its events, so that a flood of empty ones is bounded too."""


@dataclass(frozen=True, slots=True)
class QueueLoss:
    """The queue was full: `events` of the reader's events were dropped in this place."""

    events: int
    first_ns: int
    last_ns: int
    perf: tuple[tuple[int, int], ...] = ()
    """(cpu, events): losses of the perf rings that dropped batches told of."""


Fed = Item | QueueLoss


class Feed:
    """Holds at most `limit` events. `ready` is called, from the reader thread, when an empty feed gets an item."""

    def __init__(self, limit: int, ready: Callable[[], None]) -> None:
        self.dropped = 0
        """Events dropped here since the start."""
        self._limit = limit
        self._ready = ready
        self._items: deque[tuple[Fed, int]] = deque()
        self._room = threading.Condition()
        self._held = 0
        self._lost = 0
        self._lost_perf: Counter[int] = Counter()
        self._first_ns = self._last_ns = 0

    def offer(self, item: Item) -> None:
        """Queue `item`, or count its events as lost when there is no room."""
        cost = _cost(item)
        with self._room:
            if self._items and self._held + cost > self._limit:
                self._drop(item)
                return
            self._report_loss()
            self._put(item, cost)

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until half of the queue is free. For sources that can wait, such as files."""
        with self._room:
            return self._room.wait_for(lambda: self._held <= self._limit // 2, timeout_s)

    def settle(self) -> None:
        """Nothing new came: report a pending loss now if there is room, so that it is not the last to be known."""
        if self._lost or self._lost_perf:
            with self._room:
                if self._held < self._limit:
                    self._report_loss()

    def take(self, events: int) -> list[Fed]:
        """Items worth about `events` events, at least one if there is one. Called by the loop."""
        taken: list[Fed] = []
        with self._room:
            while self._items and events > 0:
                item, cost = self._items.popleft()
                self._held -= cost
                events -= cost
                taken.append(item)
            if taken:
                self._room.notify()
        return taken

    def __bool__(self) -> bool:
        return bool(self._items)

    def _put(self, item: Fed, cost: int) -> None:
        self._items.append((item, cost))
        self._held += cost
        if len(self._items) == 1:
            self._ready()

    def _drop(self, item: Item) -> None:
        now = time.time_ns()
        self._first_ns = self._first_ns or now
        self._last_ns = now
        if isinstance(item, EventBatch):
            self._lost += len(item)
            self.dropped += len(item)
            for one in item.lost:
                self._lost_perf[one.cpu] += one.count
        elif isinstance(item, JsonRecords):
            self._lost += len(item.lines)
            self.dropped += len(item.lines)

    def _report_loss(self) -> None:
        if self._lost or self._lost_perf:
            perf = tuple(sorted(self._lost_perf.items()))
            self._put(QueueLoss(self._lost, self._first_ns, self._last_ns, perf), ITEM_COST)
            self._lost = self._first_ns = self._last_ns = 0
            self._lost_perf.clear()


def _cost(item: Item) -> int:
    match item:
        case EventBatch():
            return ITEM_COST + len(item)
        case JsonRecords():
            return ITEM_COST + len(item.lines)
        case _:
            return ITEM_COST
