"""What a relay costs: merging observers at full speed, and two hundred nodes that trickle.

Observers are real processes with full rings of golden traffic (flows of about 1,000 bytes); the two hundred nodes are
made up, in one process. Everything shares the machine: nodes, relay and client.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import GOLDEN
from tests.support.batches import read_golden
from tests.support.clients import count
from tests.support.process import Process, observer_process
from tests.support.recordings import paced, write_recording
from tests.support.relay_load import check_order, node_processes, relay_process

RUNS = 5
RING = 131_071
PACE = 20_000
"""Events per second while the rings fill: replayed side by side, so that the nodes' flows interleave."""
FILL_S = RING / PACE + 1.0
MANY = 200
PER_S = 500
STREAM_S = 6.0
EVERYTHING = {"number": str(2**64 - 1)}


def run() -> dict[str, object]:
    """All figures."""
    events, _ = read_golden(GOLDEN / "bench", "bench-mix")
    state = (GOLDEN / "events" / "getters.json").read_bytes()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [
            write_recording(
                folder / f"node-{number}",
                paced(events, state, per_second=PACE, seconds=FILL_S, node=f"node-{number}"),
            )
            for number in range(4)
        ]
        for nodes in (3, 4):
            figures |= merging(folder, paths[:nodes])
        figures |= many_nodes(folder)
    return figures


def merging(folder: Path, paths: list[Path]) -> dict[str, object]:
    """Everything that several observers keep, once by messages and once by columns."""
    with ExitStack() as stack:
        observers, peers = [], []
        for path in paths:
            here = folder / f"run-{path.name}"
            here.mkdir(exist_ok=True)
            flags = ["--ring-flows", str(RING), "--replay", str(path), "--replay-speed", "1"]
            process, address = stack.enter_context(observer_process(here, *flags))
            observers.append(process)
            peers.append(f"{path.name}={address}")
        for process in observers:
            process.wait_for("replay ended", 60)
        relay, address = stack.enter_context(relay_process(folder, peers))
        total = RING * len(paths)
        first = check_order(address, EVERYTHING)
        assert first["flows"] == total, first
        rates, costs, all_costs = [], [], []
        for _ in range(RUNS):
            before_s, before_all_s = relay.cpu_s(), cpu_of([relay, *observers])
            result = count(address, "--request", json.dumps(EVERYTHING))
            assert result["flows"] == total + 1, result  # and which nodes were asked
            rates.append(total / result["seconds"])
            costs.append((relay.cpu_s() - before_s) / total * 1e6)
            all_costs.append((cpu_of([relay, *observers]) - before_all_s) / total * 1e6)
        column_rates = []
        for _ in range(RUNS):
            result = count(address, "--request", json.dumps(EVERYTHING), "--columns")
            column_rates.append(total / result["seconds"])
        prefix = f"merging_{len(paths)}_observers"
        return {
            f"{prefix}_flows_per_s": round(statistics.median(rates)),
            f"{prefix}_out_of_order": first["out_of_order"],
            f"{prefix}_bytes_per_flow": round(first["bytes"] / total),
            f"{prefix}_relay_cpu_us_per_flow": round(statistics.median(costs), 2),
            f"{prefix}_relay_and_observers_cpu_us_per_flow": round(statistics.median(all_costs), 2),
            f"{prefix}_relay_rss_mib": round(relay.rss_mib(), 1),
            f"{prefix}_columns_flows_per_s": round(statistics.median(column_rates)),
        }


def many_nodes(folder: Path) -> dict[str, object]:
    """Two hundred nodes at a steady pace and one follower."""
    flags = ("--per-s", str(PER_S), "--size", "1000")
    with node_processes(folder, MANY, *flags) as (_, peers), relay_process(folder, peers) as (relay, address):
        before_s = relay.cpu_s()
        result = check_order(address, {"follow": True}, STREAM_S)
        cores = (relay.cpu_s() - before_s) / result["seconds"]
        return {
            "200_nodes_offered_flows_per_s": MANY * PER_S,
            "200_nodes_flows_per_s": round(result["flows"] / result["seconds"]),
            "200_nodes_out_of_order": result["out_of_order"],
            "200_nodes_relay_cores": round(cores, 3),
            "200_nodes_relay_rss_mib": round(relay.rss_mib(), 1),
            "200_nodes_median_delay_ms": round(result["delay_ms"], 1),
        }


def cpu_of(processes: list[Process]) -> float:
    """Processor time of several processes."""
    return sum(process.cpu_s() for process in processes)
