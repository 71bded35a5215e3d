"""One batch of what the rings of several CPUs held.

In:        each CPU's share: where its events are, their times, and where something is missing.
Out:       EventBatch, in order of time.
Elsewhere: perf.py takes the shares from the rings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.events import EventBatch, LostSamples
from observer.perf_records import I64Array, U8Array


def time_of(event: tuple[int, int, int, int]) -> int:
    return event[0]


def batch_of_few(data: bytes, events: list[tuple[int, int, int, int]]) -> EventBatch:
    """A batch of (time, start, length, cpu)."""
    columns = np.array(events, np.int64).reshape(-1, 4)
    return EventBatch(
        np.frombuffer(data, np.uint8), columns[:, 1], columns[:, 2], columns[:, 3].astype(np.uint16), columns[:, 0]
    )


@dataclass(frozen=True, slots=True)
class Piece:
    """One CPU's share of a batch."""

    cpu: int
    offsets: I64Array
    lengths: I64Array
    times_ns: I64Array
    gaps: list[tuple[int, int]]
    """Index of the event before which something is missing (or one past the last), and how much."""


def merge(data: U8Array, pieces: Sequence[Piece], now_ns: int) -> EventBatch:
    """One batch from the shares of all CPUs, by time; equal times stay in the order of CPUs."""
    if len(pieces) == 1:
        [piece] = pieces
        cpus = np.full(len(piece.offsets), piece.cpu, np.uint16)
        lost = tuple(LostSamples(at, piece.cpu, count, now_ns) for at, count in piece.gaps)
        return EventBatch(data, piece.offsets, piece.lengths, cpus, piece.times_ns, lost)
    times = np.concatenate([piece.times_ns for piece in pieces])
    order = np.argsort(times, kind="stable")
    return EventBatch(
        data,
        np.concatenate([piece.offsets for piece in pieces])[order],
        np.concatenate([piece.lengths for piece in pieces])[order],
        np.repeat(np.array([piece.cpu for piece in pieces], np.uint16), [len(piece.offsets) for piece in pieces])[
            order
        ],
        times[order],
        _merge_gaps(pieces, order, now_ns) if any(piece.gaps for piece in pieces) else (),
    )


def _merge_gaps(pieces: Sequence[Piece], order: I64Array, now_ns: int) -> tuple[LostSamples, ...]:
    """Gaps in the merged order: before the event they stood before, or right after the last one of their CPU."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    gaps = []
    base = 0
    for piece in pieces:
        count_here = len(piece.offsets)
        for index, count in piece.gaps:
            at = place[base + index] if index < count_here else place[base + index - 1] + 1 if index else 0
            gaps.append(LostSamples(int(at), piece.cpu, count, now_ns))
        base += count_here
    return tuple(sorted(gaps, key=lambda gap: gap.at))
