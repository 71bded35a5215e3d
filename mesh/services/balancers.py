"""Addresses for services of type LoadBalancer, out of pools; what Cilium calls LB-IPAM.

In:        services, pools.
Out:       addresses in the services' status, conditions on services and pools that say what is wrong.
Elsewhere: pools.py reads pools; announcing.py decides which node answers for an address.

What a service has it keeps, for as long as a pool holds it and nothing forbids it. Without any pool this does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from mesh.cluster import Cluster
from mesh.resources.base import Condition, changed
from mesh.resources.services import IngressPoint, LoadBalancerStatus, Service, ServiceStatus
from mesh.services.kinds import IpAddress
from mesh.services.pools import CONFLICT, Pool, read_pools

SATISFIED: Final = "io.cilium/lb-ipam-request-satisfied"
CLASSES: Final = ("", "io.cilium/bgp-control-plane", "io.cilium/l2-announcer")
"""loadBalancerClass of the services that get addresses here."""
ADDRESSES: Final = ("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips", "metallb.universe.tf/loadBalancerIPs")
SHARING: Final = (
    "lbipam.cilium.io/sharing-key",
    "io.cilium/lb-ipam-sharing-key",
    "metallb.universe.tf/allow-shared-ip",
)
SHARING_ACROSS: Final = (
    "lbipam.cilium.io/sharing-cross-namespace",
    "io.cilium/lb-ipam-sharing-cross-namespace",
)


def assign_balancers(cluster: Cluster) -> None:
    """Give every service of type LoadBalancer what it asks for, and tell pools and services how it went."""
    pools = read_pools(cluster)
    book = _Book(pools)
    mine = []
    for service in cluster.services():
        if service.spec.type == "LoadBalancer" and service.spec.load_balancer_class in CLASSES:
            mine.append(service)
        elif service.spec.type != "LoadBalancer":
            _report(cluster, service, (), None)
    for service in mine:
        book.keep(service)
    for service in mine:
        if not pools and all(one.type != SATISFIED for one in service.status.conditions):
            continue  # whatever address it has, somebody else gave it
        condition = book.complete(service) if pools else None
        _report(cluster, service, book.addresses(service), condition)
    for pool in pools:
        _report_pool(cluster, pool, book)


def wanted_addresses(service: Service) -> tuple[str, ...]:
    """Addresses that the service names itself, as text."""
    text = _annotation(service, ADDRESSES)
    named = [part.strip() for part in text.split(",") if part.strip()]
    if service.spec.load_balancer_ip:
        named.append(service.spec.load_balancer_ip)
    return tuple(dict.fromkeys(named))


@dataclass(slots=True)
class _Book:
    """Who has which address, while it is being decided."""

    pools: Sequence[Pool]
    held: dict[IpAddress, list[Service]] = field(default_factory=dict)
    of: dict[tuple[str, str], list[IpAddress]] = field(default_factory=dict)

    def addresses(self, service: Service) -> tuple[str, ...]:
        return tuple(map(str, self.of.get((service.namespace, service.name), ())))

    def keep(self, service: Service) -> None:
        """Take over what it has had and may still have."""
        wanted, _ = _parsed(wanted_addresses(service))
        for text in service.balancer_ips:
            address = ip_address(text)
            allowed = address in wanted if wanted else address.version in service.families
            known = any(address in pool and pool.is_for(service) for pool in self.pools)
            if allowed and known and self._may_have(service, address):
                self._give(service, address)

    def complete(self, service: Service) -> Condition:
        """Find what is missing. Returns: how it went."""
        wanted, wrong = _parsed(wanted_addresses(service))
        if wrong:
            return _unsatisfied("no_pool", f"not an IP address: {', '.join(wrong)}")
        if wanted:
            return self._complete_named(service, wanted)
        return self._complete_any(service)

    def _complete_named(self, service: Service, wanted: Iterable[IpAddress]) -> Condition:
        problems = []
        for address in wanted:
            if address in self._has(service):
                continue
            around = [pool for pool in self.pools if address in pool and not pool.conflict and not pool.disabled]
            if not around:
                problems.append(_unsatisfied("no_pool", f"no pool has {address}"))
            elif not any(pool.is_for(service) for pool in around):
                problems.append(
                    _unsatisfied(
                        "pool_selector_mismatch", f"pool {around[0].name} of {address} is not for this service"
                    )
                )
            elif not self._may_have(service, address):
                other = self.held[address][0]
                problems.append(
                    _unsatisfied("already_allocated", f"{address} belongs to {other.namespace}/{other.name}")
                )
            else:
                self._give(service, address)
        return problems[0] if problems else _SATISFIED

    def _complete_any(self, service: Service) -> Condition:
        problems = []
        for version in service.families:
            if any(address.version == version for address in self._has(service)):
                continue
            shared = self._shared(service, version)
            usable = [pool for pool in self.pools if pool.is_for(service) and not pool.conflict and not pool.disabled]
            usable = [pool for pool in usable if any(each.version == version for each in pool.ranges)]
            free = (pool.free(version, self.held) for pool in usable)
            found = shared or next((one for one in free if one is not None), None)
            if found is not None:
                self._give(service, found)
            elif usable:
                names = ", ".join(pool.name for pool in usable)
                problems.append(_unsatisfied("out_of_ips", f"no IPv{version} address is free in {names}"))
            else:
                problems.append(_unsatisfied("no_pool", f"no pool has IPv{version} addresses for this service"))
        enough = service.spec.ip_family_policy == "PreferDualStack" and self._has(service)
        return _SATISFIED if enough or not problems else problems[0]

    def _shared(self, service: Service, version: int) -> IpAddress | None:
        """An address that services with the same sharing key have."""
        if not _annotation(service, SHARING):
            return None
        fits = (one for one in self.held if one.version == version and self._may_have(service, one))
        return min(fits, key=lambda one: int(one), default=None)

    def _has(self, service: Service) -> list[IpAddress]:
        return self.of.get((service.namespace, service.name), [])

    def _give(self, service: Service, address: IpAddress) -> None:
        self.held.setdefault(address, []).append(service)
        self.of.setdefault((service.namespace, service.name), []).append(address)

    def _may_have(self, service: Service, address: IpAddress) -> bool:
        return all(_may_share(service, other) for other in self.held.get(address, ()))


def _may_share(one: Service, other: Service) -> bool:
    """Whether two services may have the same address."""
    key = _annotation(one, SHARING)
    if not key or key != _annotation(other, SHARING):
        return False
    if one.namespace != other.namespace and not (_lets_in(one, other) and _lets_in(other, one)):
        return False
    ports = {(port.port, port.protocol) for port in one.spec.ports}
    return ports.isdisjoint((port.port, port.protocol) for port in other.spec.ports)


def _lets_in(host: Service, guest: Service) -> bool:
    allowed = {part.strip() for part in _annotation(host, SHARING_ACROSS).split(",")}
    return "*" in allowed or guest.namespace in allowed


def _annotation(service: Service, names: Sequence[str]) -> str:
    return next((found for name in names if (found := service.metadata.annotations.get(name))), "")


def _parsed(texts: Iterable[str]) -> tuple[list[IpAddress], list[str]]:
    """Addresses, and what is none."""
    good, bad = [], []
    for text in texts:
        try:
            good.append(ip_address(text))
        except ValueError:
            bad.append(text[:80])
    return good, bad


_SATISFIED: Final = Condition(type=SATISFIED, status="True", reason="satisfied")


def _unsatisfied(reason: str, message: str) -> Condition:
    return Condition(type=SATISFIED, status="False", reason=reason, message=message)


def _report(cluster: Cluster, service: Service, addresses: Sequence[str], condition: Condition | None) -> None:
    """Write the outcome into the service's status, when it differs."""
    others = tuple(one for one in service.status.conditions if one.type != SATISFIED)
    conditions = (*others, condition) if condition else others
    present = tuple(one.ip for one in service.status.load_balancer.ingress)
    if present == tuple(addresses) and conditions == service.status.conditions:
        return
    points = tuple(IngressPoint(ip=one) for one in addresses)
    status = ServiceStatus(load_balancer=LoadBalancerStatus(ingress=points), conditions=conditions)
    cluster.put(changed(service, status=status))


def _report_pool(cluster: Cluster, pool: Pool, book: _Book) -> None:
    if pool.resource is None:
        return
    total = sum(each.size for each in pool.ranges)
    used = sum(address in pool for address in book.held)
    counts = {"IPsTotal": total, "IPsAvailable": total - used, "IPsUsed": used}
    conflict = Condition(
        type=CONFLICT,
        status="True" if pool.conflict else "False",
        reason="cidr_overlap" if pool.conflict else "resolved",
        message=pool.conflict,
    )
    numbers = (
        Condition(type=f"cilium.io/{name}", status="Unknown", reason="noreason", message=str(count))
        for name, count in counts.items()
    )
    status = changed(pool.resource.status, conditions=(conflict, *numbers))
    if status != pool.resource.status:
        cluster.put(changed(pool.resource, status=status))
