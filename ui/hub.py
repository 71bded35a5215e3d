"""What all open pages share: the flows kept in memory, their counts, the layouts, the state of the relay.

In:        batches of rows and node states from feed.py.
Out:       the ring, a Rollup per filter in use, pictures drawn at most once a second however many pages look at them.
Elsewhere: live.py and api.py ask; rollup.py counts; picture.py draws.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from model.ring import Ring
from model.row import Kind, Rows
from model.tables import Tables
from proto.flow import flow_pb2
from ui.cards import Cards
from ui.cost import Costs
from ui.facts import L7Facts
from ui.layouts import Layouts
from ui.picture import Openness, Picture, compare, draw
from ui.query import Query, parse_query
from ui.rollup import NS, Rollup

MAP_EVERY_S: Final = 1.0
MOST_ROLLUPS: Final = 12
MOST_PICTURES: Final = 24
UNUSED_S: Final = 60.0
"""How long a filter that no page uses any more is counted for one that may come back."""
MOST_QUERIES: Final = 64
EVERYTHING: Final = Query("")

Seconds = tuple[int, int]
"""A span: from the first, up to but not including the second."""


@dataclass(slots=True)
class NodeFacts:
    """What is known about one node."""

    state: str
    flows: int = 0
    lost: int = 0
    newest_ns: int = 0


@dataclass(slots=True)
class Counted:
    """A filter in use and its counts."""

    query: Query
    rollup: Rollup
    used_at: float = field(default_factory=time.monotonic)


class Hub:
    """One per process; lives on the event loop."""

    def __init__(self, flows: int, map_window_s: float = 60.0, layouts: Layouts | None = None) -> None:
        # Rows of many nodes: each keeps its node's own number, which is part of its UUID.
        self.ring = Ring(flows, Tables(), numbers_rows=False)
        self.cards = Cards(self.ring.tables)
        self.facts = L7Facts(self.ring.tables)
        self.layouts = layouts if layouts is not None else Layouts()
        self.window_s = map_window_s
        self.lost_events = 0
        """Events that the relay or a node reported as lost, since the start."""
        self.connected = False
        self.relay_text = "connecting to the relay"
        self.nodes: dict[str, NodeFacts] = {}
        self.costs = Costs()
        self.fresh = asyncio.Condition()
        self.started_at = time.time()
        self._counted: OrderedDict[str, Counted] = OrderedDict()
        self._pictures: OrderedDict[object, tuple[float, Picture]] = OrderedDict()
        self._queries: dict[str, Query] = {}
        self._uncounted = 0
        self.rollup()  # all flows are counted from the start, so that the first page has a past to look at

    async def add(self, rows: Rows) -> None:
        """Keep rows that point into `ring.tables`, and wake the pages."""
        self._count_nodes(rows)
        self.ring.append(rows)
        self._uncounted += len(rows)
        if self._uncounted > self.ring.capacity // 4:  # before the ring overtakes the counts
            self.catch_up()
        await self.wake()

    async def set_relay(self, connected: bool, text: str) -> None:
        self.connected, self.relay_text = connected, text
        await self.wake()

    async def set_nodes(self, names: list[str], state: str) -> None:
        for name in names:
            self.nodes.setdefault(name, NodeFacts(state)).state = state
        await self.wake()

    async def wake(self) -> None:
        async with self.fresh:
            self.fresh.notify_all()

    def catch_up(self) -> None:
        """Count what came in, for every filter in use."""
        self._uncounted = 0
        late = time.monotonic() - UNUSED_S
        for text, counted in list(self._counted.items()):
            if text and counted.used_at < late:
                del self._counted[text]
            else:
                counted.rollup.catch_up()

    def rollup(self, query: Query = EVERYTHING) -> Rollup:
        """The counts of a filter, up to date."""
        counted = self._counted.get(query.text)
        if counted is None:
            # A predicate remembers answers by table index, so a rollup gets one of its own.
            own = parse_query(query.text)
            counted = Counted(own, Rollup(self.ring, self.cards, self.facts, own))
            self._counted[query.text] = counted
        counted.used_at = time.monotonic()
        counted.rollup.catch_up()
        self._counted.move_to_end(query.text)
        while len(self._counted) > MOST_ROLLUPS:
            oldest = next(text for text in self._counted if text)
            del self._counted[oldest]
        return counted.rollup

    def query(self, text: str) -> Query:
        """A filter, read once and kept: its predicates remember answers. Raises: BadQuery."""
        found = self._queries.pop(text, None) or parse_query(text)
        self._queries[text] = found
        while len(self._queries) > MOST_QUERIES:
            del self._queries[next(iter(self._queries))]
        return found

    def now_s(self) -> int:
        """The second that has begun; spans of the present end behind it."""
        return int(time.time()) + 1

    def live_span(self, window_s: float | None = None) -> Seconds:
        now = self.now_s()
        return now - max(1, round(window_s or self.window_s)), now

    def picture(self, query: Query, span: Seconds, openness: Openness, base: Seconds | None = None) -> Picture:
        """The map; drawn anew when the last drawing of the same is old enough. The caller may change its top level."""
        key = (query.text, span, openness, base)
        now = time.monotonic()
        drawn = self._pictures.get(key)
        if drawn is None or now - drawn[0] >= MAP_EVERY_S:
            rollup = self.rollup(query)
            picture = self._draw(rollup, span, openness)
            if base is not None:
                compare(picture, self._draw(rollup, base, openness))
            drawn = self._pictures[key] = (now, picture)
            while len(self._pictures) > MOST_PICTURES:
                self._pictures.popitem(last=False)
        return drawn[1]

    def _draw(self, rollup: Rollup, span: Seconds, openness: Openness) -> Picture:
        totals = rollup.totals(*span)
        return draw(totals, self.cards, openness, max(span[1] - span[0], 1), min(span[1], self.now_s()))

    def _count_nodes(self, rows: Rows) -> None:
        counts = np.bincount(rows["node"][rows["kind"] == Kind.FLOW])
        newest = int(rows["ts_ns"].max(initial=0))
        for index, count in zip(np.flatnonzero(counts).tolist(), counts[counts > 0].tolist(), strict=True):
            node = self.ring.tables.nodes[index]
            if node is not None:
                facts = self.nodes.setdefault(node.name, NodeFacts("connected"))
                facts.flows += count
                facts.newest_ns = max(facts.newest_ns, newest)
        for index in np.flatnonzero(rows["kind"] == Kind.LOST).tolist():
            event = flow_pb2.LostEvent.FromString(self.ring.tables.aux[int(rows["aux"][index])] or b"")
            self.lost_events += event.num_events_lost
            node = self.ring.tables.nodes[int(rows["node"][index])]
            if node is not None:
                self.nodes.setdefault(node.name, NodeFacts("connected")).lost += event.num_events_lost


__all__ = ["EVERYTHING", "MAP_EVERY_S", "NS", "Hub", "NodeFacts", "Seconds"]
