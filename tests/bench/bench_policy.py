"""How long a change of policy takes, from the store to the kernels of all nodes; what an agent weighs.

In:        two nodes with an agent each, 500 endpoints with devices of their own in all.
Out:       milliseconds from `apply` until every node enforces, for 1 rule and for 1,000; memory of an agent then.
           Of 1,000 HTTP rules for 500 endpoints of one node: milliseconds until they are compiled, and until an Envoy
           has taken them; what it is told, and what it weighs.
           Processor time for each name that DNS tells, when all of 200 kinds of pods may ask for it.
Elsewhere: what packets pay for policies is bench_datapath.py's.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import yaml

from bpf.bpffs import ensure_bpffs
from bpf.datapath import OBJECTS
from mesh.controller import reconcile
from mesh.envoy.matching import NodeView
from mesh.envoy.node import PARSERS, EnvoyNode
from mesh.policy.compiling import Subject
from mesh.policy.node import NodePolicies
from mesh.records import Records
from mesh.resources.base import Metadata, Resource
from mesh.resources.cluster import CiliumIdentity
from mesh.resources.manifests import parse_manifest, parse_manifests
from mesh.store import SqliteStore
from tests.support.process import Process
from tests.support.testnet import inside, ip

NODES = 2
PODS = 250
APPS = 50
RULES = 1000
KINDS_OF_PODS = 200
OTHER_RULES = 50
"""Of each pod that may ask for a name."""
ROUNDS = 7
PATIENCE_S = 120.0
FIRST_IDENTITY = 1000
FIRST_PORT = 18_700


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
            "learned_name_cpu_ms_200_kinds_of_pods": learned_names(),
            "1000_http_rules": asyncio.run(requests_judged(folder / "requests")),
        }


def learned_names() -> float:
    """Milliseconds of processor time in which an agent decides what follows when a name has one more address."""
    resources: list[Resource] = [
        CiliumIdentity(
            api_version="cilium.io/v2",
            kind="CiliumIdentity",
            metadata=Metadata(name=str(FIRST_IDENTITY + number)),
            security_labels={"k8s:app": f"app{number}", "k8s:io.kubernetes.pod.namespace": "default"},
        )
        for number in range(KINDS_OF_PODS)
    ]
    to_app = "toEndpoints: [{{matchLabels: {{app: app{0}}}}}], toPorts: [{{ports: [{{port: '{1}', protocol: TCP}}]}}]"
    peers = [to_app.format(number, 8000 + number) for number in range(OTHER_RULES)]
    peers.append("toFQDNs: [{matchPattern: '*.example.com'}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]")
    egress = ", ".join(f"{{{one}}}" for one in peers)
    resources += parse_manifests(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: bench, namespace: default}\n"
        f"spec: {{endpointSelector: {{}}, egress: [{egress}]}}\n"
    )
    policies = NodePolicies()
    policies.update(resources, {number: Subject(FIRST_IDENTITY + number) for number in range(KINDS_OF_PODS)})
    selectors, names, spent = tuple(policies.name_selectors()), dict(policies.names), []
    for number in range(20):
        names = {**names, ip_network(f"192.0.2.{number}"): selectors}
        began = time.process_time()
        policies.learn(names)
        spent.append(time.process_time() - began)
    return round(statistics.median(spent) * 1e3, 1)


async def requests_judged(folder: Path) -> dict[str, object]:
    """What a node pays for its HTTP rules, when one of them changes."""
    first = ip_address("10.244.0.1")
    apps = [
        CiliumIdentity(
            api_version="cilium.io/v2",
            kind="CiliumIdentity",
            metadata=Metadata(name=str(FIRST_IDENTITY + app)),
            security_labels={"k8s:app": f"app{app}", "k8s:io.kubernetes.pod.namespace": "default"},
        )
        for app in range(APPS)
    ]
    subjects = {number: Subject(FIRST_IDENTITY + number % APPS) for number in range(NODES * PODS)}
    prefixes = {ip_network(first + number): one.identity for number, one in subjects.items()}
    policies, envoy = NodePolicies(), EnvoyNode(folder, "n", envoy_port, Records(""), addresses=("127.0.0.1",))
    await envoy.start()
    try:
        compiled, taken = [], []
        for salt in range(ROUNDS):
            resources = [*apps, *rules(RULES, salt, http=True)]
            begun = time.perf_counter()
            views = policies.update(resources, subjects).views
            compiled.append(time.perf_counter() - begun)
            view = NodeView({first + number: one for number, one in views.items()}, prefixes)
            if not await envoy.update(view):
                raise RuntimeError(f"Envoy does not take its rules: {envoy.problems}")
            taken.append(time.perf_counter() - begun)
        pages = int(Path(f"/proc/{envoy.process.pid}/statm").read_text().split()[1])
        size = sum(one.stat().st_size for one in (folder / "resources").iterdir())
        return {
            "compiled_ms": round(statistics.median(compiled) * 1e3, 1),
            "taken_ms": round(statistics.median(taken) * 1e3, 1),
            "configuration_mib": round(size / 2**20, 2),
            "envoy_rss_mib": round(pages * resource.getpagesize() / 2**20, 1),
        }
    finally:
        pid = envoy.process.pid
        envoy.stop()
        os.kill(pid, signal.SIGKILL)


def envoy_port(parser: str, egress: bool) -> int:
    """Where the Envoy that is measured listens."""
    return FIRST_PORT + 2 * PARSERS.index(parser) + egress


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


def rules(count: int, salt: int, http: bool = False) -> list[Resource]:
    """One policy of so many rules; each selects one app and lets another one in, at ports of its own.

    With `http`, for requests with one path, at four ports.
    """
    specs = [
        {
            "endpointSelector": {"matchLabels": {"app": f"app{number % APPS}"}},
            "ingress": [
                {
                    "fromEndpoints": [{"matchLabels": {"app": f"app{(number // APPS + salt) % APPS}"}}],
                    "toPorts": [
                        {
                            "ports": [{"port": str(1000 + (number % 4 if http else number)), "protocol": "TCP"}],
                            **({"rules": {"http": [{"method": "GET", "path": f"/{number}/.*"}]}} if http else {}),
                        }
                    ],
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
