"""Counts by second and by arrow, so that a picture of any span costs what it shows and not what happened.

In:        rows of the ring, each once, through a filter.
Out:       totals of a span of seconds, series of single arrows, a histogram of verdicts.
Elsewhere: cards.py names the ends; facts.py reads layer 7; picture.py words it for a page.

An arrow is (card that opens connections, card that is asked, layer 4 protocol, port of the one that is asked).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from model.ring import Ring
from model.row import L4, Bit, Kind, Reply, Rows, TcpFlag
from model.whole_rows import take
from proto.flow import flow_pb2
from ui.cards import Cards
from ui.facts import AUTHENTICATED, BAD, BINS, RESPONSE, L7Facts, bin_ms
from ui.query import Query

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

NS: Final = 1_000_000_000
MOST_SECONDS: Final = 3600
MOST_ENTRIES: Final = 2_000_000
"""Counts kept, over all seconds; a busy fleet reaches back less far instead of using more memory."""
MOST_ARROWS: Final = 60_000
"""Distinct arrows; flows of more of them are counted on the arrow without port between the same cards."""
EPHEMERAL: Final = 32_768
"""First port that Linux gives to the end that opens a connection (ip_local_port_range)."""
WITH_PORTS: Final = (L4.TCP, L4.UDP, L4.SCTP)
CHUNK: Final = 65_536
MOST_PIECES: Final = 8
"""Pieces of one second, before they are joined."""
SETTLED_S: Final = 2
"""A second so far behind the newest gets few flows any more."""


class Count(IntEnum):
    """Columns of the counts."""

    FLOWS = 0
    DROPPED = 1
    ERROR = 2
    AUDIT = 3
    REDIRECTED = 4
    ENCRYPTED = 5
    SYN = 6
    """Connections asked for."""
    REPLIES = 7
    RESETS = 8
    RESPONSES = 9
    BAD_RESPONSES = 10
    AUTHENTICATED = 11
    """Let pass because the peers had proved who they are."""


COLUMNS: Final = len(Count)


class Band(IntEnum):
    """Columns of the histogram over time."""

    FORWARDED = 0
    DROPPED = 1
    OTHER = 2
    LOST = 3


@dataclass(slots=True)
class Piece:
    """Counts of one second (or part of it): one line per arrow that had flows."""

    arrows: I64
    counts: npt.NDArray[np.int32]
    latencies: I64
    """arrow * BINS + bin of the answers with a latency, each once, in order."""
    answers: npt.NDArray[np.int32]
    """How many answers each of these had."""

    @property
    def entries(self) -> int:
        """What it costs to keep."""
        return len(self.arrows) + len(self.latencies) // 4


@dataclass(frozen=True, slots=True)
class Totals:
    """A span of seconds, added up; one line per arrow."""

    keys: U64
    counts: I64
    last_s: I64
    """Second of the newest flow."""
    latencies: I64
    """line * BINS + bin of answers with a latency."""
    answers: I64
    """How many answers each of these had."""


class Rollup:
    """Counts of the flows that pass one filter."""

    def __init__(self, ring: Ring, cards: Cards, facts: L7Facts, query: Query | None = None) -> None:
        self._ring, self._cards, self._facts, self._query = ring, cards, facts, query
        self._cursor = ring.cursor(ring.tail)
        self._arrows: dict[int, int] = {}
        self._keys = np.zeros(64, np.uint64)
        self._seconds: OrderedDict[int, list[Piece]] = OrderedDict()
        self._bands: dict[int, I64] = {}
        self._growing: set[int] = set()
        """Seconds that got flows since they were joined."""
        self._entries = 0

    def catch_up(self) -> None:
        """Count what the ring got since the last call."""
        while len(rows := self._cursor.read(CHUNK).rows):
            self._add(rows)
        self._forget()

    def reaches_back_to(self) -> int:
        """The oldest second still counted; 0 when there is none."""
        return min(self._bands, default=0)

    def totals(self, start_s: int, stop_s: int) -> Totals:
        """Everything from second `start_s` up to, not including, `stop_s`."""
        chosen = [(second, piece) for second, pieces in self._between(start_s, stop_s) for piece in pieces]
        if not chosen:
            none = np.zeros(0, np.int64)
            return Totals(none.astype(np.uint64), np.zeros((0, COLUMNS), np.int64), none, none, none)
        arrows = np.concatenate([piece.arrows for _, piece in chosen])
        used, line = np.unique(arrows, return_inverse=True)
        matrix = np.concatenate([piece.counts for _, piece in chosen])
        counts = np.stack(
            [np.bincount(line, matrix[:, column], len(used)).astype(np.int64) for column in range(COLUMNS)], axis=1
        )
        seconds = np.concatenate([np.full(len(piece.arrows), second) for second, piece in chosen])
        last = np.zeros(len(used), np.int64)
        np.maximum.at(last, line, seconds)
        latencies = np.concatenate([piece.latencies for _, piece in chosen])
        lines = np.searchsorted(used, latencies // BINS) * BINS + latencies % BINS
        answers = np.concatenate([piece.answers for _, piece in chosen]).astype(np.int64)
        return Totals(self._keys[used], counts, last, lines, answers)

    def series(self, keys: set[int], start_s: int, stop_s: int, column: Count = Count.FLOWS) -> list[int]:
        """Counts per second of some arrows together, for a sparkline."""
        wanted = np.array([self._arrows[key] for key in keys if key in self._arrows], np.int64)
        found = [0] * max(stop_s - start_s, 0)
        for second, pieces in self._between(start_s, stop_s):
            for piece in pieces:
                found[second - start_s] += int(piece.counts[np.isin(piece.arrows, wanted), column].sum())
        return found

    def bands(self, start_s: int, stop_s: int, bins: int) -> list[list[int]]:
        """The histogram over time: `bins` bins of Band counts that cover the span evenly."""
        found = np.zeros((bins, len(Band)), np.int64)
        span = max(stop_s - start_s, 1)
        for second, counts in self._bands.items():
            if start_s <= second < stop_s:
                found[(second - start_s) * bins // span] += counts
        rows: list[list[int]] = found.tolist()
        return rows

    def _between(self, start_s: int, stop_s: int) -> list[tuple[int, list[Piece]]]:
        return [(second, pieces) for second, pieces in self._seconds.items() if start_s <= second < stop_s]

    def _add(self, rows: Rows) -> None:
        lost = rows["kind"] == Kind.LOST
        if lost.any():
            self._add_lost(rows[lost])
        passes = rows["kind"] == Kind.FLOW
        if self._query is not None and not self._query.passes_all:
            passes &= self._query.mask(rows, self._ring.tables)
        rows = rows if passes.all() else take(rows, passes)
        if len(rows) == 0:
            return
        seconds = rows["ts_ns"] // NS
        self._add_bands(rows, seconds)
        arrows = self._arrows_of(rows)
        columns = self._columns(rows)
        bins = self._facts.of(rows)[1].astype(np.int64)
        for second in np.unique(seconds).tolist():
            here = seconds == second
            used, line = np.unique(arrows[here], return_inverse=True)
            counts = np.stack([np.bincount(line, column[here], len(used)) for column in columns], axis=1)
            timed = here & (bins > 0)
            latencies, answers = np.unique(arrows[timed] * BINS + bins[timed], return_counts=True)
            piece = Piece(used, counts.astype(np.int32), latencies, answers.astype(np.int32))
            self._entries += piece.entries
            pieces = self._seconds.setdefault(second, [])
            pieces.append(piece)
            self._growing.add(second)
            if len(pieces) > MOST_PIECES:
                self._join(second)
        newest = max(self._bands)
        for second in [second for second in self._growing if second < newest - SETTLED_S]:
            self._growing.discard(second)
            self._join(second)

    def _join(self, second: int) -> None:
        """One piece of many: a second that is over is kept as small as it gets."""
        pieces = self._seconds[second]
        if len(pieces) > 1:
            self._entries -= sum(piece.entries for piece in pieces)
            pieces[:] = [_joined(pieces)]
            self._entries += pieces[0].entries

    def _add_lost(self, rows: Rows) -> None:
        for second, aux in zip((rows["ts_ns"] // NS).tolist(), rows["aux"].tolist(), strict=True):
            event = flow_pb2.LostEvent.FromString(self._ring.tables.aux[aux] or b"")
            self._bands.setdefault(second, np.zeros(len(Band), np.int64))[Band.LOST] += event.num_events_lost

    def _add_bands(self, rows: Rows, seconds: I64) -> None:
        band = _BAND_OF[rows["verdict"]]
        first = int(seconds.min())
        size = int(seconds.max()) - first + 1
        if size > MOST_SECONDS:  # times far apart: a clock was set, or a recording tells its own times
            first = int(seconds.max()) - MOST_SECONDS + 1
            size, keep = MOST_SECONDS, seconds >= first
            band, seconds = band[keep], seconds[keep]
        sums = np.bincount((seconds - first) * len(Band) + band, minlength=size * len(Band)).reshape(-1, len(Band))
        for offset in np.flatnonzero(sums.any(axis=1)).tolist():
            self._bands.setdefault(first + offset, np.zeros(len(Band), np.int64))[:] += sums[offset]

    def _arrows_of(self, rows: Rows) -> I64:
        """Number of each row's arrow."""
        keys, line = np.unique(arrow_keys(rows, self._cards), return_inverse=True)
        found = np.array([self._arrow(key) for key in keys.tolist()], np.int64)
        numbers: I64 = found[line]
        return numbers

    def _arrow(self, key: int) -> int:
        found = self._arrows.get(key)
        if found is None:
            if len(self._arrows) >= MOST_ARROWS and key & 0xFFFF:
                return self._arrow(key & ~0xFFFF)
            found = self._arrows[key] = len(self._arrows)
            if found >= len(self._keys):
                self._keys = np.concatenate([self._keys, np.zeros(len(self._keys), np.uint64)])
            self._keys[found] = key
        return found

    def _columns(self, rows: Rows) -> list[npt.NDArray[np.bool_]]:
        """What each row adds to each Count, in its order."""
        verdict, flags, reply = rows["verdict"], rows["tcp_flags"], answers(rows)
        facts, _ = self._facts.of(rows)
        opens = (flags & (TcpFlag.SYN | TcpFlag.ACK)) == TcpFlag.SYN
        return [
            np.ones(len(rows), np.bool_),
            verdict == flow_pb2.DROPPED,
            verdict == flow_pb2.ERROR,
            verdict == flow_pb2.AUDIT,
            verdict == flow_pb2.REDIRECTED,
            (rows["bits"] & Bit.ENCRYPTED) != 0,
            opens & ~reply & (rows["l4"] == L4.TCP),
            reply,
            reply & ((flags & TcpFlag.RST) != 0),
            (facts & RESPONSE) != 0,
            (facts & BAD) != 0,
            ((facts & AUTHENTICATED) != 0) & (verdict != flow_pb2.DROPPED) & (verdict != flow_pb2.AUDIT),
        ]

    def _forget(self) -> None:
        newest = max(self._bands, default=0)
        for second in [second for second in self._bands if second <= newest - MOST_SECONDS]:
            del self._bands[second]
        while self._seconds and (self._entries > MOST_ENTRIES or next(iter(self._seconds)) <= newest - MOST_SECONDS):
            second, pieces = self._seconds.popitem(last=False)
            self._growing.discard(second)
            self._entries -= sum(piece.entries for piece in pieces)


def arrow_keys(rows: Rows, cards: Cards) -> U64:
    """source << 44 | target << 24 | layer 4 << 16 | port, in the direction in which connections are opened."""
    with_ports, back = np.isin(rows["l4"], WITH_PORTS), answers(rows)
    ends = cards.of(rows, "src").astype(np.uint64), cards.of(rows, "dst").astype(np.uint64)
    source, target = np.where(back, ends[1], ends[0]), np.where(back, ends[0], ends[1])
    port = np.where(with_ports, np.where(back, rows["sport"], rows["dport"]), 0).astype(np.uint64)
    keys: U64 = source << np.uint64(44) | target << np.uint64(24) | rows["l4"].astype(np.uint64) << np.uint64(16) | port
    return keys


def answers(rows: Rows) -> npt.NDArray[np.bool_]:
    """Which rows go towards the end that opened the connection.

    Dropped packets do not say, nor do those that hosts send and get by themselves, without a table of connections: then
    a SYN without or with ACK tells, or a low port that faces an ephemeral one.
    """
    unsaid = rows["is_reply"] == Reply.ABSENT
    flags = rows["tcp_flags"] & (TcpFlag.SYN | TcpFlag.ACK)
    low_to_high = (rows["sport"] < EPHEMERAL) & (rows["dport"] >= EPHEMERAL) & np.isin(rows["l4"], WITH_PORTS)
    guessed = unsaid & (flags != TcpFlag.SYN) & (low_to_high | (flags == (TcpFlag.SYN | TcpFlag.ACK)))
    found: npt.NDArray[np.bool_] = (rows["is_reply"] == Reply.TRUE) | guessed
    return found


def _joined(pieces: list[Piece]) -> Piece:
    arrows = np.concatenate([piece.arrows for piece in pieces])
    matrix = np.concatenate([piece.counts for piece in pieces])
    used, line = np.unique(arrows, return_inverse=True)
    counts = np.stack([np.bincount(line, matrix[:, column], len(used)) for column in range(COLUMNS)], axis=1)
    latencies, place = np.unique(np.concatenate([piece.latencies for piece in pieces]), return_inverse=True)
    answers = np.bincount(place, np.concatenate([piece.answers for piece in pieces]), len(latencies))
    return Piece(used, counts.astype(np.int32), latencies, answers.astype(np.int32))


def percentiles(latencies: I64, answers: I64, groups: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Median and 99th percentile in ms of each group; 0 where no latency is known.

    `latencies`: group * BINS + bin, any of them more than once; `answers`: how many each stands for.
    """
    p50, p99 = np.zeros(groups), np.zeros(groups)
    if len(latencies):
        known, line = np.unique(latencies // BINS, return_inverse=True)
        table = np.bincount(line * BINS + latencies % BINS, answers, len(known) * BINS).reshape(-1, BINS)
        sums = table.cumsum(axis=1)
        for share, target in ((0.5, p50), (0.99, p99)):
            target[known] = bin_ms((sums >= share * sums[:, -1:]).argmax(axis=1))
    return p50, p99


_BAND_OF: Final = np.full(256, Band.OTHER, np.int64)
_BAND_OF[[flow_pb2.FORWARDED, flow_pb2.REDIRECTED, flow_pb2.TRANSLATED, flow_pb2.TRACED]] = Band.FORWARDED
_BAND_OF[[flow_pb2.DROPPED, flow_pb2.ERROR]] = Band.DROPPED
