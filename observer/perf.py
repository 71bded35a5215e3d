"""Reader of the kernel's perf rings: one per CPU, drained whole, stamped with the kernel's time.

In:        a perf event array (the pinned map `cilium_events`), whose slots it fills with rings of its own.
Out:       EventBatch: one per drain, all CPUs merged by time, with what the kernel could not store in its place.
Elsewhere: bpf/ writes the events; model/ decodes them; kernel.py is the source that drains. perf_rings.py is one ring,
           perf_records.py finds records in it, perf_batches.py merges.

A wake-up per event costs the packet's sender ten times what the event costs (a wake-up is work for the scheduler), so
rings wake their reader only when `watermark` bytes are waiting; the caller's timer sees to the rest. Nothing here
happens once per event: a ring is copied out, its records are found by numpy.
"""

from __future__ import annotations

import errno
import mmap
import platform
import select
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from bpf.handles import Map
from bpf.libbpf import BpfError, possible_cpus
from bpf.maps import EVENTS
from model.events import EventBatch
from observer.perf_batches import Piece, batch_of_few, merge, time_of
from observer.perf_records import SAMPLE_HEAD, I64Array, U8Array, first_too_new, read_few, split_records
from observer.perf_rings import Ring

FEW_BYTES: Final = 8192
"""Up to here records are read one by one: numpy takes 50 us for the first, and next to nothing for the others."""


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
        self._rings: list[Ring] = []
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
            ring = Ring(cpu, pages, watermark)
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
        pieces: list[Piece] = []
        base = 0
        for ring, head in waiting:
            length = head - ring.tail
            pieces.append(self._take(ring, head, data[base : base + length], base, now_ns))
            base += length
        batch = merge(data, pieces, now_ns)
        self.statistics.delivered += len(batch)
        self.statistics.lost += sum(lost.count for lost in batch.lost)
        return batch if len(batch) or batch.lost else None

    def _drain_few(self, waiting: Sequence[tuple[Ring, int]], now_ns: int) -> EventBatch | None:
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
            ring.at_risk = ring.release(end)
        if len(parts) > 1:
            found.sort(key=time_of)
        self.statistics.delivered += len(found)
        return batch_of_few(b"".join(parts), found)

    def _take(self, ring: Ring, head: int, data: U8Array, base: int, now_ns: int) -> Piece:
        """Move one ring's records into `data`, its place in the batch."""
        ring.copy(head, data)
        records = split_records(data)
        if records.end < len(data):
            self.statistics.broken += 1
        self.statistics.skipped += records.skipped
        starts = records.starts
        times: I64Array = data.view("<i8")[(starts >> 3) + 1]
        end = len(data)
        keep = first_too_new(times, now_ns)
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
        nearly_full = ring.release(end)
        if (nearly_full or ring.at_risk) and (count := ring.uncounted_losses()):
            gaps.append((len(starts), count))
        ring.at_risk = nearly_full
        lengths = data.view("<u4")[(starts >> 2) + 4].astype(np.int64)
        return Piece(ring.cpu, starts + (base + SAMPLE_HEAD), lengths, times, [gap for gap in gaps if gap[1]])

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
