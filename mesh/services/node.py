"""Services on one node: looks at the cluster, writes the kernel's services, tells how it went.

In:        the cluster after each change; ports of proxies that services were redirected to.
Out:       frontends in the kernel; what the observer and policies have to know of services.
Elsewhere: frontends.py and announcing.py decide; mesh/main.py calls, in the order that keeps connections whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import structlog

from bpf.datapath import Datapath
from bpf.libbpf import BpfError
from bpf.services import FrontendKind
from mesh import ipam
from mesh.backends import Directory
from mesh.cluster import Cluster
from mesh.policy.documents.fields import Network
from mesh.resources.cluster import Node
from mesh.services.announcing import announced
from mesh.services.frontends import ALGORITHMS, Named, Redirects, frontends
from mesh.services.kinds import IpAddress
from mesh.services.neighbours import tell_neighbours

log: Final = structlog.get_logger(component="services")


@dataclass(slots=True)
class NodeServices:
    """The services of one node."""

    datapath: Datapath
    node: Node
    algorithm: str = ALGORITHMS[0]
    open_cluster_ips: bool = False
    """Clients outside may use cluster addresses."""
    loopback: bool = False
    """Sockets of the node are led to backends, also from node ports at its loopback addresses."""
    _problems: frozenset[str] = frozenset()
    _written: list[Named] = field(default_factory=list)
    _failure: str = ""
    _leaving_as: Sequence[str] = ()
    _announced: set[IpAddress] | None = None
    """None: not said since this process began."""

    def find(self, cluster: Cluster, redirects: Redirects | None = None) -> list[Named]:
        """What the kernel should have; what is wrong is logged once."""
        directory = Directory(cluster.resources.values())
        others = [one for one in cluster.nodes() if one.name != self.node.name]
        found, problems = frontends(
            cluster.services(),
            directory,
            self.node,
            self.algorithm,
            redirects,
            others,
            FrontendKind.OPEN_CLUSTER_IP if self.open_cluster_ips else FrontendKind.CLUSTER_IP,
            self.loopback,
        )
        for problem in sorted(set(problems) - self._problems):
            log.warning("two services want one address", reason=problem)
        self._problems = frozenset(problems)
        return found

    def write(self, wanted: Sequence[Named]) -> None:
        """Make it the kernel's. When it does not take it, the old services stay, and the next round tries again."""
        try:
            self.datapath.sync_services(one.entry for one in wanted)
        except BpfError as error:
            if str(error) != self._failure:
                log.warning("services refused, the old ones stay", reason=str(error))
            self._failure = str(error)
            return
        self._failure = ""
        self._written = list(wanted)

    def leave_as(self, addresses: Sequence[str]) -> None:
        """With which of the node's addresses pods talk to the world; none: with their own."""
        own = [ip_address(one) for one in addresses]
        ipv4 = next((one for one in own if isinstance(one, IPv4Address)), None)
        ipv6 = next((one for one in own if isinstance(one, IPv6Address)), None)
        self.datapath.set_masquerade(ipv4, ipv6, ipam.CLUSTER_CIDRS)
        self._leaving_as = [str(one) for one in (ipv4, ipv6) if one is not None]

    def announce(self, cluster: Cluster, devices: Sequence[str]) -> None:
        """Answer on `devices` for the addresses that this node is to speak for."""
        wanted = announced(cluster, self.node.name, devices)
        if wanted != self._announced:
            self.datapath.set_announced(wanted)
            tell_neighbours(wanted - (self._announced or set()), devices)
            self._announced = wanted
            log.info("announcing", addresses=sorted(map(str, wanted)))

    def describe_masquerade(self) -> dict[str, Any]:
        """For the agent's report: as whom pods talk to the world."""
        if not self._leaving_as:
            return {"state": "disabled", "message": "pods talk to the world with their own addresses"}
        return {"state": "ok", "message": f"pods talk to the world as {', '.join(self._leaving_as)}"}

    def describe(self) -> dict[str, Any]:
        """For the agent's report."""
        if self._failure:
            return {"state": "failure", "message": self._failure}
        services = {one.service.key for one in self._written}
        message = f"{len(services)} services at {len(self._written)} addresses"
        if self._problems:
            return {"state": "warning", "message": f"{message}; {min(self._problems)}"}
        return {"state": "ok", "message": message}


def outside_endpoints(cluster: Cluster) -> Mapping[tuple[str, str], tuple[Network, ...]]:
    """Endpoints of services without selector, for policies that name such services."""
    directory = Directory(cluster.resources.values())
    return {
        (one.namespace, one.name): tuple(dict.fromkeys(ip_network(each.address) for each in directory.of(one)))
        for one in cluster.services()
        if not one.spec.selector
    }
