"""Documents to rules.

In:        policy documents; services and CIDR groups that they may name.
Out:       rules.Rule values; warnings about selectors that cannot mean what was wanted.
Elsewhere: documents/ has checked the fields; peers.py says what selectors select.

Source: spec/policy.md, sections 2 to 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from bpf.policies import AUTH_EXPLICIT
from mesh import identities
from mesh.policy.documents.cilium import (
    CiliumCIDRGroup,
    CiliumNetworkPolicy,
    EgressDenyRule,
    EgressRule,
    IngressDenyRule,
    IngressRule,
    PolicyBody,
)
from mesh.policy.documents.fields import EndpointSelector, Network
from mesh.policy.documents.kinds import PolicyDocument
from mesh.policy.documents.kubernetes import IpBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort
from mesh.policy.documents.layer7 import DnsRule, HttpRule, L7Rules
from mesh.policy.documents.peers import API_SERVER, CidrRule, ServicePeer
from mesh.policy.documents.ports import IcmpRule, PortDenyRule, PortProtocol, PortRule
from mesh.policy.peers import ANY_SOURCE, FQDN_SOURCE, CidrPeer, EntityPeer, LabelPeer, NodePeer, Peer, Term
from mesh.policy.rules import (
    ALL_PORTS,
    AUTH_TYPES,
    ICMP,
    ICMPV6,
    PROTOCOLS,
    SCTP,
    TCP,
    UDP,
    DnsMatch,
    Entry,
    HeaderMatch,
    HttpMatch,
    L7Match,
    Ports,
    Rule,
    ServerName,
)
from mesh.resources.selectors import LabelSelector
from mesh.resources.services import Service

NAMESPACE: Final = identities.NAMESPACE_LABEL
ORIGIN: Final = "k8s:io.cilium.k8s.policy."
LISTENER_PRIORITIES: Final = {"http": 101, "tls": 116, "dns": 121}
"""Of each proxy's own listeners (spec/datapath.md, section 11)."""

_Element = IngressRule | IngressDenyRule | EgressRule | EgressDenyRule


@dataclass(frozen=True, slots=True)
class Context:
    """What documents refer to by name."""

    services: Sequence[Service] = ()
    service_addresses: Mapping[tuple[str, str], tuple[Network, ...]] = field(default_factory=dict)
    """Endpoints of services without selector, by namespace and name."""
    groups: Sequence[CiliumCIDRGroup] = ()
    cluster_name: str = "default"


def rules_of(document: PolicyDocument, context: Context) -> tuple[Rule, ...]:
    """The rules of a policy."""
    if isinstance(document, NetworkPolicy):
        return (_kubernetes_rule(document),)
    return tuple(_Reader(document, body, context).rule() for body in document.bodies)


def depends_on_context(document: PolicyDocument) -> bool:
    """Whether a change of services or groups may change its rules."""
    if isinstance(document, NetworkPolicy):
        return False
    text = document.model_dump_json(by_alias=True, exclude_unset=True)
    return '"toServices"' in text or '"cidrGroup' in text


def origin_labels(document: PolicyDocument) -> tuple[str, ...]:
    """Labels that say which resource a rule was made from."""
    labels = [f"{ORIGIN}derived-from={document.kind}", f"{ORIGIN}name={document.name}"]
    labels += [f"{ORIGIN}namespace={document.namespace}"] if document.namespace else []
    labels += [f"{ORIGIN}uid={document.metadata.uid}"] if document.metadata.uid else []
    return tuple(labels)


class _Reader:
    """One rule of a Cilium policy. `namespace` is None for the clusterwide kind."""

    def __init__(self, document: PolicyDocument, body: PolicyBody, context: Context) -> None:
        self.document = document
        self.body = body
        self.context = context
        self.namespace = document.namespace if isinstance(document, CiliumNetworkPolicy) else None

    def rule(self) -> Rule:
        body = self.body
        entries = [
            *(self._entry(one, egress=False, deny=False) for one in body.ingress),
            *(self._entry(one, egress=False, deny=True) for one in body.ingress_deny),
            *(self._entry(one, egress=True, deny=False) for one in body.egress),
            *(self._entry(one, egress=True, deny=True) for one in body.egress_deny),
        ]
        wanted = body.enable_default_deny
        speaks = {egress: any(entry.egress is egress for entry in entries) for egress in (False, True)}
        selector = body.endpoint_selector or body.node_selector
        assert selector is not None
        return Rule(
            subject=self._subject(selector),
            entries=tuple(entries),
            deny_ingress_by_default=speaks[False] if wanted.ingress is None else wanted.ingress,
            deny_egress_by_default=speaks[True] if wanted.egress is None else wanted.egress,
            labels=origin_labels(self.document) + tuple(f"{one.source}:{one.key}={one.value}" for one in body.labels),
            log=body.log.value,
            of_nodes=body.node_selector is not None,
        )

    def _entry(self, element: _Element, *, egress: bool, deny: bool) -> Entry:
        ports = [*self._ports(element.to_ports or ()), *_icmp_ports(element.icmps or ())]
        limited = bool(element.to_ports) or bool(element.icmps)
        peers = self._peers(element, anybody=limited)
        if limited and not ports:
            ports = [ALL_PORTS]
        authentication = getattr(element, "authentication", None)
        auth = AUTH_EXPLICIT | AUTH_TYPES[authentication.mode] if authentication else 0
        return Entry(egress, deny, peers, tuple(dict.fromkeys(ports)) or (ALL_PORTS,), auth)

    def _peers(self, element: _Element, *, anybody: bool) -> tuple[Peer, ...] | None:
        members = element.peer_members()
        if not members:
            return None if anybody else ()
        found: list[Peer] = []
        for one in getattr(element, members[0]):
            if one == "all":
                return None
            found += [_nodes(one)] if members[0].endswith("_nodes") else self._peer(one)
        return tuple(dict.fromkeys(found))

    def _peer(self, one: object) -> Iterable[Peer]:
        if isinstance(one, EndpointSelector):
            return [self._endpoints(one)]
        if isinstance(one, CidrRule):
            return self._prefixes(one)
        if isinstance(one, ServicePeer):
            return self._services(one)
        if isinstance(one, DnsRule):
            return [LabelPeer((Term(f"{FQDN_SOURCE}{one.text}", "Exists"),))]
        if isinstance(one, str):
            return [] if one == "none" else [EntityPeer(one, self.context.cluster_name)]
        return [CidrPeer(one)]  # type: ignore[arg-type]  # what is left are prefixes

    def _subject(self, selector: EndpointSelector) -> LabelPeer:
        terms = _terms(selector)
        if self.namespace is None or any(_asks_for_init(term) for term in terms):
            return LabelPeer(terms)
        # A subject of a namespaced policy is never outside of the namespace, whatever the selector says.
        return LabelPeer((*terms, _namespace_is(self.namespace)))

    def _endpoints(self, selector: EndpointSelector) -> LabelPeer:
        terms = _terms(selector)
        if any(_is_reserved(term) for term in terms) or any(_names_namespace(term) for term in terms):
            return LabelPeer(terms)
        scope = Term(f"k8s:{NAMESPACE}", "Exists") if self.namespace is None else _namespace_is(self.namespace)
        return LabelPeer((*terms, scope))

    def _prefixes(self, one: CidrRule) -> list[Peer]:
        if one.cidr is not None:
            return [CidrPeer(one.cidr, one.except_)]
        return [
            CidrPeer(prefix, one.except_)
            for group in self.context.groups
            if self._is_meant(group, one)
            for prefix in group.spec.external_cidrs
        ]

    def _is_meant(self, group: CiliumCIDRGroup, one: CidrRule) -> bool:
        if one.cidr_group_selector is None:
            return group.name == one.cidr_group_ref
        return _matches(one.cidr_group_selector, group.metadata.labels)

    def _services(self, peer: ServicePeer) -> list[Peer]:
        found: list[Peer] = []
        for service in self.context.services:
            if not self._is_wanted(service, peer):
                continue
            if service.spec.selector:
                terms = tuple(
                    Term(f"k8s:{key}", "In", frozenset({value})) for key, value in service.spec.selector.items()
                )
                found.append(LabelPeer((*terms, _namespace_is(service.namespace))))
            else:
                addresses = self.context.service_addresses.get((service.namespace, service.name), ())
                found += [CidrPeer(prefix) for prefix in addresses]
        return found

    def _is_wanted(self, service: Service, peer: ServicePeer) -> bool:
        if (service.namespace, service.name) == API_SERVER:
            return False
        if peer.k8s_service is not None:
            wanted = peer.k8s_service.namespace or self.namespace or "default"
            return (service.namespace, service.name) == (wanted, peer.k8s_service.service_name)
        assert peer.k8s_service_selector is not None
        namespace = peer.k8s_service_selector.namespace or self.namespace
        if namespace and service.namespace != namespace:
            return False
        return _matches(peer.k8s_service_selector.selector, service.metadata.labels)

    def _ports(self, rules: Iterable[PortRule | PortDenyRule]) -> Iterable[Ports]:
        for rule in rules:
            behind = self._proxy(rule) if isinstance(rule, PortRule) else ALL_PORTS
            if not rule.ports:
                yield behind
            for port in rule.ports:
                yield from _port(port, behind)

    def _proxy(self, rule: PortRule) -> Ports:
        """All ports, behind the proxy that a rule asks for."""
        kind = rule.rules.kind if rule.rules else ""
        if rule.rules is not None and kind:
            return Ports(parser=kind, priority=LISTENER_PRIORITIES[kind], l7=_matches_of(rule.rules))
        if rule.server_names:
            names = tuple(sorted({ServerName(name.lower()) for name in rule.server_names}))
            return Ports(parser="tls", priority=LISTENER_PRIORITIES["tls"], l7=names)
        return ALL_PORTS


def _matches_of(rules: L7Rules) -> tuple[L7Match, ...]:
    """Any of these; in one order, so that equal rules are equal values. Empty: anything."""
    found: list[L7Match] = [_http(one) for one in rules.http or ()]
    found += [DnsMatch(one.match_name.lower(), one.match_pattern.lower()) for one in rules.dns or ()]
    return () if HttpMatch() in found else tuple(sorted(set(found), key=repr))


def _http(rule: HttpRule) -> HttpMatch:
    headers = [HeaderMatch(name.lower(), value) for name, value in map(_name_and_value, rule.headers)]
    headers += [HeaderMatch(one.name.lower(), one.value, one.mismatch) for one in rule.header_matches]
    return HttpMatch(rule.path, rule.method, rule.host, tuple(dict.fromkeys(headers)))


def _name_and_value(text: str) -> tuple[str, str]:
    """Of `name value`, or `name` alone. The colon that some write behind the name is no part of it."""
    name, _, value = text.strip().partition(" ")
    return name.rstrip(":"), value.strip()


def _port(port: PortProtocol, behind: Ports) -> Iterable[Ports]:
    anything = port.protocol in ("ANY", "")
    if port.number == 0:
        # A port of 0 has no end: both mean all of them.
        yield replace(behind, protocol=0 if anything else PROTOCOLS[port.protocol])
        return
    # DNS is never asked over SCTP, and no proxy would understand it.
    every = (TCP, UDP) if behind.parser == "dns" else (TCP, UDP, SCTP)
    for protocol in every if anything else (PROTOCOLS[port.protocol],):
        if port.number is None:
            yield replace(behind, protocol=protocol, first=0, last=0, name=str(port.port).lower())
        else:
            yield replace(behind, protocol=protocol, first=port.number, last=port.end_port or port.number)


def _icmp_ports(rules: Iterable[IcmpRule]) -> Iterable[Ports]:
    for rule in rules:
        for one in rule.fields:
            assert one.number is not None
            yield Ports(ICMP if one.family == "IPv4" else ICMPV6, one.number, one.number)


# ---- selectors ----


def _terms(selector: EndpointSelector) -> tuple[Term, ...]:
    """In one order, so that equal selectors are equal values."""
    terms = {Term(_key(key), "In", frozenset({value})) for key, value in selector.match_labels.items()}
    terms |= {Term(_key(one.key), one.operator, frozenset(one.values)) for one in selector.match_expressions}
    return tuple(sorted(terms, key=lambda term: (term.key, term.operator, sorted(term.values))))


def _nodes(selector: EndpointSelector) -> NodePeer:
    """Labels of nodes have a source of their own, which nobody writes."""
    return NodePeer((*_terms(selector), Term("reserved:remote-node", "Exists")))


def _key(text: str) -> str:
    return text if ":" in text else f"{ANY_SOURCE}:{text}"


def _asks_for_init(term: Term) -> bool:
    """Endpoints without labels yet, which nobody can say the namespace of."""
    return term.key == "reserved:init" and term.operator in ("In", "Exists")


def _is_reserved(term: Term) -> bool:
    return term.key.startswith("reserved:")


def _names_namespace(term: Term) -> bool:
    key = term.key.partition(":")[2]
    return key == NAMESPACE or key.startswith(identities.NAMESPACE_META)


def _namespace_is(name: str) -> Term:
    return Term(f"k8s:{NAMESPACE}", "In", frozenset({name}))


def _matches(selector: EndpointSelector, labels: Mapping[str, str]) -> bool:
    """A selector over labels of a resource instead of an identity: sources mean nothing there."""
    bare = LabelSelector(
        match_labels={key.partition(":")[2] or key: value for key, value in selector.match_labels.items()},
        match_expressions=[one.model_dump() for one in selector.match_expressions],  # type: ignore[arg-type]
    )
    return bare.matches(labels)


# ---- Kubernetes' own kind ----


def _kubernetes_rule(document: NetworkPolicy) -> Rule:
    spec = document.spec
    types = spec.policy_types or ("Ingress", *(("Egress",) if spec.egress else ()))
    entries = [_kubernetes_entry(False, one.from_, one.ports, document.namespace) for one in spec.ingress]
    entries += [_kubernetes_entry(True, one.to, one.ports, document.namespace) for one in spec.egress]
    allowed = [entry for entry in entries if ("Egress" if entry.egress else "Ingress") in types]
    # A direction that is named and says nothing is refused: an entry for nobody.
    allowed += [Entry(egress) for egress, name in ((False, "Ingress"), (True, "Egress")) if name in types]
    return Rule(
        subject=LabelPeer((*_plain_terms(spec.pod_selector, "k8s:"), _namespace_is(document.namespace))),
        entries=tuple(allowed),
        deny_ingress_by_default="Ingress" in types,
        deny_egress_by_default="Egress" in types,
        labels=origin_labels(document),
    )


def _kubernetes_entry(
    egress: bool, peers: Sequence[NetworkPolicyPeer], ports: Sequence[NetworkPolicyPort], namespace: str
) -> Entry:
    selected = tuple(_kubernetes_peer(one, namespace) for one in peers) or None
    return Entry(egress, False, selected, tuple(map(_kubernetes_port, ports)) or (ALL_PORTS,))


def _kubernetes_peer(peer: NetworkPolicyPeer, namespace: str) -> Peer:
    if isinstance(peer.ip_block, IpBlock):
        return CidrPeer(peer.ip_block.cidr, peer.ip_block.except_)
    terms = _plain_terms(peer.pod_selector, "k8s:") if peer.pod_selector else ()
    if peer.namespace_selector is None:
        return LabelPeer((*terms, _namespace_is(namespace)))
    wanted = _plain_terms(peer.namespace_selector, f"k8s:{identities.NAMESPACE_META}")
    # An empty selector selects all namespaces, and only pods are in one.
    return LabelPeer((*terms, *(wanted or (Term(f"k8s:{NAMESPACE}", "Exists"),))))


def _kubernetes_port(port: NetworkPolicyPort) -> Ports:
    protocol = PROTOCOLS[port.protocol]
    if port.port is None:
        return Ports(protocol)
    if isinstance(port.port, str):
        return Ports(protocol, 0, 0, port.port)
    return Ports(protocol, port.port, port.end_port or port.port)


def _plain_terms(selector: LabelSelector, before: str) -> tuple[Term, ...]:
    terms = [Term(before + key, "In", frozenset({value})) for key, value in sorted(selector.match_labels.items())]
    terms += [Term(before + one.key, one.operator, frozenset(one.values)) for one in selector.match_expressions]
    return tuple(terms)
