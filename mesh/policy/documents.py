"""Policies as users write them.

In:        plain data of one YAML document.
Out:       frozen models; a field that Cilium or Kubernetes does not know, or that cannot work, is refused by its path.
Elsewhere: translate.py gives them meaning; mesh/resources.py reads documents and knows all other kinds.

Source: spec/policy.md, sections 1 to 5.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Final, Literal, Self

import re2
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from mesh.resources import DnsLabel, Kind, LabelSelector, LabelValue, Model, PortName, Resource

MAX_PORTS: Final = 40
MAX_LOG: Final = 32
MAX_REGEX: Final = 2048
PORTLESS: Final = frozenset({"VRRP", "IGMP"})
ICMP_TYPES: Final[dict[str, dict[str, int]]] = {
    "IPv4": {
        "EchoReply": 0,
        "DestinationUnreachable": 3,
        "Redirect": 5,
        "Echo": 8,
        "EchoRequest": 8,
        "RouterAdvertisement": 9,
        "RouterSelection": 10,
        "TimeExceeded": 11,
        "ParameterProblem": 12,
        "Timestamp": 13,
        "TimestampReply": 14,
        "Photuris": 40,
        "ExtendedEchoRequest": 42,
        "ExtendedEchoReply": 43,
    },
    "IPv6": {
        "DestinationUnreachable": 1,
        "PacketTooBig": 2,
        "TimeExceeded": 3,
        "ParameterProblem": 4,
        "EchoRequest": 128,
        "EchoReply": 129,
        "MulticastListenerQuery": 130,
        "MulticastListenerReport": 131,
        "MulticastListenerDone": 132,
        "RouterSolicitation": 133,
        "RouterAdvertisement": 134,
        "NeighborSolicitation": 135,
        "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
        "ExtendedEchoRequest": 160,
        "ExtendedEchoReply": 161,
    },
}
"""Names of ICMP types in `icmps`."""

Entity = Literal[
    "all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "remote-node", "kube-apiserver", "ingress",
    "health", "init", "unmanaged", "none",
]  # fmt: skip
Network = IPv4Network | IPv6Network

_RE2: Final = re2.Options()
_RE2.log_errors = False
_RE2.max_mem = 1 << 20

_SOURCE: Final = re.compile(r"([a-z][a-z0-9-]*):(.+)")
_KEY: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?")
_FQDN: Final = re.compile(r"[-A-Za-z0-9_.]{1,255}")
_PATTERN: Final = re.compile(r"[-A-Za-z0-9_.*]{1,255}")


def _selector_key(text: str) -> str:
    match = _SOURCE.fullmatch(text)
    if len(text) > 380 or not _KEY.fullmatch(match[2] if match else text):
        raise ValueError(f"must be a label name, or source:name, got {text[:80]!r}")
    return text


def _prefix(text: object) -> object:
    """A prefix may be a bare address; host bits are dropped, as Cilium does."""
    if not isinstance(text, str):
        raise ValueError(f"must be a CIDR like 10.0.0.0/8, got {str(text)[:80]!r}")
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"must be a CIDR like 10.0.0.0/8, got {text[:80]!r}") from None


def _slashed(text: object) -> object:
    if isinstance(text, str) and "/" not in text:
        raise ValueError(f"must be address/length, got {text[:80]!r}")
    return _prefix(text)


def _regular(text: str) -> str:
    """One that Envoy takes, whose language is RE2: a policy that it refuses would keep all others from it."""
    if len(text) > MAX_REGEX:
        raise ValueError(f"must be a regular expression of at most {MAX_REGEX} characters, got {len(text)}")
    try:
        re2.compile(text, _RE2)
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise ValueError(f"must be a regular expression as RE2 reads it: {reason}") from None
    return text


def _shaped(shape: re.Pattern[str], what: str) -> Any:
    def check(text: str) -> str:
        if not shape.fullmatch(text):
            raise ValueError(f"must be {what}, got {text[:80]!r}")
        return text

    return AfterValidator(check)


SelectorKey = Annotated[str, AfterValidator(_selector_key)]
Prefix = Annotated[Network, BeforeValidator(_prefix)]
SlashedPrefix = Annotated[Network, BeforeValidator(_slashed)]
Regex = Annotated[str, AfterValidator(_regular)]


class SelectorTerm(Model):
    key: SelectorKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _has_the_values_it_needs(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            raise ValueError(f"values: {self.operator} needs {'some' if not self.values else 'none'}")
        return self


class EndpointSelector(Model):
    """A label selector whose keys may name their source: `k8s:app`, `reserved:host`, or `app` from any source."""

    match_labels: dict[SelectorKey, LabelValue] = Field(default_factory=dict)
    match_expressions: tuple[SelectorTerm, ...] = ()


# --- layer 7, read now and judged by the proxy later ---


class HeaderMatch(Model):
    name: Annotated[str, Field(min_length=1)]
    value: str = ""
    mismatch: Literal["", "LOG", "ADD", "DELETE", "REPLACE"] = ""
    ignored = frozenset({"secret"})


class HttpRule(Model):
    path: Regex = ""
    method: Regex = ""
    host: Regex = ""
    headers: tuple[str, ...] = ()
    header_matches: tuple[HeaderMatch, ...] = ()


class KafkaRule(Model):
    role: Literal["", "produce", "consume"] = ""
    api_key: Annotated[str, Field(alias="apiKey")] = ""
    api_version: Annotated[str, Field(alias="apiVersion")] = ""
    client_id: Annotated[str, Field(alias="clientID")] = ""
    topic: Annotated[str, Field(max_length=249)] = ""


class DnsRule(Model):
    """A name, or a pattern in which `*` stands for characters of one label."""

    match_name: Annotated[str, _shaped(_FQDN, "a DNS name")] = ""
    match_pattern: Annotated[str, _shaped(_PATTERN, "a DNS name that may contain *")] = ""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if bool(self.match_name) == bool(self.match_pattern):
            raise ValueError("needs either matchName or matchPattern")
        return self

    @property
    def text(self) -> str:
        """As it appears in labels of identities."""
        return self.match_name or self.match_pattern


class L7Rules(Model):
    http: tuple[HttpRule, ...] | None = None
    kafka: tuple[KafkaRule, ...] | None = None
    dns: tuple[DnsRule, ...] | None = None
    l7proto: str = ""
    l7: tuple[dict[str, str], ...] | None = None

    @property
    def kind(self) -> str:
        """`http`, `kafka`, `dns`, another proxy's name, or "" for none."""
        kinds = [name for name in ("http", "kafka", "dns") if getattr(self, name) is not None]
        return [*kinds, self.l7proto][0]

    @model_validator(mode="after")
    def _has_one_kind(self) -> Self:
        kinds = [name for name in ("http", "kafka", "dns") if getattr(self, name) is not None]
        if len(kinds) + bool(self.l7proto) > 1:
            raise ValueError("rules of one kind only: http, kafka, dns or l7proto")
        if self.l7 is not None and not self.l7proto:
            raise ValueError("l7 needs l7proto")
        return self


class Listener(Model):
    envoy_config: dict[str, str]
    name: str
    priority: Annotated[int, Field(ge=1, le=100)] | None = None


# --- ports ---


class PortProtocol(Model):
    port: str | int = "0"
    end_port: Annotated[int, Field(ge=0, le=65535)] = 0
    protocol: Literal["TCP", "UDP", "SCTP", "ANY", "VRRP", "IGMP", ""] = "ANY"

    @model_validator(mode="after")
    def _is_a_port(self) -> Self:
        text = str(self.port)
        if text.isdigit():
            if int(text) > 65535:
                raise ValueError(f"port: must be 0 to 65535, got {text}")
            if self.end_port and self.end_port < int(text):
                raise ValueError(f"endPort: must not be below port {text}, got {self.end_port}")
        elif text:
            if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text.lower()) or not re.search("[a-z]", text):
                raise ValueError(f"port: must be a number or a port name, got {text[:80]!r}")
            if self.end_port:
                raise ValueError("endPort: needs a numeric port")
        if self.protocol in PORTLESS and text not in ("", "0"):
            raise ValueError(f"port: {self.protocol} has none")
        return self

    @property
    def number(self) -> int | None:
        """0: all ports; None: it is a name."""
        text = str(self.port)
        return int(text or 0) if text.isdigit() or not text else None


class PortRule(Model):
    ports: Annotated[tuple[PortProtocol, ...], Field(max_length=MAX_PORTS)] = ()
    rules: L7Rules | None = None
    listener: Listener | None = None
    server_names: tuple[str, ...] = ()
    ignored = frozenset({"terminatingTLS", "originatingTLS"})

    @model_validator(mode="after")
    def _rules_fit_the_ports(self) -> Self:
        kind = self.rules.kind if self.rules else ""
        if not kind:
            return self
        if self.listener is not None:
            raise ValueError("listener: not together with rules")
        if any(one.number == 0 for one in self.ports) or not self.ports:
            raise ValueError(f"rules: {kind} rules need a port")
        allowed = ("UDP", "TCP", "ANY", "") if kind == "dns" else ("TCP",)
        for at, one in enumerate(self.ports):
            if one.protocol not in allowed:
                raise ValueError(f"ports[{at}].protocol: {kind} rules need {allowed[0]} written out")
            if kind == "dns" and one.end_port:
                raise ValueError(f"ports[{at}].endPort: dns rules take no range")
        return self


class PortDenyRule(Model):
    ports: Annotated[tuple[PortProtocol, ...], Field(max_length=MAX_PORTS)] = ()


class IcmpField(Model):
    family: Literal["IPv4", "IPv6"] = "IPv4"
    type: Annotated[int, Field(ge=0, le=255)] | str

    @model_validator(mode="after")
    def _is_a_type(self) -> Self:
        if isinstance(self.type, str) and self.number is None:
            raise ValueError(f"type: must be 0 to 255 or a name like EchoRequest, got {self.type[:80]!r}")
        return self

    @property
    def number(self) -> int | None:
        """None: there is no such type."""
        if isinstance(self.type, int):
            return self.type
        if self.type.isdigit():
            return int(self.type) if int(self.type) < 256 else None
        return ICMP_TYPES[self.family].get(self.type)


class IcmpRule(Model):
    fields: Annotated[tuple[IcmpField, ...], Field(max_length=MAX_PORTS)] = ()
    # `fields` is a word of pydantic's own too.
    model_config = ConfigDict(protected_namespaces=())


# --- peers ---


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


class ServicePeer(Model):
    k8s_service: Annotated[K8sService | None, Field(alias="k8sService")] = None
    k8s_service_selector: Annotated[K8sServiceSelector | None, Field(alias="k8sServiceSelector")] = None

    @model_validator(mode="after")
    def _names_services(self) -> Self:
        if (self.k8s_service is None) == (self.k8s_service_selector is None):
            raise ValueError("needs either k8sService or k8sServiceSelector")
        return self


class Authentication(Model):
    mode: Literal["disabled", "required", "test-always-fail"]


_NO_NODES: Final = (
    "nodes cannot be told apart by their labels: they share the identities host and remote-node;"
    " use the entities host and remote-node, or {side}CIDRSet with the addresses of the nodes"
)
_NO_GROUPS: Final = "groups of cloud providers are not supported; use {side}CIDRSet with the addresses"
UNSUPPORTED_PEERS: Final = {
    f"{side}{name}": text.format(side=side)
    for side in ("from", "to")
    for name, text in (("Nodes", _NO_NODES), ("Groups", _NO_GROUPS))
}
"""Cilium knows these peers; why they are refused here."""

PEER_FIELDS: Final = ("endpoints", "cidr", "cidr_set", "entities", "services", "fqdns")


class _Element(Model):
    """What all elements of the four lists share."""

    icmps: tuple[IcmpRule, ...] | None = None

    def peer_members(self) -> list[str]:
        """Names of the peer members that are present, empty ones too."""
        names = [f"{side}_{name}" for side in ("from", "to") for name in PEER_FIELDS]
        return [name for name in names if getattr(self, name, None) is not None]

    @model_validator(mode="before")
    @classmethod
    def _names_peers_that_can_be_told_apart(cls, data: Any) -> Any:
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
    from_cidr: Annotated[tuple[Prefix, ...] | None, Field(alias="fromCIDR")] = None
    from_cidr_set: Annotated[tuple[CidrRule, ...] | None, Field(alias="fromCIDRSet")] = None
    from_entities: tuple[Entity, ...] | None = None


class _Egress(_Element):
    to_endpoints: tuple[EndpointSelector, ...] | None = None
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
            if one.listener is not None:
                raise ValueError(f"toPorts[{at}].listener: for egress only")
        return self


class IngressDenyRule(_Ingress):
    to_ports: tuple[PortDenyRule, ...] | None = None


class EgressRule(_Egress):
    to_fqdns: Annotated[tuple[DnsRule, ...] | None, Field(alias="toFQDNs")] = None
    to_ports: tuple[PortRule, ...] | None = None
    authentication: Authentication | None = None


class EgressDenyRule(_Egress):
    to_ports: tuple[PortDenyRule, ...] | None = None


# --- CiliumNetworkPolicy ---


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
    ingress: tuple[IngressRule, ...] = ()
    ingress_deny: tuple[IngressDenyRule, ...] = ()
    egress: tuple[EgressRule, ...] = ()
    egress_deny: tuple[EgressDenyRule, ...] = ()
    enable_default_deny: DefaultDeny = DefaultDeny()
    labels: tuple[RuleLabel, ...] = ()
    description: str = ""
    log: Log = Log()

    @model_validator(mode="before")
    @classmethod
    def _is_no_host_policy(cls, data: Any) -> Any:
        if isinstance(data, dict) and "nodeSelector" in data:
            raise ValueError(
                "nodeSelector: policies for hosts are not enforced here; select pods with endpointSelector,"
                " and limit what they may do with hosts by the entities host and remote-node"
            )
        return data

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.endpoint_selector is None:
            raise ValueError("endpointSelector: missing; {} selects all pods")
        if not (self.ingress or self.ingress_deny or self.egress or self.egress_deny):
            raise ValueError("needs an entry in ingress, ingressDeny, egress or egressDeny")
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

    @property
    def bodies(self) -> tuple[PolicyBody, ...]:
        """All rules of the resource."""
        return ((self.spec,) if self.spec is not None else ()) + self.specs


class CiliumNetworkPolicy(_Policy):
    kind: Literal["CiliumNetworkPolicy"] = "CiliumNetworkPolicy"


class CiliumClusterwideNetworkPolicy(_Policy):
    kind: Literal["CiliumClusterwideNetworkPolicy"] = "CiliumClusterwideNetworkPolicy"


class CidrGroupSpec(Model):
    external_cidrs: Annotated[tuple[Prefix, ...], Field(alias="externalCIDRs")] = ()


class CiliumCIDRGroup(Resource):
    kind: Literal["CiliumCIDRGroup"] = "CiliumCIDRGroup"
    spec: CidrGroupSpec = CidrGroupSpec()


# --- NetworkPolicy ---


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


KINDS: Final[dict[str, Kind]] = {
    "CiliumNetworkPolicy": Kind(CiliumNetworkPolicy, ("cilium.io/v2",), True),
    "CiliumClusterwideNetworkPolicy": Kind(CiliumClusterwideNetworkPolicy, ("cilium.io/v2",), False),
    "CiliumCIDRGroup": Kind(CiliumCIDRGroup, ("cilium.io/v2", "cilium.io/v2alpha1"), False),
    "NetworkPolicy": Kind(NetworkPolicy, ("networking.k8s.io/v1",), True),
}

PolicyDocument = CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy | NetworkPolicy


def is_inside(inner: Network, outer: Network) -> bool:
    """Whether `outer` covers `inner`."""
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def policies_among(resources: Sequence[Resource]) -> list[PolicyDocument]:
    """The policies among resources of all kinds."""
    return [
        one
        for one in resources
        if isinstance(one, CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy | NetworkPolicy)
    ]
