"""What all open pages share: the flows kept in memory, the map, the state of the relay.

In:        batches of rows and node states from feed.py.
Out:       cursors for pages (live.py), a map drawn at most once per MAP_EVERY_S however many pages look at it.
Elsewhere: model/ring.py keeps the rows.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import numpy as np

from model.ring import Ring
from model.row import Kind, Rows
from proto.flow import flow_pb2
from ui.graph import Cartographer, ServiceMap

MAP_EVERY_S: Final = 1.0
NS: Final = 1_000_000_000


class Hub:
    """One per process; lives on the event loop."""

    def __init__(self, flows: int, map_window_s: float) -> None:
        self.ring = Ring(flows)
        self.lost_events = 0
        """Events that the relay or a node reported as lost, since the start."""
        self.connected = False
        self.relay_text = "connecting to the relay"
        self.nodes: dict[str, str] = {}
        """State by node name: connected, unavailable, gone, error."""
        self.fresh = asyncio.Condition()
        self._cartographer = Cartographer(self.ring.tables)
        self._window_ns = int(map_window_s * NS)
        self._map = ServiceMap()
        self._drawn_at = -MAP_EVERY_S

    async def add(self, rows: Rows) -> None:
        """Keep rows that point into `ring.tables`, and wake the pages."""
        for index in np.flatnonzero(rows["kind"] == Kind.LOST).tolist():
            event = flow_pb2.LostEvent.FromString(self.ring.tables.aux[int(rows["aux"][index])] or b"")
            self.lost_events += event.num_events_lost
        self.ring.append(rows)
        await self.wake()

    async def set_relay(self, connected: bool, text: str) -> None:
        self.connected, self.relay_text = connected, text
        await self.wake()

    async def set_nodes(self, names: list[str], state: str) -> None:
        self.nodes.update(dict.fromkeys(names, state))
        await self.wake()

    async def wake(self) -> None:
        async with self.fresh:
            self.fresh.notify_all()

    def map(self) -> ServiceMap:
        """The map of the last window; drawn anew when the last drawing is old enough."""
        now = time.monotonic()
        if now - self._drawn_at >= MAP_EVERY_S:
            self._drawn_at = now
            self._map = self._cartographer.draw(self._window(time.time_ns() - self._window_ns))
        return self._map

    @property
    def window_s(self) -> float:
        return self._window_ns / NS

    def _window(self, since_ns: int) -> Rows:
        pieces: list[Rows] = []
        for _, rows in self.ring.backwards(8192, 8192):
            inside = rows["ts_ns"] >= since_ns
            pieces.append(rows[inside])
            if not inside.any():
                break
        return np.concatenate(pieces) if pieces else self.ring.slice(0, 0)
