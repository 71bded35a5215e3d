"""One open page: what it asked for, what it is sent.

The page sends {"type": "subscribe", "verdicts": [...], "paused": bool, "cursor": n or null} whenever the person
changes something and after each reconnect. It receives

  {"type": "flows", "rows": [...], "missed": n, "cursor": n, "restart": bool}   newest flows that match
  {"type": "map", "cards": [...], "edges": [...]}                               about once a second
  {"type": "state", "state": "live" | "connecting" | "lost", "text": ...}       when it changes

Nothing is queued for a page: each time it is ready it gets what is newest, and `missed` counts what was passed over.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from model.filters import FlowPredicate, compile_filters
from model.row import Rows
from proto.flow import flow_pb2
from ui.graph import BADNESS, Edge, ServiceMap
from ui.hub import MAP_EVERY_S, NS, Hub
from ui.records import records

MOST_ROWS: Final = 200
"""Flows sent at once; a person reads no more."""
LOOK_BACK: Final = 20_000
"""Flows looked through for the first rows of a page."""
EVERY_S: Final = 0.2
"""Shortest time between two messages of flows."""
IDLE_AFTER_S: Final = 10.0

SendJson = Callable[[str], Awaitable[None]]


class BadMessage(ValueError):
    """A page sent something else than the protocol says."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a page wants to see."""

    verdicts: tuple[str, ...] = ()
    """Names of flow.Verdict; none means all."""
    paused: bool = False
    cursor: int | None = None

    @classmethod
    def parse(cls, text: str) -> Wish:
        """Raises: BadMessage."""
        try:
            message = json.loads(text)
            verdicts = tuple(str(word) for word in message.get("verdicts", []))
            for word in verdicts:
                flow_pb2.Verdict.Value(word)
            cursor = message.get("cursor")
            if message["type"] != "subscribe" or not (cursor is None or (isinstance(cursor, int) and cursor >= 0)):
                raise ValueError("not a subscription")
            return cls(verdicts, bool(message.get("paused", False)), cursor)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadMessage(f"expected a subscribe message: {error}") from error

    def predicate(self) -> FlowPredicate:
        filters = [flow_pb2.FlowFilter(verdict=self.verdicts)] if self.verdicts else []
        return compile_filters(filters, [])


class Page:
    """Sends one page what it wants until it goes away."""

    def __init__(self, hub: Hub, send: SendJson) -> None:
        self._hub = hub
        self._send = send
        self._wish = Wish()
        self._wished = asyncio.Event()
        self._predicate = self._wish.predicate()
        self._position = 0
        self._restart = True

    def wish(self, wish: Wish) -> None:
        """The person chose something else, or the page came back."""
        changed = wish.verdicts != self._wish.verdicts
        if changed or self._restart:
            head = self._hub.ring.head
            resumes = wish.cursor is not None and not changed and wish.cursor <= head
            self._position = wish.cursor if resumes and wish.cursor is not None else max(head - LOOK_BACK, 0)
            self._restart = not resumes
        self._wish, self._predicate = wish, wish.predicate()
        self._wished.set()

    async def run(self) -> None:
        """Push until cancelled or the connection breaks."""
        await self._wished.wait()
        said = ""
        drawn_at = -MAP_EVERY_S
        clock = asyncio.get_running_loop().time
        while True:
            if (state := self._state()) != said:
                said = state
                await self._send(state)
            if not self._wish.paused:
                await self._send_flows()
            if clock() - drawn_at >= MAP_EVERY_S:
                drawn_at = clock()
                await self._send(json.dumps(map_message(self._hub.map(), self._hub.window_s)))
            await asyncio.sleep(EVERY_S)
            await self._something_new()

    async def _something_new(self) -> None:
        async with self._hub.fresh:
            if self._hub.ring.head > self._position and not self._wish.paused:
                return
            try:
                # The map fades while nothing happens, so an idle page is refreshed too.
                await asyncio.wait_for(self._hub.fresh.wait(), MAP_EVERY_S)
            except TimeoutError:
                return

    async def _send_flows(self) -> None:
        rows, missed = self._newest_matches()
        if len(rows) == 0 and missed == 0 and not self._restart:
            return
        message = {
            "type": "flows",
            "rows": records(rows, self._hub.ring.tables),
            "missed": 0 if self._restart else missed,
            "cursor": self._position,
            "restart": self._restart,
        }
        self._restart = False
        await self._send(json.dumps(message))

    def _newest_matches(self) -> tuple[Rows, int]:
        """The newest matching rows not yet sent (a copy), and how many older matches are passed over."""
        ring = self._hub.ring
        cursor = ring.cursor(self._position)
        missed = cursor.position - self._position
        matches: list[Rows] = []
        while len(piece := cursor.read(8192).rows):
            matches.append(piece[self._predicate.mask(piece, ring.tables)])
        self._position = cursor.position
        total = sum(map(len, matches))
        kept: list[Rows] = []
        wanted = MOST_ROWS
        for rows in reversed(matches):
            kept.insert(0, rows[-wanted:] if wanted else rows[:0])
            wanted -= len(kept[0])
        shown = ring.slice(0, 0).copy() if not kept else np.concatenate(kept)
        return shown, missed + total - len(shown)

    def _state(self) -> str:
        hub = self._hub
        up = sum(state == "connected" for state in hub.nodes.values())
        live = f"live, {up} of {len(hub.nodes)} nodes" if hub.nodes else "live"
        text = live if hub.connected else hub.relay_text
        if hub.lost_events:
            text += f", {hub.lost_events:,} events lost"
        return json.dumps({"type": "state", "state": "live" if hub.connected else "connecting", "text": text})


def map_message(drawn: ServiceMap, window_s: float) -> dict[str, Any]:
    """The map as the page draws it: one arrow per pair of cards, its label naming the busiest port."""
    now_ns = time.time_ns()
    ports: dict[str, list[str]] = {}
    pairs: dict[tuple[str, str], list[Edge]] = {}
    for edge in sorted(drawn.edges, key=lambda edge: -edge.flows):
        pairs.setdefault((edge.source, edge.target), []).append(edge)
        name = port_name(edge)
        if name and name not in ports.setdefault(edge.target, []):
            ports[edge.target].append(name)
    cards = [
        {**asdict(card), "ports": ports.get(card.id, [])[:4], "title": f"{card.group}/{card.name}"}
        for card in drawn.cards
    ]
    return {
        "type": "map",
        "cards": sorted(cards, key=lambda card: str(card["id"])),
        "edges": [pair_message(pair, window_s, now_ns) for _, pair in sorted(pairs.items())],
    }


def pair_message(edges: list[Edge], window_s: float, now_ns: int) -> dict[str, Any]:
    flows = sum(edge.flows for edge in edges)
    dropped = sum(edge.dropped for edge in edges)
    rate = flows / window_s
    label = f"{port_name(edges[0]) or edges[0].protocol}  {rate:.1f}/s"
    if dropped:
        label += f"  {100 * dropped / flows:.0f}% dropped"
    worst = max(edges, key=lambda edge: BADNESS.index(flow_pb2.Verdict.Value(edge.verdict)))
    lines = [f"{port_name(edge) or edge.protocol}: {edge.flows} flows, {edge.dropped} dropped" for edge in edges]
    return {
        "id": f"{edges[0].source}>{edges[0].target}",
        "source": edges[0].source,
        "target": edges[0].target,
        "verdict": worst.verdict,
        "per_second": round(rate, 3),
        "label": label,
        "title": "\n".join(lines),
        "idle": now_ns - max(edge.last_ts_ns for edge in edges) > IDLE_AFTER_S * NS,
    }


def port_name(edge: Edge) -> str:
    return f"{edge.port}/{edge.protocol}" if edge.port else ""
