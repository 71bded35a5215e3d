"""Rules and identities to the entries of one endpoint's policy map.

In:        the rules that select the endpoint, what their peers stand for, what port names mean.
Out:       an EndpointPolicy for the kernel, and the rules behind each of its entries.
Elsewhere: node.py decides which rules those are and when to compile again.

The kernel finds, for an identity, the longest prefix of protocol and port, and looks no further. So an entry that
something wider and stronger overrides is left out here: whatever is longest is then also what decides.

Source: spec/datapath.md section 11, spec/policy.md sections 6 and 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from bpf.policies import AUTH_EXPLICIT, EndpointPolicy, PolicyEntry
from mesh import identities
from mesh.policy.peers import INIT, Peer
from mesh.policy.ports import ProxyPorts
from mesh.policy.rules import Entry, Ports, Rule
from mesh.policy.view import ProxyView, Span, proxy_view

ORDINARY: Final = 0xFFFFFF00
"""Upper bits of a precedence: rules have no priorities yet, so all are equal."""
DENY: Final = ORDINARY | 255
ALLOW: Final = ORDINARY | 1
PROXY: Final = ORDINARY | 2
PORT_BITS: Final = 16
EXPANDED_PORTS: Final = 64
"""Ranges up to this size are listed port by port for the observer, which finds rules by exact port."""

MODES: Final = ("default", "always", "never")
"""default: endpoints that some policy selects; always: all; never: none."""

Block = tuple[int, int, int]
"""Protocol, first port, length of the port's prefix."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a node enforces."""

    mode: str = "default"
    """default, always or never."""
    audit: bool = False
    allow_localhost: bool = True
    """The node may talk to its own pods, so that it can see whether they live."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What matters about an endpoint. Endpoints that are equal here have the same policy."""

    identity: int
    named_ports: frozenset[tuple[str, int, int]] = frozenset()
    """Its own ports: name, protocol, number."""


@dataclass(frozen=True, slots=True)
class Behind:
    """The rules behind an entry."""

    labels: tuple[tuple[str, ...], ...]
    log: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """One endpoint's policy."""

    policy: EndpointPolicy = field(default_factory=EndpointPolicy)
    behind: Mapping[int, Behind] = field(default_factory=dict)
    """By the cookie of entries."""
    view: ProxyView = ()
    """What proxies have to know."""


@dataclass(slots=True)
class _Cell:
    precedence: int
    deny: bool
    proxy_port: int
    auth: int
    rules: set[int]


Cells = dict[Block, _Cell]
"""What is said about an identity."""
_PASSES: Final = -1
"""In place of a statement's index: everything is allowed, by no rule."""
_NODE_PASSES: Final = -2
"""The same for the pods' own node."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """What all endpoints of a node have in common."""

    settings: Settings
    numbers: Callable[[Peer], Iterable[int]]
    """Identities that a peer stands for."""
    cluster_ports: Mapping[tuple[str, int], frozenset[int]]
    """Numbers that pods of the cluster give a port's name, by name and protocol."""
    proxies: ProxyPorts

    def traits(self, subject: Subject, rules: Iterable[Rule]) -> object:
        """All that `compile` looks at of a subject: those with equal traits and the same rules have the same policy."""
        named = any(ports.name for rule in rules for entry in rule.entries for ports in entry.ports)
        return self._is_always_enforced(subject), subject.named_ports if named else None

    def compile(self, subject: Subject, rules: Sequence[Rule]) -> Compiled:
        """The policy of an endpoint that `rules` select. Raises: PolicyConflict."""
        if self.settings.mode == "never":
            return Compiled()
        view = self._view(subject, rules)
        cookies: dict[frozenset[int], int] = {}
        entries: list[PolicyEntry] = []
        enforced = {}
        for egress in (False, True):
            enforced[egress] = self._is_enforced(subject, rules, egress)
            if enforced[egress]:
                entries += self._direction(subject, rules, egress, cookies)
        behind = {cookie: _behind(rules, numbers) for numbers, cookie in cookies.items()}
        policy = EndpointPolicy(tuple(sorted(entries)), enforced[False], enforced[True], self.settings.audit)
        return Compiled(policy, behind, view)

    def _view(self, subject: Subject, rules: Sequence[Rule]) -> ProxyView:
        def spans(ports: Ports, egress: bool) -> Iterable[Span]:
            if not ports.name:
                return [(ports.protocol, ports.first, ports.last)]
            return [(protocol, port, port) for protocol, port, _ in self._blocks(ports, egress, subject)]

        entries = [entry for rule in rules for entry in rule.entries]
        return proxy_view(entries, self.numbers, spans, host_passes=self.settings.allow_localhost)

    def _is_always_enforced(self, subject: Subject) -> bool:
        """A node is not: it would lose its way to the cluster, and nobody could tell it better."""
        if subject.identity == identities.HOST:
            return False
        return self.settings.mode == "always" or subject.identity in (INIT, identities.UNKNOWN)

    def _is_enforced(self, subject: Subject, rules: Sequence[Rule], egress: bool) -> bool:
        """Whether anything is said about a direction; that may be that it is open."""
        if self._is_always_enforced(subject):
            return True
        return any(rule.speaks_of(egress) or rule.denies_by_default(egress) for rule in rules)

    def _is_open(self, subject: Subject, rules: Sequence[Rule], egress: bool) -> bool:
        """Whether no rule wants what is not allowed to be refused."""
        if self._is_always_enforced(subject):
            return False
        return not any(rule.denies_by_default(egress) for rule in rules)

    def _direction(
        self, subject: Subject, rules: Sequence[Rule], egress: bool, cookies: dict[frozenset[int], int]
    ) -> Iterable[PolicyEntry]:
        said = [(at, entry) for at, rule in enumerate(rules) for entry in rule.entries if entry.egress is egress]
        about: dict[int, list[int]] = {}
        for index, (_, entry) in enumerate(said):
            for identity in (0,) if entry.peers is None else set().union(*map(self.numbers, entry.peers)):
                about.setdefault(identity, []).append(index)
        if self._is_open(subject, rules, egress):
            about.setdefault(0, []).append(_PASSES)
        if not egress and self.settings.allow_localhost:
            about.setdefault(identities.HOST, []).append(_NODE_PASSES)
        # Many identities, and the same is said about most of them.
        alike: dict[tuple[int, ...], list[int]] = {}
        for identity, each in about.items():
            alike.setdefault(tuple(each), []).append(identity)
        for indices, members in alike.items():
            cells = self._cells(said, indices, subject)
            _inherit(cells)
            for (protocol, port, bits), cell in _uncovered(cells):
                names = frozenset(cell.rules)
                cookie = cookies.setdefault(names, len(cookies) + 1) if names else 0
                strength = cell.precedence, cell.deny, cell.proxy_port, cell.auth
                for identity in members:
                    yield PolicyEntry(egress, identity, protocol, port, bits, *strength, cookie)

    def _cells(self, said: Sequence[tuple[int, Entry]], indices: Iterable[int], subject: Subject) -> Cells:
        """What some statements say together."""
        cells: Cells = {}
        # The node can prove nothing, whatever its pods want of others.
        proofs = any(entry.auth for _, entry in said)
        for index in indices:
            if index in (_PASSES, _NODE_PASSES):
                _put(cells, (0, 0, 0), ALLOW, False, 0, AUTH_EXPLICIT if index == _NODE_PASSES and proofs else 0, ())
            else:
                self._add(cells, *said[index], subject)
        return cells

    def _add(self, cells: Cells, at: int, entry: Entry, subject: Subject) -> None:
        for ports in entry.ports:
            precedence, proxy_port = self._strength(entry, ports)
            for block in self._blocks(ports, entry.egress, subject):
                _put(cells, block, precedence, entry.deny, proxy_port, entry.auth, (at,))

    def _strength(self, entry: Entry, ports: Ports) -> tuple[int, int]:
        """Precedence, and the proxy's port."""
        if entry.deny:
            return DENY, 0
        if not ports.parser:
            return ALLOW, 0
        precedence = ORDINARY | (255 - ports.priority) if ports.priority else PROXY
        return precedence, self.proxies.port(ports.parser, entry.egress)

    def _blocks(self, ports: Ports, egress: bool, subject: Subject) -> Sequence[Block]:
        if not ports.name:
            return blocks(ports.protocol, ports.first, ports.last)
        if egress:
            found = self.cluster_ports.get((ports.name, ports.protocol), frozenset())
            # A name that means two things means nothing: which of them a packet meant cannot be told here.
            numbers = found if len(found) == 1 else frozenset()
        else:
            numbers = frozenset(
                number
                for name, protocol, number in subject.named_ports
                if (name, protocol) == (ports.name, ports.protocol)
            )
        return [(ports.protocol, number, PORT_BITS) for number in sorted(numbers)]


@lru_cache(maxsize=4096)
def blocks(protocol: int, first: int, last: int) -> tuple[Block, ...]:
    """A range of ports as aligned blocks of powers of two, which is what prefixes can say."""
    if not protocol:
        return ((0, 0, 0),)
    found = []
    while first <= last:
        # As large as alignment allows, and as fits.
        bits = min((first & -first).bit_length() - 1 if first else PORT_BITS, (last - first + 1).bit_length() - 1)
        found.append((protocol, first, PORT_BITS - bits))
        first += 1 << bits
    return tuple(found)


def _put(
    cells: Cells,
    block: Block,
    precedence: int,
    deny: bool,
    proxy_port: int,
    auth: int,
    rules: Iterable[int],
) -> None:
    """Merge one statement into what is said about a block: the stronger one stays."""
    cell = cells.get(block)
    if cell is None:
        cells[block] = _Cell(precedence, deny, proxy_port, auth, set(rules))
        return
    if auth & AUTH_EXPLICIT and not cell.deny:
        cell.auth = max(cell.auth, auth)
    if precedence > cell.precedence:
        cell.precedence, cell.deny, cell.proxy_port, cell.rules = precedence, deny, proxy_port, set(rules)
        cell.auth = 0 if deny else max(cell.auth, auth)
    elif precedence == cell.precedence:
        # Of two proxies as strong as each other, the one with the lower port is asked.
        cell.proxy_port = min(cell.proxy_port, proxy_port)
        cell.rules.update(rules)


def _inherit(cells: Cells) -> None:
    """Authentication for statements that say nothing of it: what the closest wider statement says by name.

    What is said of any peer is not looked at: the kernel does, for the packet at hand.
    """
    named = {block: cell.auth for block, cell in cells.items() if cell.auth & AUTH_EXPLICIT and not cell.deny}
    if not named:
        return
    lengths = sorted({bits if protocol else -1 for protocol, _, bits in named})
    for block, cell in cells.items():
        if not cell.deny and not cell.auth & AUTH_EXPLICIT:
            wider = [above for above in _wider(block, lengths) if above in named]
            cell.auth = named[wider[-1]] & ~AUTH_EXPLICIT if wider else 0


def _uncovered(of_identity: Mapping[Block, _Cell]) -> Iterable[tuple[Block, _Cell]]:
    """Entries that nothing wider and stronger overrides."""
    lengths = sorted({bits if protocol else -1 for protocol, _, bits in of_identity})
    if len(lengths) < 2:
        yield from of_identity.items()
        return
    for block, cell in of_identity.items():
        if not any(
            (wider := of_identity.get(above)) is not None and wider.precedence > cell.precedence
            for above in _wider(block, lengths)
        ):
            yield block, cell


def _wider(block: Block, lengths: Sequence[int]) -> Iterable[Block]:
    protocol, port, bits = block
    for length in lengths:
        if not protocol or length >= bits:
            return
        yield (0, 0, 0) if length < 0 else (protocol, port >> (PORT_BITS - length) << (PORT_BITS - length), length)


def _behind(rules: Sequence[Rule], numbers: Iterable[int]) -> Behind:
    meant = [rules[at] for at in sorted(numbers)]
    labels = tuple(dict.fromkeys(rule.labels for rule in meant))
    return Behind(labels, tuple(dict.fromkeys(rule.log for rule in meant if rule.log)))


def correlation(compiled: Compiled, revision: int) -> list[dict[str, Any]]:
    """What the observer needs to name the rules behind a verdict: the `policy` list of an endpoint in state.json."""
    found = []
    for entry in compiled.policy.entries:
        behind = compiled.behind.get(entry.cookie)
        if behind is None:
            continue
        size = 1 << (PORT_BITS - entry.port_bits)
        whole = not entry.protocol or size > EXPANDED_PORTS
        for port in (entry.port if entry.port_bits else 0,) if whole else range(entry.port, entry.port + size):
            one: dict[str, Any] = {
                "direction": "egress" if entry.egress else "ingress",
                "identity": entry.identity,
                "proto": entry.protocol,
                "port": port,
                "rules": [list(labels) for labels in behind.labels],
                "revision": revision,
            }
            if behind.log:
                one["log"] = list(behind.log)
            found.append(one)
    return found
