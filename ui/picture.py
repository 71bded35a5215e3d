"""The map as a page draws it: cards, arrows between them, islands around them.

In:        totals of a span (and of another one to compare with), and which islands are open.
Out:       a Picture: dictionaries for JSON by id, which the page is told of as they change.
Elsewhere: rollup.py counts; cards.py names; layouts.py keeps where things are; static/js/map/ draws.

All text comes from the network and is only ever set as text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.row import L4
from ui.cards import Card, Cards
from ui.facts import BINS
from ui.rollup import Count, Totals, percentiles

I64 = npt.NDArray[np.int64]

MOST_PORTS: Final = 4
"""Ports named on a card, and on an arrow."""
MANY_CARDS: Final = 160
"""More than a person can look at; islands of more than FEW_CARDS then start closed."""
FEW_CARDS: Final = 8
IDLE_AFTER_S: Final = 15
LOUD: Final = (Count.DROPPED, Count.ERROR, Count.AUDIT, Count.REDIRECTED)
VERDICTS: Final = {
    Count.DROPPED: "DROPPED",
    Count.ERROR: "ERROR",
    Count.AUDIT: "AUDIT",
    Count.REDIRECTED: "REDIRECTED",
}


@dataclass(frozen=True, slots=True)
class Openness:
    """Which islands a person opened and closed; the rest is decided by size."""

    opened: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()

    def is_closed(self, group: str, cards: int, everything: int) -> bool:
        if group in self.opened:
            return False
        return group in self.closed or (everything > MANY_CARDS and cards > FEW_CARDS)


@dataclass(slots=True)
class Picture:
    """By id, so that changes can be told apart."""

    islands: dict[str, dict[str, Any]] = field(default_factory=dict)
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    edges: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, set[int]] = field(default_factory=dict)
    """Arrows of the rollup behind each edge."""


def draw(totals: Totals, cards: Cards, openness: Openness, span_s: float, now_s: int) -> Picture:
    """The map of one span."""
    picture = Picture()
    if len(totals.keys) == 0:
        return picture
    keys = totals.keys.astype(np.int64)
    ends = keys >> 44, keys >> 24 & 0xFFFFF
    used = np.unique(np.concatenate(ends)).tolist()
    shown = _islands(picture, [cards.all[index] for index in used], openness)
    place = np.zeros(len(cards), np.int64)
    names = sorted(set(shown.values()))
    numbers = {name: number for number, name in enumerate(names)}
    for index in used:
        place[index] = numbers[shown[cards.all[index].id]]
    _cards(picture, cards, used, shown, totals, place[ends[1]], names)
    _edges(picture, totals, place[ends[0]], place[ends[1]], names, span_s, now_s)
    return picture


def compare(now: Picture, before: Picture) -> Picture:
    """`now` with what changed since `before`; arrows that are gone come back as ghosts."""
    for name, edge in now.edges.items():
        old = before.edges.get(name)
        if old is None:
            edge["change"] = "new"
            continue
        edge["before"] = {key: old[key] for key in ("rate", "drop", "bad", "p99")}
        rates = sorted((edge["rate"], old["rate"]))
        edge["change"] = "changed" if rates[1] > 2 * rates[0] or abs(edge["drop"] - old["drop"]) >= 5 else "same"
    for name, old in before.edges.items():
        if name not in now.edges:
            now.edges[name] = {**old, "change": "gone", "rate": 0, "idle": True, "before": {"rate": old["rate"]}}
            now.keys[name] = before.keys[name]
    for name, card in before.cards.items():
        now.cards.setdefault(name, {**card, "change": "gone"})
    for name, island in before.islands.items():
        now.islands.setdefault(name, island)
    return now


def group_name(group: str) -> str:
    return group[3:] if group.startswith("ns/") else group


def _islands(picture: Picture, used: list[Card], openness: Openness) -> dict[str, str]:
    """What each card is shown as: itself, or its closed island."""
    sizes: dict[str, int] = {}
    for card in used:
        sizes[card.group] = sizes.get(card.group, 0) + 1
    closed = {group for group, size in sizes.items() if openness.is_closed(group, size, len(used))}
    for group, size in sorted(sizes.items()):
        kind = "namespace" if group.startswith("ns/") else group
        picture.islands[group] = {
            "id": group,
            "name": group_name(group),
            "kind": kind,
            "cards": size,
            "closed": group in closed,
        }
    return {card.id: f"island:{card.group}" if card.group in closed else card.id for card in used}


def _cards(
    picture: Picture,
    cards: Cards,
    used: list[int],
    shown: dict[str, str],
    totals: Totals,
    target: I64,
    names: list[str],
) -> None:
    ports = _ports_by(target, totals, len(names))
    numbers = {name: number for number, name in enumerate(names)}
    for index in used:
        card = cards.all[index]
        name = shown[card.id]
        if name in picture.cards:
            continue
        served = ports.get(numbers[name], [])
        closed = name != card.id
        picture.cards[name] = {
            "id": name,
            "name": group_name(card.group) if closed else card.name,
            "group": card.group,
            "kind": "island" if closed else card.kind,
            "labels": [] if closed else list(cards.labels[index]),
            "ports": served[:MOST_PORTS],
            "more": max(len(served) - MOST_PORTS, 0),
            "icon": "island" if closed else icon_of(card, cards.labels[index], served),
        }


def _ports_by(group: I64, totals: Totals, groups: int) -> dict[int, list[dict[str, Any]]]:
    """Ports asked for at each target, busiest first: number, protocol, and what is spoken."""
    where = group << 24 | (totals.keys.astype(np.int64) & 0xFFFFFF)
    distinct, line = np.unique(where, return_inverse=True)
    flows = np.bincount(line, totals.counts[:, Count.FLOWS])
    answers = np.bincount(line, totals.counts[:, Count.RESPONSES])
    found: dict[int, list[dict[str, Any]]] = {}
    for at in np.argsort(-flows, kind="stable").tolist():
        key = int(distinct[at])
        if key & 0xFFFF:
            found.setdefault(key >> 24, []).append(port_of(key, bool(answers[at])))
    return found


def port_of(key: int, answered: bool) -> dict[str, Any]:
    port, l4 = key & 0xFFFF, L4(key >> 16 & 0xFF).name
    spoken = ("DNS" if port == 53 else "HTTP") if answered else ""
    return {"port": port, "l4": l4, "l7": spoken}


def _edges(
    picture: Picture, totals: Totals, source: I64, target: I64, names: list[str], span_s: float, now_s: int
) -> None:
    inner = np.array([name.startswith("island:") for name in names], np.bool_)
    kept = (source != target) | ~inner[source]  # what happens inside a closed island is not drawn
    pair = source << 32 | target
    pairs, line = np.unique(pair[kept], return_inverse=True)
    if len(pairs) == 0:
        return
    counts = np.stack([np.bincount(line, column, len(pairs)) for column in totals.counts[kept].T], axis=1).astype(int)
    last = np.zeros(len(pairs), np.int64)
    np.maximum.at(last, line, totals.last_s[kept])
    line_of = np.full(len(kept), -1)
    line_of[kept] = line
    group = line_of[totals.latencies // BINS]
    timed = group >= 0
    p50, p99 = percentiles(group[timed] * BINS + (totals.latencies % BINS)[timed], totals.answers[timed], len(pairs))
    order = np.lexsort((-totals.counts[kept, Count.FLOWS], line))
    starts = np.searchsorted(line[order], np.arange(len(pairs) + 1))
    keys = totals.keys[kept][order].tolist()
    columns = totals.counts[kept][order].tolist()
    for at, (code, sums) in enumerate(zip(pairs.tolist(), counts.tolist(), strict=True)):
        first, stop = starts[at], starts[at + 1]
        ends = names[code >> 32], names[code & 0xFFFFFFFF]
        name = f"{ends[0]}>{ends[1]}"
        picture.keys[name] = set(keys[first:stop])
        picture.edges[name] = {
            "id": name,
            "source": ends[0],
            "target": ends[1],
            "rate": rounded(sums[Count.FLOWS] / span_s),
            "drop": percent(sums[Count.DROPPED] + sums[Count.ERROR], sums[Count.FLOWS]),
            "answers": sums[Count.RESPONSES],
            "bad": percent(sums[Count.BAD_RESPONSES], sums[Count.RESPONSES]),
            "p50": rounded(p50[at]),
            "p99": rounded(p99[at]),
            "verdict": next((VERDICTS[column] for column in LOUD if sums[column]), "FORWARDED"),
            "encrypted": sums[Count.ENCRYPTED] > 0,
            "authenticated": sums[Count.AUTHENTICATED] > 0,
            "idle": now_s - int(last[at]) > IDLE_AFTER_S,
            "ports": [
                {
                    **port_of(key, bool(one[Count.RESPONSES])),
                    "rate": rounded(one[Count.FLOWS] / span_s),
                    "drop": percent(one[Count.DROPPED], one[Count.FLOWS]),
                }
                for key, one in zip(keys[first : first + MOST_PORTS], columns[first : first + MOST_PORTS], strict=False)
                if first < stop
            ][: stop - first],
        }


def rounded(number: float) -> float:
    """Two digits that count: enough for a label, and steady enough not to be sent anew each second."""
    return float(f"{number:.2g}")


def percent(part: int, whole: int) -> float:
    return rounded(100 * part / whole) if whole else 0.0


ICONS: Final = (
    ("dns", ("coredns", "kube-dns", "bind", "unbound")),
    (
        "database",
        ("postgres", "mysql", "maria", "mongo", "redis", "elastic", "cassandra", "etcd", "memcached", "-db", "db-"),
    ),
    ("queue", ("kafka", "rabbit", "nats", "zookeeper", "pulsar", "queue")),
    ("web", ("nginx", "envoy", "ingress", "gateway", "frontend", "web", "traefik", "haproxy", "echo", "http")),
    ("chart", ("prometheus", "grafana", "metrics", "jaeger", "loki", "hubble")),
    ("client", ("client", "curl", "cron", "job", "load", "bot")),
)
PORT_ICONS: Final = {53: "dns", 5432: "database", 3306: "database", 6379: "database", 9092: "queue", 27017: "database"}


def icon_of(card: Card, labels: tuple[str, ...], served: list[dict[str, Any]]) -> str:
    """A drawing for a card: by what it is, what it is called, or what it serves."""
    if card.kind in ("node", "world", "dns"):
        return {"dns": "globe", "world": "globe"}.get(card.kind, card.kind)
    words = " ".join((card.name, *(label.partition("=")[2] for label in labels))).lower()
    for icon, hints in ICONS:
        if any(hint in words for hint in hints):
            return icon
    return next((PORT_ICONS[port["port"]] for port in served if port["port"] in PORT_ICONS), "box")
