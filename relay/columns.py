"""The stream of flows as columns: rows of all nodes over one set of tables.

In:        Arrow batches of our own nodes; messages of nodes that only speak Hubble's protocol.
Out:       rows for the merge, and Arrow batches of merged rows, so that a client gets one dictionary, not one per node.
Elsewhere: forms.py says what a form is, and holds that of messages; model/columns.py makes and reads the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from model import whole_rows
from model.columns import from_arrow_ipc, to_arrow_ipc
from model.ingest import rows_from_wire
from model.row import ROW, Bit
from model.tables import Tables
from proto.flowscope import columns_pb2
from proto.relay import relay_pb2
from relay.forms import COLUMNS_PATH, HUBBLE_PATH, REMEMBERED_ITEMS, Items, Reading
from relay.wire import items_of, progress_of
from rpc.client import Batch
from rpc.framing import frame

TABLES_KEPT: Final = 100_000
"""Interned values before those that nothing points at any more are dropped."""


class ColumnsForm:
    """Rows of one set of tables."""

    dtype = ROW
    path = COLUMNS_PATH
    send_items = 8192

    def __init__(self) -> None:
        self._tables = Tables()
        self._tidy_at = TABLES_KEPT

    def fallback(self, path: str) -> str:
        return HUBBLE_PATH if path == COLUMNS_PATH else ""

    def read(self, batches: Sequence[tuple[str, Batch]]) -> Reading:
        parts: list[Items] = []
        counts: list[int] = []
        complete_ns: list[int] = []
        broken: dict[int, str] = {}
        for index, (path, batch) in enumerate(batches):
            rows, complete = np.zeros(0, ROW), 0
            try:
                rows, complete = self._columns(batch) if path == COLUMNS_PATH else self._messages(batch)
            except (ValueError, DecodeError) as error:
                broken[index] = str(error)
            parts.append(rows)
            counts.append(len(rows))
            complete_ns.append(complete)
        return Reading(whole_rows.joined(parts), counts, complete_ns, broken)

    def _columns(self, batch: Batch) -> tuple[Items, int]:
        """Raises: ValueError, DecodeError."""
        parts: list[Items] = []
        complete_ns = 0
        for body in batch.bodies():
            response = columns_pb2.ColumnsResponse.FromString(body)
            if response.HasField("batch"):
                parts.append(from_arrow_ipc(response.batch, self._tables))
            elif response.HasField("time") and not response.HasField("node_status"):
                complete_ns = max(complete_ns, response.time.ToNanoseconds())
        return whole_rows.joined(parts or [np.zeros(0, ROW)]), complete_ns

    def _messages(self, batch: Batch) -> tuple[Items, int]:
        """Raises: ValueError."""
        items = items_of(batch.buffer, batch.ends, 0)
        progress = progress_of(batch.buffer, items)
        bodies = batch.bodies()
        flows = [bodies[index] for index in np.flatnonzero(~progress).tolist()]
        return rows_from_wire(flows, self._tables), int(items["ts_ns"][progress].max(initial=0))

    def identities(self, items: Items) -> Sequence[Hashable]:
        # Indices into our own tables: equal rows have equal bytes.
        return [row.tobytes() for row in items]

    def memory(self, batch: Batch, items: Items) -> Items:
        return items[-REMEMBERED_ITEMS:].copy()

    def remembered(self, memories: Sequence[Any], since_ns: int) -> set[Hashable]:
        return {one for rows in memories for one in self.identities(rows[rows["ts_ns"] >= since_ns])}

    def mark_late(self, items: Items, late: int) -> Items:
        items = items.copy()
        items["bits"][:late] = np.bitwise_or(items["bits"][:late], Bit.LATE)
        return items

    def encode(self, items: Items) -> bytes:
        return frame(columns_pb2.ColumnsResponse(batch=to_arrow_ipc(items, self._tables)))

    def drop(self, items: Items) -> None:
        return

    def tidy(self, live: Callable[[], list[Items]]) -> None:
        if self._tables.size() < self._tidy_at:
            return
        self._tables.compact(live())
        self._tidy_at = max(TABLES_KEPT, 2 * self._tables.size())

    def status(self, event: relay_pb2.NodeStatusEvent, node_name: str, time_ns: int) -> bytes:
        response = columns_pb2.ColumnsResponse(node_status=event, node_name=node_name)
        response.time.FromNanoseconds(time_ns)
        return frame(response)
