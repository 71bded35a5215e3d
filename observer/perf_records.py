"""Records of a perf ring: where one ends and the next begins.

In:        a copy of a piece of ring.
Out:       where its samples are, what the kernel says it has lost; what is newer than it may be is left.
Elsewhere: perf.py drains rings, perf_batches.py merges what several hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

RECORD_LOST: Final = 2
RECORD_SAMPLE: Final = 9
RECORD_HEADER: Final = struct.Struct("<IHH")  # type, misc, size
LOST_BODY: Final = struct.Struct("<QQQ")  # id, count, time; behind the header
SAMPLE_FRONT: Final = struct.Struct("<IHHqI")  # the header, time, size of the rest
SAMPLE_HEAD: Final = 20
"""Bytes in front of the event in a sample: record header, time u64, size of the rest u32."""
HELD_BACK_AT_MOST_NS: Final = 10_000_000
U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lost:
    """One lost record of a ring."""

    position: int
    """Byte offset in the ring's copy."""
    count: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Records:
    """Where the records of a piece of ring are."""

    starts: I64Array
    """Byte offset of each sample's perf header."""
    lost: tuple[Lost, ...]
    skipped: int
    """Records of other kinds."""
    end: int
    """Bytes understood; less than the piece's length when the framing broke there."""


def split_records(data: U8Array) -> Records:
    """Find the records of a ring's copy, which begins with one and is a whole number of 8-byte words.

    Record lengths differ, and each is known only from the record before it; a loop over them would cost more than
    everything else. So every word that could begin a sample is found at once, and then it is checked that each of them
    begins where the one before ends. Packets may hold bytes that look like a record: those break the chain, and the
    chain is then followed step by step.
    """
    starts, ends = _candidates(data)
    if len(starts) and starts[0] == 0 and ends[-1] == len(data) and np.array_equal(starts[1:], ends[:-1]):
        return Records(starts, (), 0, len(data))
    return _follow(data, starts, ends)


def _candidates(data: U8Array) -> tuple[I64Array, I64Array]:
    """Start and end of everything that looks like a sample: its type, and two sizes that agree."""
    words = data.view("<u4")
    at = np.flatnonzero(words[0::2] == RECORD_SAMPLE)
    at = at[at * 8 + 24 <= len(data)]
    sizes = data.view("<u2")[at * 4 + 3].astype(np.int64)
    at, sizes = _where(words[at * 2 + 4] + np.uint32(SAMPLE_HEAD) == sizes, at, sizes)
    starts = at * 8
    return starts, starts + sizes


def _where(mask: npt.NDArray[np.bool_], *arrays: I64Array) -> tuple[I64Array, ...]:
    return arrays if mask.all() else tuple(array[mask] for array in arrays)


def _follow(data: U8Array, starts: I64Array, ends: I64Array) -> Records:
    """Walk from record to record: over candidates where they link up, by the header where they do not."""
    following = np.searchsorted(starts, ends)
    linked = following < len(starts)
    linked[linked] = starts[following[linked]] == ends[linked]
    next_of = np.where(linked, following, -1).tolist()
    view = data.data

    chosen: list[int] = []
    lost: list[Lost] = []
    skipped = position = 0
    while position + RECORD_HEADER.size <= len(data):
        index = int(np.searchsorted(starts, position))
        if index < len(starts) and starts[index] == position:
            while index >= 0:
                chosen.append(index)
                index = next_of[index]
            position = int(ends[chosen[-1]])
            continue
        kind, _, size = RECORD_HEADER.unpack_from(view, position)
        if size < RECORD_HEADER.size or size % 8 or position + size > len(data):
            break
        if kind == RECORD_LOST and size >= RECORD_HEADER.size + LOST_BODY.size:
            _, count, time_ns = LOST_BODY.unpack_from(view, position + RECORD_HEADER.size)
            lost.append(Lost(position, count, time_ns))
        else:
            skipped += 1
        position += size
    return Records(starts[np.array(chosen, np.int64)], tuple(lost), skipped, min(position, len(data)))


def read_few(data: bytes, now_ns: int) -> tuple[list[tuple[int, int, int]], int] | None:
    """Time, start and length of each event of a short piece of ring, and how many bytes those take.

    Events later than `now_ns` are left (see first_too_new). None when the piece holds anything but whole samples.
    """
    events: list[tuple[int, int, int]] = []
    position, hold_back = 0, True
    while position < len(data):
        if position + SAMPLE_FRONT.size > len(data):
            return None
        kind, _, size, time_ns, length = SAMPLE_FRONT.unpack_from(data, position)
        if kind != RECORD_SAMPLE or size != length + SAMPLE_HEAD or position + size > len(data):
            return None
        if hold_back and time_ns > now_ns:
            if time_ns - now_ns < HELD_BACK_AT_MOST_NS:
                break
            hold_back = False  # the clock was set back
        events.append((time_ns, position + SAMPLE_HEAD, length))
        position += size
    return events, position


def first_too_new(times: I64Array, now_ns: int) -> int:
    """Index of the first event stamped after `now_ns`. Times of a clock that was set back meanwhile do not count."""
    if not len(times) or times[-1] <= now_ns:
        return len(times)
    first = int(np.argmax(times > now_ns))
    return first if times[first] - now_ns < HELD_BACK_AT_MOST_NS else len(times)
