"""Whom a rule is about: prefixes, services, entities, and what cannot be found out here.

In:        `fromCIDRSet`, `toServices`, `fromEntities` and their like.
Out:       frozen models.
Elsewhere: mesh/policy/peers.py finds the identities they select.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from mesh.policy.documents.fields import EndpointSelector, SlashedPrefix, is_inside
from mesh.resources.base import Model
from mesh.resources.fields import DnsLabel

Entity = Literal[
    "all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "remote-node", "kube-apiserver", "ingress",
    "health", "init", "unmanaged", "none",
]  # fmt: skip


class CidrRule(Model):
    cidr: SlashedPrefix | None = None
    cidr_group_ref: str = ""
    cidr_group_selector: EndpointSelector | None = None
    except_: Annotated[tuple[SlashedPrefix, ...], Field(alias="except")] = ()

    @model_validator(mode="after")
    def _names_one_set(self) -> Self:
        if (self.cidr is not None) + bool(self.cidr_group_ref) + (self.cidr_group_selector is not None) != 1:
            raise ValueError("needs one of cidr, cidrGroupRef and cidrGroupSelector")
        for at, hole in enumerate(self.except_):
            if self.cidr is not None and not is_inside(hole, self.cidr):
                raise ValueError(f"except[{at}]: {hole} is not inside {self.cidr}")
        return self


class K8sService(Model):
    service_name: DnsLabel
    namespace: DnsLabel | Literal[""] = ""


class K8sServiceSelector(Model):
    selector: EndpointSelector
    namespace: DnsLabel | Literal[""] = ""


API_SERVER: Final = ("default", "kubernetes")
"""Namespace and name of the service that stands for the API server, which policies know as an entity."""


class ServicePeer(Model):
    k8s_service: Annotated[K8sService | None, Field(alias="k8sService")] = None
    k8s_service_selector: Annotated[K8sServiceSelector | None, Field(alias="k8sServiceSelector")] = None

    @model_validator(mode="after")
    def _names_services(self) -> Self:
        if (self.k8s_service is None) == (self.k8s_service_selector is None):
            raise ValueError("needs either k8sService or k8sServiceSelector")
        return self

    def is_api_server(self, namespace: str) -> bool:
        """Whether it names the API server's service; `namespace` is that of the policy."""
        named = self.k8s_service
        return named is not None and (named.namespace or namespace, named.service_name) == API_SERVER


class Authentication(Model):
    mode: Literal["disabled", "required", "test-always-fail"]


_NO_GROUPS: Final = (
    "no cloud provider is here to say which addresses belong to the group;"
    " write them as {side}CIDRSet, or as a CiliumCIDRGroup that {side}CIDRSet names by cidrGroupRef"
)
UNSUPPORTED_PEERS: Final = {f"{side}Groups": _NO_GROUPS.format(side=side) for side in ("from", "to")}
"""Cilium knows these peers; why they are refused here."""
PEER_FIELDS: Final = ("endpoints", "nodes", "cidr", "cidr_set", "entities", "services", "fqdns")
