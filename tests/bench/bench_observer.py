"""What an observer costs: decoding into the ring, memory, serving, latency, and its accounts under overload.

Everything but the first figures is measured on observer processes, with counting clients as processes of their own (on
a machine with two cores they share one with the harness). Streams are measured from the kernel to the client where the
kernel lets us (root, eBPF); elsewhere from a replayed recording, which adds the recording's batches of 1 ms.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from model.decode import Decoder
from model.knowledge import Knowledge
from model.ring import Ring
from model.row import ROW
from model.tables import Node, Tables
from observer.recording import Item
from tests.conftest import GOLDEN, kernel_obstacle
from tests.support.batches import make_batch, read_golden
from tests.support.clients import count, finish_client, start_client
from tests.support.emitter import Emitter, emitter
from tests.support.process import Process, observer_process
from tests.support.recordings import EPOCH_NS, paced, write_recording

RUNS = 5
PACES = (1000, 10_000, 100_000, 200_000)
STREAM_S = 3.0
LARGEST = 2**20 - 1
EVERYTHING = json.dumps({"number": str(2**64 - 1)})
NEWEST = json.dumps({"follow": True})


def run() -> dict[str, object]:
    """All figures."""
    events, records = read_golden(GOLDEN / "bench", "bench-mix")
    state = (GOLDEN / "events" / "getters.json").read_bytes()
    figures: dict[str, object] = {}
    figures |= decoding(events, records, json.loads(state))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures |= serving(folder, events, state)
        figures |= memory_of_a_million(folder, events, state)
        figures |= overload(folder, events, state)
        if kernel_obstacle() is None:
            figures |= kernel_streams(folder)
        else:
            figures |= replayed_streams(folder, events, state)
    return figures


def median_of(measure: Callable[[], float], runs: int = RUNS) -> float:
    """The median of several runs."""
    return statistics.median(measure() for _ in range(runs))


def decoding(events: list[bytes], records: list[dict[str, Any]], state: dict[str, Any]) -> dict[str, object]:
    """Decode, enrich and store, on one core."""
    ring = Ring(65_535, Tables())
    node = ring.tables.nodes.intern(Node("kind-worker"))
    decoder = Decoder(ring.tables, Knowledge.from_json(state), node)
    batch = make_batch(events * 2, range(2 * len(events)))

    def once(with_records: bool) -> float:
        begun = time.process_time()
        count = 0
        for _ in range(20):
            ring.append(decoder.decode(batch).rows)
            count += len(batch)
            if with_records:
                ring.append(decoder.decode_accesslog(records * 2, [0] * (2 * len(records))).rows)
                count += 2 * len(records)
        return count / (time.process_time() - begun)

    once(True)
    return {
        "decode_enrich_store_events_per_s": round(median_of(lambda: once(False))),
        "decode_enrich_store_with_l7_records_events_per_s": round(median_of(lambda: once(True))),
        "ring_bytes_per_flow": ROW.itemsize,
    }


def serving(folder: Path, events: list[bytes], state: bytes) -> dict[str, object]:
    """A full ring, read over TCP by a client that only counts."""
    path = write_recording(folder / "full", paced(events, state, per_second=100_000, seconds=0.7))
    figures: dict[str, object] = {}
    flags = ["--replay", str(path), "--replay-speed", "0", "--insecure"]
    with observer_process(folder, *flags, listen="127.0.0.1:0") as (process, address):
        process.wait_for("replay ended")
        figures["rss_mib_with_65535_flows"] = round(process.rss_mib(), 1)
        for name, options in (("get_flows", []), ("columns", ["--columns"])):
            rates, costs, sizes = [], [], []
            count(address, "--request", EVERYTHING, *options)
            for _ in range(RUNS):
                before = process.cpu_s()
                result = count(address, "--request", EVERYTHING, *options)
                cpu_s = process.cpu_s() - before
                assert result["flows"] == 65_535, result
                rates.append(result["flows"] / result["seconds"])
                costs.append(cpu_s / result["flows"] * 1e6)
                sizes.append(result["bytes"] / result["flows"])
            figures[f"{name}_flows_per_s"] = round(statistics.median(rates))
            figures[f"{name}_server_cpu_us_per_flow"] = round(statistics.median(costs), 2)
            figures[f"{name}_bytes_per_flow"] = round(statistics.median(sizes))
        figures["rss_mib_with_65535_flows_after_serving"] = round(process.rss_mib(), 1)
    return figures


def memory_of_a_million(folder: Path, events: list[bytes], state: bytes) -> dict[str, object]:
    """A ring of 2^20 - 1 flows, full."""
    path = write_recording(folder / "million", paced(events, state, per_second=1_000_000, seconds=1.06))
    flags = ["--ring-flows", str(LARGEST), "--replay", str(path), "--replay-speed", "0"]
    with observer_process(folder, *flags) as (process, address):
        process.wait_for("replay ended")
        filled = process.rss_mib()
        result = count(address, "--request", json.dumps({"number": "100000"}))
        assert result["flows"] == 100_000, result
        return {
            "rss_mib_with_1048575_flows": round(filled, 1),
            "rss_mib_with_1048575_flows_after_serving": round(process.rss_mib(), 1),
        }


def kernel_streams(folder: Path) -> dict[str, object]:
    """A follower of events that a kernel program sends at a steady pace: latency, losses, processor time."""
    state = str(GOLDEN / "events" / "getters.json")
    figures: dict[str, object] = {"streams_measured_from": "kernel"}
    with emitter(folder) as kernel:
        flags = ["--events", "kernel", "--pin-dir", str(kernel.pin_dir), "--state-file", state]
        for per_second in (0, *PACES):
            with observer_process(folder, *flags) as (process, address):
                client = follow(address, per_second)
                kernel.pace(per_second, 0.5)
                meter = Meter(process)
                kernel.pace(per_second, STREAM_S)
                figures |= stream_figures(per_second, meter.share(), finish_client(client))
        figures |= kernel_overload(folder, kernel, flags)
    return figures


def kernel_overload(folder: Path, kernel: Emitter, flags: list[str]) -> dict[str, object]:
    """Two million events a second in front of one follower: what came and what was lost add up to the last event."""
    emitted = kernel.emitted
    with observer_process(folder, *flags) as (process, address):
        client = start_client(address, "--request", NEWEST, "--seconds", "4")
        begun = time.monotonic()
        for _ in range(40):
            kernel.emit(50_000)
        per_second = (kernel.emitted - emitted) / (time.monotonic() - begun)
        result = finish_client(client)
        rss = process.rss_mib()
    lost = result["lost"]
    return {
        "kernel_overload_emitted_per_s": round(per_second),
        "kernel_overload_emitted": kernel.emitted - emitted,
        "kernel_overload_delivered": result["flows"],
        "kernel_overload_lost_in_perf_rings": lost.get("PERF_EVENT_RING_BUFFER", 0),
        "kernel_overload_lost_in_queue": lost.get("OBSERVER_EVENTS_QUEUE", 0),
        "kernel_overload_lost_in_ring": lost.get("HUBBLE_RING_BUFFER", 0),
        "kernel_overload_unaccounted": kernel.emitted - emitted - result["flows"] - sum(lost.values()),
        "kernel_overload_rss_mib": round(rss, 1),
    }


def replayed_streams(folder: Path, events: list[bytes], state: bytes) -> dict[str, object]:
    """The same from a recording."""
    figures: dict[str, object] = {"streams_measured_from": "replay"}
    for per_second in (0, *PACES):
        seconds = STREAM_S + 3.0
        flags = []
        if per_second:
            items = paced(events, state, per_second=per_second, seconds=seconds, batch_ms=1.0)
            flags = ["--replay", str(write_recording(folder / "paced", items))]
        with observer_process(folder, *flags) as (process, address):
            client = follow(address, per_second)
            time.sleep(0.5)
            meter = Meter(process)
            time.sleep(STREAM_S)
            figures |= stream_figures(per_second, meter.share(), finish_client(client))
    return figures


def follow(address: str, per_second: int) -> subprocess.Popen[bytes]:
    """A client that follows for the time of one measurement, and samples about 2,000 latencies a second."""
    flags = ["--seconds", str(STREAM_S + 0.5), "--patience", str(STREAM_S + 0.5)]
    return start_client(address, "--request", NEWEST, *flags, "--sample", str(max(1, per_second // 2000)))


class Meter:
    """How much of a core a process uses."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._cpu_s, self._begun_s = process.cpu_s(), time.monotonic()

    def share(self) -> float:
        """Cores used since the meter was made."""
        return (self._process.cpu_s() - self._cpu_s) / (time.monotonic() - self._begun_s)


def stream_figures(per_second: int, share: float, result: dict[str, Any]) -> dict[str, object]:
    """The figures of one pace; 0 is silence."""
    if not per_second:
        return {"idle_cpu_percent": round(100 * share, 2)}
    name = f"at_{per_second}_per_s"
    return {
        f"latency_ms_median_{name}": round(result["late_ms"]["median"], 2),
        f"latency_ms_p99_{name}": round(result["late_ms"]["p99"], 2),
        f"cpu_percent_{name}": round(100 * share, 1),
        f"flows_per_s_{name}": round(result["flows"] / result["seconds"]),
        f"lost_{name}": sum(result["lost"].values()),
    }


def overload(folder: Path, events: list[bytes], state: bytes) -> dict[str, object]:
    """Ten times more events than a follower can take: what came and what was reported lost must add up."""
    seconds, per_second = 1.5, 2_000_000
    quiet_ns = 2_500_000_000

    def items() -> Iterator[Item]:
        yield make_batch(events[:1], [EPOCH_NS - quiet_ns])  # the follower connects now
        yield from paced(events, state, per_second=per_second, seconds=seconds)

    emitted = 1 + round(seconds * per_second)
    path = write_recording(folder / "overload", items())
    with observer_process(folder, "--replay", str(path)) as (process, address):
        client = start_client(address, "--request", json.dumps({"follow": True, "number": "1"}), "--seconds", "7")
        process.wait_for("replay ended")
        result = finish_client(client)
        rss = process.rss_mib()
    lost = result["lost"]
    return {
        "overload_emitted": emitted,
        "overload_delivered": result["flows"],
        "overload_lost_in_queue": lost.get("OBSERVER_EVENTS_QUEUE", 0),
        "overload_lost_in_ring": lost.get("HUBBLE_RING_BUFFER", 0),
        "overload_unaccounted": emitted - result["flows"] - sum(lost.values()),
        "overload_rss_mib": round(rss, 1),
    }
