"""The story of one flow: its fields, the life of its connection, and for a drop the reason.

In:        the hub and a flow's UUID.
Out:       JSON-ready data for the page's panel, or None when the flow is no longer held.
Elsewhere: connection.py tells the connection's life; why.py explains drops; cells.py words single rows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from google.protobuf.json_format import MessageToDict

from model.encode import Encoder
from model.flow_id import uuid_mask
from model.ring import Ring
from model.row import Rows
from model.text.parts import FlowStyle, enum_name, parts_of
from proto.flow import flow_pb2
from ui.connection import connection
from ui.hub import Hub
from ui.why import why

CHUNK: Final = 16_384
NS_PER_MS: Final = 1_000_000


def story_of(hub: Hub, uuid: str) -> dict[str, Any] | None:
    """Everything the panel shows."""
    row = find(hub.ring, uuid)
    if row is None:
        return None
    flow = Encoder(hub.ring.tables).flows(row)[0]
    parts = parts_of(flow, FlowStyle())
    return {
        "id": uuid,
        "title": {"source": parts.source, "destination": parts.destination, "type": parts.type},
        "verdict": enum_name(flow_pb2.Verdict, flow.verdict),
        "summary": parts.summary,
        "time": flow.time.ToJsonString(),
        "ms": int(row["ts_ns"][0]) // NS_PER_MS,
        "json": MessageToDict(flow, preserving_proto_field_name=True),
        "connection": connection(hub.ring, row),
        "why": why(hub, row, flow),
    }


def find(ring: Ring, uuid: str) -> Rows | None:
    """The row of this name, as an array of one (a copy)."""
    for _, rows in ring.backwards(CHUNK, CHUNK):
        hits = np.flatnonzero(uuid_mask(rows, ring.tables, [uuid]))
        if len(hits):
            return rows[hits[-1:]].copy()
    return None
