"""Which address belongs to whom.

In:        what is in use.
Out:       the next free address, always the same for the same question.
Elsewhere: controller.py asks and writes the answers into the resource store.

A node's pods live in one /24 (10.244.N.0/24) and one /64 (fd00:10:244:N::/64). The first address of each is the node's
router address, the last one that a /24 can use its ingress address; a pod has the same host number in both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from mesh.resources.cluster import Node
from service.failure import Failure

CLUSTER_CIDRS: Final[tuple[IPv4Network, IPv6Network]] = (IPv4Network("10.244.0.0/16"), IPv6Network("fd00:10:244::/48"))
"""All pods of the cluster; node N has N in the third octet, or the fourth group."""
SERVICE_CIDRS: Final = (IPv4Network("10.96.0.0/16"), IPv6Network("fd00:10:96::/112"))

FIRST_POD: Final = 2
FIRST_SERVICE: Final = 16
"""Lower numbers are kept for well-known services (1: kubernetes, 10: kube-dns)."""


def pod_cidrs(number: int) -> tuple[str, str]:
    """The pod ranges of node `number` (0 to 255), IPv4 first."""
    if not 0 <= number <= 255:
        raise Failure(f"a cluster has at most 256 nodes, this would be number {number + 1}")
    v4, v6 = CLUSTER_CIDRS
    return f"{v4[number << 8]}/24", f"{v6[number << 64]}/64"


def router_addresses(node: Node) -> tuple[str, ...]:
    """The gateway of the node's pods in each family."""
    return tuple(str(ip_network(cidr)[1]) for cidr in node.spec.pod_cidrs)


def ingress_addresses(node: Node) -> tuple[str, ...]:
    """In whose name the node's proxy speaks for clients from outside, in each family."""
    networks = [ip_network(cidr) for cidr in node.spec.pod_cidrs]
    return tuple(str(network[_last(networks)]) for network in networks)


def own_addresses(node: Node) -> tuple[str, ...]:
    """All addresses at which pods reach the node itself: of its devices, its router's, its proxy's."""
    return (*node.ips, *router_addresses(node), *ingress_addresses(node))


def _last(networks: Iterable[IPv4Network | IPv6Network]) -> int:
    """The last host number that every range has, the broadcast address left out."""
    return min((network.num_addresses for network in networks), default=0) - 2


def free_pod_addresses(node: Node, used: Collection[str]) -> tuple[str, ...]:
    """The lowest host number that is free in every family.

    Raises: Failure when the node's range is full.
    """
    networks = [ip_network(cidr) for cidr in node.spec.pod_cidrs]
    for host in range(FIRST_POD, _last(networks)):
        addresses = tuple(str(network[host]) for network in networks)
        if not any(address in used for address in addresses):
            return addresses
    raise Failure(f"no address is free for another pod on node {node.name} ({networks[0]}); delete pods or add a node")


def free_service_addresses(name: str, families: Iterable[int], used: Collection[str]) -> tuple[str, ...]:
    """Cluster addresses for the service called `name` (namespace/name), in the order of `families`.

    The search begins at a place that follows from the name, so a service keeps its address when the lab is made anew.
    Raises: Failure when the range is full.
    """
    span = SERVICE_CIDRS[0].num_addresses - 1 - FIRST_SERVICE
    start = sum(byte * 31**at for at, byte in enumerate(name.encode())) % span
    by_family: dict[int, IPv4Network | IPv6Network] = {network.version: network for network in SERVICE_CIDRS}
    for step in range(span):
        host = FIRST_SERVICE + (start + step) % span
        addresses = tuple(str(by_family[family][host]) for family in families)
        if not any(address in used for address in addresses):
            return addresses
    raise Failure(f"no address is free for service {name} in {SERVICE_CIDRS[0]}; delete services")


@lru_cache(maxsize=65_536)
def network_of(text: str) -> IPv4Network | IPv6Network:
    """A prefix, or an address as one; read once, because the same ones come in each round."""
    return ip_network(text)


def is_ipv4(address: str) -> bool:
    """Whether an address, known to be valid, is IPv4."""
    return ip_address(address).version == 4
