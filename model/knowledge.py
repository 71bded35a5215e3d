"""What a node knows about addresses, identities, services and policies: the names behind the numbers of an event.

In:        the state that the node's agent writes (JSON of the form of golden/events/getters.json), as parsed objects.
Out:       `Knowledge`: look-ups by address, number or key. A value: it does not change, a new one replaces it.
Elsewhere: decode/resolve.py turns answers into table entries and remembers them.

State, all parts optional:
    node_name, node_labels        of this node
    local_endpoints               id, ipv4, ipv6, identity, namespace, pod, labels, workload_kind, workload_name,
                                  policy [direction, identity, proto, port, rules, log, revision], dns [ip, names]
    ipcache                       prefix (address or CIDR), identity, namespace, pod
    identities                    id, labels
    reserved_identities           id, labels
    services                      ip, port, proto, namespace, name
    links                         interface name by index
    cgroups                       cgroup_id, ips
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from model.address import Address, parse_address
from model.tables import Node, Service
from proto.flow import flow_pb2

CLUSTER_LABEL: Final = "io.cilium.k8s.policy.cluster"
_LOCAL_SCOPE: Final = 0x01 << 24
"""Top byte of identities that only this node knows: those of CIDRs."""


class InvalidState(ValueError):
    """The agent's state is not what it should be."""


class PolicyKey(NamedTuple):
    """Key of a policy map entry; 0 is a wildcard."""

    ingress: bool
    identity: int
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """The rules behind one policy map entry."""

    policies: tuple[flow_pb2.Policy, ...]
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """A workload on this node."""

    id: int
    identity: int
    namespace: str = ""
    pod: str = ""
    labels: tuple[str, ...] = ()
    workload: tuple[str, str] | None = None
    """Name and kind of what the pod belongs to."""
    policy: Mapping[PolicyKey, PolicyEntry] = field(default_factory=dict)
    dns: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)
    """Names that this endpoint resolved, by the address they resolved to: sorted, without trailing dot."""


@dataclass(frozen=True, slots=True)
class CachedAddress:
    """What the IP cache knows about an address."""

    identity: int
    namespace: str = ""
    pod: str = ""


_UNKNOWN_ADDRESS: Final = CachedAddress(0)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All of it. Build with `from_json`; `Knowledge()` knows nothing."""

    node_name: str = ""
    node_labels: tuple[str, ...] = ()
    """Sorted `key=value`."""
    endpoints: Mapping[Address, LocalEndpoint] = field(default_factory=dict)
    endpoints_by_id: Mapping[int, LocalEndpoint] = field(default_factory=dict)
    addresses: Mapping[Address, CachedAddress] = field(default_factory=dict)
    prefixes: tuple[tuple[int, int, Mapping[int, CachedAddress]], ...] = ()
    """(IP version, bits that may differ, cached by address without those bits), longest prefix first."""
    identities: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    services: Mapping[tuple[Address, int, str], Service] = field(default_factory=dict)
    """By address, port and protocol (TCP or UDP)."""
    service_addresses: frozenset[Address] = frozenset()
    links: Mapping[int, str] = field(default_factory=dict)
    cgroups: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)
    named_addresses: frozenset[Address] = frozenset()
    """Addresses for which some local endpoint knows DNS names."""

    @staticmethod
    def from_json(state: Mapping[str, Any]) -> Knowledge:
        """Knowledge from the agent's state. Raises: InvalidState, naming the part."""
        return _Reader(state).knowledge()

    def node(self, *, boot: int = 0, version: str = "") -> Node:
        """This node, for the node table."""
        return Node(self.node_name, self.node_labels, boot, version)

    def cached(self, address: Address | None) -> CachedAddress:
        """What the IP cache says: the address itself, else the longest prefix (which gives no pod)."""
        if address is None:
            return _UNKNOWN_ADDRESS
        exact = self.addresses.get(address)
        if exact is not None:
            return exact
        for version, host_bits, known in self.prefixes:
            if version == address.version:
                entry = known.get(address.number >> host_bits)
                if entry is not None:
                    return entry
        return _UNKNOWN_ADDRESS

    def service(self, address: Address | None, port: int) -> Service | None:
        """The service whose frontend that is; TCP is asked first, then UDP."""
        if address not in self.service_addresses:
            return None
        assert address is not None
        return self.services.get((address, port, "TCP")) or self.services.get((address, port, "UDP"))

    def names(self, endpoint_id: int, address: Address | None) -> tuple[str, ...]:
        """DNS names for which the local endpoint `endpoint_id` got `address` as an answer."""
        if address not in self.named_addresses:
            return ()
        assert address is not None
        endpoint = self.endpoints_by_id.get(endpoint_id)
        return endpoint.dns.get(address, ()) if endpoint else ()

    def endpoint_message(self, address: Address | None, identity: int) -> flow_pb2.Endpoint:
        """Who has `address`. `identity` is the event's: it wins over what is known, unless it is 0."""
        local = self.endpoints.get(address) if address else None
        if local is not None:
            message = local_endpoint_message(local, identity or local.identity)
            add_workload(message, local)
            return message
        known = self.cached(address)
        identity = identity or known.identity
        labels = self.identities.get(identity, ())
        return flow_pb2.Endpoint(
            identity=identity,
            cluster_name=cluster_of(labels),
            namespace=known.namespace,
            labels=_visible(labels, identity),
            pod_name=known.pod,
        )


def local_endpoint_message(endpoint: LocalEndpoint, identity: int) -> flow_pb2.Endpoint:
    """A local endpoint, without its workload."""
    return flow_pb2.Endpoint(
        ID=endpoint.id,
        identity=identity,
        cluster_name=cluster_of(endpoint.labels),
        namespace=endpoint.namespace,
        labels=_visible(endpoint.labels, identity),
        pod_name=endpoint.pod,
    )


def add_workload(message: flow_pb2.Endpoint, endpoint: LocalEndpoint) -> None:
    """Say which workload a local endpoint belongs to."""
    if endpoint.workload:
        name, kind = endpoint.workload
        message.workloads.add(name=name, kind=kind)


def cluster_of(labels: Iterable[str]) -> str:
    """The value of the cluster label, whatever its source."""
    for label in labels:
        if CLUSTER_LABEL in label:
            key, _, value = label.partition("=")
            if key.partition(":")[2] == CLUSTER_LABEL or key == CLUSTER_LABEL:
                return value
    return ""


def _visible(labels: tuple[str, ...], identity: int) -> list[str]:
    """Labels in order; of the many nested CIDRs of a local identity only the longest, and not the whole world's."""
    if identity & 0xFF00_0000 != _LOCAL_SCOPE:
        return sorted(labels)
    longest, length = "", 0
    for label in labels:
        if label.startswith("cidr:"):
            # "-" stands for ":" in IPv6 CIDRs, since a label's value cannot hold colons.
            try:
                prefix = ipaddress.ip_network(label[5:].replace("-", ":"), strict=False).prefixlen
            except ValueError:
                continue
            if prefix > length:
                longest, length = label, prefix
    return sorted([label for label in labels if not label.startswith("cidr:")] + [longest] * bool(longest))


class _Reader:
    """Reads a state; knows where it is, so that an error names the place."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping):
            raise InvalidState("state: expected an object")
        self._state = state
        self._place = "state"

    def knowledge(self) -> Knowledge:
        try:
            return self._knowledge()
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            if isinstance(error, InvalidState):
                raise
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise InvalidState(f"{self._place}: {missing}") from error

    def _entries(self, part: str) -> Iterable[Mapping[str, Any]]:
        for number, entry in enumerate(self._state.get(part) or ()):
            self._place = f"{part}[{number}]"
            yield entry
        self._place = "state"

    def _knowledge(self) -> Knowledge:
        by_address: dict[Address, LocalEndpoint] = {}
        by_id: dict[int, LocalEndpoint] = {}
        for entry in self._entries("local_endpoints"):
            endpoint = _local_endpoint(entry)
            by_id[endpoint.id] = endpoint
            for family in ("ipv4", "ipv6"):
                if entry.get(family):
                    by_address[_address(entry[family])] = endpoint
        addresses, prefixes = self._ipcache()
        services = {
            (_address(entry["ip"]), int(entry["port"]), str(entry.get("proto") or "TCP").upper()): Service(
                str(entry.get("name") or ""), str(entry.get("namespace") or "")
            )
            for entry in self._entries("services")
        }
        return Knowledge(
            node_name=str(self._state.get("node_name") or ""),
            node_labels=tuple(sorted(f"{k}={v}" for k, v in (self._state.get("node_labels") or {}).items())),
            endpoints=by_address,
            endpoints_by_id=by_id,
            addresses=addresses,
            prefixes=prefixes,
            identities={
                int(entry["id"]): tuple(entry.get("labels") or ())
                for part in ("reserved_identities", "identities")
                for entry in self._entries(part)
            },
            services=services,
            service_addresses=frozenset(address for address, _, _ in services),
            links={int(index): str(name) for index, name in (self._state.get("links") or {}).items()},
            cgroups={
                int(entry["cgroup_id"]): tuple(map(_address, entry.get("ips") or ()))
                for entry in self._entries("cgroups")
            },
            named_addresses=frozenset(address for endpoint in by_id.values() for address in endpoint.dns),
        )

    def _ipcache(self) -> tuple[dict[Address, CachedAddress], tuple[tuple[int, int, dict[int, CachedAddress]], ...]]:
        addresses: dict[Address, CachedAddress] = {}
        by_length: dict[tuple[int, int], dict[int, CachedAddress]] = {}
        for entry in self._entries("ipcache"):
            text, identity = str(entry["prefix"]), int(entry["identity"])
            network = ipaddress.ip_network(text, strict=False)
            if network.prefixlen == network.max_prefixlen:
                address = Address(network.version, int(network.network_address))
                addresses[address] = CachedAddress(
                    identity, str(entry.get("namespace") or ""), str(entry.get("pod") or "")
                )
            else:
                host_bits = network.max_prefixlen - network.prefixlen
                known = by_length.setdefault((network.version, host_bits), {})
                known[int(network.network_address) >> host_bits] = CachedAddress(identity)
        return addresses, tuple((version, bits, known) for (version, bits), known in sorted(by_length.items()))


def _address(text: str) -> Address:
    address = parse_address(text)
    if address is None:
        raise InvalidState(f"{text!r} is no IP address")
    return address


def _local_endpoint(entry: Mapping[str, Any]) -> LocalEndpoint:
    policy: dict[PolicyKey, PolicyEntry] = {}
    for rule in entry.get("policy") or ():
        key = PolicyKey(
            rule["direction"] == "ingress",
            int(rule.get("identity") or 0),
            int(rule.get("proto") or 0),
            int(rule.get("port") or 0),
        )
        revision = int(rule.get("revision") or 0)
        policy[key] = PolicyEntry(
            tuple(_policy(labels, revision) for labels in rule.get("rules") or ()),
            tuple(str(text) for text in rule.get("log") or ()),
        )
    name, kind = str(entry.get("workload_name") or ""), str(entry.get("workload_kind") or "")
    return LocalEndpoint(
        id=int(entry["id"]),
        identity=int(entry.get("identity") or 0),
        namespace=str(entry.get("namespace") or ""),
        pod=str(entry.get("pod") or ""),
        labels=tuple(entry.get("labels") or ()),
        workload=(name, kind) if name or kind else None,
        policy=policy,
        dns={
            _address(known["ip"]): tuple(sorted(str(text).rstrip(".") for text in known.get("names") or ()))
            for known in entry.get("dns") or ()
        },
    )


def _policy(labels: Iterable[str], revision: int) -> flow_pb2.Policy:
    """The resource that a rule's labels say it was made from."""
    policy = flow_pb2.Policy(labels=labels, revision=revision)
    for label in policy.labels:
        key, _, value = label.removeprefix("k8s:").partition("=")
        if key == "io.cilium.k8s.policy.name":
            policy.name = value
        elif key == "io.cilium.k8s.policy.namespace":
            policy.namespace = value
        elif key == "io.cilium.k8s.policy.derived-from":
            policy.kind = value
    return policy
