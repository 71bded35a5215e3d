"""Rows as the page's table shows them: words, worked out as for the command line.

In:        a few rows (what a person can read at once) and their tables.
Out:       JSON-ready dictionaries, oldest first; all values are text that the page must only set as text.
Elsewhere: model/text has the words.
"""

from __future__ import annotations

from typing import Any, Final

from model.encode import Encoder
from model.row import Kind, Rows
from model.tables import Tables
from model.text.parts import FlowStyle, enum_name, parts_of
from proto.flow import flow_pb2

HOW: Final = FlowStyle()


def records(rows: Rows, tables: Tables) -> list[dict[str, Any]]:
    """One record per row."""
    flows = iter(Encoder(tables).flows(rows[rows["kind"] == Kind.FLOW]))
    return [
        _gap(tables.aux[aux] or b"") if kind == Kind.LOST else _flow(next(flows))
        for kind, aux in zip(rows["kind"].tolist(), rows["aux"].tolist(), strict=True)
    ]


def _flow(flow: flow_pb2.Flow) -> dict[str, Any]:
    parts = parts_of(flow, HOW)
    return {
        "time": flow.time.ToJsonString()[11:23].rstrip("Z"),
        "node": flow.node_name,
        "source": parts.source,
        "destination": parts.destination,
        "type": parts.type,
        "verdict": enum_name(flow_pb2.Verdict, flow.verdict),
        "summary": parts.summary,
    }


def _gap(encoded: bytes) -> dict[str, Any]:
    event = flow_pb2.LostEvent.FromString(encoded)
    where = enum_name(flow_pb2.LostEventSource, event.source).replace("_", " ").lower()
    return {"lost": True, "text": f"{event.num_events_lost:,} events lost here ({where})"}
