"""The kernel's events and the proxies' records of one moment, in order of time.

In:        event batches and parsed records of proxies, as they arrive.
Out:       both up to some moment, when it is so long ago that nothing else of it will come.
Elsewhere: pipeline.py decodes and stores what comes out; it asks again when `wait_s` is over.

A proxy writes records down and sends many together, so they come some milliseconds after the packets that made them. A
person reads request and packets as one story. So while packets go to proxies, events wait for the records; where there
is no proxy, nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from model.decode.lines import Lines
from model.events import EventBatch
from model.layouts import MessageType, TracePoint
from model.text.times import parse_rfc3339
from observer.batches import part

HOLD_NS: Final = 50_000_000
"""How long everything waits: 20 ms for Envoy's records, the kernel's 20 ms, and the load of a busy machine."""
KEEP_NS: Final = 2_000_000_000
"""Events wait for so long after the last packet that went to a proxy."""
CREDIBLE_NS: Final = 10_000_000_000
"""A record whose own time is further from its arrival is of the time of its arrival."""
MOST_EVENTS: Final = 50_000
"""With more of them waiting, nothing waits."""

_FOREVER: Final = 2**63 - 1

Record = tuple[int, Mapping[str, Any]]
"""When it happened, and what."""
Told = tuple[npt.NDArray[np.int64], Lines]
"""When they happened, and what."""


class Due(NamedTuple):
    """What has waited long enough."""

    batches: list[EventBatch]
    records: list[Record]
    """In order of time."""
    lines: list[Told]
    """Each in order of its arrival."""


class Order:
    """Belongs to the pipeline. `clock` tells nanoseconds since the epoch."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._until_ns = 0
        self._batches: list[EventBatch] = []
        self._records: list[Record] = []
        self._lines: list[Told] = []
        self._events = 0

    @property
    def is_holding(self) -> bool:
        """Whether there are events that wait, or would wait if they came now."""
        return bool(self._batches) or self._clock() < self._until_ns

    def holds(self, batch: EventBatch) -> bool:
        """Take a batch, if it has to wait. Batches that come while others wait do too."""
        if _goes_to_proxy(batch):
            self._until_ns = self._clock() + KEEP_NS
        if not self.is_holding:
            return False
        self._batches.append(batch)
        self._events += len(batch)
        return True

    def add(self, records: Sequence[Mapping[str, Any]], arrived_ns: int) -> None:
        """Take records; they wait as well."""
        self._records += [(_time(one, arrived_ns), one) for one in records]

    def add_lines(self, lines: Lines, arrived_ns: int) -> None:
        """Take what our own Envoy tells; it waits as well."""
        age_ns = arrived_ns - lines.times_ns
        credible = (age_ns >= 0) & (age_ns < CREDIBLE_NS)
        self._lines.append((np.where(credible, lines.times_ns, arrived_ns), lines))

    def wait_s(self) -> float | None:
        """When to ask for what is due; None: there is nothing."""
        if not (self._batches or self._records or self._lines):
            return None
        return HOLD_NS / 1e9 / 2

    def due(self, everything: bool = False) -> Due:
        """What happened long enough ago; everything also when too much waits."""
        everything = everything or self._events > MOST_EVENTS
        cut_ns = _FOREVER if everything else self._clock() - HOLD_NS
        batches: list[EventBatch] = []
        rest: list[EventBatch] = []
        for batch in self._batches:
            at = int(np.searchsorted(batch.times_ns, cut_ns, "right"))
            # Without events it tells of lost ones, which need not wait.
            if at or not len(batch):
                batches.append(part(batch, 0, at))
            if at < len(batch):
                rest.append(part(batch, at, len(batch)))
        records = [one for one in self._records if one[0] <= cut_ns]
        self._records = [one for one in self._records if one[0] > cut_ns]
        self._batches = rest
        self._events = sum(map(len, rest))
        return Due(batches, sorted(records, key=lambda one: one[0]), self._due_lines(cut_ns))

    def _due_lines(self, cut_ns: int) -> list[Told]:
        due: list[Told] = []
        waiting: list[Told] = []
        for times_ns, lines in self._lines:
            old = times_ns <= cut_ns
            for chosen, told in ((old, due), (~old, waiting)):
                if chosen.all():
                    told.append((times_ns, lines))
                elif chosen.any():
                    told.append((times_ns[chosen], lines.take(np.flatnonzero(chosen))))
        self._lines = waiting
        return due


def _goes_to_proxy(batch: EventBatch) -> bool:
    at = batch.offsets[batch.lengths > 1]
    return bool(np.any((batch.data[at] == MessageType.TRACE) & (batch.data[at + 1] == TracePoint.TO_PROXY)))


def _time(record: Mapping[str, Any], arrived_ns: int) -> int:
    try:
        seconds, nanos = parse_rfc3339(record.get("timestamp") or "")
    except (TypeError, ValueError, AttributeError):
        return arrived_ns
    told_ns = seconds * 1_000_000_000 + nanos
    return told_ns if 0 <= arrived_ns - told_ns < CREDIBLE_NS else arrived_ns
