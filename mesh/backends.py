"""Who answers for a service.

In:        services; pods, and the EndpointSlices and Endpoints that users wrote.
Out:       addresses and ports behind a service, with what each is good for.
Elsewhere: services/frontends.py makes them the kernel's, the lab's DNS server answers with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mesh.ipam import is_ipv4
from mesh.resources.base import Resource
from mesh.resources.pods import Pod
from mesh.resources.services import Service, ServicePort
from mesh.services.kinds import EndpointPort, Endpoints, EndpointSlice


@dataclass(frozen=True, slots=True)
class Backend:
    """One address behind a service: a pod in one family, or what a user named."""

    address: str
    hostname: str
    """Its own name in DNS; empty when it has asked for none."""
    ports: tuple[tuple[ServicePort, int], ...]
    """Each port of the service with the port that stands behind it."""
    node: str = ""
    """Where it runs; empty when nobody knows."""
    serving: bool = True
    """Whether it answers."""
    terminating: bool = False
    """It is about to go: connections that it has go on, new ones go elsewhere."""
    other: str = ""
    """The same pod's address in the other family; empty when it has none, or nobody knows."""

    @property
    def ready(self) -> bool:
        """Whether new connections may go there."""
        return self.serving and not self.terminating


class Directory:
    """All backends at one moment."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._pods: dict[tuple[str, str, str], list[Pod]] = defaultdict(list)
        """By namespace and each label."""
        self._slices: dict[tuple[str, str], list[EndpointSlice]] = defaultdict(list)
        self._endpoints: dict[tuple[str, str], Endpoints] = {}
        for one in resources:
            if isinstance(one, Pod) and one.status.pod_ips:
                for key, value in one.metadata.labels.items():
                    self._pods[one.namespace, key, value].append(one)
            elif isinstance(one, EndpointSlice) and one.service:
                self._slices[one.namespace, one.service].append(one)
            elif isinstance(one, Endpoints):
                self._endpoints[one.namespace, one.name] = one

    def of(self, service: Service) -> list[Backend]:
        """Backends that serve or still have connections, IPv4 first, sorted by address as text.

        Pods that the service selects, and what EndpointSlices name; Endpoints count for a service without selector.
        """
        if service.spec.type == "ExternalName":
            return []
        name = (service.namespace, service.name)
        all_of_them = [*self._of_pods(service)]
        for each in self._slices.get(name, ()):
            all_of_them += _of_slice(service, each)
        if not service.spec.selector and (endpoints := self._endpoints.get(name)):
            all_of_them += _of_endpoints(service, endpoints)
        found = {(one.address, tuple(number for _, number in one.ports)): one for one in all_of_them}
        wanted = (one for one in found.values() if (4 if is_ipv4(one.address) else 6) in service.families)
        return sorted(wanted, key=lambda one: (not is_ipv4(one.address), one.address))

    def ready(self, service: Service) -> list[Backend]:
        """Those that new connections may go to."""
        return [one for one in self.of(service) if one.ready]

    def open(self, service: Service) -> list[Backend]:
        """Those that a proxy may choose: ready ones; while there is none, those that still answer before they go."""
        found = self.of(service)
        return [one for one in found if one.ready] or [one for one in found if one.serving]

    def _of_pods(self, service: Service) -> Iterator[Backend]:
        selected = service.spec.selector.items()
        if not selected:
            return
        # One label narrows the choice; the others are looked at.
        for pod in self._pods.get((service.namespace, *next(iter(selected))), ()):
            if selected <= pod.metadata.labels.items():
                serving = pod.status.ready or service.spec.publish_not_ready_addresses
                terminating = pod.is_leaving
                if serving or terminating:
                    ports, hostname = _ports(service, pod), _hostname(pod, service)
                    for address in pod.ips:
                        other = next((one for one in pod.ips if one != address), "")
                        yield Backend(address, hostname, ports, pod.spec.node_name, serving, terminating, other)


def _of_slice(service: Service, part: EndpointSlice) -> Iterator[Backend]:
    if part.address_type == "FQDN":
        return
    ports = _named(service, part.ports)
    for one in part.endpoints:
        conditions = one.conditions
        terminating = bool(conditions.terminating)
        said = conditions.serving if conditions.serving is not None else conditions.ready
        serving = said is not False or service.spec.publish_not_ready_addresses
        if serving or terminating:
            # Only the first address counts; the others would be the same endpoint again.
            yield Backend(one.addresses[0], one.hostname, ports, one.node_name, serving, terminating)


def _of_endpoints(service: Service, endpoints: Endpoints) -> Iterator[Backend]:
    for subset in endpoints.subsets:
        ports = _named(service, subset.ports)
        unready = subset.not_ready_addresses if service.spec.publish_not_ready_addresses else ()
        for one in (*subset.addresses, *unready):
            yield Backend(one.ip, one.hostname, ports, one.node_name)


def _named(service: Service, ports: Sequence[EndpointPort]) -> tuple[tuple[ServicePort, int], ...]:
    """Ports of a service and of its endpoints belong together by name and protocol."""
    numbers = {(one.name or "", one.protocol): one.port for one in ports if one.port is not None}
    return tuple(
        (port, number)
        for port in service.spec.ports
        if (number := numbers.get((port.name or "", port.protocol))) is not None
    )


def _hostname(pod: Pod, service: Service) -> str:
    return pod.spec.hostname if pod.spec.subdomain == service.name else ""


def _ports(service: Service, pod: Pod) -> tuple[tuple[ServicePort, int], ...]:
    named = {
        (port.name, port.protocol): port.container_port
        for container in pod.spec.containers
        for port in container.ports
        if port.name
    }
    pairs = []
    for port in service.spec.ports:
        target = port.target_port if port.target_port is not None else port.port
        number = named.get((target, port.protocol)) if isinstance(target, str) else target
        if number is not None:
            pairs.append((port, number))
    return tuple(pairs)
