"""What one node's kernel has to know of services: every address that stands for backends, and the backends.

In:        services, their backends, the node; ports of proxies that services were redirected to.
Out:       ServiceFrontend values, each frontend once, with the service it belongs to; problems in words.
Elsewhere: bpf/service_maps.py writes them into maps; mesh/backends.py says who the backends are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Final

from bpf.facts import Prefix
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from mesh.backends import Backend as Known
from mesh.backends import Directory
from mesh.policy.rules import PROTOCOLS
from mesh.resources.cluster import Node
from mesh.resources.services import Service, ServicePort
from mesh.services.kinds import IpAddress

LOOPBACK: Final = ("127.0.0.1", "::1")
ALGORITHM: Final = "service.cilium.io/lb-algorithm"
"""Annotation of a service: random or maglev."""
ALGORITHMS: Final = ("random", "maglev")

Redirects = Mapping[tuple[str, str, int], int]
"""Port of the proxy by namespace and name of a service and the port of it that is redirected."""


@dataclass(frozen=True, slots=True)
class Named:
    """A frontend and whose it is."""

    service: Service
    protocol: str
    """TCP, UDP or SCTP."""
    entry: ServiceFrontend


def frontends(
    services: Sequence[Service],
    directory: Directory,
    node: Node,
    algorithm: str = ALGORITHMS[0],
    redirects: Redirects | None = None,
    others: Sequence[Node] = (),
    cluster_kind: FrontendKind = FrontendKind.CLUSTER_IP,
    loopback: bool = False,
) -> tuple[list[Named], list[str]]:
    """Frontends of all services on `node`, and what is wrong: of two that want the same address, the first has it.

    others        the other nodes: what clients of this node send to their node ports is translated here, at its source.
    cluster_kind  OPEN_CLUSTER_IP: clients outside may use cluster addresses, too.
    loopback      node ports are at the loopback addresses, too: sockets of the node are led from there to backends.
    """
    found: dict[Frontend, Named] = {}
    problems = []
    for service in services:
        if service.headless or service.spec.type == "ExternalName":
            continue
        for one in _Maker(
            service, directory.of(service), node, algorithm, redirects or {}, others, cluster_kind, loopback
        ).all():
            other = found.setdefault(one.entry.frontend, one)
            if other.service.key != service.key:
                where = one.entry.frontend
                problems.append(
                    f"{service.key}: {where.address} port {where.port} {one.protocol}"
                    f" is taken by {other.service.key}; it stays with that"
                )
    return list(found.values()), problems


@dataclass(slots=True)
class _Maker:
    service: Service
    backends: Sequence[Known]
    node: Node
    algorithm: str
    redirects: Redirects
    others: Sequence[Node]
    cluster_kind: FrontendKind
    loopback: bool

    def all(self) -> Iterator[Named]:
        spec = self.service.spec
        for port in spec.ports:
            addresses = [(self.cluster_kind, one, port.port) for one in spec.cluster_ips or (spec.cluster_ip,)]
            addresses += [(FrontendKind.EXTERNAL_IP, one, port.port) for one in spec.external_ips]
            addresses += [(FrontendKind.LOAD_BALANCER, one, port.port) for one in self.service.balancer_ips]
            if port.node_port and spec.type in ("NodePort", "LoadBalancer"):
                own = [*self._ips(self.node.ips), *(self._ips(LOOPBACK) if self.loopback else ())]
                addresses += [(FrontendKind.NODE_PORT, one, port.node_port) for one in own]
                for node in self.others:
                    for text in self._ips(node.ips):
                        yield Named(self.service, port.protocol, self._elsewhere(ip_address(text), port, node))
            for kind, text, number in addresses:
                if text:
                    address = ip_address(text)
                    for entry in self._entries(kind, address, number, port):
                        yield Named(self.service, port.protocol, entry)

    def _ips(self, addresses: Iterable[str]) -> list[str]:
        return [one for one in addresses if ip_address(one).version in self.service.families]

    def _elsewhere(self, address: IpAddress, port: ServicePort, node: Node) -> ServiceFrontend:
        """A node port of another node: with a Local policy its backends are those of that node."""
        there = node.name if self.service.spec.external_traffic_policy == "Local" else None
        return ServiceFrontend(
            frontend=Frontend(address=address, port=port.node_port, protocol=PROTOCOLS[port.protocol]),
            backends=self._backends(address, port, there),
            kind=FrontendKind.NODE_PORT,
            affinity_s=self._affinity_s(),
            l7_port=self._l7_port(port),
        )

    def _l7_port(self, port: ServicePort) -> int:
        return self.redirects.get((self.service.namespace, self.service.name, port.port), 0)

    def _entries(
        self, kind: FrontendKind, address: IpAddress, number: int, port: ServicePort
    ) -> Iterator[ServiceFrontend]:
        """One, or two where clients inside get other backends than clients outside."""
        spec = self.service.spec
        inside, outside = spec.internal_traffic_policy == "Local", spec.external_traffic_policy == "Local"
        here = inside if kind is self.cluster_kind else outside
        entry = ServiceFrontend(
            frontend=Frontend(address=address, port=number, protocol=PROTOCOLS[port.protocol]),
            backends=self._backends(address, port, self._only(here)),
            kind=kind,
            affinity_s=self._affinity_s(),
            local_only=here,
            maglev=self._algorithm() == "maglev",
            source_ranges=self._source_ranges(kind, address),
            l7_port=self._l7_port(port),
        )
        yield entry
        if kind is not self.cluster_kind and inside != outside:
            yield replace(
                entry,
                frontend=replace(entry.frontend, internal=True),
                backends=self._backends(address, port, self._only(inside)),
                local_only=inside,
            )

    def _only(self, local: bool) -> str | None:
        return self.node.name if local else None

    def _backends(self, address: IpAddress, port: ServicePort, node: str | None) -> tuple[Backend, ...]:
        """node: whose backends; None: all."""
        found: dict[tuple[IpAddress, int], Backend] = {}
        for one in self.backends:
            target = dict(one.ports).get(port) if node in (None, one.node) else None
            where = ip_address(one.address)
            if target is not None and where.version == address.version:
                # The same address may be named twice, by a pod and by a slice: whoever says it stays is right.
                known = found.get((where, target))
                if known is None or known.terminating:
                    found[where, target] = Backend(address=where, port=target, terminating=one.terminating)
        return tuple(found.values())

    def _affinity_s(self) -> int:
        spec = self.service.spec
        return spec.session_affinity_config.client_ip.timeout_seconds if spec.session_affinity == "ClientIP" else 0

    def _algorithm(self) -> str:
        wanted = self.service.metadata.annotations.get(ALGORITHM, "")
        return wanted if wanted in ALGORITHMS else self.algorithm

    def _source_ranges(self, kind: FrontendKind, address: IpAddress) -> tuple[Prefix, ...]:
        if kind is not FrontendKind.LOAD_BALANCER:
            return ()
        ranges = [ip_network(one) for one in self.service.spec.load_balancer_source_ranges]
        return tuple(one for one in ranges if one.version == address.version)
