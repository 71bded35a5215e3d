"""What a request pays for the mesh: one Envoy per node against two in a row and against none; with policy and flows.

In:        a lab; Envoy as the web server in a pod; wrk in another pod of the same node.
Out:       requests per second, latencies and processor time per request of each way, medians of alternating runs;
           whether every request became a flow; how long an Ingress and a CiliumEnvoyConfig take to answer.
Elsewhere: packets alone are bench_datapath.py's, the DNS proxy bench_dns.py's.

The ways:   none    client -> server
            one     the node's Envoy with an HTTP policy, every request told to the observer
            alone   the same Envoy, reached in the same way, without what judges and what tells: it only routes
            plain   another Envoy that only routes, as a server on the node: no redirection by the kernel either
            two     an Envoy beside the client and one beside the server, as with sidecars
"""

from __future__ import annotations

import asyncio
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
from mesh.envoy.admin import Admin
from mesh.envoy.bootstrap import ADMIN_SOCKET, LISTENERS
from mesh.files import write_text_atomically
from tests.support.process import ROOT, TICKS
from tests.support.web import Told, proxy_web, serve_web, wrk

ROUNDS = 5
RUN_S = 3
CONNECTIONS = 16
WEB, PROXY = 9000, 15001
PATIENCE_S = 20.0
SETTLE_S = 0.3
"""Until what was asked has been told: much more than it waits on its way."""
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
            "alone": f"http://{address}:{WEB}/",
            "plain": f"http://{router}:{PROXY}/",
            "two": f"http://127.0.0.1:{PROXY + 2}/",
        }
        figures = compare(lab, client, ways)
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


def compare(lab: Lab, client: dict[str, Any], ways: dict[str, str]) -> dict[str, object]:
    """Every way in turns."""
    told: dict[str, list[Told]] = {way: [] for way in ways}
    cost: dict[str, list[float]] = {way: [] for way in ways}
    parts: dict[str, list[float]] = {}
    own = processes(lab, client["node"])
    for number in range(ROUNDS):
        for way, url in list(ways.items())[:: -1 if number % 2 else 1]:
            with prepared(lab, client["node"], way):
                # What applying leaves to be done is no part of what requests cost.
                time.sleep(SETTLE_S)
                before, before_each = busy_s(), {name: process_s(pid) for name, pid in own.items()}
                found = wrk(client["netns"], url, connections=CONNECTIONS, seconds=RUN_S)
                # What has been asked is to be told, too, and that costs.
                time.sleep(SETTLE_S)
                told[way].append(found)
                cost[way].append((busy_s() - before) / max(found.requests, 1) * 1e6)
                if way in ("one", "alone"):
                    for name, pid in own.items():
                        spent = (process_s(pid) - before_each[name]) / max(found.requests, 1) * 1e6
                        parts.setdefault(f"{way}_{name}_cpu_us_per_request", []).append(spent)
    rates = {way: [one.requests_per_s for one in each] for way, each in told.items()}
    ratios = {
        other: statistics.median(ours / theirs for ours, theirs in zip(rates["one"], rates[other], strict=True))
        for other in ways
    }
    figures: dict[str, object] = {
        "one_envoy_to_two_ratio": round(ratios["two"], 3),
        "one_envoy_to_none_ratio": round(ratios["none"], 3),
        "policy_and_flows_to_envoy_alone_ratio": round(ratios["alone"], 3),
        "policy_and_flows_to_plain_ratio": round(ratios["plain"], 3),
        **{name: round(statistics.median(each), 1) for name, each in parts.items()},
    }
    for way, each in told.items():
        figures |= {
            f"{way}_requests_per_s": round(statistics.median(rates[way])),
            f"{way}_p50_us": round(statistics.median(one.p50_us for one in each)),
            f"{way}_p99_us": round(statistics.median(one.p99_us for one in each)),
            f"{way}_machine_cpu_us_per_request": round(statistics.median(cost[way]), 1),
            f"{way}_errors": sum(one.errors for one in each),
        }
    return figures


@contextmanager
def prepared(lab: Lab, node: str, way: str) -> Iterator[None]:
    """What a way needs beforehand, and nothing of it afterwards."""
    if way not in ("one", "alone"):
        yield
        return
    lab.mesh("apply", "--wait", "-f", "-", text=POLICY)
    envoy = lab.run_dir / node / "envoy"
    file = envoy / "resources" / f"{LISTENERS}.json"
    whole = file.read_text()
    try:
        if way == "alone":
            have_taken(envoy, file, bare(whole))
        yield
    finally:
        if way == "alone":
            have_taken(envoy, file, whole)
        lab.mesh("delete", "--wait", "-f", "-", text=POLICY)


def bare(listeners: str) -> str:
    """Listeners without what judges requests and what tells of them."""
    found = json.loads(listeners)
    for listener in found["resources"]:
        for one in (one for chain in listener["filter_chains"] for one in chain["filters"]):
            manager = one.get("typed_config", {})
            if "http_filters" in manager:
                manager.pop("access_log")
                manager["http_filters"] = [each for each in manager["http_filters"] if each["name"].endswith("router")]
                for name in ("upstream_log", "upstream_log_options"):
                    manager["http_filters"][0]["typed_config"].pop(name)
    found["version_info"] = "bare"
    return json.dumps(found)


def have_taken(envoy: Path, file: Path, text: str) -> None:
    """Give Envoy other listeners; returns when it has them. Raises: RuntimeError."""
    write_text_atomically(file, text)
    wanted, admin = json.loads(text)["version_info"], Admin(envoy / ADMIN_SOCKET)
    deadline = time.monotonic() + PATIENCE_S
    while asyncio.run(admin.taken()).get("listener_manager.lds") != wanted:
        if time.monotonic() > deadline:
            raise RuntimeError(f"Envoy does not take {file}")
        time.sleep(0.05)


def processes(lab: Lab, node: str) -> dict[str, int]:
    """Process ids of what a node pays for requests."""
    found = {"envoy": int((lab.run_dir / node / "envoy" / "envoy.pid").read_text())}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        for name, option in (("observer", f"--node-name={node}"), ("agent", f"--node={node}")):
            if name in words and option in words:
                found[name] = int(path.parent.name)
    return found


def process_s(pid: int) -> float:
    """Processor time that a process has spent, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


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
    # What is sent to nobody is sent again after a second; so ask anew, as somebody who has not asked before.
    curl = ["ip", "netns", "exec", netns, "curl", "-s", "--connect-timeout", "0.05", "-m", "0.5", url]
    while time.monotonic() - began < PATIENCE_S:
        if is_right(subprocess.run(curl, capture_output=True, text=True).stdout.strip()):
            now = time.monotonic()
            return round((now - began) * 1e3), round((now - returned) * 1e3)
    raise RuntimeError(f"{url} does not answer as {manifest.name} says")
