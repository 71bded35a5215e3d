"""Service: ports and addresses that stand for pods.

In:        plain data of one document.
Out:       frozen models; combinations that cannot work are refused.
Elsewhere: mesh/services/ gives addresses and node ports, and has the kinds around it (EndpointSlice, pools, ...).
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from mesh.resources.base import Condition, Model, Resource
from mesh.resources.fields import Address, Labels, Network, Port, PortName, Protocol


class ServicePort(Model):
    port: Port
    name: PortName | None = None
    protocol: Protocol = "TCP"
    target_port: Port | PortName | None = None
    """None: the same as `port`."""
    node_port: int = 0
    """0: none, or not chosen yet."""
    app_protocol: str | None = None

    @field_validator("node_port")
    @classmethod
    def _is_kept_for_services(cls, number: int) -> int:
        if number and not NODE_PORTS[0] <= number <= NODE_PORTS[1]:
            raise ValueError(f"must be {NODE_PORTS[0]} to {NODE_PORTS[1]}")
        return number


NODE_PORTS: Final = (30000, 32767)
"""First and last port that nodes keep for services."""
DEFAULT_AFFINITY_S: Final = 10800


class ClientIpConfig(Model):
    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = DEFAULT_AFFINITY_S


class AffinityConfig(Model):
    client_ip: Annotated[ClientIpConfig, Field(alias="clientIP")] = ClientIpConfig()


class ServiceSpec(Model):
    ports: tuple[ServicePort, ...] = ()
    selector: Labels = Field(default_factory=dict)
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: Annotated[Address | Literal["None", ""], Field(alias="clusterIP")] = ""
    cluster_ips: Annotated[tuple[Address | Literal["None"], ...], Field(alias="clusterIPs", max_length=2)] = ()
    external_name: str = ""
    external_ips: Annotated[tuple[Address, ...], Field(alias="externalIPs")] = ()
    external_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    internal_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: AffinityConfig = AffinityConfig()
    load_balancer_ip: Annotated[Address | Literal[""], Field(alias="loadBalancerIP")] = ""
    load_balancer_class: str = ""
    load_balancer_source_ranges: tuple[Network, ...] = ()
    allocate_load_balancer_node_ports: bool = True
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] = "SingleStack"
    publish_not_ready_addresses: bool = False
    ignored = frozenset({"healthCheckNodePort", "trafficDistribution"})

    @model_validator(mode="after")
    def _ports_make_sense_together(self) -> Self:
        if len(self.ports) > 1 and any(one.name is None for one in self.ports):
            raise ValueError("ports need names when there are several")
        seen: dict[object, int] = {}
        for at, one in enumerate(self.ports):
            for what in (one.name, (one.port, one.protocol)):
                if what is not None and seen.setdefault(what, at) != at:
                    raise ValueError(f"ports[{at}] is the same as ports[{seen[what]}]: {_words(what)}")
            if one.node_port and self.type not in ("NodePort", "LoadBalancer"):
                raise ValueError(f"ports[{at}].nodePort may not be used when type is {self.type}")
            if one.node_port and seen.setdefault((one.node_port, one.protocol, "node"), at) != at:
                raise ValueError(f"ports[{at}].nodePort: {one.node_port} {one.protocol} is there twice")
        return self

    @model_validator(mode="after")
    def _addresses_make_sense_together(self) -> Self:
        if len(set(self.ip_families)) != len(self.ip_families):
            raise ValueError("ipFamilies names a family twice")
        if self.ip_family_policy == "SingleStack" and len(self.ip_families) > 1:
            raise ValueError("ipFamilyPolicy must be PreferDualStack or RequireDualStack for two ipFamilies")
        if self.cluster_ip and self.cluster_ips and self.cluster_ips[0] != self.cluster_ip:
            raise ValueError("clusterIPs[0] must be the same as clusterIP")
        if self.type == "ExternalName" and not self.external_name:
            raise ValueError("externalName must be given when type is ExternalName")
        if self.cluster_ip == "None" and self.type in ("NodePort", "LoadBalancer"):
            raise ValueError(f"clusterIP may not be None when type is {self.type}")
        if self.type != "LoadBalancer" and (self.load_balancer_class or self.load_balancer_source_ranges):
            raise ValueError("loadBalancerClass and loadBalancerSourceRanges need type LoadBalancer")
        return self


L7: Final = "service.cilium.io/lb-l7"
L7_ALGORITHM: Final = "service.cilium.io/lb-l7-algorithm"
_ANNOTATIONS: Final = {L7: ("enabled", "disabled"), L7_ALGORITHM: ("round_robin", "least_request", "random")}


def _words(what: object) -> str:
    return f"{what[0]} {what[1]}" if isinstance(what, tuple) else str(what)


class IngressPoint(Model):
    """Where a load balancer is reached."""

    ip: Address | None = None
    hostname: str = ""
    ignored = frozenset({"ipMode", "ports"})


class LoadBalancerStatus(Model):
    ingress: tuple[IngressPoint, ...] = ()


class ServiceStatus(Model):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Resource):
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()

    @model_validator(mode="after")
    def _annotations_say_what_is_known(self) -> Self:
        for name, known in _ANNOTATIONS.items():
            value = self.metadata.annotations.get(name)
            if value is not None and value not in known:
                words = f"{', '.join(known[:-1])} or {known[-1]}"
                raise ValueError(f"metadata.annotations: {name}: must be {words}, got {value[:80]!r}")
        return self

    @property
    def wants_l7(self) -> bool:
        """Whether Envoy is to balance its requests one by one."""
        return self.metadata.annotations.get(L7) == "enabled"

    @property
    def headless(self) -> bool:
        return self.spec.cluster_ip == "None"

    @property
    def families(self) -> tuple[int, ...]:
        """IP versions the service is reachable by: 4, 6 or both."""
        named = tuple(int(one[-1]) for one in self.spec.ip_families)
        if not named and self.spec.cluster_ip and not self.headless:
            named = (ipaddress.ip_address(self.spec.cluster_ip).version,)
        if self.spec.ip_family_policy == "SingleStack":
            return named[:1] or (4,)
        return (4, 6) if not named or named[0] == 4 else (6, 4)

    @property
    def balancer_ips(self) -> tuple[str, ...]:
        """Addresses of its load balancer; none unless it is of that type."""
        points = self.status.load_balancer.ingress if self.spec.type == "LoadBalancer" else ()
        return tuple(one.ip for one in points if one.ip)
