"""Pods under policies, for kernel tests: YAML goes in as users write it, packets go through the real datapath.

In:        tests.support.testnet's nodes, given labelled pods and an outside world.
Out:       `PolicyNet.apply` enforces policies on every node as an agent does; `try_tcp` and friends send packets.
Elsewhere: mesh/main.py is the agent itself; here nothing watches a store, so that a case takes milliseconds.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, ip_network
from typing import Any

from bpf.datapath import IpcacheEntry
from mesh.endpoints import node_view
from mesh.envoy.matching import NodeView
from mesh.identities import HOST, REMOTE_NODE
from mesh.knowledge import HOST_ENDPOINT_ID
from mesh.policy.compiling import Settings, Subject
from mesh.policy.documents.fields import Network as Prefix
from mesh.policy.node import NodePolicies, named_ports
from mesh.policy.outcome import Outcome
from mesh.resources.base import Metadata, Resource
from mesh.resources.cluster import CiliumIdentity
from mesh.resources.manifests import parse_manifests
from mesh.resources.pods import Pod as PodResource
from observer.perf import PerfReader
from tests.support.kernel_events import EventLog, KernelEvent
from tests.support.proxied import EnvoyHost
from tests.support.testnet import Network, Node, Pod, inside, ip
from tests.support.traffic import TIMEOUT_S, open_socket

OUTSIDE = "172.18.255.1"
DENIED_S = 0.25
"""How long a connection may take; an allowed one takes less than a millisecond."""


@dataclass(slots=True)
class Workload:
    """A pod, and what policies see of it."""

    node: Node
    pod: Pod
    identity: int
    labels: dict[str, str]
    ports: Mapping[str, int]

    @property
    def ip(self) -> str:
        return self.pod.ipv4

    @property
    def number(self) -> int:
        return self.pod.endpoint.endpoint_id


@dataclass(slots=True)
class PolicyNet:
    """Two nodes and the outside. `s` and `p` share the first node; `far` and `other` live on the second."""

    net: Network
    near: Node
    away: Node
    workloads: dict[str, Workload] = field(default_factory=dict)
    logs: dict[int, EventLog] = field(default_factory=dict)
    policies: dict[int, NodePolicies] = field(default_factory=dict)
    envoys: dict[int, EnvoyHost] = field(default_factory=dict)
    """Real proxies, by the number of the node; without them what they would judge is dropped."""
    views: dict[int, NodeView] = field(default_factory=dict)
    """What these were told, by the number of the node."""

    def add(self, node: Node, number: int, namespace: str, app: str, ports: Mapping[str, int] | None = None) -> None:
        """A pod with labels app and namespace; `ports` are the ports it has names for."""
        identity = 1000 + len(self.workloads)
        labels = {"k8s:app": app, "k8s:io.kubernetes.pod.namespace": namespace}
        labels |= {"k8s:io.cilium.k8s.policy.cluster": "default"}
        labels |= {"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": namespace}
        self.workloads[app] = Workload(node, node.add_pod(number, identity), identity, labels, ports or {})

    def __getitem__(self, app: str) -> Workload:
        return self.workloads[app]

    def apply(
        self,
        *texts: str,
        mode: str = "default",
        audit: bool = False,
        names: Mapping[Prefix, tuple[str, ...]] | None = None,
        services: Mapping[tuple[str, str], tuple[Prefix, ...]] | None = None,
        prefixes_select_nodes: bool = False,
    ) -> None:
        """Enforce exactly these policies from now on, on every node."""
        resources = [*self._resources(), *(one for text in texts for one in parse_manifests(text, namespace="ns"))]
        self.net.share_ipcache()
        for node in self.net.nodes:
            policies = self.policies.setdefault(node.number, NodePolicies())
            policies.node_name = node_name(node)
            policies.settings = Settings(mode=mode, audit=audit)
            policies.prefixes_select_nodes = prefixes_select_nodes
            policies.names = names or {}
            policies.service_addresses = services or {}
            local = {one.number: self._subject(one) for one in self.workloads.values() if one.node is node}
            local[HOST_ENDPOINT_ID] = Subject(HOST)
            decided = policies.update(resources, local)
            assert not decided.problems, decided.problems
            present = node.datapath.ipcache()
            if node.number in self.envoys:
                self.views[node.number] = self._view(node, decided)
                self.envoys[node.number].update(self.views[node.number])
            node.datapath.set_policies(decided.policies)
            for prefix, number in decided.ipcache.items():
                if prefix not in present:
                    node.datapath.set_ipcache(prefix, IpcacheEntry(identity=number))
            for prefix, entry in present.items():
                if entry.identity == REMOTE_NODE and (told := decided.nodes.get(str(entry.tunnel_endpoint))):
                    node.datapath.set_ipcache(prefix, replace(entry, identity=told))
        self.forget()

    def _view(self, node: Node, decided: Outcome) -> NodeView:
        local = {one.number: one.pod.endpoint for one in self.workloads.values() if one.node is node}
        known = {str(prefix): entry.identity for prefix, entry in node.datapath.ipcache().items()}
        known = {"0.0.0.0/0": 2, "::/0": 2} | {str(prefix): one for prefix, one in decided.ipcache.items()} | known
        return node_view([{"prefix": prefix, "identity": one} for prefix, one in known.items()], local, decided)

    def forget(self) -> None:
        """Drop events so far."""
        for log in self.logs.values():
            log.clear()

    def verdicts(self, node: Node | None = None) -> list[KernelEvent]:
        """Policy verdicts of a node (the first one) since the last change."""
        events = self.logs[(node or self.near).number].collect()
        return [event for event in events if event.what == "verdict"]

    def whats(self, node: Node | None = None) -> list[str]:
        """All events of a node, by observation point or drop reason."""
        return [event.what for event in self.logs[(node or self.near).number].collect()]

    def try_tcp(self, source: str, target: str, port: int, **where: Any) -> bool:
        """Whether a TCP connection to a pod comes about."""
        return try_tcp(self[source].pod.netns, self[target].pod.netns, self[target].ip, port, **where)

    def _subject(self, one: Workload) -> Subject:
        return Subject(one.identity, named_ports(self._pod(one)))

    def _pod(self, one: Workload) -> PodResource:
        app = one.labels["k8s:app"]
        ports = [{"name": name, "containerPort": number} for name, number in one.ports.items()]
        found = parse_manifests(
            _yaml({"containers": [{"name": "c", "image": "i", "ports": ports}]}, "v1", "Pod", app), namespace="ns"
        )[0]
        assert isinstance(found, PodResource)
        return found

    def _resources(self) -> list[Resource]:
        found: list[Resource] = [self._pod(one) for one in self.workloads.values()]
        found += [_node(one) for one in self.net.nodes]
        found += [
            CiliumIdentity(
                api_version="cilium.io/v2",
                kind="CiliumIdentity",
                metadata=Metadata(name=str(one.identity)),
                security_labels=one.labels,
            )
            for one in self.workloads.values()
        ]
        return found


def node_name(node: Node) -> str:
    """Of its resource, which has the labels `name` (the same) and `role`: the first is `main`, all others `worker`."""
    return f"node{node.number}"


def _node(node: Node) -> Resource:
    name = node_name(node)
    labels = {"name": name, "role": "main" if node.number == 1 else "worker"}
    text = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    addresses = [{"type": "InternalIP", "address": str(node.address)}]
    return parse_manifests(json.dumps({**text, "status": {"addresses": addresses}}), namespace="ns")[0]


def _yaml(spec: object, version: str, kind: str, name: str) -> str:
    return json.dumps({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})


def build(stack: ExitStack, net: Network) -> PolicyNet:
    """The network all policy cases share."""
    near, away = net.add_node(), net.add_node()
    found = PolicyNet(net, near, away)
    found.add(near, 1017, "ns", "s", {"own": 7070})
    found.add(near, 2044, "ns", "p", {"http": 80, "web": 8080})
    found.add(away, 777, "ns", "far", {"http": 8080})
    found.add(away, 778, "other", "other")
    net.share_ipcache()
    for node in net.nodes:
        node.datapath.configure(host_endpoint_id=HOST_ENDPOINT_ID, host_policy=True)
    ip(f"addr add {OUTSIDE}/16 dev br0", "addr add 10.1.2.3/32 dev lo", "link set lo up", netns=net.name)
    for node in net.nodes:
        ip(f"route add 10.244.{node.number}.0/24 via {node.address}", netns=net.name)
        ip(f"route add 10.1.0.0/16 via {OUTSIDE}", netns=node.netns)
    for node in net.nodes:
        found.logs[node.number] = EventLog(stack.enter_context(PerfReader(node.datapath.pin_dir, 256)))
    return found


def try_tcp(client: str, server: str, address: str, port: int, *, mark: int = 0, timeout_s: float = DENIED_S) -> bool:
    """Whether a TCP connection between two namespaces comes about; `mark` is the client's SO_MARK."""
    with open_socket(server, socket.SOCK_STREAM, "::" if ":" in address else "0.0.0.0", port):
        return connects(client, address, port, mark=mark, timeout_s=timeout_s)


def connects(client: str, address: str, port: int, *, mark: int = 0, timeout_s: float = DENIED_S) -> bool:
    """Whether a TCP connection to a listener that is there comes about."""
    with client_socket(client, address, mark) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect((address, port))
        except OSError:
            return False
    return True


def client_socket(client: str, address: str, mark: int = 0) -> socket.socket:
    """A TCP socket in a namespace, not connected yet."""

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT_S)
        if mark:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        return sock

    return inside(client, make)


def networks(*texts: str) -> list[IPv4Network]:
    """Prefixes, typed."""
    return [one for text in texts if isinstance(one := ip_network(text), IPv4Network)]
