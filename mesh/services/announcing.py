"""Which node answers ARP and neighbour discovery for which address.

In:        services with addresses, CiliumL2AnnouncementPolicy, MetalLB's layer2 pools, nodes.
Out:       one Lease per service that names its node; for a node the addresses it announces.
Elsewhere: balancers.py gave the addresses; bpf/datapath.py answers for them.

A service has one node at a time. It keeps it while the node may have it; a new one is chosen by a hash of both names,
so that services spread and everybody would choose the same. Leases do not run out: an agent that is away leaves
its programs in the kernel, and they go on answering; what ends a node's turn is that the node is gone or not ready.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from mesh.backends import Directory
from mesh.cluster import Cluster
from mesh.resources.base import Key, Metadata, changed
from mesh.resources.services import Service
from mesh.services.kinds import CiliumL2AnnouncementPolicy, IpAddress, Lease, LeaseSpec
from mesh.services.pools import read_pools, service_labels

LEASES: Final = "kube-system"
"""Namespace of the leases."""
PREFIX: Final = "cilium-l2announce-"
CLASSES: Final = ("", "io.cilium/l2-announcer")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is to be answered for one service, and who may do it."""

    addresses: tuple[IpAddress, ...]
    nodes: tuple[str, ...]
    """Names, sorted; empty: nobody."""
    interfaces: tuple[str, ...] = ()
    """Expressions for devices; empty: all."""

    def on(self, devices: Iterable[str]) -> bool:
        """Whether a node with these devices takes part."""
        return not self.interfaces or any(re.search(one, device) for one in self.interfaces for device in devices)


def elect(cluster: Cluster) -> None:
    """A node for every service that is announced; leases of the others go."""
    wanted = announcements(cluster)
    for name, announcement in wanted.items():
        key = Key("Lease", LEASES, name)
        lease = cluster.resources.get(key)
        held = lease.spec.holder_identity if isinstance(lease, Lease) else ""
        holder = held if held in announcement.nodes else _choice(name, announcement.nodes)
        if isinstance(lease, Lease) and holder == held:
            continue
        moves = lease.spec.lease_transitions + 1 if isinstance(lease, Lease) else 0
        spec = LeaseSpec(holder_identity=holder, lease_duration_seconds=15, lease_transitions=moves)
        cluster.put(
            changed(lease, spec=spec)
            if isinstance(lease, Lease)
            else Lease(
                api_version="coordination.k8s.io/v1",
                kind="Lease",
                metadata=Metadata(name=name, namespace=LEASES),
                spec=spec,
            )
        )
    for one in list(cluster.resources.values()):
        if (
            isinstance(one, Lease)
            and one.namespace == LEASES
            and one.name.startswith(PREFIX)
            and one.name not in wanted
        ):
            cluster.remove(one.key)


def announced(cluster: Cluster, node: str, devices: Sequence[str]) -> set[IpAddress]:
    """Addresses that a node answers for now."""
    found: set[IpAddress] = set()
    for name, announcement in announcements(cluster).items():
        lease = cluster.resources.get(Key("Lease", LEASES, name))
        if isinstance(lease, Lease) and lease.spec.holder_identity == node and announcement.on(devices):
            found.update(announcement.addresses)
    return found


def announcements(cluster: Cluster) -> dict[str, Announcement]:
    """By the name of the lease."""
    policies = [one for one in cluster.resources.values() if isinstance(one, CiliumL2AnnouncementPolicy)]
    layer2 = [pool for pool in read_pools(cluster) if pool.announced]
    if not policies and not layer2:
        return {}
    nodes = [one for one in cluster.nodes() if one.is_ready]
    directory = Directory(cluster.resources.values())
    found = {}
    for service in cluster.services():
        addresses: dict[str, None] = {}
        candidates: set[str] = set()
        interfaces: list[str] = []
        if own := [one for one in service.balancer_ips if any(ip_address(one) in pool for pool in layer2)]:
            addresses |= dict.fromkeys(own)
            candidates |= {node.name for node in nodes}
        for policy in policies:
            if chosen := _announced_by(policy, service):
                addresses |= dict.fromkeys(chosen)
                selector = policy.spec.node_selector
                candidates |= {one.name for one in nodes if selector is None or selector.matches(one.metadata.labels)}
                interfaces += policy.spec.interfaces
        if addresses:
            if service.spec.external_traffic_policy == "Local":
                # The others would have nobody to give the packets to.
                candidates &= {one.node for one in directory.ready(service)}
            name = f"{PREFIX}{service.namespace}-{service.name}"
            found[name] = Announcement(
                tuple(ip_address(one) for one in addresses), tuple(sorted(candidates)), tuple(interfaces)
            )
    return found


def _announced_by(policy: CiliumL2AnnouncementPolicy, service: Service) -> list[str]:
    spec = policy.spec
    if spec.service_selector is not None and not spec.service_selector.matches(service_labels(service)):
        return []
    if service.spec.load_balancer_class not in CLASSES:
        return []
    addresses = [*service.balancer_ips] if spec.load_balancer_ips else []
    return addresses + ([*service.spec.external_ips] if spec.external_ips else [])


def _choice(name: str, nodes: Sequence[str]) -> str:
    return max(nodes, key=lambda node: sha256(f"{name} {node}".encode()).digest(), default="")
