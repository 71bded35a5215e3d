"""The file that an observer's input is recorded to, and read back from.

In:        what the sources deliver: raw event batches, JSON records of the proxy and the agent, the node's state.
Out:       the same, in the same order (sources.py replays it, so decoder, ring and service are the real ones).
Elsewhere: recorder.py writes such a file while the observer runs.

Shape:  MAGIC, version (u16), then frames. A frame is 16 bytes of header and a body:
            u32 length of the body | u8 kind | u8 flags | u16 0 | u32 CRC-32 of the body | u32 CRC-32 of the 12 before
        All numbers are little endian; bodies are compressed (zlib) when that makes them shorter.
A file may end anywhere, because a process was killed or a disk was full. What lies before the cut is served, also the
whole events of the frame that was cut; so the arrays of a batch stand before the bytes of its events.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, Final

import numpy as np

from model.events import EventBatch, LostSamples

MAGIC: Final = b"flowscope recording\n"
VERSION: Final = 1
LARGEST_BODY: Final = 64 * 2**20
"""Bytes, compressed or not. Larger ones are not written; a header that claims more is damage."""

_PREAMBLE: Final = struct.Struct("<20sH")
_HEADER: Final = struct.Struct("<IBBHI")
_HEADER_CRC: Final = struct.Struct("<I")
_HEADER_SIZE: Final = _HEADER.size + _HEADER_CRC.size
_COUNTS: Final = struct.Struct("<II")
_TIME: Final = struct.Struct("<q")
_LOST: Final = np.dtype([("at", "<u4"), ("cpu", "<u4"), ("count", "<u8"), ("time_ns", "<i8")])
_COMPRESSED: Final = 0x01


class Frame(IntEnum):
    """What a frame holds."""

    HELLO = 1
    EVENTS = 2
    RECORDS = 3
    STATE = 4
    GAP = 5


@dataclass(frozen=True, slots=True)
class Hello:
    """Whose events follow."""

    node: str
    labels: tuple[str, ...] = ()
    """Sorted `key=value`."""


@dataclass(frozen=True, slots=True)
class JsonRecords:
    """Records that arrive as text: the proxies' access logs, the agent's notifications. JSON, but for our own Envoy."""

    time_ns: int
    """When they arrived, ns since the epoch."""
    lines: tuple[bytes, ...]
    """One JSON object each, or one line of fields (model/decode/lines.py); without line breaks."""


@dataclass(frozen=True, slots=True)
class State:
    """What the node knows from here on: the text of its state file."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that came in but are not in the recording."""

    events: int
    time_ns: int


Item = EventBatch | JsonRecords | State | Gap | Hello


class NotARecording(ValueError):
    """The file does not begin like a recording that we can read. The text is one line without the file's name."""


def preamble() -> bytes:
    """The first bytes of a recording."""
    return _PREAMBLE.pack(MAGIC, VERSION)


def pack(item: Item) -> bytes:
    """One frame.

    Raises: ValueError when the body would be larger than LARGEST_BODY.
    """
    kind, body = _body(item)
    if len(body) > LARGEST_BODY:
        raise ValueError(f"frame of {len(body)} bytes is too large to be recorded")
    flags = 0
    squeezed = zlib.compress(body, 1)
    if len(squeezed) < len(body):
        body, flags = squeezed, _COMPRESSED
    header = _HEADER.pack(len(body), kind, flags, 0, zlib.crc32(body))
    return b"".join((header, _HEADER_CRC.pack(zlib.crc32(header)), body))


class Recording:
    """Reads a recording from its start. Iterate once; then `cut` says whether it ended where it should."""

    def __init__(self, file: BinaryIO) -> None:
        """
        Raises: NotARecording.
        """
        self._file = file
        self.cut: str | None = None
        """After iterating: None for a whole file, else one line that says where and why reading ended."""
        head = file.read(_PREAMBLE.size)
        if len(head) < _PREAMBLE.size or head[: len(MAGIC)] != MAGIC:
            raise NotARecording("it does not begin with 'flowscope recording'")
        version = _PREAMBLE.unpack(head)[1]
        if version != VERSION:
            raise NotARecording(f"it has version {version}, this program reads version {VERSION}")

    def __iter__(self) -> Iterator[Item]:
        position = _PREAMBLE.size
        while True:
            header = self._file.read(_HEADER_SIZE)
            if not header:
                return
            if len(header) < _HEADER_SIZE:
                self.cut = f"cut off at byte {position + len(header)}, within a frame header"
                return
            length, kind, flags, _, crc = _HEADER.unpack_from(header)
            if _HEADER_CRC.unpack_from(header, _HEADER.size)[0] != zlib.crc32(header[: _HEADER.size]):
                self.cut = f"damaged at byte {position}: the frame header does not match its checksum"
                return
            if length > LARGEST_BODY:
                self.cut = f"damaged at byte {position}: a frame claims {length} bytes"
                return
            body = self._file.read(length)
            whole = len(body) == length
            if not whole:
                self.cut = f"cut off at byte {position + _HEADER_SIZE + len(body)}, within a frame of {length} bytes"
            elif zlib.crc32(body) != crc:
                self.cut = f"damaged at byte {position}: the frame does not match its checksum"
                return
            item = _item(kind, _inflated(body) if flags & _COMPRESSED else body, whole)
            if item is not None:
                yield item
            elif whole:
                self.cut = f"damaged at byte {position}: a frame of kind {kind} cannot be read"
            if self.cut is not None:
                return
            position += _HEADER_SIZE + length


def _body(item: Item) -> tuple[Frame, bytes]:
    match item:
        case EventBatch():
            return Frame.EVENTS, _events_body(item)
        case JsonRecords():
            return Frame.RECORDS, _TIME.pack(item.time_ns) + b"".join(line + b"\n" for line in item.lines)
        case State():
            return Frame.STATE, item.text
        case Gap():
            return Frame.GAP, json.dumps({"events": item.events, "time_ns": item.time_ns}).encode()
        case Hello():
            return Frame.HELLO, json.dumps({"node": item.node, "labels": list(item.labels)}).encode()


def _item(kind: int, body: bytes, whole: bool) -> Item | None:
    """The content of a frame, or what is there of it; None when that is nothing that can be used."""
    try:
        match kind:
            case Frame.EVENTS:
                return _events(body, whole)
            case Frame.RECORDS:
                return _records(body, whole)
            case Frame.STATE:
                return State(body) if whole else None
            case Frame.GAP:
                return Gap(**json.loads(body))
            case Frame.HELLO:
                hello = json.loads(body)
                return Hello(str(hello["node"]), tuple(map(str, hello["labels"])))
    except (ValueError, TypeError, KeyError, struct.error):
        pass
    return None


def _events_body(batch: EventBatch) -> bytes:
    lost = np.array([(one.at, one.cpu, one.count, one.time_ns) for one in batch.lost], _LOST)
    # Slices of a memoryview are cheaper than an index per byte, and offsets are in no order.
    data = memoryview(batch.data.tobytes())
    ends = (batch.offsets + batch.lengths).tolist()
    return b"".join(
        (
            _COUNTS.pack(len(batch), len(lost)),
            lost.tobytes(),
            batch.lengths.astype("<u4").tobytes(),
            batch.cpus.astype("<u2").tobytes(),
            batch.times_ns.astype("<i8").tobytes(),
            *(data[start:end] for start, end in zip(batch.offsets.tolist(), ends, strict=True)),
        )
    )


def _events(body: bytes, whole: bool) -> EventBatch | None:
    if len(body) < _COUNTS.size:
        return None
    count, lost_count = _COUNTS.unpack_from(body)
    at = _COUNTS.size
    arrays = []
    for dtype, number in ((_LOST, lost_count), ("<u4", count), ("<u2", count), ("<i8", count)):
        size = np.dtype(dtype).itemsize * number
        if at + size > len(body):
            return None
        arrays.append(np.frombuffer(body, dtype, number, at))
        at += size
    lost, lengths, cpus, times = arrays
    lengths = lengths.astype(np.int64)
    ends = np.cumsum(lengths)
    here = int(np.searchsorted(ends, len(body) - at, side="right"))
    if whole and here < count:
        return None
    return EventBatch(
        data=np.frombuffer(body, np.uint8, offset=at),
        offsets=(ends - lengths)[:here],
        lengths=lengths[:here],
        cpus=cpus[:here].astype(np.uint16),
        times_ns=times[:here].astype(np.int64),
        lost=tuple(
            LostSamples(int(one["at"]), int(one["cpu"]), int(one["count"]), int(one["time_ns"]))
            for one in lost
            if one["at"] <= here
        ),
    )


def _records(body: bytes, whole: bool) -> JsonRecords | None:
    if len(body) < _TIME.size:
        return None
    lines = body[_TIME.size :].split(b"\n")
    # Each line ends with a line break; what stands behind the last one is empty, or was cut.
    if whole and lines[-1]:
        return None
    return JsonRecords(_TIME.unpack_from(body)[0], tuple(lines[:-1]))


def _inflated(body: bytes) -> bytes:
    """What can be decompressed of `body`, at most LARGEST_BODY bytes."""
    try:
        return zlib.decompressobj().decompress(body, LARGEST_BODY)
    except zlib.error:
        return b""
