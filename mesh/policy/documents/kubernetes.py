"""NetworkPolicy, Kubernetes' own.

In:        plain data of one document.
Out:       frozen models.
Elsewhere: cilium.py has Cilium's policies, which can say more.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mesh.policy.documents.fields import SlashedPrefix, is_inside
from mesh.resources.base import Model, Resource
from mesh.resources.fields import PortName
from mesh.resources.selectors import LabelSelector


class IpBlock(Model):
    cidr: SlashedPrefix
    except_: Annotated[tuple[SlashedPrefix, ...], Field(alias="except")] = ()

    @model_validator(mode="after")
    def _holes_are_inside(self) -> Self:
        for at, hole in enumerate(self.except_):
            if not is_inside(hole, self.cidr):
                raise ValueError(f"except[{at}]: {hole} is not inside {self.cidr}")
        return self


class NetworkPolicyPeer(Model):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IpBlock | None = None

    @model_validator(mode="after")
    def _names_pods_or_addresses(self) -> Self:
        pods = self.pod_selector is not None or self.namespace_selector is not None
        if pods == (self.ip_block is not None):
            raise ValueError("needs either ipBlock, or podSelector and namespaceSelector")
        return self


class NetworkPolicyPort(Model):
    port: Annotated[int, Field(ge=1, le=65535)] | PortName | None = None
    end_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if self.end_port is not None and (not isinstance(self.port, int) or self.end_port < self.port):
            raise ValueError("endPort: needs a numeric port that is not above it")
        return self


class NetworkPolicyIngress(Model):
    from_: Annotated[tuple[NetworkPolicyPeer, ...], Field(alias="from")] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicyEgress(Model):
    to: tuple[NetworkPolicyPeer, ...] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicySpec(Model):
    pod_selector: LabelSelector
    policy_types: tuple[Literal["Ingress", "Egress"], ...] = ()
    ingress: tuple[NetworkPolicyIngress, ...] = ()
    egress: tuple[NetworkPolicyEgress, ...] = ()


class NetworkPolicy(Resource):
    kind: Literal["NetworkPolicy"] = "NetworkPolicy"
    spec: NetworkPolicySpec
    ignored = frozenset({"status"})
