"""DNS names asked for, by whom, and what was answered.

In:        rows of DNS answers and questions.
Out:       DnsName per name.
Elsewhere: requests.py does the same for HTTP; findings.py looks for storms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from model.flow_parts import split_aux
from model.row import Rows
from proto.flow import flow_pb2
from ui.cards import Cards
from ui.hub import Hub

MOST_NAMES: Final = 5_000
SHOWN: Final = 200
RCODES: Final = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
"""Source: IANA, DNS RCODEs."""


@dataclass(slots=True)
class DnsName:
    """One name."""

    query: str
    questions: int = 0
    rcodes: dict[int, int] = field(default_factory=dict)
    """Answers by rcode."""
    askers: set[str] = field(default_factory=set)
    ips: set[str] = field(default_factory=set)
    slowest_ms: float = 0.0


def names_of(hub: Hub, rows: Rows) -> list[DnsName]:
    """Names in rows of L7, the most asked first. Entries that repeat are read once."""
    tables, found = hub.ring.tables, dict[str, DnsName]()
    ends = np.stack([rows["aux"], rows["src"], rows["dst"]], axis=1)
    entries, counts = np.unique(ends, axis=0, return_counts=True)
    for (aux, src, dst), count in zip(entries.tolist(), counts.tolist(), strict=True):
        l7 = flow_pb2.Flow.FromString(split_aux(tables.aux[aux] or b"")[0]).l7
        if l7.WhichOneof("record") != "dns" or (len(found) >= MOST_NAMES and l7.dns.query not in found):
            continue
        name = found.setdefault(l7.dns.query, DnsName(l7.dns.query))
        if l7.type == flow_pb2.RESPONSE:
            name.rcodes[l7.dns.rcode] = name.rcodes.get(l7.dns.rcode, 0) + count
            name.askers.add(end_name(hub.cards, dst))
            name.ips.update(l7.dns.ips)
            name.slowest_ms = max(name.slowest_ms, l7.latency_ns / 1e6)
        else:
            name.questions += count
            name.askers.add(end_name(hub.cards, src))
    return sorted(found.values(), key=lambda name: -max(name.questions, sum(name.rcodes.values())))


def end_name(cards: Cards, endpoint: int) -> str:
    return cards.all[cards.of_endpoint(endpoint)].name


def dns_message(names: Iterable[DnsName]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "query": name.query.rstrip("."),
            "questions": name.questions,
            "answers": sum(name.rcodes.values()),
            "rcodes": {RCODES.get(code, str(code)): count for code, count in sorted(name.rcodes.items())},
            "askers": sorted(name.askers)[:6],
            "ips": sorted(name.ips)[:4],
            "slowest_ms": round(name.slowest_ms, 2),
        }
        for name in list(names)[:SHOWN]
    ]
