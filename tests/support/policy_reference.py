"""Two plain readings of policy, for tests: what rules mean, and how the kernel looks a map up.

`judge` asks every rule about every flow, with no map, prefix or precedence in sight. `look_up` does with a list of
entries what include/policy.h does with a map. Whatever is compiled must make both agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bpf.policies import AUTH_EXPLICIT, EndpointPolicy, PolicyEntry
from mesh.policy.peers import Identity
from mesh.policy.rules import Entry, Ports, Rule

ALLOWED, DENIED, REFUSED, REDIRECTED = "allowed", "denied by a rule", "allowed by none", "redirected"


@dataclass(frozen=True, slots=True)
class Flow:
    """First packet of a connection, seen from one endpoint."""

    egress: bool
    remote: Identity
    protocol: int
    port: int


def judge(rules: Iterable[Rule], subject: Identity, flow: Flow, mode: str = "default", localhost: bool = True) -> str:
    """What the rules say about a flow of an endpoint whose identity is `subject`: 1 is the node, with its labels."""
    if mode == "never":
        return ALLOWED
    host = subject.number == 1
    mine = [rule for rule in rules if rule.of_nodes is host and rule.subject.selects(subject)]
    said = [entry for rule in mine for entry in rule.entries if entry.egress is flow.egress and _is_about(entry, flow)]
    if any(entry.deny for entry in said):
        return DENIED
    if any(ports.parser for entry in said for ports in entry.ports if _covers(ports, flow)):
        return REDIRECTED
    if said:
        return ALLOWED
    if not flow.egress and localhost and flow.remote.number == 1:
        return ALLOWED
    refuses = (mode == "always" and not host) or any(
        rule.deny_egress_by_default if flow.egress else rule.deny_ingress_by_default for rule in mine
    )
    return REFUSED if refuses else ALLOWED


def _is_about(entry: Entry, flow: Flow) -> bool:
    peers = entry.peers is None or any(peer.selects(flow.remote) for peer in entry.peers)
    return peers and any(_covers(ports, flow) for ports in entry.ports)


def _covers(ports: Ports, flow: Flow) -> bool:
    if not ports.protocol:
        return True
    return ports.protocol == flow.protocol and ports.first <= flow.port <= ports.last


@dataclass(frozen=True, slots=True)
class Answer:
    """What a lookup comes to."""

    verdict: str
    match: int
    """enum policy_match."""
    auth: int = 0
    """Authentication type that is wanted."""


def look_up(policy: EndpointPolicy, flow: Flow) -> Answer:
    """The documented algorithm (spec/datapath.md, section 11) on a list of entries."""
    if not policy.enforced:
        return Answer(ALLOWED, 0)
    entries = policy.effective_entries()
    mine = longest(entries, flow.remote.number, flow)
    anybody = longest(entries, 0, flow)
    if mine is None and anybody is None:
        return Answer(REFUSED, 0)
    if mine is not None and anybody is not None:
        stronger = (mine.precedence, mine.prefix_bits) >= (anybody.precedence, anybody.prefix_bits)
        winner = mine if stronger else anybody
    else:
        only = mine or anybody
        assert only is not None
        winner = only
    bits = winner.prefix_bits
    match = (
        (1 if bits == 0 else 5 if bits <= 8 else 2) if winner is mine else (4 if bits == 0 else 6 if bits <= 8 else 3)
    )
    if winner.deny:
        return Answer(DENIED, match)
    auth = winner.auth & ~AUTH_EXPLICIT
    if not winner.auth & AUTH_EXPLICIT:
        auth = max(one.auth & ~AUTH_EXPLICIT for one in (mine, anybody) if one is not None)
    return Answer(REDIRECTED if winner.proxy_port else ALLOWED, match, auth)


def longest(entries: Sequence[PolicyEntry], identity: int, flow: Flow) -> PolicyEntry | None:
    """What one question to a map is answered with."""
    fitting = [
        entry
        for entry in entries
        if (entry.identity, entry.egress) == (identity, flow.egress)
        and (not entry.protocol or entry.protocol == flow.protocol)
        and (not entry.port_bits or (entry.port ^ flow.port) >> (16 - entry.port_bits) == 0)
    ]
    return max(fitting, key=lambda entry: entry.prefix_bits, default=None)
