"""Where a page stopped, in words that every replica understands.

In:        rows that were looked at, in the order of the stream.
Out:       a cursor for JSON: a time, and per node the number of its newest event.
Elsewhere: live.py sends it with each message of flows and gets it back after a reconnect.

A position in this process's ring means nothing to another one. But a node numbers its events, and its events come in
order, so "newer than number n of node a, than number m of node b" means the same everywhere.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.ring import Ring
from model.row import Bit, Rows
from model.tables import Node, Tables

Bools = npt.NDArray[np.bool_]

SLACK_NS: Final = 5_000_000_000
"""How far behind the newest time events of other nodes may have come: more than the relay waits for a node."""
MOST_NODES: Final = 10_000


class Cursor:
    """The newest event of each node that a page was told of."""

    def __init__(self) -> None:
        self.newest_ns = 0
        self._seqs: dict[str, int] = {}

    def note(self, rows: Rows, tables: Tables) -> None:
        """These rows have been dealt with."""
        if len(rows) == 0:
            return
        self.newest_ns = max(self.newest_ns, int(rows["ts_ns"].max()))
        own = rows[(rows["bits"] & Bit.FOREIGN) == 0]
        newest = np.zeros(len(tables.nodes), np.uint64)
        np.maximum.at(newest, own["node"], own["seq"])
        for index in np.flatnonzero(newest).tolist():
            if (node := tables.nodes[index]) is not None:
                self._seqs[name_of(node)] = int(newest[index])

    def message(self) -> dict[str, Any]:
        return {"t": str(self.newest_ns), "seq": self._seqs}

    @classmethod
    def parse(cls, message: dict[str, Any] | None) -> Cursor | None:
        """None for anything that is no cursor: the page then begins anew, which is always right."""
        if message is None:
            return None
        cursor = cls()
        try:
            cursor.newest_ns = int(message["t"])
            seqs = message["seq"]
            cursor._seqs = {str(name): int(seq) for name, seq in list(seqs.items())[:MOST_NODES]}
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return cursor if 0 < cursor.newest_ns < 2**63 else None

    def unseen(self, rows: Rows, tables: Tables) -> Bools:
        """Which rows came behind the cursor."""
        seqs = np.array([self._seqs.get(name_of(node), -1) if node else -1 for node in tables.nodes.values], np.float64)
        of_node = seqs[rows["node"]]
        foreign = (rows["bits"] & Bit.FOREIGN) != 0
        by_time = rows["ts_ns"] > self.newest_ns
        unseen: Bools = np.where(foreign | (of_node < 0), by_time, rows["seq"].astype(np.float64) > of_node)
        return unseen

    def position(self, ring: Ring) -> int | None:
        """Where in a ring to look for the first unseen row; None when the ring begins behind the cursor."""
        since_ns = self.newest_ns - SLACK_NS
        found: int | None = None
        for start, rows in ring.backwards(16_384, 16_384):
            inside = rows["ts_ns"] >= since_ns
            if inside.any():
                found = start + int(inside.argmax())
            if not inside.all():
                return ring.head if found is None else found
        return None if ring.head > ring.capacity else (ring.tail if found is None else found)


def name_of(node: Node) -> str:
    """Numbers start anew with each boot."""
    return f"{node.name}#{node.boot:x}"
