"""The life of a connection: what was seen of it on all nodes, on all its legs, oldest first.

In:        the ring and one row.
Out:       JSON-ready events, and the way that the connection takes: services, proxies and nodes that it goes through.
Elsewhere: legs.py finds the legs; story.py shows them beside the flow; cells.py words single rows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from model.encode import Encoder
from model.ring import Ring
from model.row import Reply, Rows
from model.tables import Tables
from model.text.parts import FlowStyle, enum_name, parts_of
from model.whole_rows import joined, take
from proto.flow import flow_pb2
from ui.legs import Leg, Via, address_of, end_of, legs_of, translated

MOST_EVENTS: Final = 400
NS_PER_MS: Final = 1_000_000


def connection(ring: Ring, row: Rows) -> dict[str, Any]:
    """`way`: stations from the end that opened it to the end that answers; `leg` of an event: 0 is the opener's own."""
    legs = legs_of(ring, row)
    rows = joined([leg.rows for leg in legs])
    numbers = np.repeat(np.arange(len(legs)), [len(leg.rows) for leg in legs])
    order = np.argsort(rows["ts_ns"], kind="stable")
    at = int(np.searchsorted(rows["ts_ns"][order], row["ts_ns"][0]))
    first = max(min(at - MOST_EVENTS // 2, len(order) - MOST_EVENTS), 0)
    order = order[first : first + MOST_EVENTS]
    shown, numbers = take(rows, order), numbers[order]
    begin = int(shown["ts_ns"][0]) if len(shown) else 0
    events = []
    for one, number, flow in zip(shown, numbers.tolist(), Encoder(ring.tables).flows(shown), strict=True):
        words = parts_of(flow, FlowStyle())
        events.append(
            {
                "id": flow.uuid,
                "ms": round((int(one["ts_ns"]) - begin) / NS_PER_MS, 3),
                "leg": number,
                "node": flow.node_name,
                "type": words.type,
                "verdict": enum_name(flow_pb2.Verdict, flow.verdict),
                "summary": words.summary,
                "source": words.source,
                "destination": words.destination,
                "forth": end_of(one, "src", "sport") == legs[number].opener,
                "nat": flow.IP.source_xlated,
                "proxy": int(flow.proxy_port),
                "l7": flow.Type == flow_pb2.L7,
            }
        )
    return {"events": events, "left_out": len(rows) - len(shown), "way": _way(legs, events, ring.tables)}


def _way(legs: list[Leg], events: list[dict[str, Any]], tables: Tables) -> list[dict[str, Any]]:
    """Stations in order, each with its kind and `text`.

    end:      who opened the connection, and who answers; `seen`: false when nothing was seen to get there.
    service:  an address that stands for backends; also a name.
    node:     a node's address that stands for them.
    proxy, nat: `node` ends the leg and goes on as `text`, "" when that was not seen; `others`: how many more fit.
    """
    stations: list[dict[str, Any]] = []
    goes_on_from = {str(address_of(leg.opener)) for leg in legs if leg.via is Via.NAT}
    told = [number for number in range(len(legs)) if any(event["leg"] == number for event in events)]
    for number in told:  # all of them, unless there are too many events to show
        leg, mine = legs[number], [event for event in events if event["leg"] == number]
        first, last = _ends(mine[0]), _ends(mine[-1])
        if number == told[0]:
            stations.append({"kind": "end", "text": first[0]})
        elif leg.via is Via.NAT:
            stations.append({"kind": "nat", "text": first[0], "node": mine[0]["node"], "others": leg.others})
        elif stations[-1]["kind"] == "proxy":
            stations[-1].update(text=first[0], others=leg.others)
        answers = take(leg.rows, leg.rows["is_reply"] == Reply.TRUE)
        services = [tables.services[index] for index in np.unique(leg.rows["dst_svc"]).tolist() if index]
        stations += [{"kind": "service", "text": f"{one.namespace}/{one.name}"} for one in services if one]
        for address, port in translated(answers, tables):
            words = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            stations.append({"kind": "node" if address in goes_on_from else "service", "text": words})
        taken = [event["node"] for event in mine if event["forth"] and (event["proxy"] or event["l7"])]
        if taken:
            stations.append({"kind": "proxy", "text": "", "node": taken[0], "others": 0})
        if number == told[-1]:
            stations.append({"kind": "end", "text": last[1], "seen": not taken})
    return stations


def _ends(event: dict[str, Any]) -> tuple[str, str]:
    """Who opened the leg, and who answers."""
    source, target = event["source"], event["destination"]
    return (source, target) if event["forth"] else (target, source)
