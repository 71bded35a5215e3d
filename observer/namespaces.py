"""Which namespaces were seen lately, longer than the ring remembers.

In:        the ring.
Out:       (cluster, namespace) pairs of the last hour, for GetNamespaces.
Elsewhere: model/ring.py says when table indices change their meaning.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from model.ring import Ring
from proto.flow import flow_pb2

REMEMBERED_NS: Final = 3600 * 10**9
"""Source: API reference 3.4. Expired ones disappear at once here, not up to five minutes later."""
STEP: Final = 4096
"""Rows after which they are looked at, if nobody asks before."""


class Namespaces:
    """Remembers when each namespace was last the source or destination of a flow.

    It follows the ring some rows behind. Per row it only stamps endpoint indices; what namespace an endpoint belongs to
    is looked up when someone asks.
    """

    def __init__(self, ring: Ring, cluster: str = "") -> None:
        """cluster: name of the local cluster; empty for `default`."""
        self._ring = ring
        self._cursor = ring.cursor()
        self._step = min(STEP, ring.capacity)
        self._cluster = cluster
        self._stamps = np.zeros(1024, np.int64)
        self._seen: dict[str, int] = {}
        ring.before_compaction.append(self._fold)

    def keep_up(self) -> None:
        """To be called after each append."""
        if self._ring.head - self._cursor.position >= self._step:
            self.look()

    def look(self) -> None:
        """Look at the rows that came since the last time: they count as seen now. To be called every minute or so."""
        endpoints, now_ns = len(self._ring.tables.endpoints), time.time_ns()
        if len(self._stamps) < endpoints:
            grown = np.zeros(2 * endpoints, np.int64)
            grown[: len(self._stamps)] = self._stamps
            self._stamps = grown
        while len(rows := self._cursor.read(STEP).rows):
            self._stamps[rows["src"]] = now_ns
            self._stamps[rows["dst"]] = now_ns

    def seen(self, now_ns: int | None = None) -> list[tuple[str, str]]:
        """(cluster, namespace) of the last hour, sorted."""
        self._fold()
        oldest = (time.time_ns() if now_ns is None else now_ns) - REMEMBERED_NS
        self._seen = {name: seen_ns for name, seen_ns in self._seen.items() if seen_ns >= oldest}
        return sorted((self._cluster, name) for name in self._seen)

    def _fold(self) -> None:
        """Move what is known by index into what is known by name."""
        self.look()
        for index in np.flatnonzero(self._stamps).tolist():
            value = self._ring.tables.endpoints[index]
            if value:
                namespace = flow_pb2.Endpoint.FromString(value).namespace
                if namespace:
                    self._seen[namespace] = max(self._seen.get(namespace, 0), int(self._stamps[index]))
        self._stamps[:] = 0
