"""How long a change of policy takes, from the store to the kernels of all nodes; what an agent weighs.

In:        two nodes with an agent each, 500 endpoints with devices of their own in all.
Out:       milliseconds from `apply` until every node enforces, for 1 rule and for 1,000; memory of an agent then.
Elsewhere: what packets pay for policies is bench_datapath.py's.
"""

from __future__ import annotations

import json
import secrets
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import yaml

from bpf.datapath import OBJECTS
from bpf.loader import ensure_bpffs
from mesh.controller import reconcile
from mesh.resources import Resource, parse_manifest, parse_manifests
from mesh.store import SqliteStore
from tests.support.process import Process
from tests.support.testnet import inside, ip

NODES = 2
PODS = 250
APPS = 50
RULES = 1000
ROUNDS = 7
PATIENCE_S = 120.0


def run() -> dict[str, object]:
    """All figures of this topic."""
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ensure_bpffs(folder / "bpffs")
        stack.callback(subprocess.run, ["umount", str(folder / "bpffs")], check=False)
        store = SqliteStore(folder / "store")
        stack.callback(store.close)
        fill(store)
        agents = [stack.enter_context(agent(folder, store, f"node{number}")) for number in range(NODES)]
        settle(folder, store)
        one = [change(folder, store, rules(1, number)) for number in range(ROUNDS)]
        many = [change(folder, store, rules(RULES, number)) for number in range(ROUNDS)]
        return {
            "endpoints": NODES * PODS,
            "one_rule_enforced_everywhere_ms": round(statistics.median(one) * 1e3, 1),
            "1000_rules_enforced_everywhere_ms": round(statistics.median(many) * 1e3, 1),
            "agent_rss_mib": round(max(each.rss_mib() for each in agents), 1),
        }


def nodes() -> list[Resource]:
    """Two nodes."""
    return [
        parse_manifest(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": f"node{number}"},
                "spec": {"podCIDRs": [f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"]},
                "status": {"addresses": [{"type": "InternalIP", "address": f"172.18.0.{number + 2}"}]},
            }
        )
        for number in range(NODES)
    ]


def pods() -> list[Resource]:
    """All pods, each with a device and one of the apps' labels."""
    return [
        parse_manifest(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"pod-{node}-{number}",
                    "uid": f"uid-{node}-{number}",
                    "namespace": "default",
                    "labels": {"app": f"app{number % APPS}"},
                },
                "spec": {"nodeName": f"node{node}", "containers": [{"name": "c", "image": "pause"}]},
                "status": {
                    "phase": "Running",
                    "ready": True,
                    "podIP": f"10.244.{node}.{number + 3}",
                    "podIPs": [{"ip": f"10.244.{node}.{number + 3}"}],
                    "network": {
                        "interface": f"lxc{number}",
                        "mac": f"02:00:01:00:{node:02x}:{number:02x}",
                        "hostMac": f"02:00:02:00:{node:02x}:{number:02x}",
                    },
                },
            }
        )
        for node in range(NODES)
        for number in range(PODS)
    ]


def fill(store: SqliteStore) -> None:
    """Write nodes and pods, and whatever follows from them."""
    store.apply([*nodes(), *pods()])
    while store.update(reconcile):
        pass


@contextmanager
def agent(folder: Path, store: SqliteStore, name: str) -> Iterator[Process]:
    """A node's namespace with its devices, and an agent in it."""
    netns = f"fsb{secrets.token_hex(3)}"
    ip(f"netns add {netns}")
    try:
        ip(
            "link set lo up",
            "link add eth0 type veth peer name wire",
            "link set eth0 up",
            *(f"link add lxc{number} type veth peer name pod{number}" for number in range(PODS)),
            *(f"link set lxc{number} up" for number in range(PODS)),
            netns=netns,
        )
        state = folder / name
        state.mkdir()
        words = ["--node", name, "--store", str(folder / "store"), "--state-file", str(state / "state.json")]
        words += ["--bpffs", str(folder / "bpffs")]
        process = inside(netns, lambda: Process(["cli", "agent", *words], state / "agent.log"))
        try:
            yield process
        finally:
            process.stop()
    finally:
        ip(f"netns del {netns}")


def rules(count: int, salt: int) -> list[Resource]:
    """One policy of so many rules; each selects one app and lets another one in, at ports of its own."""
    specs = [
        {
            "endpointSelector": {"matchLabels": {"app": f"app{number % APPS}"}},
            "ingress": [
                {
                    "fromEndpoints": [{"matchLabels": {"app": f"app{(number // APPS + salt) % APPS}"}}],
                    "toPorts": [{"ports": [{"port": str(1000 + number), "protocol": "TCP"}]}],
                }
            ],
        }
        for number in range(count)
    ]
    document = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "bench", "namespace": "default"},
        "specs": specs,
    }
    return parse_manifests(yaml.safe_dump(document))


def change(folder: Path, store: SqliteStore, resources: list[Resource]) -> float:
    """Seconds from writing until every agent says that its kernel enforces what was written."""
    begun = time.perf_counter()
    store.apply(resources)
    return settle(folder, store) - begun


def settle(folder: Path, store: SqliteStore) -> float:
    """Wait until every agent has done everything; the time when that was."""
    wanted = store.changes(0).revision
    deadline = time.perf_counter() + PATIENCE_S
    while any(done(folder / f"node{number}") < wanted for number in range(NODES)):
        if time.perf_counter() > deadline:
            raise RuntimeError((folder / "node0" / "agent.log").read_text()[-2000:])
        time.sleep(0.001)
    return time.perf_counter()


def done(folder: Path) -> int:
    """The revision that an agent has reached."""
    try:
        return int(json.loads((folder / "agent.json").read_text())["revision"])
    except (OSError, ValueError):
        return -1
