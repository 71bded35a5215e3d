"""Which stored and coming rows a request asks for: where reading starts, what is sent, where it ends.

In:        a ring and the number/first/follow/since/until of a request, with its filter as a function on rows.
Out:       selected rows, batch by batch, and when to stop.
Elsewhere: ring.py stores; service.py waits, encodes and sends; the filters come from model/filters.
Source:    API reference 2.2: the rules of Hubble 1.19's GetFlows, GetAgentEvents and GetDebugEvents. Its artefacts (the
           newest event unreadable until the next one is written, a stalled follow on an empty ring) are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from model.ring import Cursor, Ring
from model.row import Kind, Rows
from model.whole_rows import take

Mask = npt.NDArray[np.bool_]
Matches = Callable[[Rows], Mask]
"""Which rows pass a request's filters. What it says about lost-events rows is ignored: they always pass."""

SCAN_CHUNKS: Final = (1024, 8192)
"""Rows per step of the backward walk: the first step, and all others. `--last 20` is mostly answered by the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of a request that has to do with time and count."""

    number: int = 0
    """0: no limit."""
    first: bool = False
    follow: bool = False
    since_ns: int | None = None
    """Inclusive, ns since the epoch."""
    until_ns: int | None = None
    """Inclusive."""


@dataclass(frozen=True, slots=True)
class Selected:
    """One step of a Selection."""

    missed: int
    """Events that were overwritten before this reader got to them; they come before `rows`."""
    rows: Rows
    """To be sent, in order. May be a view of the ring: use it before the ring is written again."""
    ended: bool
    """Nothing comes after `rows`. Otherwise wait for new rows before the next step, unless `Selection.behind`."""


class Selection:
    """One request's way through the ring. Call `seek` to its end once, then `step` until it says `ended`."""

    def __init__(
        self, ring: Ring, window: Window, matches: Matches | None = None, kind: Kind = Kind.FLOW, send_lost: bool = True
    ) -> None:
        """
        matches    None: everything passes.
        kind       the kind of rows to send; others count in the backward walk but are not sent.
        send_lost  whether lost-events rows are sent too, each at its place.
        """
        self._ring = ring
        self._window = window
        self._matches = matches
        self._kind = kind
        self._send_lost = send_lost
        self._sent = 0
        # A follower without filters is the most common reader; it gets flows without looking at them.
        limited = window.number and not window.follow
        bounded = window.since_ns is not None or window.until_ns is not None
        self._takes_all = kind == Kind.FLOW and matches is None and not limited and not bounded
        self._cursor: Cursor | None = None
        # What is written after the request began belongs to followers only; so a request always ends.
        self._stop = None if window.follow else ring.head

    def seek(self) -> Iterator[None]:
        """Find the start. Yields between chunks, so that the caller can let others run during a long walk."""
        window, ring = self._window, self._ring
        start = ring.tail
        if window.since_ns is None and window.first:
            pass
        elif window.since_ns is None and window.follow and window.number == 0:
            start = max(ring.head - 1, ring.tail)
        elif window.since_ns is not None:
            start = yield from self._walk(self._before_since, 1, just_after=True)
        elif 0 < window.number < len(ring):
            start = yield from self._walk(self._counted, window.number, just_after=False)
        self._cursor = ring.cursor(start)

    def step(self, limit: int) -> Selected:
        """Look at the next rows, at most `limit`, and select from them."""
        assert self._cursor is not None, "seek first"
        piece = self._cursor.read(limit, self._stop)
        rows, ended = self._select(piece.rows)
        missed = piece.missed if self._send_lost else 0
        return Selected(missed, rows, ended or (self._stop is not None and not self.behind))

    @property
    def behind(self) -> bool:
        """There is something to look at now."""
        assert self._cursor is not None, "seek first"
        return self._cursor.position < (self._ring.head if self._stop is None else self._stop)

    def _select(self, rows: Rows) -> tuple[Rows, bool]:
        window = self._window
        if len(rows) == 0:
            return rows, False
        if self._takes_all and not rows["kind"].any():
            return rows, False
        ended = False
        lost = rows["kind"] == Kind.LOST
        if window.until_ns is not None:
            beyond = np.flatnonzero((rows["ts_ns"] > window.until_ns) & ~lost)
            if len(beyond):
                rows, lost, ended = rows[: beyond[0]], lost[: beyond[0]], True
        send = rows["kind"] == self._kind
        if window.since_ns is not None:
            send &= rows["ts_ns"] >= window.since_ns
        if self._matches is not None and len(rows):
            send &= self._matches(rows)
        if window.number and not window.follow:
            # Only rows of the asked kind count; the last of them ends the stream, before any lost events behind it.
            wanted = np.flatnonzero(send)
            left = window.number - self._sent
            if len(wanted) >= left:
                cut = int(wanted[left - 1]) + 1
                rows, lost, send, ended = rows[:cut], lost[:cut], send[:cut], True
            self._sent += min(len(wanted), left)
        if self._send_lost:
            send |= lost
        return (rows if send.all() else take(rows, send)), ended

    def _walk(self, hits: Matches, number: int, just_after: bool) -> Generator[None, None, int]:
        """Position of the `number`-th row from the end that `hits`; the oldest stored row when there are fewer."""
        for start, rows in self._ring.backwards(*SCAN_CHUNKS):
            found = np.flatnonzero(hits(rows))
            if len(found) >= number:
                return start + int(found[len(found) - number]) + just_after
            number -= len(found)
            yield
        return self._ring.tail

    def _counted(self, rows: Rows) -> Mask:
        """What the backward walk counts: every kind but lost events, when it passes the filters."""
        counted: Mask = rows["kind"] != Kind.LOST
        return counted if self._matches is None else counted & self._matches(rows)

    def _before_since(self, rows: Rows) -> Mask:
        early: Mask = rows["ts_ns"] < self._window.since_ns
        if not early.any():
            return early
        return early & self._counted(rows)
