"""What looks wrong: patterns that a person should know of, each with the filter that shows its flows.

In:        totals of a span, the cards, and DNS answers.
Out:       findings for JSON, the worst first.
Elsewhere: why.py explains a single drop; picture.py draws all arrows, good or bad.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from model.row import L4
from model.vocabulary import DROP_REASONS
from proto.flow import flow_pb2
from ui.cards import Card, Cards
from ui.dns import DnsName
from ui.rollup import Count, Totals
from ui.suggest import quoted

FEW: Final = 3
"""Fewer of anything is chance."""
STORM: Final = 20
"""NXDOMAIN answers to one name, or share of them, that are no typing errors."""
MOST: Final = 40
NO_BACKEND: Final = 158
NXDOMAIN: Final = 3


def findings(
    totals: Totals, cards: Cards, reasons: dict[int, dict[int, int]], names: list[DnsName]
) -> list[dict[str, Any]]:
    """`reasons`: drop reason to count, by arrow key."""
    found = [*_of_arrows(totals, cards, reasons), *_of_names(names)]
    found.sort(key=lambda one: (one["severity"] != "bad", -one["count"]))
    return found[:MOST]


def _of_arrows(totals: Totals, cards: Cards, reasons: dict[int, dict[int, int]]) -> Iterator[dict[str, Any]]:
    counts = totals.counts
    odd = (counts[:, Count.SYN] >= FEW) & (counts[:, Count.REPLIES] == 0) & (counts[:, Count.DROPPED] == 0)
    odd |= (counts[:, Count.DROPPED] > 0) | (counts[:, Count.RESETS] >= FEW) | (counts[:, Count.BAD_RESPONSES] >= FEW)
    for line in np.flatnonzero(odd).tolist():
        key = int(totals.keys[line])
        source, target = cards.all[key >> 44], cards.all[key >> 24 & 0xFFFFF]
        where, pair = _where(key, target), _filter(source, target, key)
        sums = {count: int(counts[line, count]) for count in Count}
        for reason, number in sorted(reasons.get(key, {}).items(), key=lambda one: -one[1]):
            words = DROP_REASONS.get(reason, "reason not given")
            title = "Service without backend" if reason == NO_BACKEND else f"Dropped: {words}"
            name = flow_pb2.DropReason.DESCRIPTOR.values_by_number.get(reason)
            narrowed = f"{pair} --verdict DROPPED" + (f" --drop-reason-desc {name.name}" if name and reason else "")
            yield _finding("bad", title, f"{source.name} to {where}", number, narrowed)
        if sums[Count.SYN] >= FEW and not sums[Count.REPLIES] and not sums[Count.DROPPED]:
            yield _finding(
                "bad", "SYN without answer", f"{source.name} to {where}", sums[Count.SYN], f"{pair} --tcp-flags SYN"
            )
        if sums[Count.RESETS] >= FEW:
            yield _finding(
                "warn",
                "Connections refused or reset",
                f"{source.name} to {where}",
                sums[Count.RESETS],
                f"{_back(source, target, key)} --tcp-flags RST",
            )
        if sums[Count.BAD_RESPONSES] >= FEW and key & 0xFFFF != 53:
            text = f"{sums[Count.BAD_RESPONSES]} of {sums[Count.RESPONSES]} answers of {where} to {source.name}"
            yield _finding(
                "warn",
                "Requests fail",
                text,
                sums[Count.BAD_RESPONSES],
                f"{_back(source, target, key)} --http-status 5+",
            )


def _of_names(names: list[DnsName]) -> Iterator[dict[str, Any]]:
    for name in names:
        missing = name.rcodes.get(NXDOMAIN, 0)
        if missing >= STORM and missing * 2 > sum(name.rcodes.values()):
            asked = ", ".join(sorted(name.askers)[:3]) or "someone"
            text = f"{asked} asks for {name.query}, which does not exist"
            yield _finding("warn", "NXDOMAIN storm", text, missing, "--protocol dns")


def _finding(severity: str, title: str, text: str, count: int, narrowed: str) -> dict[str, Any]:
    return {"severity": severity, "title": title, "text": text, "count": count, "filter": narrowed.strip()}


def _where(key: int, target: Card) -> str:
    port = key & 0xFFFF
    return f"{target.name}:{port}" if port else f"{target.name} ({L4(key >> 16 & 0xFF).name})"


def _filter(source: Card, target: Card, key: int) -> str:
    port = key & 0xFFFF
    ends = [card_filter(source, "from"), card_filter(target, "to"), f"--to-port {port}" if port else ""]
    return " ".join(one for one in ends if one)


def _back(source: Card, target: Card, key: int) -> str:
    port = key & 0xFFFF
    ends = [card_filter(target, "from"), card_filter(source, "to"), f"--from-port {port}" if port else ""]
    return " ".join(one for one in ends if one)


def card_filter(card: Card, side: str) -> str:
    """Words that pick the flows of a card; empty where the language has none."""
    if card.id.startswith("reserved:"):
        return f"--{side}-identity {card.name}"
    if card.id.startswith("identity:"):
        return f"--{side}-identity {card.id.partition(':')[2]}"
    if card.kind == "dns":
        return f"--{side}-fqdn {quoted(card.name)}"
    if card.kind == "node":
        # Its own observer calls it host, others call it remote-node.
        return f"--{side}-identity host --{side}-identity remote-node"
    return f"--{side}-pod {quoted(card.id)}" if card.group.startswith("ns/") else ""
