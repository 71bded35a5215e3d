"""Which card of the map a flow's ends belong to.

In:        rows and the tables they point into.
Out:       a card number per row; numbers stay, whatever the tables do.
Elsewhere: rollup.py counts between cards; picture.py says what a page is told about them.

A card is a workload, a node, or a peer outside (a DNS name, or the world where no name is known). It is worked out once
per distinct endpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from model.row import Rows
from model.tables import Tables
from model.vocabulary import RESERVED_IDENTITIES, RESERVED_IDENTITY_NUMBERS
from proto.flow import flow_pb2

U32 = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

OUTSIDE: Final = "outside"
NODES: Final = "nodes"
"""Groups that are no namespaces; no namespace can have these ids, because namespaces' ids begin with `ns/`."""

REPLICA_SUFFIX: Final = re.compile(r"-[a-z0-9]{6,10}-[a-z0-9]{5}$")
"""What a Deployment's ReplicaSet adds to the name of a pod."""
NOISE: Final = re.compile(
    r"io\.kubernetes\.pod|io\.cilium|pod-template-hash|controller-revision|statefulset\.kubernetes|^reserved:"
)
"""Labels that say nothing about what a workload is."""

MOST_LABELS: Final = 6
MOST_CARDS: Final = 20_000
"""Beyond these, new ends share one card; a scan of addresses must not fill the memory."""
MOST_ADDRESSES: Final = 65_536
"""Of hosts, by which other hosts name them."""
RESERVED: Final = 256
"""Identities below are no workload's."""
HOST: Final = RESERVED_IDENTITY_NUMBERS["host"]
REMOTE_NODE: Final = RESERVED_IDENTITY_NUMBERS["remote-node"]
IN_NODES: Final = frozenset(("host", "remote-node", "health", "kube-apiserver", "ingress"))


@dataclass(frozen=True, slots=True)
class Card:
    """What does not change about a card."""

    id: str
    name: str
    group: str
    """`ns/<namespace>`, NODES or OUTSIDE."""
    kind: str
    """Kind of the workload (Deployment, ...), or node, world, dns, identity."""


OVERFLOW: Final = Card("overflow", "everything else", OUTSIDE, "world")


class Cards:
    """All cards ever seen, and the card of each endpoint for as long as the tables keep their indices."""

    def __init__(self, tables: Tables) -> None:
        self.all: list[Card] = []
        self.labels: list[tuple[str, ...]] = []
        """Telling labels of each card, without their source."""
        self._numbers: dict[str, int] = {}
        self._tables = tables
        self._generation = -1
        self._by_endpoint = np.zeros(0, np.uint32)
        self._worldly = np.zeros(0, np.bool_)
        self._is_host = np.zeros(0, np.bool_)
        self._is_remote = np.zeros(0, np.bool_)
        self._hosts: dict[tuple[int, int], int] = {}
        """Card by address: a host's own flows tell which addresses it has, those of others only that it is a node."""
        self._workloads: dict[int, int] = {}
        """Card by identity: of what a proxy sends for a pod, no more than the identity is known."""
        self._by_names = np.zeros(0, np.uint32)
        self._by_node = np.zeros(0, np.uint32)

    def __len__(self) -> int:
        return len(self.all)

    def of(self, rows: Rows, side: str) -> U32:
        """Card number of one end of each row. `side`: src or dst."""
        self._learn()
        index = rows[side]
        found: U32 = self._by_endpoint[index]
        names = rows[f"{side}_names"]
        named = self._worldly[index] & (names != 0)
        if named.any():
            found = np.where(named, self._by_names[names], found)
        hosts = self._is_host[index] & (rows["node"] != 0)
        if hosts.any():
            found = np.where(hosts, self._by_node[rows["node"]], found)
            self._note_hosts(rows, side, hosts, found)
        remote = self._is_remote[index]
        if remote.any() and self._hosts:
            found = self._named_hosts(rows, side, remote, found)
        return found

    def of_endpoint(self, index: int) -> int:
        """Card number of one entry of the table of endpoints."""
        self._learn()
        return int(self._by_endpoint[index])

    def number(self, card: Card, labels: tuple[str, ...] = ()) -> int:
        """The number of a card, which is added when it is new."""
        found = self._numbers.get(card.id)
        if found is not None:
            if labels and not self.labels[found]:
                self.labels[found] = labels
            return found
        if len(self.all) >= MOST_CARDS and card is not OVERFLOW:
            return self.number(OVERFLOW)
        self._numbers[card.id] = len(self.all)
        self.all.append(card)
        self.labels.append(labels)
        return len(self.all) - 1

    def find(self, text: str, most: int) -> list[dict[str, str]]:
        """Cards whose name, id or labels hold `text`, those whose name begins with it first."""
        text = text.lower()
        hits = [
            card
            for card, labels in zip(self.all, self.labels, strict=True)
            if text in card.id.lower() or any(text in label.lower() for label in (card.name, *labels))
        ]
        hits.sort(key=lambda card: (card.name.lower() != text, not card.name.lower().startswith(text), card.id))
        return [{"id": card.id, "name": card.name, "group": card.group} for card in hits[:most]]

    def _number_of(self, end: flow_pb2.Endpoint) -> int:
        if not end.pod_name and end.identity >= RESERVED and end.identity in self._workloads:
            return self._workloads[end.identity]
        return self.number(card_of(end), telling_labels(end))

    def _note_hosts(self, rows: Rows, side: str, hosts: Bools, numbers: U32) -> None:
        high, low = rows[f"{side}_ip_hi"][hosts], rows[f"{side}_ip_lo"][hosts]
        for address in np.unique(np.stack([high, low, numbers[hosts].astype(np.uint64)], axis=1), axis=0).tolist():
            is_loopback = not address[0] and (address[1] <= 1 or address[1] >> 24 == 127)
            if not is_loopback and len(self._hosts) < MOST_ADDRESSES:
                self._hosts[address[0], address[1]] = address[2]

    def _named_hosts(self, rows: Rows, side: str, remote: Bools, numbers: U32) -> U32:
        """The cards of hosts that other hosts saw, as far as they have told their addresses."""
        ends = np.stack([rows[f"{side}_ip_hi"][remote], rows[f"{side}_ip_lo"][remote]], axis=1)
        addresses, place = np.unique(ends, axis=0, return_inverse=True)
        known = np.array([self._hosts.get((high, low), -1) for high, low in addresses.tolist()], np.int64)[
            place.ravel()
        ]
        found = numbers.copy()
        found[remote] = np.where(known >= 0, known, found[remote])
        return found

    def _learn(self) -> None:
        tables = self._tables
        if self._generation != tables.generation:
            self._generation = tables.generation
            self._by_endpoint = self._by_names = self._by_node = np.zeros(0, np.uint32)
            self._worldly = self._is_host = self._is_remote = np.zeros(0, np.bool_)
        if fresh := tables.endpoints.values[len(self._by_endpoint) :]:
            ends = [flow_pb2.Endpoint.FromString(encoded or b"") for encoded in fresh]
            for end in ends:
                if end.pod_name and len(self._workloads) < MOST_CARDS:
                    self._workloads[end.identity] = self.number(card_of(end), telling_labels(end))
            numbers = [self._number_of(end) for end in ends]
            self._by_endpoint = np.concatenate([self._by_endpoint, np.array(numbers, np.uint32)])
            self._worldly = np.concatenate([self._worldly, np.array([is_world(end) for end in ends])])
            self._is_host = np.concatenate([self._is_host, np.array([end.identity == HOST for end in ends])])
            self._is_remote = np.concatenate([self._is_remote, np.array([end.identity == REMOTE_NODE for end in ends])])
        if new_names := tables.names.values[len(self._by_names) :]:
            numbers = [self.number(dns_card(names[0])) if names else 0 for names in new_names]
            self._by_names = np.concatenate([self._by_names, np.array(numbers, np.uint32)])
        if nodes := tables.nodes.values[len(self._by_node) :]:
            numbers = [self.number(node_card(node.name)) if node else 0 for node in nodes]
            self._by_node = np.concatenate([self._by_node, np.array(numbers, np.uint32)])


def card_of(endpoint: flow_pb2.Endpoint) -> Card:
    """The card that an endpoint belongs to.

    Only the node that runs a pod knows its workload; other nodes know its name, whose replica suffix is dropped, so
    that all nodes put the pod on one card.
    """
    if endpoint.pod_name:
        name, kind = REPLICA_SUFFIX.sub("", endpoint.pod_name), "Pod"
        if endpoint.workloads:
            name, kind = endpoint.workloads[0].name, endpoint.workloads[0].kind
        return Card(f"{endpoint.namespace}/{name}", name, f"ns/{endpoint.namespace or 'default'}", kind or "Pod")
    reserved = RESERVED_IDENTITIES.get(endpoint.identity)
    if reserved is not None:
        group = NODES if reserved in IN_NODES else OUTSIDE
        return Card(f"reserved:{reserved}", reserved, group, "node" if group == NODES else "world")
    group = f"ns/{endpoint.namespace}" if endpoint.namespace else OUTSIDE
    name = next((label.partition("=")[2] for label in endpoint.labels if ":app=" in label), "")
    name = name or next((label for label in endpoint.labels if label.startswith("cidr:")), "")
    if not name and not endpoint.identity:
        return Card("unknown", "unknown", OUTSIDE, "world")
    return Card(f"identity:{endpoint.identity}", name or f"identity {endpoint.identity}", group, "identity")


def dns_card(name: str) -> Card:
    return Card(f"dns:{name}", name, OUTSIDE, "dns")


def node_card(name: str) -> Card:
    return Card(f"node:{name}", name.rpartition("/")[2], NODES, "node")


def is_world(endpoint: flow_pb2.Endpoint) -> bool:
    """Whether a DNS name tells more about this end than its endpoint does."""
    if endpoint.pod_name or endpoint.namespace:
        return False
    reserved = RESERVED_IDENTITIES.get(endpoint.identity, "")
    outside = any(label.startswith(("reserved:world", "cidr:", "fqdn:")) for label in endpoint.labels)
    return reserved.startswith("world") or outside or not endpoint.identity


def telling_labels(endpoint: flow_pb2.Endpoint) -> tuple[str, ...]:
    """`key=value` of the labels that say what a workload is."""
    kept = (label.partition(":")[2] or label for label in endpoint.labels if not NOISE.search(label))
    return tuple(sorted(kept))[:MOST_LABELS]
