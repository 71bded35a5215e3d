"""Times of encoded messages, read without decoding them, and messages put in another order.

In:        buffers of length-prefixed observer.GetFlowsResponse messages, as a node sent them.
Out:       one item per message (time and place); buffers of the same messages in the order of given items.
Elsewhere: merge.py decides the order; it never sees the bytes.

Shape:  protobuf writers put fields in the order of their numbers, so a response ends with `time` (field 1001): tag
        ca 3e, length, then google.protobuf.Timestamp: 08 seconds [10 nanos], both varints. Our own nodes put it first
        (model/encode.py). Whatever looks different is decoded.
Source: Protocol Buffers encoding guide; proto/observer/observer.proto.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from proto.observer import observer_pb2
from rpc.framing import PREFIX_SIZE

ITEM: Final = np.dtype([("ts_ns", "<i8"), ("start", "<u4"), ("end", "<u4"), ("buffer", "<u4")])
"""One message: its time (0 when it has none), where it lies (prefix included), and in which buffer."""

Items = npt.NDArray[np.void]

TIME_SIZE: Final = 3 + 12
"""Tag, length and the longest timestamp of the years 2001 to 2106 (5 bytes of seconds, 5 of nanoseconds)."""

LATEST_NS: Final = 2**63 - 1

_TAG: Final = (0xCA, 0x3E)
_SECONDS_TAG: Final = 0x08
_NANOS_TAG: Final = 0x10
_SECONDS_BYTES: Final = 5
_LENGTHS: Final = (12, 11, 10, 9, 8, 6)
"""Of such a timestamp, the most frequent first: seconds with 5 to 1 bytes of nanoseconds, or alone."""
_NO_TIME: Final = -1

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def items_of(buffer: bytes, ends: list[int], number: int) -> Items:
    """The messages of one buffer.

    ends    where each message ends; the first begins at 0.
    number  what `buffer` says in the items.
    """
    items = np.empty(len(ends), ITEM)
    last = np.array(ends, np.int64)
    items["end"] = last
    items["start"][:1] = 0
    items["start"][1:] = last[:-1]
    items["buffer"] = number
    items["ts_ns"] = times_of(buffer, items["start"].astype(np.int64), last)
    return items


def times_of(buffer: bytes, starts: Int64s, ends: Int64s) -> Int64s:
    """`GetFlowsResponse.time` of each message in ns; 0 for a message without time, or one that is not readable."""
    data = np.frombuffer(buffer, np.uint8)
    times = np.zeros(len(ends), np.int64)
    bodies = starts + PREFIX_SIZE
    left = np.flatnonzero(ends - bodies >= TIME_SIZE)
    for at_end in (False, True):
        if len(left):
            # Ours begin with the time, so it is looked for at the end only where it does not stand in front.
            first = ends[left] - TIME_SIZE if at_end else bodies[left]
            found = _read(data[first[:, None] + np.arange(TIME_SIZE)], at_end)
            hit = found != _NO_TIME
            times[left[hit]] = found[hit]
            left = left[~hit]
    short = np.flatnonzero(ends - bodies < TIME_SIZE)
    # Messages without time (a mask left it out), very short ones, and times no clock shows.
    for row in (*left.tolist(), *short.tolist()):
        times[row] = _decoded_time(buffer[int(bodies[row]) : int(ends[row])])
    return times


def gather(items: Items, buffers: dict[int, bytes]) -> bytes:
    """The messages of `items`, in their order, as one buffer."""
    if not len(items):
        return b""
    starts, ends, numbers = items["start"], items["end"], items["buffer"]
    # Messages that were neighbours and still are, go as one piece: most do, when few nodes talk at a time.
    first = np.ones(len(items), bool)
    first[1:] = (numbers[1:] != numbers[:-1]) | (starts[1:] != ends[:-1])
    begin = np.flatnonzero(first)
    last = np.append(begin[1:], len(items)) - 1
    pieces = zip(numbers[begin].tolist(), starts[begin].tolist(), ends[last].tolist(), strict=True)
    views = {number: memoryview(buffers[number]) for number in np.unique(numbers[begin]).tolist()}
    return b"".join([views[number][start:end] for number, start, end in pieces])


def progress_of(buffer: bytes, items: Items) -> Bools:
    """Which messages have a time and nothing else: with it, a node says that all that is older has been sent."""
    sizes = items["end"].astype(np.int64) - items["start"] - PREFIX_SIZE
    result: Bools = (sizes > 0) & (sizes <= TIME_SIZE)
    for row in np.flatnonzero(result).tolist():
        start = int(items["start"][row]) + PREFIX_SIZE
        result[row] = buffer[start : start + 2] == bytes(_TAG)
    return result


def _read(windows: npt.NDArray[np.uint8], at_end: bool) -> Int64s:
    """The times that windows of TIME_SIZE bytes begin (or end) with; _NO_TIME where there is none."""
    times = np.full(len(windows), _NO_TIME, np.int64)
    for length in _LENGTHS:
        place = TIME_SIZE - length if at_end else 3
        stamps = windows[:, place : place + length]
        hit: Bools = (windows[:, place - 3] == _TAG[0]) & (windows[:, place - 2] == _TAG[1])
        hit &= (windows[:, place - 1] == length) & _is_stamp(stamps)
        if hit.all():
            return _value(stamps)
        if hit.any():
            times[hit] = _value(stamps[hit])
    return times


def _is_stamp(stamps: npt.NDArray[np.uint8]) -> Bools:
    """Which rows are 08 seconds [10 nanos] with varints of just the lengths that fill the row."""
    hit: Bools = (stamps[:, 0] == _SECONDS_TAG) & _is_varint(stamps[:, 1 : 1 + _SECONDS_BYTES])
    if stamps.shape[1] > 1 + _SECONDS_BYTES:
        hit &= (stamps[:, 1 + _SECONDS_BYTES] == _NANOS_TAG) & _is_varint(stamps[:, 2 + _SECONDS_BYTES :])
    return hit


def _is_varint(columns: npt.NDArray[np.uint8]) -> Bools:
    """Which rows are one varint of just this many bytes: all but the last have the top bit."""
    result: Bools = (columns[:, :-1] >= 0x80).all(axis=1) & (columns[:, -1] < 0x80)
    return result


def _value(stamps: npt.NDArray[np.uint8]) -> Int64s:
    # Five bytes of seconds reach beyond what 64 bits of nanoseconds can tell (the year 2262).
    seconds = np.minimum(_read_varint(stamps[:, 1 : 1 + _SECONDS_BYTES]), LATEST_NS // 10**9 - 1)
    return seconds * 1_000_000_000 + _read_varint(stamps[:, 2 + _SECONDS_BYTES :])


def _read_varint(columns: npt.NDArray[np.uint8]) -> Int64s:
    value = np.zeros(len(columns), np.int64)
    for index in range(columns.shape[1]):
        value |= (columns[:, index].astype(np.int64) & 0x7F) << (7 * index)
    return value


def _decoded_time(body: bytes) -> int:
    """The time of one message the slow way. 0 when there is none, or the message is broken: the client will see."""
    try:
        time = observer_pb2.GetFlowsResponse.FromString(body).time
        return max(-LATEST_NS, min(LATEST_NS, int(time.seconds) * 1_000_000_000 + int(time.nanos)))
    except Exception:  # DecodeError, and whatever a runtime raises for hostile bytes
        return 0
