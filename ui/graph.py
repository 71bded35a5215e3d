"""The map: cards and arrows out of rows.

In:        rows of a time window and the tables they point into.
Out:       a ServiceMap: workloads as cards, and who opened connections to whom as arrows with numbers.
Elsewhere: live.py decides when a map is drawn; static/js/service-map.js draws it.

Names are worked out once per distinct endpoint; counting is done on columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from model.row import L4, Kind, Reply, Rows
from model.tables import Tables
from model.vocabulary import RESERVED_IDENTITIES
from proto.flow import flow_pb2

OUTSIDE: Final = "outside the cluster"
MOST_PORTS: Final = 4
"""Ports named on a card."""

REPLICA_SUFFIX: Final = re.compile(r"-[a-z0-9]{6,10}-[a-z0-9]{5}$")
"""What a Deployment's ReplicaSet adds to the name of a pod."""

BADNESS: Final = (
    flow_pb2.FORWARDED,
    flow_pb2.REDIRECTED,
    flow_pb2.AUDIT,
    flow_pb2.ERROR,
    flow_pb2.DROPPED,
)
"""Verdicts from harmless to worst; an arrow has the colour of its worst."""


@dataclass(frozen=True, slots=True)
class Card:
    """One workload, or one kind of peer outside (world, host, remote node)."""

    id: str
    name: str
    group: str
    """Namespace, or OUTSIDE."""


@dataclass(frozen=True, slots=True)
class Edge:
    """Flows from one card to one port of another, in the direction in which connections are opened."""

    source: str
    target: str
    protocol: str
    port: int
    flows: int
    dropped: int
    verdict: str
    """The worst verdict seen."""
    last_ts_ns: int


@dataclass(frozen=True, slots=True)
class ServiceMap:
    cards: tuple[Card, ...] = ()
    edges: tuple[Edge, ...] = ()


@dataclass
class Cartographer:
    """Draws maps; remembers the card of each endpoint for as long as the tables keep their indices."""

    tables: Tables
    _generation: int = -1
    _cards: dict[Card, int] = field(default_factory=dict)
    _card_of: npt.NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))

    def draw(self, rows: Rows) -> ServiceMap:
        """The map of `rows`, in any order."""
        rows = rows[rows["kind"] == Kind.FLOW]
        if len(rows) == 0:
            return ServiceMap()
        self._learn_new_endpoints()
        backwards = rows["is_reply"] == Reply.TRUE
        source = np.where(backwards, self._card_of[rows["dst"]], self._card_of[rows["src"]])
        target = np.where(backwards, self._card_of[rows["src"]], self._card_of[rows["dst"]])
        has_port = np.isin(rows["l4"], (L4.TCP, L4.UDP, L4.SCTP))
        port = np.where(has_port, np.where(backwards, rows["sport"], rows["dport"]), 0)
        key = (
            source.astype(np.uint64) << 48 | target.astype(np.uint64) << 24 | rows["l4"].astype(np.uint64) << 16 | port
        )
        keys, edge_of, flows = np.unique(key, return_inverse=True, return_counts=True)
        badness = _badness()[rows["verdict"]]
        worst = np.zeros(len(keys), np.uint8)
        np.maximum.at(worst, edge_of, badness)
        dropped = np.bincount(edge_of, rows["verdict"] == flow_pb2.DROPPED, len(keys)).astype(int)
        last = np.zeros(len(keys), np.int64)
        np.maximum.at(last, edge_of, rows["ts_ns"])
        cards = list(self._cards)
        edges = tuple(
            Edge(
                source=cards[key >> 48].id,
                target=cards[key >> 24 & 0xFFFFFF].id,
                protocol=L4(key >> 16 & 0xFF).name,
                port=key & 0xFFFF,
                flows=count,
                dropped=bad,
                verdict=flow_pb2.Verdict.Name(BADNESS[rank]),
                last_ts_ns=at,
            )
            for key, count, bad, rank, at in zip(
                keys.tolist(), flows.tolist(), dropped.tolist(), worst.tolist(), last.tolist(), strict=True
            )
        )
        used = sorted({index for key in keys.tolist() for index in (key >> 48, key >> 24 & 0xFFFFFF)})
        return ServiceMap(tuple(cards[index] for index in used), edges)

    def _learn_new_endpoints(self) -> None:
        if self._generation != self.tables.generation:
            self._generation, self._cards = self.tables.generation, {}
            self._card_of = np.zeros(0, np.uint32)
        known = len(self._card_of)
        fresh = [self._cards.setdefault(card, len(self._cards)) for card in self._cards_from(known)]
        self._card_of = np.concatenate([self._card_of, np.array(fresh, np.uint32)])

    def _cards_from(self, known: int) -> Iterator[Card]:
        for encoded in self.tables.endpoints.values[known:]:
            yield card_of(flow_pb2.Endpoint.FromString(encoded or b""))


def card_of(endpoint: flow_pb2.Endpoint) -> Card:
    """The card that an endpoint belongs to.

    Only the node that runs a pod knows its workload; other nodes know its name, whose replica suffix is dropped, so
    that all nodes put the pod on one card.
    """
    if endpoint.pod_name:
        name = endpoint.workloads[0].name if endpoint.workloads else REPLICA_SUFFIX.sub("", endpoint.pod_name)
        return Card(f"{endpoint.namespace}/{name}", name, endpoint.namespace or "default")
    reserved = RESERVED_IDENTITIES.get(endpoint.identity)
    if reserved is not None:
        return Card(f"reserved:{reserved}", reserved, OUTSIDE)
    group = endpoint.namespace or OUTSIDE
    name = next((label.partition("=")[2] for label in endpoint.labels if "cidr:" in label or ":app=" in label), "")
    return Card(f"identity:{endpoint.identity}", name or f"identity {endpoint.identity}", group)


def _badness() -> npt.NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for rank, verdict in enumerate(BADNESS):
        table[verdict] = rank
    return table
