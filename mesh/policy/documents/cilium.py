"""CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup.

In:        plain data of one document.
Out:       frozen models; `bodies` are the rules of a policy.
Elsewhere: layer7.py, ports.py and peers.py have the parts of a rule.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from mesh.policy.documents.fields import EndpointSelector, Prefix
from mesh.policy.documents.layer7 import DnsRule
from mesh.policy.documents.peers import PEER_FIELDS, UNSUPPORTED_PEERS, Authentication, CidrRule, Entity, ServicePeer
from mesh.policy.documents.ports import MAX_PORTS, IcmpRule, PortDenyRule, PortRule
from mesh.resources.base import Model, Resource

MAX_LOG: Final = 32


class _Element(Model):
    """What all elements of the four lists share."""

    icmps: tuple[IcmpRule, ...] | None = None

    def peer_members(self) -> list[str]:
        """Names of the peer members that are present, empty ones too."""
        names = [f"{side}_{name}" for side in ("from", "to") for name in PEER_FIELDS]
        return [name for name in names if getattr(self, name, None) is not None]

    @model_validator(mode="before")
    @classmethod
    def _names_peers_that_can_be_found(cls, data: Any) -> Any:
        for name in data if isinstance(data, dict) else ():
            if name in UNSUPPORTED_PEERS:
                raise ValueError(f"{name}: {UNSUPPORTED_PEERS[name]}")
        return data

    @model_validator(mode="after")
    def _combines_what_can_be_combined(self) -> Self:
        fields = type(self).model_fields
        members = [fields[name].alias or name for name in self.peer_members()]
        if len(members) > 1:
            raise ValueError(f"{members[0]} and {members[1]} in one element: write an element for each")
        if self.icmps and getattr(self, "to_ports", None):
            raise ValueError("icmps and toPorts in one element: write an element for each")
        if sum(len(one.fields) for one in self.icmps or ()) > MAX_PORTS:
            raise ValueError(f"icmps: at most {MAX_PORTS} fields")
        return self


class _Ingress(_Element):
    from_endpoints: tuple[EndpointSelector, ...] | None = None
    from_nodes: tuple[EndpointSelector, ...] | None = None
    from_cidr: Annotated[tuple[Prefix, ...] | None, Field(alias="fromCIDR")] = None
    from_cidr_set: Annotated[tuple[CidrRule, ...] | None, Field(alias="fromCIDRSet")] = None
    from_entities: tuple[Entity, ...] | None = None


class _Egress(_Element):
    to_endpoints: tuple[EndpointSelector, ...] | None = None
    to_nodes: tuple[EndpointSelector, ...] | None = None
    to_cidr: Annotated[tuple[Prefix, ...] | None, Field(alias="toCIDR")] = None
    to_cidr_set: Annotated[tuple[CidrRule, ...] | None, Field(alias="toCIDRSet")] = None
    to_entities: tuple[Entity, ...] | None = None
    to_services: tuple[ServicePeer, ...] | None = None


class IngressRule(_Ingress):
    to_ports: tuple[PortRule, ...] | None = None
    authentication: Authentication | None = None

    @model_validator(mode="after")
    def _has_no_dns_rules(self) -> Self:
        for at, one in enumerate(self.to_ports or ()):
            if one.rules and one.rules.kind == "dns":
                raise ValueError(f"toPorts[{at}].rules: dns rules are for egress")
        return self


class IngressDenyRule(_Ingress):
    to_ports: tuple[PortDenyRule, ...] | None = None


class EgressRule(_Egress):
    to_fqdns: Annotated[tuple[DnsRule, ...] | None, Field(alias="toFQDNs")] = None
    to_ports: tuple[PortRule, ...] | None = None
    authentication: Authentication | None = None


class EgressDenyRule(_Egress):
    to_ports: tuple[PortDenyRule, ...] | None = None


class DefaultDeny(Model):
    ingress: bool | None = None
    egress: bool | None = None


class Log(Model):
    value: Annotated[str, Field(max_length=MAX_LOG)] = ""


class RuleLabel(Model):
    key: str
    value: str = ""
    source: str = "unspec"


class PolicyBody(Model):
    """One rule: subject, what it may do, what it may not."""

    endpoint_selector: EndpointSelector | None = None
    node_selector: EndpointSelector | None = None
    """Instead: nodes, whose own processes the rule is about."""
    ingress: tuple[IngressRule, ...] = ()
    ingress_deny: tuple[IngressDenyRule, ...] = ()
    egress: tuple[EgressRule, ...] = ()
    egress_deny: tuple[EgressDenyRule, ...] = ()
    enable_default_deny: DefaultDeny = DefaultDeny()
    labels: tuple[RuleLabel, ...] = ()
    description: str = ""
    log: Log = Log()

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.endpoint_selector is None and self.node_selector is None:
            raise ValueError("endpointSelector: missing; {} selects all pods")
        if self.endpoint_selector is not None and self.node_selector is not None:
            raise ValueError("endpointSelector and nodeSelector in one rule: write a rule for each")
        if not (self.ingress or self.ingress_deny or self.egress or self.egress_deny):
            raise ValueError("needs an entry in ingress, ingressDeny, egress or egressDeny")
        return self

    @model_validator(mode="after")
    def _has_proxies_that_nodes_have(self) -> Self:
        if self.node_selector is None:
            return self
        ports = [(f"ingress[{at}]", one.to_ports or ()) for at, one in enumerate(self.ingress)]
        ports += [(f"egress[{at}]", one.to_ports or ()) for at, one in enumerate(self.egress)]
        for element, rules in ports:
            for at, one in enumerate(rules):
                kind = one.rules.kind if one.rules else ""
                if kind and (kind != "dns" or element.startswith("ingress")):
                    raise ValueError(f"{element}.toPorts[{at}].rules: for nodes, dns rules for egress only")
                if one.server_names:
                    raise ValueError(f"{element}.toPorts[{at}].serverNames: not for nodes")
        return self


class _Policy(Resource):
    spec: PolicyBody | None = None
    specs: tuple[PolicyBody, ...] = ()
    ignored = frozenset({"status"})

    @model_validator(mode="after")
    def _has_rules(self) -> Self:
        if self.spec is None and not self.specs:
            raise ValueError("spec: missing")
        return self

    @model_validator(mode="after")
    def _names_the_api_server_as_an_entity(self) -> Self:
        for body in self.bodies:
            for name, elements in (("egress", body.egress), ("egressDeny", body.egress_deny)):
                for at, element in enumerate(elements):
                    if any(
                        one.is_api_server(self.metadata.namespace or "default") for one in element.to_services or ()
                    ):
                        raise ValueError(
                            f"{name}[{at}].toServices: default/kubernetes cannot be selected as a service;"
                            " write toEntities: [kube-apiserver]"
                        )
        return self

    @property
    def bodies(self) -> tuple[PolicyBody, ...]:
        """All rules of the resource."""
        return ((self.spec,) if self.spec is not None else ()) + self.specs


class CiliumNetworkPolicy(_Policy):
    kind: Literal["CiliumNetworkPolicy"] = "CiliumNetworkPolicy"

    @model_validator(mode="after")
    def _is_about_pods(self) -> Self:
        if any(one.node_selector is not None for one in self.bodies):
            raise ValueError("nodeSelector: nodes are in no namespace; write a CiliumClusterwideNetworkPolicy")
        return self


class CiliumClusterwideNetworkPolicy(_Policy):
    kind: Literal["CiliumClusterwideNetworkPolicy"] = "CiliumClusterwideNetworkPolicy"


class CidrGroupSpec(Model):
    external_cidrs: Annotated[tuple[Prefix, ...], Field(alias="externalCIDRs")] = ()


class CiliumCIDRGroup(Resource):
    kind: Literal["CiliumCIDRGroup"] = "CiliumCIDRGroup"
    spec: CidrGroupSpec = CidrGroupSpec()
