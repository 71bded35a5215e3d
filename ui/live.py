"""One open page: what it asked for, what it is sent.

The page sends a wish (wish.py) whenever the person changes something and after each reconnect. It receives

  {"type": "hello", "columns": [...]}                                what can be asked for
  {"type": "accepted", "filter": ..., "command": ...}                the wish is being followed
  {"type": "problem", "control": ..., "text": ...}                   a wish that cannot be; the last one stays
  {"type": "flows", "rows": [...], "missed": n, "cursor": ..., "restart": bool}    newest flows that match
  {"type": "map", "islands", "cards", "edges", "gone", "view"}       what changed on the map, about once a second
  {"type": "time", "from", "to", "bins"}                             the time bar
  {"type": "state", "state": "live" | "connecting" | "lost", ...}    when it changes
  {"type": "view", "name": ..., "data": ...}                         the view that is open beside the map

Nothing is queued for a page: each time it is ready it gets what is newest, and `missed` counts what was passed over. So
a slow browser gets the same map less often, and never a growing queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import numpy as np
import orjson

from model.row import Rows
from model.whole_rows import joined, take
from ui.cells import column_messages, records
from ui.cursor import Cursor
from ui.flows import Span, newest
from ui.hub import MAP_EVERY_S, NS, Hub, Seconds
from ui.picture import Picture
from ui.query import Query
from ui.rollup import Count
from ui.views import VIEWS
from ui.wish import BadMessage, LayoutNote, SparkNote, Wish, parse

MOST_ROWS: Final = 200
"""Flows sent at once; a person reads no more. Older ones are fetched as the table is scrolled (api.py)."""
EVERY_S: Final = 0.25
"""Shortest time between two messages of flows."""
VIEW_EVERY_S: Final = 2.0
TIME_BINS: Final = 150
CHUNK: Final = 16_384
SPARK_S: Final = 60

SendText = Callable[[str], Awaitable[None]]


class Page:
    """Sends one page what it wants until it goes away."""

    def __init__(self, hub: Hub, send: SendText) -> None:
        self._hub = hub
        self._send = send
        self._wish = Wish(type="subscribe")
        self._query = Query("")
        self._wished = asyncio.Event()
        self._notes: list[dict[str, Any]] = [{"type": "hello", "columns": column_messages(), "window_s": hub.window_s}]
        self._cursor = Cursor()
        self._position = 0
        self._resumed: Cursor | None = None
        self._restart = True
        self._sent = Picture()
        self._layout: tuple[str, int] = ("", -1)
        self._due = {"map": 0.0, "view": 0.0}

    def message(self, text: str) -> None:
        """Something came from the page; what is wrong with it is answered beside the control that is wrong."""
        try:
            message = parse(text)
            if isinstance(message, LayoutNote):
                self._hub.layouts.put(message.view, message.layout)
            elif isinstance(message, SparkNote):
                self._notes.append(self._spark(message.edge))
            else:
                self._wish_for(message)
        except BadMessage as error:
            self._notes.append({"type": "problem", "control": error.control, "text": str(error)})
        self._wished.set()

    async def run(self) -> None:
        """Push until cancelled or the connection breaks."""
        await self._wished.wait()
        said = b""
        clock = asyncio.get_running_loop().time
        while True:
            self._wished.clear()
            while self._notes:
                await self._tell(self._notes.pop(0))
            if (state := orjson.dumps(self._state())) != said:
                said = state
                await self._send(state.decode())
            await self._send_flows()
            if clock() >= self._due["map"]:
                await self._send_map()
                await self._send_time()
                # A large fleet's map is more to send and to draw, and changes less from second to second.
                self._due["map"] = clock() + MAP_EVERY_S * (1 + len(self._sent.edges) / 1000)
            if clock() >= self._due["view"]:
                self._due["view"] = clock() + VIEW_EVERY_S
                await self._send_view()
            await self._something_new()

    def _wish_for(self, wish: Wish) -> None:
        query = wish.query()
        before = self._wish
        changed = (wish.filter, wish.range, wish.columns) != (before.filter, before.range, before.columns)
        if changed or self._restart or before.paused != wish.paused or wish.cursor is not None:
            self._start_flows(wish, None if changed and not self._restart else Cursor.parse(wish.cursor))
        self._wish, self._query = wish, query
        self._due = {"map": 0.0, "view": 0.0}
        self._notes.append(
            {"type": "accepted", "filter": query.text, "command": query.command(), "paused": wish.paused}
        )

    def _start_flows(self, wish: Wish, cursor: Cursor | None) -> None:
        """Where the table begins: behind the cursor where that is still known, else with the newest."""
        position = cursor.position(self._hub.ring) if cursor is not None and wish.range is None else None
        if position is None:
            same_table = not self._restart and wish.columns == self._wish.columns and wish.filter == self._wish.filter
            if same_table and wish.range == self._wish.range:
                return  # only paused or resumed: goes on where it is
            self._cursor, self._resumed, self._restart = Cursor(), None, True
        else:
            assert cursor is not None
            self._position, self._cursor, self._resumed, self._restart = position, cursor, cursor, False

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._send(orjson.dumps(message).decode())

    async def _something_new(self) -> None:
        try:
            async with asyncio.timeout(EVERY_S):
                await self._wished.wait()
        except TimeoutError:
            pass

    async def _send_flows(self) -> None:
        if self._restart:
            await self._send_first()
            return
        if self._wish.paused or self._wish.range is not None:
            return
        rows, positions, missed = self._unsent()
        if len(rows) or missed:
            await self._tell(self._flows(rows, positions, missed=missed))

    async def _send_first(self) -> None:
        ring = self._hub.ring
        found = newest(ring, self._query, self._span_ns(), MOST_ROWS)
        for _, rows in ring.backwards(CHUNK, CHUNK):
            self._cursor.note(rows, ring.tables)
            break
        self._position = ring.head
        message = self._flows(found.rows, found.positions, restart=True, more=found.more)
        self._restart = False
        await self._tell(message)

    def _flows(self, rows: Rows, positions: Any, **more: object) -> dict[str, Any]:
        found = records(rows, positions.tolist(), self._hub.ring.tables, self._wish.columns)
        return {"type": "flows", "rows": found, "missed": 0, "cursor": self._cursor.message(), "restart": False, **more}

    def _unsent(self) -> tuple[Rows, Any, int]:
        """The newest matching rows not yet sent (a copy), their positions, and how many older matches are left out."""
        ring, tables = self._hub.ring, self._hub.ring.tables
        cursor = ring.cursor(self._position)
        overtaken = cursor.position - self._position
        parts: list[Rows] = []
        places = []
        while True:
            piece = cursor.read(CHUNK)
            if not len(piece.rows):
                break
            hits = self._query.mask(piece.rows, tables)
            if self._resumed is not None:
                hits &= self._resumed.unseen(piece.rows, tables)
            parts.append(take(piece.rows, hits))
            places.append(np.flatnonzero(hits) + piece.start)
            self._cursor.note(piece.rows, tables)
        self._position, self._resumed = cursor.position, None
        if not parts:
            return ring.slice(0, 0).copy(), np.zeros(0, np.int64), overtaken
        rows, positions = joined(parts), np.concatenate(places)
        return rows[-MOST_ROWS:], positions[-MOST_ROWS:], overtaken + max(len(rows) - MOST_ROWS, 0)

    def _span(self) -> Seconds:
        return self._wish.span or self._hub.live_span()

    def _span_ns(self) -> Span:
        span = self._wish.range
        return Span() if span is None else Span(span[0] * 1_000_000, span[1] * 1_000_000)

    async def _send_map(self) -> None:
        picture = self._hub.picture(self._query, self._span(), self._wish.openness, self._wish.base)
        sent, self._sent = self._sent, picture
        closed = ",".join(sorted(name for name, island in picture.islands.items() if island["closed"]))
        view = f"tall:{closed}" if self._wish.tall else closed
        message: dict[str, Any] = {"type": "map", "view": view, "live": self._wish.range is None, "gone": {}}
        for part in ("islands", "cards", "edges"):
            old, new = getattr(sent, part), getattr(picture, part)
            message[part] = [value for name, value in new.items() if old.get(name) != value]
            message["gone"][part] = [name for name in old if name not in new]
        layout = self._hub.layouts.get(view)
        if layout is not None and (view, layout.version) != self._layout:
            self._layout = (view, layout.version)
            message["layout"] = layout.model_dump()
        await self._tell(message)

    async def _send_time(self) -> None:
        rollup = self._hub.rollup(self._query)
        stop = self._hub.now_s()
        start = stop - self._wish.bar_s
        if self._wish.span is not None and not start <= self._wish.span[0] < stop:
            middle = sum(self._wish.span) // 2  # a shared link may point outside what the bar would show
            start, stop = middle - self._wish.bar_s // 2, middle + self._wish.bar_s // 2
        bins = min(TIME_BINS, stop - start)
        step = -(-(stop - start) // bins)
        start = stop // step * step - bins * step + step  # bins keep their limits, so that bars do not flicker
        stop = start + bins * step
        message = {"type": "time", "from": start, "to": stop, "bins": rollup.bands(start, stop, bins)}
        await self._tell({**message, "now": self._hub.now_s(), "reach": rollup.reaches_back_to()})

    async def _send_view(self) -> None:
        data = VIEWS[self._wish.view](self._hub, self._query, self._span())
        if data is not None:
            await self._tell({"type": "view", "name": self._wish.view, "data": data})

    def _spark(self, edge: str) -> dict[str, Any]:
        keys = self._sent.keys.get(edge, set())
        stop = self._span()[1]
        rollup = self._hub.rollup(self._query)
        flows, dropped = (rollup.series(keys, stop - SPARK_S, stop, column) for column in (Count.FLOWS, Count.DROPPED))
        return {"type": "spark", "edge": edge, "flows": flows, "dropped": dropped}

    def _state(self) -> dict[str, Any]:
        hub = self._hub
        up = sum(node.state == "connected" for node in hub.nodes.values())
        text = f"live, {up} of {len(hub.nodes)} nodes" if hub.connected else hub.relay_text
        return {
            "type": "state",
            "state": "live" if hub.connected else "connecting",
            "text": text,
            "lost": hub.lost_events,
            "newest": max((node.newest_ns for node in hub.nodes.values()), default=0) // (NS // 1000),
        }
