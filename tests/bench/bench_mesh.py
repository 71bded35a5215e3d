"""What a request pays for the mesh: one Envoy per node against two in a row and against none; with policy and flows.

In:        a lab; Envoy as the web server in a pod; wrk in another pod of the same node.
Out:       requests per second, latencies and processor time per request of each way, medians of alternating runs;
           whether every request became a flow; how long an Ingress and a CiliumEnvoyConfig take to answer.
Elsewhere: packets alone are bench_datapath.py's, the DNS proxy bench_dns.py's.

The ways:   none    client -> server
            one     the node's Envoy with an HTTP policy, every request told to the observer
            plain   one Envoy on the node that only routes: no policy, no records
            two     an Envoy beside the client and one beside the server, as with sidecars
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.options import KIND_CONFIG, MANIFESTS
from tests.support.process import ROOT, TICKS
from tests.support.web import Told, proxy_web, serve_web, wrk

ROUNDS = 5
RUN_S = 3
CONNECTIONS = 16
WEB, PROXY = 9000, 15001
PATIENCE_S = 20.0
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: bench, namespace: cilium-test}
spec:
  endpointSelector: {matchLabels: {name: client2}}
  egress:
  - toEndpoints: [{matchLabels: {kind: echo}}]
    toPorts:
    - ports: [{port: "9000", protocol: TCP}]
      rules: {http: [{method: GET, path: "/"}]}
  - toEntities: [host]
"""


@dataclass(frozen=True)
class Lab:
    """A running lab."""

    run_dir: Path
    state: dict[str, Any]

    def pod(self, deployment: str) -> dict[str, Any]:
        """The pod of a deployment."""
        return next(pod for pod in self.state["pods"] if pod["deployment"] == deployment)

    def flowscope(self, *words: str, text: str = "") -> str:
        """What `flowscope WORDS` prints. Raises: CalledProcessError."""
        command = [sys.executable, "-m", "cli", *words]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    def mesh(self, word: str, *words: str, text: str = "") -> None:
        """`flowscope mesh apply|delete`."""
        self.flowscope("mesh", word, "--store", str(self.run_dir / "store"), *words, text=text)


def run() -> dict[str, object]:
    """All figures of this topic."""
    with ExitStack() as stack:
        lab = stack.enter_context(running_lab())
        client, server = lab.pod("client2"), lab.pod("echo-same-node")
        node = next(one["netns"] for one in lab.state["nodes"] if one["name"] == client["node"])
        address, router = server["ips"][0], f"{client['ips'][0].rsplit('.', 1)[0]}.1"
        stack.enter_context(serve_web(server["netns"], WEB))
        # Beside the node's own Envoy, which has two workers, too.
        stack.enter_context(proxy_web(node, PROXY, (address, WEB), 2))
        stack.enter_context(proxy_web(server["netns"], PROXY + 1, ("127.0.0.1", WEB)))
        stack.enter_context(proxy_web(client["netns"], PROXY + 2, (address, PROXY + 1)))
        ways = {
            "none": f"http://{address}:{WEB}/",
            "one": f"http://{address}:{WEB}/",
            "plain": f"http://{router}:{PROXY}/",
            "two": f"http://127.0.0.1:{PROXY + 2}/",
        }
        figures = compare(lab, client["netns"], ways)
        figures |= accounts(lab, client, ways["one"])
        return figures | times_to_answer(lab)


@contextmanager
def running_lab() -> Iterator[Lab]:
    """A lab with names and ports of its own."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir, config = Path(folder) / "run", Path(folder) / "kind-config.yaml"
        config.write_text(f"name: bench{os.getpid()}\n{KIND_CONFIG.read_text()}")
        words = ["--run-dir", str(run_dir), "--relay-listen", "", "--ui-listen", ""]
        command = [sys.executable, "-m", "cli", "lab"]
        subprocess.run([*command, "up", "-q", "--config", str(config), *words], check=True, cwd=ROOT)
        try:
            yield Lab(run_dir, json.loads((run_dir / "lab.json").read_text()))
        finally:
            subprocess.run([*command, "down", "--run-dir", str(run_dir)], check=True, cwd=ROOT, capture_output=True)


def compare(lab: Lab, client: str, ways: dict[str, str]) -> dict[str, object]:
    """Every way in turns."""
    told: dict[str, list[Told]] = {way: [] for way in ways}
    cost: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, url in ways.items():
            if way == "one":
                lab.mesh("apply", "--wait", "-f", "-", text=POLICY)
            before = busy_s()
            told[way].append(wrk(client, url, connections=CONNECTIONS, seconds=RUN_S))
            cost[way].append((busy_s() - before) / max(told[way][-1].requests, 1) * 1e6)
            if way == "one":
                lab.mesh("delete", "--wait", "-f", "-", text=POLICY)
    rate = {way: statistics.median(one.requests_per_s for one in each) for way, each in told.items()}
    figures: dict[str, object] = {
        "one_envoy_to_two_ratio": round(rate["one"] / rate["two"], 3),
        "one_envoy_to_none_ratio": round(rate["one"] / rate["none"], 3),
        "policy_and_flows_to_envoy_alone_ratio": round(rate["one"] / rate["plain"], 3),
    }
    for way, each in told.items():
        figures |= {
            f"{way}_requests_per_s": round(rate[way]),
            f"{way}_p50_us": round(statistics.median(one.p50_us for one in each)),
            f"{way}_p99_us": round(statistics.median(one.p99_us for one in each)),
            f"{way}_machine_cpu_us_per_request": round(statistics.median(cost[way]), 1),
            f"{way}_errors": sum(one.errors for one in each),
        }
    return figures


def busy_s() -> float:
    """Processor time that the whole machine has spent, other work included."""
    fields = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return (sum(fields) - fields[3] - fields[4]) / TICKS


def accounts(lab: Lab, client: dict[str, Any], url: str) -> dict[str, object]:
    """A second of requests, and the flows of them."""
    lab.mesh("apply", "--wait", "-f", "-", text=POLICY)
    since = f"{time.time():.3f}"
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(float(since))) + f".{since.partition('.')[2]}Z"
    told = wrk(client["netns"], url, connections=4, seconds=1)
    time.sleep(1)
    observer = f"unix://{lab.run_dir / client['node'] / 'observer.sock'}"
    words = ["observe", "--server", observer, "--type", "l7", "--since", moment, "--all", "-o", "json"]
    lines = lab.flowscope(*words).splitlines()
    flows = [json.loads(line)["flow"]["l7"]["type"] for line in lines if '"l7"' in line]
    lab.mesh("delete", "-f", "-", text=POLICY)
    return {
        "accounts_requests": told.requests,
        "accounts_request_flows": flows.count("REQUEST"),
        "accounts_response_flows": flows.count("RESPONSE"),
        "accounts_lost": sum("lost_events" in line for line in lines),
    }


def times_to_answer(lab: Lab) -> dict[str, object]:
    """From the start of `mesh apply`, and from its end, to the first correct answer."""
    walk = MANIFESTS / "walk"
    for name in ("kind-lb-cm.yaml", "foo-bar-apps.yaml"):
        lab.mesh("apply", "--wait", "-f", str(walk / name))
    time.sleep(3)
    client = lab.pod("client2")["netns"]
    ingress = answer_times(
        lab, walk / "cilium-ingress.yaml", lab.state["outside"], "http://172.18.255.200/foo", lambda text: text == "foo"
    )
    echo = next(
        one.spec.cluster_ip for one in services(lab) if (one.namespace, one.name) == ("cilium-test", "echo-same-node")
    )
    config = answer_times(
        lab, walk / "cilium-envoy-config.yaml", client, f"http://{echo}:8080/foo", lambda text: "JSON server" in text
    )
    return {
        "ingress_first_answer_after_apply_began_ms": ingress[0],
        "ingress_first_answer_after_apply_returned_ms": ingress[1],
        "envoy_config_first_answer_after_apply_began_ms": config[0],
        "envoy_config_first_answer_after_apply_returned_ms": config[1],
    }


def services(lab: Lab) -> list[Any]:
    """All services."""
    from mesh.store import SqliteStore

    store = SqliteStore(lab.run_dir / "store")
    try:
        return list(store.find("Service"))
    finally:
        store.close()


def answer_times(lab: Lab, manifest: Path, netns: str, url: str, is_right: Any) -> tuple[float, float]:
    """Milliseconds."""
    began = time.monotonic()
    lab.mesh("apply", "-f", str(manifest))
    returned = time.monotonic()
    curl = ["ip", "netns", "exec", netns, "curl", "-s", "-m", "0.5", url]
    while time.monotonic() - began < PATIENCE_S:
        if is_right(subprocess.run(curl, capture_output=True, text=True).stdout.strip()):
            now = time.monotonic()
            return round((now - began) * 1e3), round((now - returned) * 1e3)
    raise RuntimeError(f"{url} does not answer as {manifest.name} says")
