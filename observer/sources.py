"""Where events come from: the kernel's perf rings, or a recording.

In:        perf rings (kernel.py), or a file in the form of recording.py.
Out:       items, to whoever owns the source.
Elsewhere: pipeline.py owns it and decides when to take; recorder.py writes what was taken to a file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import numpy as np
import structlog

from model.events import EventBatch
from observer.recording import Gap, Hello, Item, JsonRecords, NotARecording, Recording, State
from service.failure import Failure

log = structlog.get_logger(component="source")

TURN_EVENTS: Final = 16_384
"""Events taken at once before the reader may look up: a recording can lag behind by any number."""
LATE_S: Final = 0.1
"""An event whose time passed longer ago was not waited for: it is of the part of a lap that we came too late for."""
TURN_ITEMS: Final = 64


class Source(Protocol):
    """Delivers items to its one owner, a thread or the loop."""

    patient: bool
    """Can wait for a full queue; the kernel cannot."""
    ended: bool
    """Nothing more will come."""

    def take(self) -> list[Item]:
        """What is there now; does not wait."""

    def wait(self, timeout_s: float) -> None:
        """Until more is there than should be left waiting, or the time is over."""

    def close(self) -> None:
        """Let go of what the source holds."""


class Replay:
    """A recording, at its own pace, faster, or as fast as it can be taken."""

    def __init__(
        self,
        path: str,
        *,
        speed: float = 1.0,
        loops: int = 1,
        original_times: bool = False,
        period_s: float = 0.0,
    ) -> None:
        """
        speed           1: as recorded; 10: ten times as fast; 0: as fast as possible.
        loops           how often to play it; 0: again and again.
        original_times  keep the recorded times instead of telling the present ones.
        period_s        seconds from lap to lap, at speed 1; recorded and present times then differ by a multiple of
                        it, so that recordings made at one time stay in step, whenever each replay was started.
        Raises: Failure when the file cannot be read or is no recording, or a number makes no sense.
        """
        if speed < 0 or loops < 0 or period_s < 0:
            raise Failure(f"replay speed, loops and period cannot be negative, got {speed:g}, {loops}, {period_s:g}")
        if period_s and speed != 1:
            raise Failure(f"a replay period needs replay speed 1, got {speed:g}")
        self.patient = speed == 0
        self.ended = False
        self._path = Path(path)
        self._speed = speed
        self._loops_left = loops or -1
        self._original_times = original_times
        self._file, self._recording = self._open()
        self._items: Iterator[Item] = iter(self._recording)
        self._next: Item | None = None
        self._clock = _Clock(speed, int(period_s * 1e9))
        self._joining = bool(period_s)
        """Still among events that happened in this lap before we came."""
        self._events = 0

    def preview(self) -> tuple[Hello | None, State | None]:
        """The node and the first state that the recording tells of; read from the file, without disturbing it."""
        hello: Hello | None = None
        file, recording = self._open()
        with file:
            for item in recording:
                if isinstance(item, Hello):
                    hello = hello or item
                elif isinstance(item, State):
                    return hello, item
                elif isinstance(item, EventBatch | JsonRecords):
                    break
        return hello, None

    def take(self) -> list[Item]:
        """The items that are due."""
        taken: list[Item] = []
        events = 0
        while len(taken) < TURN_ITEMS and events < TURN_EVENTS and not self.ended:
            if self._next is None:
                self._next = next(self._items, None)
                if self._next is None:
                    self._finish_lap()
                    break
            span = _span(self._next)
            wait_s = self._clock.wait_s(span)
            if wait_s > 0:
                break
            item, self._next = self._next, None
            if isinstance(item, EventBatch):
                events += len(item)
                self._events += len(item)
            if self._joining and span is not None:
                if wait_s < -LATE_S:
                    continue
                self._joining = False
            taken.append(item if self._original_times else self._clock.retimed(item))
        return taken

    def wait(self, timeout_s: float) -> None:
        """Until the next item is due, or the time is over."""
        if self._next is not None and not self.ended:
            time.sleep(max(0.0, min(timeout_s, self._clock.wait_s(_span(self._next)))))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> tuple[BinaryIO, Recording]:
        try:
            file = self._path.open("rb")
        except OSError as error:
            raise Failure(f"cannot replay {self._path}: {error.strerror}") from error
        try:
            return file, Recording(file)
        except NotARecording as error:
            file.close()
            raise Failure(f"cannot replay {self._path}: {error}; make one with --record") from error
        except OSError as error:
            file.close()
            raise Failure(f"cannot replay {self._path}: {error.strerror}") from error

    def _finish_lap(self) -> None:
        if self._recording.cut is not None:
            log.warning("recording ends early", file=str(self._path), where=self._recording.cut, events=self._events)
        self._loops_left -= 1
        # A recording without events would make an endless loop spin.
        if self._loops_left == 0 or not self._events:
            self.ended = True
            return
        self._file.close()
        self._file, self._recording = self._open()
        self._items = iter(self._recording)
        self._clock = self._clock.next_lap()


class _Clock:
    """Maps recorded times to present ones. Starts with the first item that has a time."""

    def __init__(self, speed: float, period_ns: int = 0, begins_ns: int = 0) -> None:
        """begins_ns: when the first item is to happen; 0: now, or where a replay with a period is by now."""
        self._speed = speed
        self._period_ns = period_ns
        self._begins_ns = begins_ns
        self._recorded_ns: int | None = None
        self._present_ns = 0

    def next_lap(self) -> _Clock:
        """A clock for playing it once more: at once, or one period after this lap."""
        return _Clock(self._speed, self._period_ns, self._present_ns + self._period_ns if self._period_ns else 0)

    def wait_s(self, span: tuple[int, int] | None) -> float:
        """Seconds until an item with these first and last times is due: when its last event has happened."""
        if span is None or self._speed == 0:
            return 0.0
        if self._recorded_ns is None:
            self._recorded_ns, self._present_ns = span[0], self._begin(span[0])
        due_ns = self._present_ns + (span[1] - self._recorded_ns) / self._speed
        return (due_ns - time.time_ns()) / 1e9

    def _begin(self, recorded_ns: int) -> int:
        """When the lap's first item happens."""
        now_ns = time.time_ns()
        into_lap_ns = (now_ns - recorded_ns) % self._period_ns if self._period_ns else 0
        return self._begins_ns or now_ns - into_lap_ns

    def retimed(self, item: Item) -> Item:
        """The same item, as if it happened now."""
        match item:
            case EventBatch():
                lost = tuple(replace(one, time_ns=self._present(one.time_ns)) for one in item.lost)
                return replace(item, times_ns=self._present_all(item.times_ns), lost=lost)
            case JsonRecords() | Gap():
                return replace(item, time_ns=self._present(item.time_ns))
            case _:
                return item

    def _present(self, recorded_ns: int) -> int:
        return int(self._present_all(np.array([recorded_ns], np.int64))[0])

    def _present_all(self, recorded_ns: np.ndarray) -> np.ndarray:
        if self._speed == 0 or self._recorded_ns is None:
            return np.full(len(recorded_ns), time.time_ns(), np.int64)
        past = recorded_ns - self._recorded_ns
        if self._speed != 1:
            past = (past / self._speed).astype(np.int64)
        return self._present_ns + past


def _span(item: Item) -> tuple[int, int] | None:
    """First and last time of an item, ns since the epoch; None when it has none."""
    match item:
        case EventBatch() if len(item):
            return int(item.times_ns[0]), int(item.times_ns[-1])
        case EventBatch() if item.lost:
            return item.lost[0].time_ns, item.lost[-1].time_ns
        case JsonRecords() | Gap():
            return item.time_ns, item.time_ns
        case _:
            return None
