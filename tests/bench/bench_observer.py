"""What an observer costs: decoding into the ring, memory, serving, latency, and its accounts under overload.

Everything but the first two figures is measured on observer processes that replay recordings of golden/bench, with
counting clients as processes of their own (on a machine with two cores they share one with the harness).
"""

from __future__ import annotations

import json
import statistics
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
from tests.conftest import GOLDEN
from tests.support.batches import make_batch, read_golden
from tests.support.clients import count, finish_client, start_client
from tests.support.process import Process, observer_process
from tests.support.recordings import EPOCH_NS, paced, write_recording

RUNS = 5
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
        figures |= idle(folder)
        for per_second in (1000, 10_000, 100_000):
            figures |= latency(folder, events, state, per_second)
        figures |= fast_follower(folder, events, state)
        figures |= overload(folder, events, state)
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


def idle(folder: Path) -> dict[str, object]:
    """Nothing happens."""
    with observer_process(folder) as (process, address):
        client = start_client(address, "--request", NEWEST, "--patience", "4")
        time.sleep(0.5)
        share = cpu_share(process, 3.0)
        finish_client(client)
    return {"idle_cpu_percent": round(100 * share, 2)}


def cpu_share(process: Process, seconds: float) -> float:
    """Cores used over the next seconds."""
    before = process.cpu_s()
    begun = time.monotonic()
    time.sleep(seconds)
    return (process.cpu_s() - before) / (time.monotonic() - begun)


def latency(folder: Path, events: list[bytes], state: bytes, per_second: int) -> dict[str, object]:
    """From the event's own time to a follower, at a steady pace."""
    path = write_recording(folder / "paced", paced(events, state, per_second=per_second, seconds=4.0, batch_ms=1.0))
    flags = ["--replay", str(path), "--replay-loops", "0"]
    with observer_process(folder, *flags) as (process, address):
        sample = str(max(1, per_second // 2000))
        client = start_client(address, "--request", NEWEST, "--seconds", "4", "--sample", sample)
        time.sleep(0.8)
        share = cpu_share(process, 3.0)
        result = finish_client(client)
    name = f"at_{per_second}_per_s"
    return {
        f"latency_ms_median_{name}": round(result["late_ms"]["median"], 2),
        f"latency_ms_p99_{name}": round(result["late_ms"]["p99"], 2),
        f"cpu_percent_{name}": round(100 * share, 1),
        f"lost_{name}": sum(result["lost"].values()),
    }


def fast_follower(folder: Path, events: list[bytes], state: bytes) -> dict[str, object]:
    """One unfiltered follower at 200,000 events/s, and how far it can go."""
    figures: dict[str, object] = {}
    path = write_recording(folder / "fast", paced(events, state, per_second=200_000, seconds=2.0, batch_ms=2.0))
    with observer_process(folder, "--replay", str(path), "--replay-loops", "0") as (process, address):
        client = start_client(address, "--request", NEWEST, "--seconds", "5")
        time.sleep(1)
        figures["follower_at_200000_per_s_cpu_percent"] = round(100 * cpu_share(process, 3.0), 1)
        result = finish_client(client)
    figures["follower_at_200000_per_s_flows_per_s"] = round(result["flows"] / result["seconds"])
    figures["follower_at_200000_per_s_lost"] = sum(result["lost"].values())
    return figures


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
