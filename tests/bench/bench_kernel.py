"""Cost of an event in the kernel, with our reader and with a wake-up for each; of a drain; of a packet.

In:        the built programs (bpf/build), run on packets that go nowhere (BPF_PROG_TEST_RUN).
Out:       nanoseconds per event and per packet, medians; the ratio of both readers from one run.
Elsewhere: what the observer does with a batch is bench_observer.py's.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from threading import Event, Thread

from bpf import maps
from bpf.bpffs import ensure_bpffs
from bpf.datapath import OBJECTS, Aggregation, Datapath, Endpoint, IpcacheEntry
from bpf.handles import Program
from bpf.loader import load_object
from observer.perf import PerfReader
from tests.support.testnet import SMALL_MAPS, inside, network
from tests.support.traffic import ethernet, ipv4_packet, udp_datagram

RUNS = 7
EVENTS = 8000
PACKETS = 20000
PAGES = 1024
LOOPBACK = 1
POD, REMOTE, NODE = "10.244.1.10", "10.244.2.10", "172.18.0.2"
PACKET = ethernet(ipv4_packet(POD, REMOTE, udp_datagram(4000, 4001, bytes(200))))


def run() -> dict[str, object]:
    """All figures of this topic."""
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        return per_event(Path(folder)) | per_packet(Path(folder))


def per_event(folder: Path) -> dict[str, object]:
    """One program that sends one event per run, in front of both kinds of reader, in turns."""
    bpffs = folder / "events"
    ensure_bpffs(bpffs)
    small = dict.fromkeys((*maps.CONNTRACK, maps.FRAGMENTS), 64)
    loaded = load_object(OBJECTS / "emit.bpf.o", bpffs / "node", None, small)
    emit = loaded.programs["emit"]
    alone, by_watermark, by_each, drains = [], [], [], []
    try:
        for _ in range(RUNS):
            alone.append(emit.test_run(PACKET, repeat=EVENTS).duration_ns)
            with PerfReader(bpffs / "node", PAGES) as reader:
                by_watermark.append(emit.test_run(PACKET, repeat=EVENTS).duration_ns)
                drains.append(drain_ns(reader, EVENTS))
            with PerfReader(bpffs / "node", PAGES, watermark=1) as reader, busy(reader):
                by_each.append(emit.test_run(PACKET, repeat=EVENTS // 4).duration_ns)
    finally:
        loaded.close()
        subprocess.run(["umount", str(bpffs)], check=True)
    watermark, each = statistics.median(by_watermark), statistics.median(by_each)
    return {
        "event_without_reader_ns": statistics.median(alone),
        "event_by_watermark_ns": watermark,
        "event_wakeup_each_ns": each,
        "event_watermark_to_wakeup_ratio": round(watermark / each, 4),
        "drain_ns_per_event": round(statistics.median(drains), 1),
    }


def drain_ns(reader: PerfReader, expected: int) -> float:
    """Time of one drain, per event."""
    started = time.perf_counter_ns()
    batch = reader.drain()
    took = time.perf_counter_ns() - started
    if batch is None or len(batch) != expected:
        raise RuntimeError(f"expected {expected} events, got {batch and len(batch)}")
    return took / expected


@contextmanager
def busy(reader: PerfReader) -> Iterator[None]:
    """A reader that sleeps until each event and is woken for it."""
    stop = Event()

    def read() -> None:
        while not stop.is_set():
            reader.poll(0.05)
            reader.drain()

    thread = Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def per_packet(folder: Path) -> dict[str, object]:
    """A pod's packet to a pod of another node, an established connection: source check to tunnel key."""
    with network(folder) as net, Datapath("bench", netns=net.name, bpffs=net.bpffs, sizes=SMALL_MAPS) as datapath:
        datapath.ensure_loaded()
        datapath.attach_endpoint(
            Endpoint(
                endpoint_id=5,
                identity=500,
                ifname="lo",
                pod_mac="02:00:00:00:00:99",
                host_mac="02:00:00:00:00:01",
                ipv4=IPv4Address(POD),
            )
        )
        datapath.attach_overlay("br0")
        datapath.set_ipcache(ip_network(f"{REMOTE}/32"), IpcacheEntry(identity=600, tunnel_endpoint=IPv4Address(NODE)))
        [path] = datapath.pin_dir.glob("programs-*/from_container")
        program = Program.pinned(path)
        figures: dict[str, object] = {}
        try:
            with PerfReader(datapath.pin_dir, PAGES) as reader:
                for level in (Aggregation.MEDIUM, Aggregation.NONE):
                    datapath.configure(aggregation=level)
                    count = PACKETS if level is Aggregation.MEDIUM else PACKETS // 4
                    figures[f"packet_{level.name.lower()}_ns"] = inside(
                        net.name,
                        lambda count=count: packet_ns(program, reader, count),  # type: ignore[misc]
                    )
        finally:
            program.close()
            datapath.unload()
        return figures


def packet_ns(program: Program, reader: PerfReader, count: int) -> float:
    """Median cost of one packet; rings are emptied between the runs."""
    costs = []
    for _ in range(RUNS):
        done = program.test_run(PACKET, repeat=count, ifindex=LOOPBACK)
        if done.result != 7:
            raise RuntimeError(f"the packet was not redirected: {done.result}")
        costs.append(done.duration_ns)
        reader.drain()
    return statistics.median(costs)
