"""Who answers for a service.

In:        a service and the pods.
Out:       addresses and ports of the pods behind it.
Elsewhere: the lab's DNS server answers with them; the service maps of the datapath will be filled from them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.ipam import is_ipv4
from mesh.resources import Pod, Service, ServicePort


@dataclass(frozen=True, slots=True)
class Backend:
    """One pod behind a service, in one address family."""

    address: str
    hostname: str
    """The pod's own name in DNS; empty when it has asked for none."""
    ports: tuple[tuple[ServicePort, int], ...]
    """Each port of the service with the port of the pod that stands behind it."""


def backends_of(service: Service, pods: Iterable[Pod]) -> list[Backend]:
    """Ready pods that the service selects, IPv4 first, sorted by address as text.

    A service without selector has none: Kubernetes leaves its endpoints to the user.
    """
    selected = service.spec.selector.items()
    if not selected:
        return []
    found = [
        Backend(address, _hostname(pod, service), _ports(service, pod))
        for pod in pods
        if pod.namespace == service.namespace and selected <= pod.metadata.labels.items()
        if pod.status.ready or service.spec.publish_not_ready_addresses
        for address in pod.ips
        if (4 if is_ipv4(address) else 6) in service.families
    ]
    return sorted(found, key=lambda one: (not is_ipv4(one.address), one.address))


def _hostname(pod: Pod, service: Service) -> str:
    return pod.spec.hostname if pod.spec.subdomain == service.name else ""


def _ports(service: Service, pod: Pod) -> tuple[tuple[ServicePort, int], ...]:
    named = {
        port.name: port.container_port for container in pod.spec.containers for port in container.ports if port.name
    }
    pairs = []
    for port in service.spec.ports:
        target = port.target_port if port.target_port is not None else port.port
        number = named.get(target) if isinstance(target, str) else target
        if number is not None:
            pairs.append((port, number))
    return tuple(pairs)
