"""Which namespaces were seen lately, longer than the ring remembers.

In:        rows as they are stored.
Out:       (cluster, namespace) pairs of the last hour, for GetNamespaces.
Elsewhere: ring.py says when table indices change their meaning.
"""

from __future__ import annotations

import time
from typing import Final

import numpy as np

from model.row import Rows
from model.tables import Tables
from proto.flow import flow_pb2

REMEMBERED_NS: Final = 3600 * 10**9
"""Source: API reference 3.4. Expired ones disappear at once here, not up to five minutes later."""


class Namespaces:
    """Remembers when each namespace was last the source or destination of a flow.

    Per batch it only stamps endpoint indices; what namespace an endpoint belongs to is looked up when someone asks.
    """

    def __init__(self, tables: Tables, cluster: str = "") -> None:
        """cluster: name of the local cluster; empty for `default`."""
        self._tables = tables
        self._cluster = cluster
        self._stamps = np.zeros(1024, np.int64)
        self._seen: dict[str, int] = {}

    def note(self, rows: Rows, now_ns: int) -> None:
        """The endpoints of `rows` were seen now."""
        if len(self._stamps) < len(self._tables.endpoints):
            grown = np.zeros(2 * len(self._tables.endpoints), np.int64)
            grown[: len(self._stamps)] = self._stamps
            self._stamps = grown
        self._stamps[rows["src"]] = now_ns
        self._stamps[rows["dst"]] = now_ns

    def fold(self) -> None:
        """Move what is known by index into what is known by name. To be called before indices change."""
        for index in np.flatnonzero(self._stamps).tolist():
            value = self._tables.endpoints[index] if index < len(self._tables.endpoints) else None
            if value:
                namespace = flow_pb2.Endpoint.FromString(value).namespace
                if namespace:
                    self._seen[namespace] = max(self._seen.get(namespace, 0), int(self._stamps[index]))
        self._stamps[:] = 0

    def seen(self, now_ns: int | None = None) -> list[tuple[str, str]]:
        """(cluster, namespace) of the last hour, sorted."""
        self.fold()
        oldest = (time.time_ns() if now_ns is None else now_ns) - REMEMBERED_NS
        self._seen = {name: seen_ns for name, seen_ns in self._seen.items() if seen_ns >= oldest}
        return sorted((self._cluster, name) for name in self._seen)
