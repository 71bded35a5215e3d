"""The kinds around services: endpoints that users write, address pools, who announces addresses.

In:        YAML as users write it for Kubernetes, Cilium and MetalLB.
Out:       frozen models, which mesh/resources/kinds.py lists.
Elsewhere: Service itself is in mesh/resources/services.py; pools.py reads pools of all forms.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from mesh.resources.base import Condition, Model, Resource
from mesh.resources.fields import Address, DnsLabel, DnsName, Port, PortName, Protocol
from mesh.resources.mistakes import first_error
from mesh.resources.selectors import LabelSelector

SERVICE_NAME: Final = "kubernetes.io/service-name"
"""Label of an EndpointSlice that names its service."""
METALLB: Final = ("metallb-system", "config")
"""Namespace and name of the ConfigMap in which MetalLB up to 0.12 finds its pools."""

IpAddress = IPv4Address | IPv6Address

# --- Endpoints that are not pods ---


class EndpointPort(Model):
    port: Port | None = None
    name: PortName | Literal[""] | None = None
    protocol: Protocol = "TCP"
    ignored = frozenset({"appProtocol"})


class EndpointConditions(Model):
    """None means that nobody has said so; then ready counts as true and terminating as false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class SliceEndpoint(Model):
    addresses: Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]
    conditions: EndpointConditions = EndpointConditions()
    hostname: DnsLabel | Literal[""] = ""
    node_name: str = ""
    ignored = frozenset({"zone", "hints", "targetRef", "deprecatedTopology"})


class EndpointSlice(Resource):
    kind: Literal["EndpointSlice"] = "EndpointSlice"
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service(self) -> str:
        """Name of the service in the same namespace; empty when none is named."""
        return self.metadata.labels.get(SERVICE_NAME, "")

    @model_validator(mode="after")
    def _addresses_are_of_the_type(self) -> Self:
        for at, endpoint in enumerate(self.endpoints):
            for address in endpoint.addresses if self.address_type != "FQDN" else ():
                if _version(address) != int(self.address_type[-1]):
                    raise ValueError(f"endpoints[{at}].addresses: {address[:80]!r} is not {self.address_type}")
        return self


def _version(text: str) -> int:
    try:
        return ip_address(text).version
    except ValueError:
        return 0


class EndpointAddress(Model):
    ip: Address
    hostname: DnsLabel | Literal[""] = ""
    node_name: str = ""
    ignored = frozenset({"targetRef"})


class EndpointSubset(Model):
    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class Endpoints(Resource):
    """The older form; belongs to the service of the same name."""

    kind: Literal["Endpoints"] = "Endpoints"
    subsets: tuple[EndpointSubset, ...] = ()


# --- Address pools ---


class PoolBlock(Model):
    """A range of addresses: a `cidr`, or from `start` to `stop` (without stop: just that one)."""

    cidr: str = ""
    start: Address | Literal[""] = ""
    stop: Address | Literal[""] = ""

    @field_validator("cidr")
    @classmethod
    def _is_a_cidr(cls, text: str) -> str:
        try:
            return str(ip_network(text, strict=False)) if text else ""
        except ValueError:
            raise ValueError("must be a CIDR like 172.18.255.0/28") from None

    @model_validator(mode="after")
    def _is_one_range(self) -> Self:
        if bool(self.cidr) == bool(self.start):
            raise ValueError("needs either cidr or start")
        if self.stop and not self.start:
            raise ValueError("stop needs start")
        if self.stop:
            in_order(self.start, self.stop)
        return self


def in_order(start: str, stop: str) -> None:
    """Raises: ValueError unless both are of one family and in order."""
    first, last = ip_address(start), ip_address(stop)
    if first.version != last.version:
        raise ValueError(f"{start} and {stop} are of different families")
    if int(first) > int(last):
        raise ValueError(f"{start} comes after {stop}")


class PoolSpec(Model):
    blocks: tuple[PoolBlock, ...] = ()
    cidrs: tuple[PoolBlock, ...] = ()
    """What `blocks` was called at first."""
    service_selector: LabelSelector | None = None
    allow_first_last_ips: Annotated[Literal["Yes", "No"], Field(alias="allowFirstLastIPs")] = "Yes"
    disabled: bool = False


class PoolStatus(Model):
    conditions: tuple[Condition, ...] = ()


class CiliumLoadBalancerIPPool(Resource):
    kind: Literal["CiliumLoadBalancerIPPool"] = "CiliumLoadBalancerIPPool"
    spec: PoolSpec = PoolSpec()
    status: PoolStatus = PoolStatus()


class MetalLbPool(Model):
    name: DnsName
    protocol: Literal["layer2", "bgp"]
    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    auto_assign: Annotated[bool, Field(alias="auto-assign")] = True
    avoid_buggy_ips: Annotated[bool, Field(alias="avoid-buggy-ips")] = False
    ignored = frozenset({"bgp-advertisements"})

    @field_validator("addresses")
    @classmethod
    def _are_ranges(cls, ranges: tuple[str, ...]) -> tuple[str, ...]:
        for one in ranges:
            metallb_range(one)
        return ranges


def metallb_range(text: str) -> tuple[IpAddress, IpAddress]:
    """First and last address of `172.18.255.200-172.18.255.250` or of a CIDR. Raises: ValueError."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    try:
        if dash:
            in_order(first, last)
            return ip_address(first), ip_address(last)
        network = ip_network(text.strip())
    except ValueError as error:
        reason = "" if "does not appear" in str(error) else f" ({error})"
        raise ValueError(f"must be FIRST-LAST or a CIDR, got {text[:80]!r}{reason}") from None
    return network[0], network[-1]


class MetalLbConfig(Model):
    address_pools: Annotated[tuple[MetalLbPool, ...], Field(alias="address-pools")] = ()
    ignored = frozenset({"peers", "bgp-communities"})


class ConfigMap(Resource):
    """Kept as it is, except for MetalLB's, which is checked."""

    kind: Literal["ConfigMap"] = "ConfigMap"
    data: Annotated[dict[str, str], Field(default_factory=dict)]
    ignored = frozenset({"binaryData", "immutable"})

    def metallb(self) -> MetalLbConfig | None:
        """The pools in it; None for every other ConfigMap. Raises: ValueError."""
        if (self.namespace, self.name) != METALLB or "config" not in self.data:
            return None
        try:
            return MetalLbConfig.model_validate(yaml.safe_load(self.data["config"]) or {})
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"data.config: not valid YAML: {' '.join(str(error).split())}") from None
        except ValidationError as error:
            raise ValueError(f"data.config: {first_error(error)}") from None

    @model_validator(mode="after")
    def _holds_pools_that_can_be_used(self) -> Self:
        self.metallb()
        return self


# --- Announcements ---


class AnnouncementSpec(Model):
    service_selector: LabelSelector | None = None
    node_selector: LabelSelector | None = None
    interfaces: tuple[str, ...] = ()
    external_ips: Annotated[bool, Field(alias="externalIPs")] = False
    load_balancer_ips: Annotated[bool, Field(alias="loadBalancerIPs")] = False

    @field_validator("interfaces")
    @classmethod
    def _are_expressions(cls, expressions: tuple[str, ...]) -> tuple[str, ...]:
        for one in expressions:
            try:
                re.compile(one)
            except re.error as error:
                raise ValueError(f"{one[:80]!r} is not a regular expression: {error}") from None
        return expressions


class CiliumL2AnnouncementPolicy(Resource):
    kind: Literal["CiliumL2AnnouncementPolicy"] = "CiliumL2AnnouncementPolicy"
    spec: AnnouncementSpec = AnnouncementSpec()
    ignored = frozenset({"status"})


class LeaseSpec(Model):
    holder_identity: str = ""
    lease_duration_seconds: int = 15
    lease_transitions: int = 0
    ignored = frozenset({"acquireTime", "renewTime", "preferredHolder", "strategy"})


class Lease(Resource):
    """Which node speaks for a service."""

    kind: Literal["Lease"] = "Lease"
    spec: LeaseSpec = LeaseSpec()
