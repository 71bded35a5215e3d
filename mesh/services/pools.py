"""Address pools for load balancers, in whichever form users wrote them.

In:        CiliumLoadBalancerIPPool resources, MetalLB's ConfigMap.
Out:       Pool values: ranges of addresses, whom they are for, and which pool has to wait because it overlaps another.
Elsewhere: balancers.py gives the addresses out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, NamedTuple

from mesh.cluster import Cluster
from mesh.resources.base import Resource
from mesh.resources.selectors import LabelSelector
from mesh.resources.services import Service
from mesh.services.kinds import CiliumLoadBalancerIPPool, ConfigMap, IpAddress, PoolBlock, metallb_range

CONFLICT: Final = "cilium.io/PoolConflict"
POOL_ANNOTATIONS: Final = ("metallb.universe.tf/address-pool", "metallb.io/address-pool")
"""How a service asks for one of MetalLB's pools by name."""
_TRIMMED_UP_TO: Final = {4: 30, 6: 126}
"""Longest prefixes that have a first and a last address to keep out."""


class Range(NamedTuple):
    """Addresses of one family, as numbers, both ends included."""

    version: int
    first: int
    last: int

    def __contains__(self, address: object) -> bool:
        assert isinstance(address, IPv4Address | IPv6Address)
        return address.version == self.version and self.first <= int(address) <= self.last

    def overlaps(self, other: Range) -> bool:
        return self.version == other.version and self.first <= other.last and other.first <= self.last

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{_address(self.version, self.first)} - {_address(self.version, self.last)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Addresses and whom they are for."""

    name: str
    ranges: tuple[Range, ...]
    resource: CiliumLoadBalancerIPPool | None
    """None for a pool of MetalLB."""
    selector: LabelSelector | None = None
    by_name_only: bool = False
    """Services have to name it."""
    disabled: bool = False
    announced: bool = False
    """Its addresses are announced on the nodes' network without a policy that says so (MetalLB's layer2)."""
    conflict: str = ""
    """Why it has to wait: it overlaps a pool that was there before."""

    def __contains__(self, address: object) -> bool:
        return any(address in each for each in self.ranges)

    def is_for(self, service: Service) -> bool:
        """Whether the service may have addresses of this pool."""
        asked = next((found for one in POOL_ANNOTATIONS if (found := service.metadata.annotations.get(one))), None)
        if self.resource is None and (asked or self.by_name_only):
            return asked == self.name
        return self.selector is None or self.selector.matches(service_labels(service))

    def free(self, version: int, used: Collection[IpAddress]) -> IpAddress | None:
        """The lowest address that nobody has."""
        for each in self.ranges:
            if each.version == version:
                for number in range(each.first, min(each.last, each.first + len(used)) + 1):
                    if (address := _address(version, number)) not in used:
                        return address
        return None


def service_labels(service: Service) -> dict[str, str]:
    """Labels of a service as selectors of pools and announcements see them: its name and namespace are among them."""
    pseudo = {"io.kubernetes.service.name": service.name, "io.kubernetes.service.namespace": service.namespace}
    return {**service.metadata.labels, **pseudo}


def read_pools(cluster: Cluster) -> list[Pool]:
    """All pools, by name; MetalLB's first."""
    pools = [pool for one in cluster.resources.values() for pool in _pools_of(one)]
    return _in_conflict(sorted(pools, key=lambda pool: (pool.resource is not None, pool.name)))


def _pools_of(resource: Resource) -> Iterable[Pool]:
    if isinstance(resource, CiliumLoadBalancerIPPool):
        spec = resource.spec
        trim = spec.allow_first_last_ips == "No"
        yield Pool(
            name=resource.name,
            ranges=tuple(_range(block, trim) for block in (*spec.blocks, *spec.cidrs)),
            resource=resource,
            selector=spec.service_selector,
            disabled=spec.disabled,
        )
    elif isinstance(resource, ConfigMap) and (config := resource.metallb()):
        for one in config.address_pools:
            ends = [metallb_range(text) for text in one.addresses]
            yield Pool(
                name=one.name,
                ranges=tuple(Range(first.version, int(first), int(last)) for first, last in ends),
                resource=None,
                by_name_only=not one.auto_assign,
                announced=one.protocol == "layer2",
            )


def _range(block: PoolBlock, trim: bool) -> Range:
    if block.start:
        first, last = ip_address(block.start), ip_address(block.stop or block.start)
        return Range(first.version, int(first), int(last))
    network = ip_network(block.cidr)
    edge = 1 if trim and network.prefixlen <= _TRIMMED_UP_TO[network.version] else 0
    return Range(network.version, int(network[0]) + edge, int(network[-1]) - edge)


def _in_conflict(pools: Sequence[Pool]) -> list[Pool]:
    """The same pools; those that overlap an earlier one know it.

    Earlier is who was found free of conflicts in an earlier round, then who is older, then who comes first by name.
    """
    accepted: list[Pool] = []
    conflicts: dict[tuple[bool, str], str] = {}
    for pool in sorted(pools, key=_age):
        reason = _overlap_inside(pool) or next(filter(None, (_overlap(pool, other) for other in accepted)), "")
        if reason:
            conflicts[_identity(pool)] = reason
        else:
            accepted.append(pool)
    return [_conflicting(pool, conflicts.get(_identity(pool), "")) for pool in pools]


def _identity(pool: Pool) -> tuple[bool, str]:
    return pool.resource is None, pool.name


def _age(pool: Pool) -> tuple[bool, str]:
    if pool.resource is None:
        return False, ""
    known = {one.type: one.status for one in pool.resource.status.conditions}
    return known.get(CONFLICT) != "False", pool.resource.metadata.creation_timestamp or ""


def _overlap(pool: Pool, other: Pool) -> str:
    pairs = ((mine, theirs) for mine in pool.ranges for theirs in other.ranges if mine.overlaps(theirs))
    return next((f"range '{mine}' overlaps range '{theirs}' of pool {other.name}" for mine, theirs in pairs), "")


def _overlap_inside(pool: Pool) -> str:
    for at, one in enumerate(pool.ranges):
        for before in range(at):
            if one.overlaps(pool.ranges[before]):
                return f"spec.blocks[{at}] overlaps spec.blocks[{before}] of the same pool"
    return ""


def _conflicting(pool: Pool, reason: str) -> Pool:
    return replace(pool, conflict=reason) if reason else pool


def _address(version: int, number: int) -> IpAddress:
    return IPv4Address(number) if version == 4 else IPv6Address(number)
