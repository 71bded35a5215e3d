"""Times of encoded messages, read without decoding them, and messages put in another order.

In:        buffers of length-prefixed observer.GetFlowsResponse messages, as a node sent them.
Out:       one item per message (time and place); buffers of the same messages in the order of given items.
Elsewhere: merge.py decides the order; it never sees the bytes.

Shape:  protobuf writers put fields in the order of their numbers, so a response ends with `time` (field 1001): tag
        ca 3e, length, then google.protobuf.Timestamp: 08 seconds [10 nanos], both varints.
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

TAIL: Final = 3 + 12
"""Tag, length and the longest timestamp of the years 2001 to 2106 (5 bytes of seconds, 5 of nanoseconds)."""

LATEST_NS: Final = 2**63 - 1

_TAG: Final = (0xCA, 0x3E)
_SECONDS_TAG: Final = 0x08
_NANOS_TAG: Final = 0x10
_SECONDS_BYTES: Final = 5
_LENGTHS: Final = (6, 8, 9, 10, 11, 12)
"""Of such a timestamp: seconds alone, or with 1 to 5 bytes of nanoseconds."""

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
    known = np.zeros(len(ends), bool)
    long_enough = ends - starts >= TAIL
    rows = np.flatnonzero(long_enough)
    if len(rows):
        tails = data[ends[rows, None] + np.arange(-TAIL, 0)]
        for length in _LENGTHS:
            hit = _has_tail(tails, length)
            if hit.any():
                times[rows[hit]] = _read_tail(tails[hit], length)
                known[rows[hit]] = True
    # Messages without time (a mask left it out), very short ones, and times no clock shows.
    for row in np.flatnonzero(~known).tolist():
        times[row] = _decoded_time(buffer[int(starts[row]) + PREFIX_SIZE : int(ends[row])])
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
    result: Bools = (sizes > 0) & (sizes <= TAIL)
    for row in np.flatnonzero(result).tolist():
        start = int(items["start"][row]) + PREFIX_SIZE
        result[row] = buffer[start : start + 2] == bytes(_TAG)
    return result


def _has_tail(tails: npt.NDArray[np.uint8], length: int) -> Bools:
    """Which rows end with a timestamp of exactly `length` bytes."""
    at = TAIL - length  # where the timestamp begins
    hit: Bools = (tails[:, at - 3] == _TAG[0]) & (tails[:, at - 2] == _TAG[1]) & (tails[:, at - 1] == length)
    hit &= tails[:, at] == _SECONDS_TAG
    hit &= _is_varint(tails[:, at + 1 : at + 1 + _SECONDS_BYTES])
    if length > 1 + _SECONDS_BYTES:
        nanos = at + 1 + _SECONDS_BYTES
        hit &= (tails[:, nanos] == _NANOS_TAG) & _is_varint(tails[:, nanos + 1 :])
    return hit


def _is_varint(columns: npt.NDArray[np.uint8]) -> Bools:
    """Which rows are one varint of just this many bytes: all but the last have the top bit."""
    result: Bools = (columns[:, :-1] >= 0x80).all(axis=1) & (columns[:, -1] < 0x80)
    return result


def _read_tail(tails: npt.NDArray[np.uint8], length: int) -> Int64s:
    at = TAIL - length + 1
    # Five bytes of seconds reach beyond what 64 bits of nanoseconds can tell (the year 2262).
    seconds = np.minimum(_read_varint(tails[:, at : at + _SECONDS_BYTES]), LATEST_NS // 10**9 - 1)
    nanos = _read_varint(tails[:, at + _SECONDS_BYTES + 1 :])
    return seconds * 1_000_000_000 + nanos


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
