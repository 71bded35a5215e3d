"""What an endpoint's policy says about one TCP port of one peer: what the kernel's maps say, and the rules of proxies.

In:        an endpoint's compiled policy, and its view for proxies.
Out:       an Answer for a direction, an identity and a port; the ports between which answers may differ.
Elsewhere: compiling.py makes the policy, bpf/include/policy.h asks the same of maps; mesh/envoy/gate.py makes of it
           what an Envoy enforces that is an endpoint itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from bpf.policies import EndpointPolicy, PolicyEntry
from mesh.policy.rules import TCP, L7Match
from mesh.policy.view import ProxyView

Answer = tuple[L7Match, ...] | None
"""None: passes. Else any of these has to hold; empty: refused."""

PORT_BITS: Final = 16
_ANY: Final = 0
_NO_PORT: Final = 0
"""Only what is said about all ports is about this one."""
_LAST_PORT: Final = 65535


@dataclass(frozen=True)
class Whole:
    """All of an endpoint's policy."""

    policy: EndpointPolicy = field(default_factory=EndpointPolicy)
    view: ProxyView = ()

    def is_enforced(self, egress: bool) -> bool:
        """Whether anything could be refused."""
        return self.policy.enforced_egress if egress else self.policy.enforced_ingress

    def answer(self, egress: bool, identity: int, port: int) -> Answer:
        """What holds for a peer. As in audit mode elsewhere, what ports and peers refuse passes then."""
        if not self.is_enforced(egress):
            return None
        entry = self._entry(egress, identity, port)
        # Nobody shakes hands with a load balancer: whoever must is not let in.
        if entry is None or entry.deny or entry.auth & 0x7F:
            return None if self.policy.audit else ()
        return self._matches(egress, identity, port) if entry.proxy_port else None

    def is_denied(self, egress: bool, identity: int) -> bool:
        """Whether a rule denies a peer on all ports, other than by allowing something else."""
        entry = self._entry(egress, identity, _NO_PORT) if self.is_enforced(egress) else None
        return entry is not None and entry.deny and not self.policy.audit

    def named(self, egress: bool) -> frozenset[int]:
        """Identities about which something is said."""
        return frozenset(identity for way, identity in self._entries if way == egress and identity != _ANY)

    def pieces(self, egress: bool) -> Iterator[tuple[int, int]]:
        """Ranges of ports within which answers are the same."""
        starts = {0, 1}
        for entry in self.policy.entries:
            if entry.egress == egress and entry.protocol in (_ANY, TCP):
                first, last = _span(entry)
                starts |= {first, last + 1}
        for one in self.view:
            if one.egress == egress and one.protocol == TCP:
                starts |= {one.first, one.last + 1}
        ordered = sorted(starts - {0, _LAST_PORT + 1})
        for first, after in zip(ordered, [*ordered[1:], _LAST_PORT + 1], strict=True):
            yield first, after - 1

    @cached_property
    def _entries(self) -> dict[tuple[bool, int], list[PolicyEntry]]:
        """By direction and identity, those of the longest prefix first."""
        found: dict[tuple[bool, int], list[PolicyEntry]] = {}
        for entry in self.policy.entries:
            if entry.protocol in (_ANY, TCP):
                found.setdefault((entry.egress, entry.identity), []).append(entry)
        for entries in found.values():
            entries.sort(key=lambda one: -one.prefix_bits)
        return found

    def _longest(self, egress: bool, identity: int, port: int) -> PolicyEntry | None:
        for entry in self._entries.get((egress, identity), ()):
            first, last = _span(entry)
            if first <= port <= last:
                return entry
        return None

    def _entry(self, egress: bool, identity: int, port: int) -> PolicyEntry | None:
        """Of what is said about this peer and about any, the stronger; when equal, the more precise."""
        mine = self._longest(egress, identity, port)
        anybody = self._longest(egress, _ANY, port)
        if mine is None or anybody is None:
            return mine or anybody
        return max(mine, anybody, key=lambda one: (one.precedence, one.prefix_bits))

    def _matches(self, egress: bool, identity: int, port: int) -> Answer:
        """What proxies let pass for this peer."""
        found: dict[L7Match, None] = {}
        for one in self.view:
            if (one.egress, one.protocol) != (egress, TCP) or not one.first <= port <= one.last:
                continue
            for allowed in one.allowed:
                if allowed.peers is None or identity in allowed.peers:
                    if allowed.matches is None:
                        return None
                    found |= dict.fromkeys(allowed.matches)
        return tuple(found)


def _span(entry: PolicyEntry) -> tuple[int, int]:
    if not entry.protocol:
        return 0, _LAST_PORT
    return entry.port, entry.port + (1 << (PORT_BITS - entry.port_bits)) - 1
