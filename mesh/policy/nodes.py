"""Identities of other nodes: one for each, once a policy tells nodes apart.

In:        Node resources; whether any rule asks who a node is (`fromNodes`, `toNodes`, or prefixes that select nodes).
Out:       numbers by the node's address, for the ipcache; identities with the node's labels, for selectors.
Elsewhere: node.py decides when they are needed; until then all other nodes are `remote-node`.

Source: Cilium's enable-node-selector-labels; numbers from 0x02000001 on mean something on this node only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Final

from mesh.policy.documents.fields import Network
from mesh.policy.peers import Identity
from mesh.resources.cluster import Node

FIRST: Final = 0x02000001
LAST: Final = 0x02FFFFFF
SOURCE: Final = "node"
"""Of a node's labels in its identity."""


class NodeIdentities:
    """Numbers by node. A node keeps its number while it has one, whatever happens to its labels."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._identities: dict[str, Identity] = {}
        """The same objects for as long as nothing changes about them."""
        self._addresses: dict[str, str] = {}
        """By name: the address by which others know where the node's pods are."""
        self._leaving: set[str] = set()
        self._known: dict[Network, int] = {}

    def restore(self, known: Mapping[Network, int]) -> None:
        """Take over what the kernel has from an earlier agent: no packet is to meet a number of another meaning."""
        self._known = {prefix: number for prefix, number in known.items() if FIRST <= number <= LAST}

    def want(self, nodes: Iterable[Node], *, by_prefix: bool = False) -> None:
        """These have identities from now on. Those of others are still known, once: packets may have them yet.

        `by_prefix`: rules about prefixes select them by their addresses.
        """
        wanted = {one.name: one for one in nodes if one.ips}
        for name in self._leaving - wanted.keys():
            for table in (self._numbers, self._identities):
                table.pop(name, None)
        for name, node in wanted.items():
            number = self._numbers.get(name) or self._number_for(node)
            addresses = tuple(map(ip_network, node.ips)) if by_prefix else ()
            identity = Identity(number, labels_of(node), addresses=addresses)
            self._numbers[name] = number
            if self._identities.get(name) != identity:
                self._identities[name] = identity
        self._leaving = self._numbers.keys() - wanted.keys()
        self._addresses = {name: node.ips[0] for name, node in wanted.items()}

    @property
    def by_address(self) -> dict[str, int]:
        """Numbers of the nodes that are wanted, by their address."""
        return {address: self._numbers[name] for name, address in self._addresses.items()}

    def identities(self) -> list[Identity]:
        """All of them, for selectors."""
        return list(self._identities.values())

    def _number_for(self, node: Node) -> int:
        taken = set(self._numbers.values())
        found = self._known.get(ip_network(node.ips[0]))
        if found is not None and found not in taken:
            return found
        taken |= set(self._known.values())
        return next(number for number in range(FIRST, LAST + 1) if number not in taken)


def labels_of(node: Node) -> tuple[str, ...]:
    """Labels of a node's own identity."""
    own = (f"{SOURCE}:{key}={value}" if value else f"{SOURCE}:{key}" for key, value in node.metadata.labels.items())
    return (*sorted(own), "reserved:remote-node")


def host_labels(node: Node) -> tuple[str, ...]:
    """What `nodeSelector` looks at: labels of the node as its own endpoint."""
    own = (f"k8s:{key}={value}" if value else f"k8s:{key}" for key, value in node.metadata.labels.items())
    return (*sorted(own), "reserved:host")
