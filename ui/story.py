"""The story of one flow: its fields, the life of its connection, and for a drop the reason.

In:        the hub and a flow's UUID.
Out:       JSON-ready data for the page's panel, or None when the flow is no longer held.
Elsewhere: why.py explains drops; cells.py words single rows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.json_format import MessageToDict

from model.encode import Encoder
from model.flow_id import uuid_mask
from model.ring import Ring
from model.row import L4, Kind, Rows, TcpFlag, empty_rows
from model.text.parts import FlowStyle, enum_name, parts_of
from model.whole_rows import joined, take
from proto.flow import flow_pb2
from ui.hub import Hub
from ui.why import why

Bools = npt.NDArray[np.bool_]

CHUNK: Final = 16_384
MOST_EVENTS: Final = 400
NEAR_NS: Final = 600 * 1_000_000_000
"""Ports are used again; what happened ten minutes away is another connection."""
PAUSE_NS: Final = 5_000_000_000
"""Silence before a SYN that opens another connection; the first repetitions of a lost SYN come sooner."""
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


def connection(ring: Ring, row: Rows) -> dict[str, Any]:
    """What else was seen of the flow's connection, on all nodes, oldest first.

    The end that opened it keeps its address and port through service translation and proxies, so all rows that have
    this end on one side belong together.
    """
    parts: list[Rows] = []
    for _, rows in ring.backwards(CHUNK, CHUNK):
        near = np.abs(rows["ts_ns"] - row["ts_ns"][0]) < NEAR_NS
        parts.insert(0, take(rows, near & (rows["kind"] == Kind.FLOW) & _same_connection(rows, row)))
    found = joined([empty_rows(0), *parts])
    found = _one_life(found[np.argsort(found["ts_ns"], kind="stable")], int(row["ts_ns"][0]))
    at = int(np.searchsorted(found["ts_ns"], row["ts_ns"][0]))
    first = max(min(at - MOST_EVENTS // 2, len(found) - MOST_EVENTS), 0)
    shown = found[first : first + MOST_EVENTS]
    opener = _opener(row)
    begin = int(shown["ts_ns"][0]) if len(shown) else 0
    events = []
    for one, flow in zip(shown, Encoder(ring.tables).flows(shown), strict=True):
        words = parts_of(flow, FlowStyle())
        events.append(
            {
                "id": flow.uuid,
                "ms": round((int(one["ts_ns"]) - begin) / NS_PER_MS, 3),
                "node": flow.node_name,
                "type": words.type,
                "verdict": enum_name(flow_pb2.Verdict, flow.verdict),
                "summary": words.summary,
                "source": words.source,
                "destination": words.destination,
                "forth": _end(one, "src", "sport") == opener,
                "nat": flow.IP.source_xlated,
                "proxy": int(flow.proxy_port),
            }
        )
    return {"events": events, "left_out": len(found) - len(shown)}


def _one_life(rows: Rows, at_ns: int) -> Rows:
    """The rows from one opening to the next: a port that is used again is another connection."""
    times = rows["ts_ns"]
    opens = (rows["tcp_flags"] & (TcpFlag.SYN | TcpFlag.ACK)) == TcpFlag.SYN
    begins = np.flatnonzero(opens[1:] & (np.diff(times) > PAUSE_NS)) + 1
    first = int(times[begins[times[begins] <= at_ns]].max(initial=0))
    last = int(times[begins[times[begins] > at_ns]].min(initial=2**62))
    return rows[(times >= first) & (times < last)]


def _opener(row: Rows) -> tuple[int, int, int]:
    """Address and port of the end that opened the connection: the one with the higher port, replies aside."""
    one = row[0]
    source, target = _end(one, "src", "sport"), _end(one, "dst", "dport")
    if one["is_reply"] == 2:
        return target
    return source if one["is_reply"] == 1 or source[2] >= target[2] else target


def _end(one: Any, side: str, port: str) -> tuple[int, int, int]:
    return int(one[f"{side}_ip_hi"]), int(one[f"{side}_ip_lo"]), int(one[port])


def _same_connection(rows: Rows, row: Rows) -> Bools:
    one = row[0]
    high, low, port = _opener(row)
    with_ports = one["l4"] in (L4.TCP, L4.UDP, L4.SCTP)

    def is_opener(side: str, port_field: str) -> Bools:
        same: Bools = (rows[f"{side}_ip_hi"] == high) & (rows[f"{side}_ip_lo"] == low)
        return same & (rows[port_field] == port) if with_ports else same

    either = is_opener("src", "sport") | is_opener("dst", "dport")
    if not with_ports:
        ends = {(int(one["src_ip_hi"]), int(one["src_ip_lo"])), (int(one["dst_ip_hi"]), int(one["dst_ip_lo"]))}
        both = np.zeros(len(rows), np.bool_)
        for (first_high, first_low), (other_high, other_low) in ((tuple(ends) * 2)[:2], (tuple(ends) * 2)[1:3]):
            both |= (
                (rows["src_ip_hi"] == first_high)
                & (rows["src_ip_lo"] == first_low)
                & (rows["dst_ip_hi"] == other_high)
                & (rows["dst_ip_lo"] == other_low)
            )
        either = both
    result: Bools = either & (rows["l4"] == one["l4"])
    return result
