"""What packets pay for our programs: throughput and latency beside the same machines without them.

In:        testnet.py's nodes with our datapath, plainnet.py's without; iperf3, wrk, Envoy as a web server.
Out:       throughput, and CPU time per gigabit of both ends (steadier where others use the cores, too), as medians of
           the ratios of neighbouring turns; above 1: better than without us. Latencies of both.
Elsewhere: services are bench_services.py's, changes of policies bench_policy.py's.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bpf.datapath import OBJECTS, Aggregation
from bpf.policies import EndpointPolicy, PolicyEntry
from observer.perf import PerfReader
from tests.bench.bench_kernel import busy
from tests.support.plainnet import plain_network
from tests.support.process import observer_process
from tests.support.testnet import Network, Pod, network
from tests.support.web import serve_web, wrk

ROUNDS = 10
RUN_S = 1
RULES = 1000
IDENTITY = 1000
WAYS = ("same_node", "vxlan")


def run() -> dict[str, object]:
    """All figures of this topic."""
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = stack.enter_context(plain_network())
        net = stack.enter_context(network(folder))
        near, server, far = pods(net)
        ways = {
            "plain_same_node": (plain.pods["near"][0], *plain.pods["server"]),
            "plain_vxlan": (plain.pods["near"][0], *plain.pods["far"]),
            "same_node": (near.netns, server.netns, server.ipv4),
            "vxlan": (near.netns, far.netns, far.ipv4),
        }
        for _, target, _ in ways.values():
            stack.enter_context(iperf_server(target))
        figures = compare("bare", ways)
        figures |= latencies(ways)
        net.nodes[0].datapath.set_policies({one.endpoint.endpoint_id: policy() for one in (near, server)})
        net.nodes[1].datapath.set_policies({far.endpoint.endpoint_id: policy()})
        figures |= compare(f"{RULES}_rules", ways)
        with followed(net, folder):
            figures |= compare("all_events_followed", ways)
        return figures


def pods(net: Network) -> tuple[Pod, Pod, Pod]:
    """Two pods of one node and one of another."""
    one, two = net.add_node(), net.add_node()
    made = one.add_pod(10, IDENTITY), one.add_pod(11, IDENTITY + 1), two.add_pod(12, IDENTITY + 2)
    net.share_ipcache()
    for node in net.nodes:
        node.datapath.configure(aggregation=Aggregation.MEDIUM)
    return made


def policy() -> EndpointPolicy:
    """So many rules in each direction, of which one allows what is measured."""
    entries = [
        PolicyEntry(egress, IDENTITY + 100 + number, 6, 1024 + number, 16)
        for egress in (False, True)
        for number in range(RULES)
    ]
    entries += [PolicyEntry(egress, IDENTITY + number) for egress in (False, True) for number in range(3)]
    return EndpointPolicy(tuple(entries), enforced_ingress=True, enforced_egress=True)


@dataclass(frozen=True, slots=True)
class Carried:
    """What iperf3 saw."""

    gbit_per_s: float
    cpu_ms: float
    """Of both ends, per gigabit; the kernel carries packets mostly in the name of who sent them."""


def compare(name: str, ways: dict[str, tuple[str, str, str]]) -> dict[str, object]:
    """iperf3 over each way in turns, ours beside the plain one; medians, and those of the turns' ratios."""
    turns: dict[str, list[Carried]] = {way: [] for way in ways}
    for number in range(ROUNDS):
        for way in WAYS:
            pair = (way, f"plain_{way}")
            for one in pair if number % 2 else reversed(pair):
                client, _, address = ways[one]
                turns[one].append(iperf(client, address))
    figures: dict[str, object] = {}
    for way in WAYS:
        pairs = list(zip(turns[way], turns[f"plain_{way}"], strict=True))
        rates = [ours.gbit_per_s / plain.gbit_per_s for ours, plain in pairs]
        costs = [plain.cpu_ms / ours.cpu_ms for ours, plain in pairs]
        figures[f"{name}_{way}_ratio"] = round(statistics.median(rates), 3)
        figures[f"{name}_{way}_cpu_ratio"] = round(statistics.median(costs), 3)
    for way, carried in turns.items():
        figures[f"{name}_{way}_gbit_per_s"] = round(statistics.median(each.gbit_per_s for each in carried), 2)
        figures[f"{name}_{way}_cpu_ms_per_gbit"] = round(statistics.median(each.cpu_ms for each in carried), 2)
    return figures


@contextmanager
def iperf_server(netns: str) -> Iterator[None]:
    """iperf3 in a pod."""
    process = subprocess.Popen(
        ["ip", "netns", "exec", netns, "iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def iperf(netns: str, address: str) -> Carried:
    """One TCP stream. Raises: RuntimeError when iperf3 says no, again and again."""
    command = ["ip", "netns", "exec", netns, "iperf3", "-J", "-t", str(RUN_S), "-c", address]
    for _ in range(20):
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_S + 20)
        found = json.loads(done.stdout or "{}")
        if "error" not in found:
            end, used = found["end"]["sum_received"], found["end"]["cpu_utilization_percent"]
            percent = used["host_total"] + used["remote_total"]
            gbit_per_s = end["bits_per_second"] / 1e9
            return Carried(gbit_per_s, percent * 10 / gbit_per_s)
        time.sleep(0.1)
    raise RuntimeError(f"iperf3: {found['error']}")


def latencies(ways: dict[str, tuple[str, str, str]]) -> dict[str, object]:
    """Keep-alive requests over one connection at a time; medians of the rounds' p50 and p99."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with contextlib.ExitStack() as stack:
        for _, target, _ in ways.values():
            stack.enter_context(serve_web(target, 8080))
        for _ in range(3):
            for way, (client, _, address) in ways.items():
                told = wrk(client, f"http://{address}:8080/", connections=1, seconds=RUN_S)
                found[way].append((told.p50_us, told.p99_us))
    return {
        f"request_{way}_{name}_us": round(statistics.median(each[at] for each in values), 1)
        for way, values in found.items()
        for at, name in enumerate(("p50", "p99"))
    }


@contextmanager
def followed(net: Network, folder: Path) -> Iterator[None]:
    """Every event is sent, and an observer with a follower takes those of the first node."""
    node, other = net.nodes
    for one in net.nodes:
        one.datapath.configure(aggregation=Aggregation.NONE)
    with ExitStack() as stack:
        flags = ["--events", "kernel", "--pin-dir", str(node.datapath.pin_dir)]
        _, address = stack.enter_context(observer_process(folder, *flags))
        command = [str(Path(".venv/bin/flowscope").absolute()), "observe", "-f", "--server", address, "-o", "json"]
        follower = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        stack.callback(follower.wait)
        stack.callback(follower.kill)
        stack.enter_context(busy(stack.enter_context(PerfReader(other.datapath.pin_dir))))
        yield
