"""PerfReader on real rings: what is emitted is delivered or reported lost, whatever happens."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from bpf import maps
from bpf.bpffs import ensure_bpffs
from bpf.handles import Map, Program
from bpf.libbpf import BpfError
from bpf.loader import load_object
from observer.perf import PerfReader

pytestmark = pytest.mark.kernel

PACKET = bytes(12) + b"\x08\x00" + bytes([0x45]) + bytes(200)
RECORD_BYTES = 200


class Emitter:
    """A program that sends one event per run."""

    def __init__(self, objects: Path, pin_dir: Path) -> None:
        self.pin_dir = pin_dir
        small = dict.fromkeys((*maps.CONNTRACK, maps.FRAGMENTS), 64)
        self._loaded = load_object(objects / "emit.bpf.o", pin_dir, None, small)
        self.program: Program = self._loaded.programs["emit"]
        self.events: Map = self._loaded.maps[maps.EVENTS]

    def emit(self, count: int, packet: bytes = PACKET) -> None:
        self.program.test_run(packet, repeat=count)

    def emit_on(self, cpu: int, count: int) -> None:
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
        try:
            self.emit(count)
        finally:
            os.sched_setaffinity(0, allowed)

    @property
    def emitted(self) -> int:
        raw = self._loaded.maps[maps.EVENT_STATS].lookup(bytes(4)) or b""
        counters = np.frombuffer(raw, maps.EVENT_STATS_VALUE)
        return int(counters["stored"].sum() + counters["ring_full"].sum())

    def close(self) -> None:
        self._loaded.close()


@pytest.fixture
def emitter(objects: Path, tmp_path: Path) -> Iterator[Emitter]:
    bpffs = tmp_path / "bpffs"
    ensure_bpffs(bpffs)
    emitter = Emitter(objects, bpffs / "node")
    yield emitter
    emitter.close()
    subprocess.run(["umount", str(bpffs)], check=True)


def test_batch_holds_whole_events_in_order_of_time(emitter: Emitter) -> None:
    with PerfReader(emitter.pin_dir) as reader:
        before = time.time_ns()
        for cpu in sorted(os.sched_getaffinity(0)) * 2:
            emitter.emit_on(cpu, 50)
        batch = reader.drain()
        assert reader.drain() is None
    assert batch is not None
    assert len(batch) == 100 * len(os.sched_getaffinity(0))
    assert (np.diff(batch.times_ns) >= 0).all()
    assert before <= batch.times_ns[0] <= batch.times_ns[-1] <= time.time_ns(), "wall-clock time of the kernel"
    assert set(batch.cpus.tolist()) == os.sched_getaffinity(0)
    for index in (0, len(batch) - 1):
        record = batch.record(index)
        assert record[:4] == bytes([4, 0, 7, 0])
        assert record[48:176] == PACKET[:128]


def test_ring_that_wraps_around_gives_every_record_whole(emitter: Emitter) -> None:
    with PerfReader(emitter.pin_dir, pages_per_cpu=1) as reader:
        total = 0
        for round_ in range(200):
            emitter.emit(7, PACKET[: 40 + round_ % 80])
            batch = reader.drain()
            assert batch is not None
            total += len(batch)
            assert {batch.record(index)[0] for index in range(len(batch))} == {4}
        assert (total, reader.statistics.lost, reader.statistics.broken) == (1400, 0, 0)


def test_ten_times_too_many_events_are_delivered_or_counted_exactly(emitter: Emitter) -> None:
    with PerfReader(emitter.pin_dir, pages_per_cpu=4) as reader:
        delivered = lost = 0
        for _ in range(30):
            emitter.emit(10 * 4 * 4096 // RECORD_BYTES)
            batch = reader.drain()
            assert batch is not None
            delivered += len(batch)
            lost += sum(gap.count for gap in batch.lost)
            assert len(batch.data) <= len(os.sched_getaffinity(0)) * 4 * 4096, "memory is bounded by the rings"
        while (batch := reader.drain()) is not None:
            delivered += len(batch)
            lost += sum(gap.count for gap in batch.lost)
        assert lost > 5 * delivered
        assert delivered + lost == emitter.emitted


def test_overload_while_the_reader_runs_is_counted_exactly(emitter: Emitter) -> None:
    seen = []
    with PerfReader(emitter.pin_dir, pages_per_cpu=2) as reader:
        thread = Thread(target=lambda: emitter.emit(300_000))
        thread.start()
        while thread.is_alive():
            reader.poll(0.001)
            seen.append(reader.drain())
        while (batch := reader.drain()) is not None:
            seen.append(batch)
        thread.join()
        statistics = reader.statistics
        assert statistics.delivered + statistics.lost == emitter.emitted == 300_000
        assert (statistics.skipped, statistics.broken) == (0, 0)
    batches = [batch for batch in seen if batch is not None]
    for batch in batches:
        assert all(0 <= gap.at <= len(batch) for gap in batch.lost)
    times = np.concatenate([batch.times_ns for batch in batches])
    assert (np.diff(times) >= 0).all(), "batches follow each other in time"


def test_loss_before_silence_is_reported_without_another_event(emitter: Emitter) -> None:
    with PerfReader(emitter.pin_dir, pages_per_cpu=1) as reader:
        emitter.emit(100)
        batch = reader.drain()
        assert batch is not None
        [gap] = batch.lost
        assert gap.at == len(batch)
        assert gap.count == 100 - len(batch)
        emitter.emit(1)
        later = reader.drain()
        assert later is not None
        assert (len(later), later.lost) == (1, ()), "and is not told twice"


def test_gap_stands_before_the_first_event_after_it(emitter: Emitter) -> None:
    [cpu] = [min(os.sched_getaffinity(0))]
    with PerfReader(emitter.pin_dir, pages_per_cpu=1) as reader:
        emitter.emit_on(cpu, 100)
        full = reader.drain()
        assert full is not None
        emitter.emit_on(cpu, 3)
        after = reader.drain()
        assert after is not None
        assert full.lost[0].at == len(full)
        assert full.lost[0].cpu == cpu
        assert len(after) == 3


def test_poll_wakes_at_the_watermark_and_not_before(emitter: Emitter) -> None:
    cpu = min(os.sched_getaffinity(0))
    with PerfReader(emitter.pin_dir, pages_per_cpu=8, watermark=10 * RECORD_BYTES) as reader:
        emitter.emit_on(cpu, 5)
        assert not reader.poll(0.05)
        emitter.emit_on(cpu, 10)
        assert reader.poll(1.0)
        batch = reader.drain()
        assert batch is not None
        assert len(batch) == 15


def test_next_reader_takes_over_and_a_closed_one_leaves_nothing(emitter: Emitter) -> None:
    first = PerfReader(emitter.pin_dir)
    emitter.emit(3)
    first.close()
    emitter.emit(5)
    with PerfReader(emitter.events) as second:
        emitter.emit(7)
        batch = second.drain()
        assert batch is not None
        assert len(batch) == 7
    assert emitter.emitted == 10, "five had no reader"


def test_missing_map_and_bad_sizes_are_told_plainly(tmp_path: Path, emitter: Emitter) -> None:
    with pytest.raises(BpfError, match=r"open .*cilium_events: not there: has the agent"):
        PerfReader(tmp_path)
    with pytest.raises(ValueError, match="power of two, got 3"):
        PerfReader(emitter.pin_dir, pages_per_cpu=3)
