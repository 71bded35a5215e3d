"""The policies of one node: from all resources of the cluster to what the node's kernel and observer have to know.

In:        the cluster's resources and identities, the node's endpoints; again after each change.
Out:       an Outcome: policies by endpoint id, prefixes for the ipcache, rules behind entries, problems.
Elsewhere: mesh/main.py writes it to the kernel, in the order that `Outcome` asks for.

Done again is only what a change touches: documents that differ are translated, selectors look at identities that came
or went, endpoints are compiled when their rules or what these stand for have changed. Endpoints with the same rules
are compiled once, unless names of ports mean different numbers to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

from bpf.policies import AUTH_EXPLICIT, MAX_ENTRIES, EndpointPolicy
from mesh.identities import HOST, INGRESS, UNKNOWN, as_text
from mesh.identities import LAST as LAST_CLUSTER_IDENTITY
from mesh.identities import number as identity_number
from mesh.policy.compiling import Compiled, Compiler, Settings, Subject, correlation
from mesh.policy.documents.cilium import CiliumCIDRGroup
from mesh.policy.documents.fields import Network
from mesh.policy.documents.kinds import PolicyDocument, policies_among
from mesh.policy.judging import Whole
from mesh.policy.local import LocalIdentities
from mesh.policy.nodes import NodeIdentities, host_labels
from mesh.policy.outcome import Outcome, Refusal
from mesh.policy.peers import (
    EVERYTHING,
    FQDN_SOURCE,
    INIT,
    CidrPeer,
    EntityPeer,
    Identity,
    LabelPeer,
    NodePeer,
    Peer,
    SelectorCache,
    reserved_identities,
)
from mesh.policy.ports import ProxyPorts
from mesh.policy.rules import AUTH_REQUIRED, PROTOCOLS, Rule
from mesh.policy.translate import Context, depends_on_context, rules_of
from mesh.policy.view import PolicyConflict
from mesh.resources.base import Key, Resource
from mesh.resources.cluster import CiliumIdentity, Node
from mesh.resources.pods import Pod
from mesh.resources.services import Service

_INGRESS: Final = Subject(INGRESS)
_NOBODY: Final = Compiled(EndpointPolicy((), True, True))
"""For a pod whose first policy cannot be made: nothing passes. A node without its policy is as it was before."""


@dataclass(slots=True)
class _Translated:
    document: PolicyDocument
    context_dependent: bool
    rules: tuple[Rule, ...]


@dataclass(slots=True)
class _Made:
    signature: object
    compiled: Compiled
    revision: int
    correlation: list[dict[str, Any]] | None = None


@dataclass(slots=True)
class NodePolicies:
    """Owns the node's local identities and everything that is remembered between changes."""

    settings: Settings = field(default_factory=Settings)
    cluster_name: str = "default"
    node_name: str = ""
    """The node itself, as rules with nodeSelector select it; empty: none of them does."""
    prefixes_select_nodes: bool = False
    """Rules about prefixes are about other nodes, too, by their addresses."""
    local: LocalIdentities = field(default_factory=LocalIdentities)
    nodes: NodeIdentities = field(default_factory=NodeIdentities)
    proxies: ProxyPorts = field(default_factory=ProxyPorts)
    service_addresses: Mapping[tuple[str, str], tuple[Network, ...]] = field(default_factory=dict)
    """Endpoints of services without selector, by namespace and name; set by the caller."""
    names: Mapping[Network, tuple[str, ...]] = field(default_factory=dict)
    """toFQDNs selectors that stand for an address now; set by whoever watches DNS."""
    _translated: dict[Key, _Translated] = field(default_factory=dict)
    _context: Context = field(default_factory=Context)
    _selectors: SelectorCache = field(default_factory=SelectorCache)
    _made: dict[Subject, _Made] = field(default_factory=dict)
    _subjects: dict[int, Subject] = field(default_factory=dict)
    _stale: set[Network] = field(default_factory=set)
    _reserved: dict[int, Identity] = field(default_factory=reserved_identities)
    _labels: dict[int, tuple[CiliumIdentity, Identity]] = field(default_factory=dict)
    _rules_now: Sequence[Rule] = ()
    _documents_now: Sequence[Key] = ()
    """Where each of the rules comes from."""
    _host: Identity | None = None
    """The node as the subject of rules."""
    _cluster_identities: dict[int, Identity] = field(default_factory=dict)
    _cluster_ports: Mapping[tuple[str, int], frozenset[int]] = field(default_factory=dict)
    _revision: int = 0

    def update(self, resources: Sequence[Resource], endpoints: Mapping[int, Subject], revision: int = 0) -> Outcome:
        """What follows from the resources for these endpoints; `revision` is that of the resource store."""
        self._rules_now = self._rules(resources)
        self._note_nodes([one for one in resources if isinstance(one, Node)])
        self._note_identities(resources)
        self._cluster_ports = cluster_ports(resources)
        self._subjects, self._revision = dict(endpoints), revision
        return self._settle()

    def learn(self, names: Mapping[Network, tuple[str, ...]]) -> Outcome:
        """What follows when names stand for other addresses, and nothing else has changed."""
        self.names = names
        return self._settle()

    def name_selectors(self) -> list[str]:
        """toFQDNs selectors of all rules, whoever they are about."""
        return sorted(
            {
                term.key.removeprefix(FQDN_SOURCE)
                for rule in self._rules_now
                for entry in rule.entries
                for peer in entry.peers or ()
                if isinstance(peer, LabelPeer)
                for term in peer.terms
                if term.key.startswith(FQDN_SOURCE)
            }
        )

    def wants_authentication(self) -> bool:
        """Whether some rule, whoever it is about, wants peers to prove who they are."""
        return any(entry.auth & ~AUTH_EXPLICIT == AUTH_REQUIRED for rule in self._rules_now for entry in rule.entries)

    def _settle(self) -> Outcome:
        rules, endpoints = self._rules_now, self._subjects
        peers = {peer for rule in rules for entry in rule.entries for peer in entry.peers or ()}
        wanted = _prefixes(peers) | self.names.keys()
        self._renew_local(wanted)
        local = self.local.identities()
        self._selectors.replace(self._cluster_identities | {one.number: one for one in local})
        self._selectors.keep(peers | {rule.subject for rule in rules if not rule.of_nodes})
        problems = self._compile(rules, [*endpoints.values(), _INGRESS], self._revision)
        prefixes = {prefix: number for prefix, number in self.local.numbers.items() if prefix in wanted}
        policies = {number: self._made[subject].compiled.policy for number, subject in endpoints.items()}
        views = {number: self._made[subject].compiled.view for number, subject in endpoints.items()}
        ingress = self._made[_INGRESS].compiled
        return Outcome(
            policies=policies,
            views=views,
            ipcache=prefixes,
            identities=[*local, *self.nodes.identities()],
            names=self.names,
            nodes=self.nodes.by_address,
            ingress=Whole(ingress.policy, ingress.view),
            problems=problems,
        )

    def rules_behind(self, endpoint_id: int) -> list[dict[str, Any]]:
        """The `policy` list of an endpoint in state.json."""
        subject = self._subjects.get(endpoint_id)
        made = self._made.get(subject) if subject is not None else None
        if made is None:
            return []
        if made.correlation is None:
            made.correlation = correlation(made.compiled, made.revision)
        return made.correlation

    # ---- steps ----

    def _rules(self, resources: Sequence[Resource]) -> list[Rule]:
        context = Context(
            tuple(one for one in resources if isinstance(one, Service)),
            self.service_addresses,
            tuple(one for one in resources if isinstance(one, CiliumCIDRGroup)),
            self.cluster_name,
        )
        same_context = context == self._context
        self._context = context
        found: dict[Key, _Translated] = {}
        for document in policies_among(resources):
            old = self._translated.get(document.key)
            known = old is not None and (old.document is document or old.document == document)
            if old is not None and known and (same_context or not old.context_dependent):
                found[document.key] = old
            else:
                found[document.key] = _Translated(document, depends_on_context(document), rules_of(document, context))
        self._translated = found
        self._documents_now = [key for key, one in found.items() for _ in one.rules]
        return [rule for one in found.values() for rule in one.rules]

    def _renew_local(self, wanted: set[Network]) -> None:
        # The ipcache has forgotten them since the last round; until then policies had to go on knowing them.
        self.local.release(self._stale - wanted)
        self.local.want(wanted, self.names)
        self._stale = self.local.numbers.keys() - wanted

    def _note_nodes(self, nodes: Sequence[Node]) -> None:
        here = next((one for one in nodes if one.name == self.node_name), None)
        self._host = Identity(HOST, host_labels(here)) if here is not None else None
        peers = (peer for rule in self._rules_now for entry in rule.entries for peer in entry.peers or ())
        kinds = NodePeer | CidrPeer if self.prefixes_select_nodes else NodePeer
        told_apart = any(isinstance(peer, kinds) for peer in peers)
        others = (one for one in nodes if told_apart and one.name != self.node_name)
        self.nodes.want(others, by_prefix=self.prefixes_select_nodes)

    def _selected(self, rule: Rule, here: Set[int]) -> set[int]:
        """Which of these subjects' identities a rule is about. The node is nobody's pod."""
        if rule.of_nodes:
            return {HOST} & here if self._host is not None and rule.subject.selects(self._host) else set()
        numbers = self._selectors.numbers(rule.subject)
        found = (numbers & here) - {HOST}
        # Whose labels are not known yet.
        return found | ({UNKNOWN} & here) if INIT in numbers else found

    def _note_identities(self, resources: Sequence[Resource]) -> None:
        labels = {}
        for one in resources:
            if isinstance(one, CiliumIdentity):
                number = identity_number(one)
                known = self._labels.get(number)
                if known is None or known[0] is not one:
                    known = one, Identity(number, tuple(as_text(one.security_labels)))
                labels[number] = known
        self._labels = labels
        self._cluster_identities = self._reserved | {number: identity for number, (_, identity) in labels.items()}
        self._cluster_identities |= {one.number: one for one in self.nodes.identities()}

    def _compile(self, rules: Sequence[Rule], subjects: Sequence[Subject], revision: int) -> list[Refusal]:
        of_identity: dict[int, list[int]] = {subject.identity: [] for subject in subjects}
        for at, rule in enumerate(rules):
            for number in self._selected(rule, of_identity.keys()):
                of_identity[number].append(at)
        used = {at for each in of_identity.values() for at in each}
        versions = {at: self._version(rules[at]) for at in used}
        compiler = Compiler(self.settings, self._selectors.numbers, self._cluster_ports, self.proxies)
        problems: list[Refusal] = []
        made: dict[Subject, _Made] = {}
        alike: dict[object, _Made] = {}
        for subject in dict.fromkeys(subjects):
            meant = of_identity[subject.identity]
            named = any(_has_names(rules[at]) for at in meant)
            signature = (
                self.settings,
                tuple((rules[at], versions[at]) for at in meant),
                compiler.cluster_ports if named else None,
            )
            old = self._made.get(subject)
            if old is not None and old.signature == signature:
                made[subject] = old
                continue
            kind = tuple(meant), compiler.traits(subject, [rules[at] for at in meant])
            if (known := alike.get(kind)) is not None:
                made[subject] = known
                continue
            try:
                compiled = _fitting(compiler.compile(subject, [rules[at] for at in meant]))
            except PolicyConflict as error:
                made[subject] = old or _Made(None, Compiled() if subject.identity == HOST else _NOBODY, revision)
                documents = tuple(dict.fromkeys(self._documents_now[at] for at in meant))
                numbers = tuple(sorted(number for number, one in self._subjects.items() if one == subject))
                keeps_old = made[subject].compiled is not _NOBODY
                problems.append(Refusal(documents, subject.identity, numbers, str(error), keeps_old))
            else:
                made[subject] = alike[kind] = _Made(signature, compiled, revision)
        self._made = made
        return problems

    def _version(self, rule: Rule) -> tuple[int, ...]:
        return tuple(self._selectors.version(peer) for entry in rule.entries for peer in entry.peers or ())


def _fitting(compiled: Compiled) -> Compiled:
    """The same, if a map can hold it. Raises: PolicyConflict."""
    size = len(compiled.policy.entries) + 2  # the settings, and what opens a direction that is not enforced
    if size > MAX_ENTRIES:
        raise PolicyConflict(
            f"the policy needs {size} map entries of {MAX_ENTRIES}; use wider selectors, prefixes or port ranges"
        )
    return compiled


def _prefixes(peers: Iterable[Peer]) -> set[Network]:
    """Prefixes that have to be told apart."""
    found: set[Network] = set()
    families = False
    for peer in peers:
        if isinstance(peer, CidrPeer):
            found |= {peer.prefix, *peer.holes}
            families |= peer.prefix.prefixlen == 0
        families |= isinstance(peer, EntityPeer) and peer.name in ("world-ipv4", "world-ipv6")
    if families:
        found |= {one.prefix for one in reserved_identities().values() if one.number in EVERYTHING and one.prefix}
    return found


def _has_names(rule: Rule) -> bool:
    return any(ports.name for entry in rule.entries for ports in entry.ports)


def named_ports(pod: Pod) -> frozenset[tuple[str, int, int]]:
    """A pod's ports that have names: name, protocol, number."""
    return frozenset(
        (port.name, PROTOCOLS[port.protocol], port.container_port)
        for container in pod.spec.containers
        for port in container.ports
        if port.name
    )


def cluster_ports(resources: Iterable[Resource]) -> dict[tuple[str, int], frozenset[int]]:
    """What names of ports stand for in all pods of the cluster, by name and protocol."""
    found: dict[tuple[str, int], set[int]] = {}
    for pod in resources:
        if isinstance(pod, Pod):
            for name, protocol, number in named_ports(pod):
                found.setdefault((name, protocol), set()).add(number)
    return {key: frozenset(numbers) for key, numbers in found.items()}


def idle_selectors(documents: Iterable[PolicyDocument], resources: Sequence[Resource]) -> list[str]:
    """Warnings about policies whose subject is nobody in the cluster: no pod, node or load balancer. One line each."""
    pods = (
        Identity(identity_number(one), tuple(as_text(one.security_labels)))
        for one in resources
        if isinstance(one, CiliumIdentity) and identity_number(one) <= LAST_CLUSTER_IDENTITY
    )
    known = [reserved_identities()[INGRESS], *pods]
    nodes = [Identity(HOST, host_labels(one)) for one in resources if isinstance(one, Node)]
    context = Context()
    warnings = []
    for document in documents:
        for at, rule in enumerate(rules_of(document, context)):
            if not any(rule.subject.selects(identity) for identity in (nodes if rule.of_nodes else known)):
                warnings.append(f"{document.key}: rule {at + 1} selects no {'node' if rule.of_nodes else 'pod'}")
    return warnings
