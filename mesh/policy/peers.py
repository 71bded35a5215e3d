"""Selectors over identities: what a policy's peers and subjects come down to.

In:        identities with their labels, and prefixes of those that are local to the node.
Out:       the numbers that each selector stands for, kept up to date as identities come and go.
Elsewhere: translate.py makes selectors from documents; compiling.py turns the numbers into map entries.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from itertools import islice
from typing import Final, TypeVar

from mesh import identities
from mesh.policy.documents.fields import Network, is_inside

ANY_SOURCE: Final = "any"
FQDN_SOURCE: Final = "fqdn:"
"""Before the text of a toFQDNs selector, in the labels of addresses that it stands for."""
INIT: Final = 5
WORLD_IPV4: Final = 9
WORLD_IPV6: Final = 10
EVERYTHING: Final[dict[int, str]] = {WORLD_IPV4: "0.0.0.0/0", WORLD_IPV6: "::/0"}
"""Identities of the whole world in one family; the ipcache has them once a policy tells the families apart."""


@dataclass(frozen=True)
class Identity:
    """A number and what policies can know about it."""

    number: int
    labels: tuple[str, ...]
    """`source:key=value`, or `source:key`."""
    prefix: Network | None = None
    """Of identities that stand for addresses outside."""
    addresses: tuple[Network, ...] = ()
    """Of nodes that rules about prefixes select, too."""

    @property
    def places(self) -> tuple[Network, ...]:
        """What rules about prefixes compare with."""
        return self.addresses if self.prefix is None else (self.prefix, *self.addresses)

    @cached_property
    def values(self) -> dict[str, set[str]]:
        """Values by `source:key`, and by `any:key` over all sources."""
        found: dict[str, set[str]] = {}
        for label in self.labels:
            name, _, value = label.partition("=")
            _, _, key = name.partition(":")
            found.setdefault(name, set()).add(value)
            found.setdefault(f"{ANY_SOURCE}:{key}", set()).add(value)
        return found


@dataclass(frozen=True, slots=True)
class Term:
    """One requirement. `key` is `source:key`; In and NotIn compare with `values`."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, identity: Identity) -> bool:
        """Absence satisfies NotIn and DoesNotExist, as in Kubernetes."""
        present = identity.values.get(self.key)
        match self.operator:
            case "In":
                return present is not None and not present.isdisjoint(self.values)
            case "NotIn":
                return present is None or present.isdisjoint(self.values)
            case "Exists":
                return present is not None
            case _:
                return present is None


@dataclass(frozen=True, slots=True)
class LabelPeer:
    """Identities whose labels satisfy every term."""

    terms: tuple[Term, ...] = ()

    def selects(self, identity: Identity) -> bool:
        return all(term.holds(identity) for term in self.terms)


@dataclass(frozen=True, slots=True)
class NodePeer(LabelPeer):
    """Other nodes, by their labels. A rule that has one makes the node tell them apart (nodes.py)."""


@dataclass(frozen=True, slots=True)
class CidrPeer:
    """Identities of prefixes inside one, and not inside its holes; never pods. Nodes only if they have addresses."""

    prefix: Network
    holes: tuple[Network, ...] = ()

    def selects(self, identity: Identity) -> bool:
        places = identity.places
        return any(is_inside(inner, self.prefix) for inner in places) and not any(
            is_inside(inner, hole) for inner in places for hole in self.holes
        )


@dataclass(frozen=True, slots=True)
class EntityPeer:
    """A named group of identities; `all` is not here, because it is any identity."""

    name: str
    cluster_name: str = "default"

    def selects(self, identity: Identity) -> bool:
        if self.name == "world":
            return is_world(identity)
        if self.name in ("world-ipv4", "world-ipv6"):
            version = 4 if self.name == "world-ipv4" else 6
            return is_world(identity) and identity.prefix is not None and identity.prefix.version == version
        if self.name == "cluster":
            return _is_of_cluster(identity, self.cluster_name)
        return f"reserved:{self.name}" in identity.values


Peer = LabelPeer | CidrPeer | EntityPeer


def is_world(identity: Identity) -> bool:
    """Outside of the cluster: the world itself and every prefix."""
    return identity.number in (identities.WORLD, WORLD_IPV4, WORLD_IPV6) or identity.prefix is not None


def is_node(identity: Identity) -> bool:
    """Another node, with an identity of its own or without."""
    return "reserved:remote-node" in identity.values


def _is_of_cluster(identity: Identity, cluster_name: str) -> bool:
    if cluster_name in identity.values.get(f"k8s:{identities.CLUSTER_LABEL}", ()):
        return True
    return is_node(identity) or (identity.number in identities.RESERVED and not is_world(identity))


def reserved_identities() -> dict[int, Identity]:
    """The identities that always exist."""
    return {
        number: Identity(number, labels, ip_network(EVERYTHING[number]) if number in EVERYTHING else None)
        for number, labels in identities.RESERVED.items()
    }


class Index:
    """Identities by what selectors ask for, so that a selector looks at few of them."""

    def __init__(self, found: Iterable[Identity] = ()) -> None:
        self.identities: dict[int, Identity] = {}
        self._by_key: dict[str, set[int]] = {}
        self._by_value: dict[tuple[str, str], set[int]] = {}
        self._prefixes: list[tuple[int, int, int, int]] = []
        """Version, first address, length and number of each prefix, sorted: what a prefix covers stands behind it."""
        self.change((), found)

    def change(self, gone: Iterable[int], come: Iterable[Identity]) -> None:
        """Forget numbers, then know identities. What stays is not touched."""
        lost = [self.identities.pop(number) for number in gone]
        for one in lost:
            for key, values in one.values.items():
                _discard(self._by_key, key, one.number)
                for value in values:
                    _discard(self._by_value, (key, value), one.number)
        if any(one.places for one in lost):
            numbers = {one.number for one in lost}
            self._prefixes = [prefix for prefix in self._prefixes if prefix[3] not in numbers]
        for one in come:
            self.identities[one.number] = one
            self._prefixes += ((*_place(place), one.number) for place in one.places)
            for key, values in one.values.items():
                self._by_key.setdefault(key, set()).add(one.number)
                for value in values:
                    self._by_value.setdefault((key, value), set()).add(one.number)
        self._prefixes.sort()

    def select(self, peer: Peer) -> set[int]:
        """Numbers of the identities that `peer` selects."""
        if isinstance(peer, CidrPeer):
            return self._inside(peer.prefix).difference(*map(self._inside, peer.holes))
        narrowed = [self._having(term) for term in peer.terms] if isinstance(peer, LabelPeer) else []
        few = [each for each in narrowed if each is not None]
        candidates = min(few, key=len) if few else set(self.identities)
        return {number for number in candidates if peer.selects(self.identities[number])}

    def _having(self, term: Term) -> set[int] | None:
        """Identities that may satisfy a term; None where absence does, so that it narrows nothing."""
        if term.operator == "In":
            return set().union(*(self._by_value.get((term.key, value), ()) for value in term.values))
        return self._by_key.get(term.key, set()) if term.operator == "Exists" else None

    def _inside(self, prefix: Network) -> set[int]:
        version, first, length = _place(prefix)
        start = bisect_left(self._prefixes, (version, first, length, 0))
        last = int(prefix.broadcast_address)
        found = set()
        for other_version, address, _, number in islice(self._prefixes, start, None):
            if (other_version, address) > (version, last):
                break
            found.add(number)
        return found


K = TypeVar("K")


def _discard(table: dict[K, set[int]], key: K, number: int) -> None:
    numbers = table[key]
    numbers.discard(number)
    if not numbers:
        del table[key]


def _place(prefix: Network) -> tuple[int, int, int]:
    return prefix.version, int(prefix.network_address), prefix.prefixlen


@dataclass(slots=True)
class _Selection:
    numbers: set[int]
    version: int = 0


class SelectorCache:
    """Which identities each selector stands for; a change of identities touches only what is about them."""

    def __init__(self) -> None:
        self._index = Index()
        self._selections: dict[Peer, _Selection] = {}

    def replace(self, wanted: Mapping[int, Identity]) -> None:
        """These are all identities now."""
        present = self._index.identities
        gone = {number for number, old in present.items() if wanted.get(number) is not old}
        come = Index(one for number, one in wanted.items() if present.get(number) is not one)
        if not gone and not come.identities:
            return
        self._index.change(gone, come.identities.values())
        for peer, selection in self._selections.items():
            numbers = (selection.numbers - gone) | come.select(peer)
            selection.version += numbers != selection.numbers
            selection.numbers = numbers

    def numbers(self, peer: Peer) -> set[int]:
        """Identities that `peer` selects. Not to be changed."""
        return self._selection(peer).numbers

    def version(self, peer: Peer) -> int:
        """Grows when the selection changes."""
        return self._selection(peer).version

    def keep(self, peers: Iterable[Peer]) -> None:
        """Forget selectors that no rule has any more."""
        wanted = set(peers)
        for peer in [one for one in self._selections if one not in wanted]:
            del self._selections[peer]

    def _selection(self, peer: Peer) -> _Selection:
        found = self._selections.get(peer)
        if found is None:
            found = self._selections[peer] = _Selection(self._index.select(peer))
        return found
