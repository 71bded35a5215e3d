"""What is refused although each document alone is right: two services cannot have the same address or port.

In:        resources that somebody wants to apply, those that exist.
Out:       one line per problem, with the path of the field.
Elsewhere: mesh/resources/ checks documents one by one; commands that apply ask here before they write.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from mesh import ipam
from mesh.resources.base import Resource
from mesh.resources.services import Service


def refusals(wanted: Iterable[Resource], existing: Iterable[Resource]) -> list[str]:
    """Why `wanted` cannot be taken; nothing when it can."""
    services = [one for one in wanted if isinstance(one, Service)]
    replaced = {one.key for one in services}
    taken: dict[tuple[str, object], Service] = {}
    for one in existing:
        if isinstance(one, Service) and one.key not in replaced:
            taken |= {claim: one for _, claim in _claims(one)}
    problems = []
    for service in services:
        title = f"Service {service.namespace}/{service.name}"
        problems += [f"{title}: {problem}" for problem in _out_of_range(service)]
        for path, claim in _claims(service):
            other = taken.setdefault(claim, service)
            if other.key != service.key:
                problems.append(f"{title}: {path}: {claim[1]} is taken by Service {other.namespace}/{other.name}")
    return problems


def _claims(service: Service) -> Iterator[tuple[str, tuple[str, object]]]:
    """What only one service can have, with the path of the field that asks for it."""
    for at, port in enumerate(service.spec.ports):
        if port.node_port:
            yield f"spec.ports[{at}].nodePort", ("node port", f"{port.node_port} {port.protocol}")
    addresses = service.spec.cluster_ips or (service.spec.cluster_ip,)
    for at, address in enumerate(addresses):
        if address not in ("", "None"):
            path = f"spec.clusterIPs[{at}]" if at else "spec.clusterIP"
            yield path, ("cluster address", address)
    for at, address in enumerate(service.spec.external_ips):
        for port in service.spec.ports:
            yield f"spec.externalIPs[{at}]", ("external address", f"{address} port {port.port} {port.protocol}")


def _out_of_range(service: Service) -> Iterator[str]:
    for address in dict.fromkeys((service.spec.cluster_ip, *service.spec.cluster_ips)):
        if address in ("", "None"):
            continue
        found = ip_address(address)
        network = next(one for one in ipam.SERVICE_CIDRS if one.version == found.version)
        if found not in network:
            yield f"spec.clusterIP: {address} is outside of the services' range {network}"
    for at, address in enumerate(service.spec.external_ips):
        found = ip_address(address)
        if found.is_loopback or found.is_unspecified or found.is_link_local or found.is_multicast:
            yield f"spec.externalIPs[{at}]: {address} cannot be the address of a service"
