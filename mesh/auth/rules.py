"""Which pairs policies ask for, and what nodes are called in records.

In:        endpoints and their compiled policies; the ipcache.
Out:       a question that can be asked of a pair; ids for nodes.
Elsewhere: node.py asks; mesh/policy/ compiles. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final

from bpf.facts import Address, AuthPair, Endpoint, IpcacheEntry, Prefix
from bpf.policies import AUTH_EXPLICIT, EndpointPolicy
from mesh.policy.rules import AUTH_REQUIRED

ANYBODY: Final = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """Pairs that the policies of this node's endpoints ask for."""

    peers: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """By identity of an endpoint here; ANYBODY among them: all."""

    def __contains__(self, pair: object) -> bool:
        assert isinstance(pair, AuthPair)
        peers = self.peers.get(pair.local, frozenset())
        return pair.kind == AUTH_REQUIRED and (pair.remote in peers or ANYBODY in peers)

    def __bool__(self) -> bool:
        return bool(self.peers)


def asked_by(endpoints: Mapping[int, Endpoint], policies: Mapping[int, EndpointPolicy]) -> Asked:
    """What the endpoints' policies ask for."""
    found: dict[int, set[int]] = {}
    seen: set[tuple[int, int]] = set()
    for number, endpoint in endpoints.items():
        policy = policies.get(number)
        # Endpoints of one identity share a policy, which may be long.
        if policy is None or (endpoint.identity, id(policy)) in seen:
            continue
        seen.add((endpoint.identity, id(policy)))
        peers = {one.identity for one in policy.entries if one.auth & ~AUTH_EXPLICIT == AUTH_REQUIRED and not one.deny}
        if peers:
            found.setdefault(endpoint.identity, set()).update(peers)
    return Asked({identity: frozenset(peers) for identity, peers in found.items()})


@dataclass(slots=True)
class NodeIds:
    """Numbers of other nodes, by the address that packets to them are sent to."""

    _ids: dict[Address, int] = field(default_factory=dict)
    _former: frozenset[int] = frozenset()
    """Of nodes that have just gone: the kernel may still know them."""

    def restore(self, entries: Mapping[Prefix, IpcacheEntry]) -> None:
        """Go on with the numbers that the kernel has."""
        for one in entries.values():
            if one.tunnel_endpoint is not None and one.node_id:
                self._ids[one.tunnel_endpoint] = one.node_id

    def mark(self, entries: Mapping[Prefix, IpcacheEntry]) -> dict[Prefix, IpcacheEntry]:
        """The entries with the ids of their nodes; nodes that have none left lose theirs."""
        present = {one.tunnel_endpoint for one in entries.values() if one.tunnel_endpoint is not None}
        taken = self._former | set(self._ids.values())
        self._former = frozenset(number for address, number in self._ids.items() if address not in present)
        free = (number for number in count(1) if number not in taken)
        self._ids = {address: self._ids.get(address) or next(free) for address in sorted(present, key=_order)}
        return {
            prefix: replace(one, node_id=self._ids[one.tunnel_endpoint]) if one.tunnel_endpoint is not None else one
            for prefix, one in entries.items()
        }

    def address(self, number: int) -> Address | None:
        """Where a node is; None when it is gone."""
        return next((address for address, known in self._ids.items() if known == number), None)


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)
