"""Reader of the kernel's perf rings: one per CPU, drained whole, stamped with the kernel's time.

In:        a perf event array (the pinned map `cilium_events`), whose slots it fills with rings of its own.
Out:       EventBatch: one per drain, all CPUs merged by time, with what the kernel could not store in its place.
Elsewhere: bpf/ writes the events; model/ decodes them; kernel.py is the source that drains.

A wake-up per event costs the packet's sender ten times what the event costs (a wake-up is work for the scheduler), so
rings wake their reader only when `watermark` bytes are waiting; the caller's timer sees to the rest. Nothing here
happens once per event: a ring is copied out, its records are found by numpy.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import select
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from bpf.handles import Map
from bpf.libbpf import BpfError, possible_cpus
from bpf.maps import EVENTS
from model.events import EventBatch, LostSamples

RECORD_LOST: Final = 2
RECORD_SAMPLE: Final = 9
RECORD_HEADER: Final = struct.Struct("<IHH")  # type, misc, size
LOST_BODY: Final = struct.Struct("<QQQ")  # id, count, time; behind the header
SAMPLE_FRONT: Final = struct.Struct("<IHHqI")  # the header, time, size of the rest
SAMPLE_HEAD: Final = 20
"""Bytes in front of the event in a sample: record header, time u64, size of the rest u32."""

# The first page of a ring's mapping, as 64-bit words (struct perf_event_mmap_page).
HEAD_WORD: Final = 1024 // 8
TAIL_WORD: Final = HEAD_WORD + 1

SYSCALL_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}
CLOCK_REALTIME: Final = 0
HELD_BACK_AT_MOST_NS: Final = 10_000_000
NEARLY_FULL: Final = 8192
"""A ring with less room than this may have refused an event: more than the longest record."""

FEW_BYTES: Final = 8192
"""Up to here records are read one by one: numpy takes 50 us for the first, and next to nothing for the others."""

U8Array = npt.NDArray[np.uint8]
I64Array = npt.NDArray[np.int64]


class _Attributes(ctypes.Structure):
    """struct perf_event_attr, version 5 (112 bytes)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_watermark", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("config1", ctypes.c_uint64),
        ("config2", ctypes.c_uint64),
        ("branch_sample_type", ctypes.c_uint64),
        ("sample_regs_user", ctypes.c_uint64),
        ("sample_stack_user", ctypes.c_uint32),
        ("clockid", ctypes.c_int32),
        ("sample_regs_intr", ctypes.c_uint64),
        ("aux_watermark", ctypes.c_uint32),
        ("sample_max_stack", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
    )


TYPE_SOFTWARE: Final = 1
SW_BPF_OUTPUT: Final = 10
SAMPLE_TIME: Final = 1 << 2
SAMPLE_RAW: Final = 1 << 10
FORMAT_LOST: Final = 1 << 4
FLAG_WATERMARK: Final = 1 << 14
FLAG_SAMPLE_ID_ALL: Final = 1 << 18
FLAG_USE_CLOCKID: Final = 1 << 25
FLAG_FD_CLOEXEC: Final = 8


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

    Events later than `now_ns` are left (see _first_too_new). None when the piece holds anything but whole samples.
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


def _time_of(event: tuple[int, int, int, int]) -> int:
    return event[0]


def _batch_of_few(data: bytes, events: list[tuple[int, int, int, int]]) -> EventBatch:
    """A batch of (time, start, length, cpu)."""
    columns = np.array(events, np.int64).reshape(-1, 4)
    return EventBatch(
        np.frombuffer(data, np.uint8), columns[:, 1], columns[:, 2], columns[:, 3].astype(np.uint16), columns[:, 0]
    )


@dataclass(slots=True)
class PerfStatistics:
    """What a reader has seen since it was opened."""

    delivered: int = 0
    """Events handed out in batches."""
    lost: int = 0
    """Events the kernel could not store, as reported in batches."""
    skipped: int = 0
    """Perf records of kinds that are neither sample nor lost."""
    broken: int = 0
    """Times a ring's framing made no sense and its rest was given up."""


class _Ring:
    """The ring of one CPU."""

    def __init__(self, cpu: int, pages: int, watermark: int) -> None:
        self.cpu = cpu
        self.fd, self.counts_lost = _open_event(cpu, watermark)
        page = mmap.PAGESIZE
        self.size = pages * page
        try:
            self._map = mmap.mmap(self.fd, page + self.size)
        except OSError as error:
            os.close(self.fd)
            raise BpfError(
                f"map the perf ring of CPU {cpu} ({pages} pages): {error.strerror}: "
                "use fewer pages, or raise kernel.perf_event_mlock_kb or CAP_IPC_LOCK",
                error.errno or 0,
            ) from None
        self._control = memoryview(self._map)[:page].cast("Q")
        self.data: U8Array = np.frombuffer(self._map, np.uint8, offset=page)
        self.tail = int(self._control[TAIL_WORD])
        self.at_risk = False
        """Room was short at the last drain, so that events may have been refused after it."""
        self.lost_seen = 0
        """Lost events reported so far, from records and from the counter."""
        self.lost_ahead = 0
        """Part of lost_seen that came from the counter, before the record that will tell the same."""

    def head(self) -> int:
        """Bytes ever written. What is read after it is at least as new."""
        return int(self._control[HEAD_WORD])

    def copy(self, head: int, into: U8Array) -> None:
        """Copy the bytes from tail to `head`, which may wrap around, into an array of just that length."""
        start = self.tail % self.size
        first = min(len(into), self.size - start)
        into[:first] = self.data[start : start + first]
        into[first:] = self.data[: len(into) - first]

    def few(self, head: int) -> bytes:
        """The bytes from tail to `head`."""
        start, count = self.tail % self.size, head - self.tail
        first = self.data[start : start + count].tobytes()
        return first if len(first) == count else first + self.data[: count - len(first)].tobytes()

    def release(self, count: int) -> None:
        """Give `count` bytes back to the kernel."""
        self.tail += count
        self._control[TAIL_WORD] = self.tail

    def nearly_full(self, count: int) -> bool:
        """Whether a ring that held `count` bytes may have had no room for the next event."""
        return count > self.size - NEARLY_FULL

    def uncounted_losses(self) -> int:
        """Losses that the kernel has counted and no record has told yet (a record comes with the next event only)."""
        if not self.counts_lost:
            return 0
        total = int.from_bytes(os.read(self.fd, 16)[8:16], "little")
        missing = total - self.lost_seen
        if missing <= 0:
            return 0
        self.lost_seen += missing
        self.lost_ahead += missing
        return missing

    def untold(self, count: int) -> int:
        """How many of the losses that a record tells are new."""
        told = min(count, self.lost_ahead)
        self.lost_ahead -= told
        self.lost_seen += count - told
        return count - told

    def close(self) -> None:
        """Unmap and close; the kernel then counts events for this CPU as having no reader."""
        del self.data
        self._control.release()
        self._map.close()
        os.close(self.fd)


def _open_event(cpu: int, watermark: int) -> tuple[int, bool]:
    """A perf event that receives BPF output on one CPU; and whether the kernel counts losses for it (6.0 on).

    Raises: BpfError; its errno is ENODEV when the CPU is offline.
    """
    number = SYSCALL_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise BpfError(f"perf_event_open: not known for {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    fd, code = -1, 0
    for read_format in (FORMAT_LOST, 0):
        attributes = _Attributes(
            type=TYPE_SOFTWARE,
            size=ctypes.sizeof(_Attributes),
            config=SW_BPF_OUTPUT,
            sample_period=1,
            sample_type=SAMPLE_RAW | SAMPLE_TIME,
            read_format=read_format,
            flags=FLAG_WATERMARK | FLAG_SAMPLE_ID_ALL | FLAG_USE_CLOCKID,
            wakeup_watermark=watermark,
            # Wall-clock time straight from the kernel: observers of one machine agree on it to the nanosecond,
            # which an offset measured by each of them could not give.
            clockid=CLOCK_REALTIME,
        )
        fd = libc.syscall(number, ctypes.byref(attributes), -1, cpu, -1, FLAG_FD_CLOEXEC)
        if fd >= 0:
            return fd, bool(read_format)
        code = ctypes.get_errno()
        if code != errno.EINVAL:
            break
    reason = os.strerror(code)
    if code in (errno.EPERM, errno.EACCES):
        reason = "needs root or CAP_PERFMON (kernel.perf_event_paranoid)"
    raise BpfError(f"open the perf ring of CPU {cpu}: {reason}", code)


class PerfReader:
    """The perf rings of all CPUs. Not for several threads; another reader of the same map takes the events over."""

    def __init__(self, events: Path | Map, pages_per_cpu: int = 64, watermark: int | None = None) -> None:
        """Open rings and put them into the array.

        `events` is the map, or the folder in which it is pinned (`--pin-dir`). `pages_per_cpu` is a power of two.
        `watermark` is how many waiting bytes wake a poll(): a quarter of the ring if not given.

        Raises: BpfError with one line when a capability, the map or memory is missing; ValueError for bad sizes.
        """
        if pages_per_cpu < 1 or pages_per_cpu & (pages_per_cpu - 1):
            raise ValueError(f"pages per CPU must be a power of two, got {pages_per_cpu}")
        self.statistics = PerfStatistics()
        self._rings: list[_Ring] = []
        self._epoll = select.epoll()
        self._map = events if isinstance(events, Map) else Map.pinned(events / EVENTS)
        self._owns_map = not isinstance(events, Map)
        size = pages_per_cpu * mmap.PAGESIZE
        try:
            for cpu in range(possible_cpus()):
                self._open_ring(cpu, pages_per_cpu, size // 4 if watermark is None else watermark)
        except BaseException:
            self.close()
            raise

    def _open_ring(self, cpu: int, pages: int, watermark: int) -> None:
        try:
            ring = _Ring(cpu, pages, watermark)
        except BpfError as error:
            if error.errno == errno.ENODEV:  # possible, but not there
                return
            raise
        self._rings.append(ring)
        self._epoll.register(ring.fd, select.EPOLLIN)
        self._map.set_fd(cpu, ring.fd)

    def fileno(self) -> int:
        """Readable when a ring has reached the watermark."""
        return self._epoll.fileno()

    def poll(self, timeout_s: float) -> bool:
        """Wait until a ring has reached the watermark (True) or the time is over (False); then drain()."""
        return bool(self._epoll.poll(timeout_s))

    def drain(self) -> EventBatch | None:
        """Everything the rings held when the call began, in order of time; None when there was nothing.

        Copies at most the size of all rings. Events that come while it runs are left for the next drain, so that
        batches follow each other in time.
        """
        # Before the heads are read: an event of one CPU that is newer than this may have an older sister on a CPU
        # whose head was read earlier.
        now_ns = time.time_ns()
        waiting = [(ring, head) for ring in self._rings if (head := ring.head()) != ring.tail or ring.at_risk]
        if not waiting:
            return None
        _barrier()
        size = sum(head - ring.tail for ring, head in waiting)
        if size <= FEW_BYTES and (few := self._drain_few(waiting, now_ns)) is not None:
            return few if len(few) else None
        data = np.empty(size, np.uint8)
        pieces: list[_Piece] = []
        base = 0
        for ring, head in waiting:
            length = head - ring.tail
            pieces.append(self._take(ring, head, data[base : base + length], base, now_ns))
            base += length
        batch = _merge(data, pieces, now_ns)
        self.statistics.delivered += len(batch)
        self.statistics.lost += sum(lost.count for lost in batch.lost)
        return batch if len(batch) or batch.lost else None

    def _drain_few(self, waiting: Sequence[tuple[_Ring, int]], now_ns: int) -> EventBatch | None:
        """The same for a handful of events, without numpy; None, and nothing done, when there is more to it."""
        found: list[tuple[int, int, int, int]] = []
        ends: list[int] = []
        parts: list[bytes] = []
        base = 0
        for ring, head in waiting:
            part = ring.few(head)
            # A ring that is, or was, nearly full may have lost events that only its counter tells of.
            at_risk = ring.at_risk or ring.nearly_full(len(part))
            records = None if at_risk else read_few(part, now_ns)
            if records is None:
                return None
            events, end = records
            found += [(time_ns, base + start, length, ring.cpu) for time_ns, start, length in events]
            ends.append(end)
            parts.append(part)
            base += len(part)
        _barrier()
        for (ring, _), end in zip(waiting, ends, strict=True):
            ring.release(end)
        if len(parts) > 1:
            found.sort(key=_time_of)
        self.statistics.delivered += len(found)
        return _batch_of_few(b"".join(parts), found)

    def _take(self, ring: _Ring, head: int, data: U8Array, base: int, now_ns: int) -> _Piece:
        """Move one ring's records into `data`, its place in the batch."""
        ring.copy(head, data)
        records = split_records(data)
        if records.end < len(data):
            self.statistics.broken += 1
        self.statistics.skipped += records.skipped
        starts = records.starts
        times: I64Array = data.view("<i8")[(starts >> 3) + 1]
        end = len(data)
        keep = _first_too_new(times, now_ns)
        if keep < len(starts):
            end = int(starts[keep])
            starts, times = starts[:keep], times[:keep]
        # A gap stands before the event that was stored next; its own time is that of a moment later.
        gaps = [
            (int(np.searchsorted(starts, each.position)), ring.untold(each.count))
            for each in records.lost
            if each.position < end
        ]
        _barrier()
        ring.release(end)
        nearly_full = ring.nearly_full(len(data))
        if (nearly_full or ring.at_risk) and (count := ring.uncounted_losses()):
            gaps.append((len(starts), count))
        ring.at_risk = nearly_full
        lengths = data.view("<u4")[(starts >> 2) + 4].astype(np.int64)
        return _Piece(ring.cpu, starts + (base + SAMPLE_HEAD), lengths, times, [gap for gap in gaps if gap[1]])

    def close(self) -> None:
        """Take the rings out of the array and close them; programs go on, events have no reader then."""
        for ring in self._rings:
            self._map.delete(ring.cpu.to_bytes(4, "little"))
            ring.close()
        self._rings.clear()
        self._epoll.close()
        if self._owns_map:
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Piece:
    """One CPU's share of a batch."""

    cpu: int
    offsets: I64Array
    lengths: I64Array
    times_ns: I64Array
    gaps: list[tuple[int, int]]
    """Index of the event before which something is missing (or one past the last), and how much."""


def _first_too_new(times: I64Array, now_ns: int) -> int:
    """Index of the first event stamped after `now_ns`. Times of a clock that was set back meanwhile do not count."""
    if not len(times) or times[-1] <= now_ns:
        return len(times)
    first = int(np.argmax(times > now_ns))
    return first if times[first] - now_ns < HELD_BACK_AT_MOST_NS else len(times)


def _merge(data: U8Array, pieces: Sequence[_Piece], now_ns: int) -> EventBatch:
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


def _merge_gaps(pieces: Sequence[_Piece], order: I64Array, now_ns: int) -> tuple[LostSamples, ...]:
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


def _barrier() -> None:
    """Keep reads of the rings on their side of reads and writes of head and tail.

    amd64 never swaps them. Elsewhere a processor may; taking and releasing a lock twice orders everything before
    against everything after, since each is an acquire and a release and those two keep their order.
    """
    if _STRONGLY_ORDERED:
        return
    for _ in range(2):
        with _BARRIER_LOCK:
            pass


_STRONGLY_ORDERED: Final = platform.machine() in {"x86_64", "AMD64"}
_BARRIER_LOCK: Final = threading.Lock()
