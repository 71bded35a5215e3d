"""Requests by route: how many, what was answered, how long it took; the slowest and the failing ones.

In:        rows of L7 answers.
Out:       JSON-ready data for the page's view of requests.
Elsewhere: dns.py does the same for names; facts.py counts for the map.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np

from model.flow_id import flow_uuid
from model.flow_parts import split_aux
from model.row import Bit, Rows
from proto.flow import flow_pb2
from ui.dns import end_name
from ui.hub import Hub

MOST_ROUTES: Final = 2_000
SHOWN: Final = 200
FEW: Final = 12
BINS: Final = 16
"""Latency bins: powers of two from a tenth of a millisecond."""
VARIABLE: Final = re.compile(r"^(\d+|[0-9a-f]{8,}|[0-9a-f]{8}-[0-9a-f-]{27}|.{33,})$", re.IGNORECASE)
"""Path segments that name a thing and not a kind of things."""

DENIED: Final = "denied"
"""Stands for the status of a request that no policy allows."""


@dataclass(slots=True)
class Route:
    target: str
    method: str
    path: str
    codes: dict[str, int] = field(default_factory=dict)
    bins: list[int] = field(default_factory=lambda: [0] * BINS)
    latencies: list[float] = field(default_factory=list)


def requests(hub: Hub, rows: Rows) -> dict[str, Any]:
    """`rows`: of L7, newest last."""
    tables = hub.ring.tables
    routes: dict[tuple[str, str, str], Route] = {}
    slow: list[tuple[float, dict[str, Any]]] = []
    failing: list[dict[str, Any]] = []
    for aux, src, dst, verdict, node, seq, bits in zip(
        *(rows[name].tolist() for name in ("aux", "src", "dst", "verdict", "node", "seq", "bits")), strict=True
    ):
        l7 = flow_pb2.Flow.FromString(split_aux(tables.aux[aux] or b"")[0]).l7
        # A proxy that refuses a request tells of no answer: the request is all there is.
        denied = l7.type == flow_pb2.REQUEST and verdict == flow_pb2.DROPPED
        if not (denied or l7.type == flow_pb2.RESPONSE) or l7.WhichOneof("record") not in ("http", "kafka"):
            continue
        target, method, path = end_name(hub.cards, dst if denied else src), *_what(l7)
        key = target, method, path
        if key not in routes and len(routes) >= MOST_ROUTES:
            key = target, "", "(other routes)"
        route = routes.setdefault(key, Route(*key))
        code = DENIED if denied else str(l7.http.code) if l7.HasField("http") else f"error {l7.kafka.error_code}"
        route.codes[code] = route.codes.get(code, 0) + 1
        ms = l7.latency_ns / 1e6
        one = {
            "id": "" if bits & Bit.FOREIGN else flow_uuid(tables.nodes[node], seq),
            "what": f"{method} {l7.http.url or l7.kafka.topic}"[:300],
            "target": target,
            "code": code,
            "ms": round(ms, 2),
        }
        if ms > 0:
            route.latencies.append(ms)
            route.bins[latency_bin(ms)] += 1
            slow.append((ms, one))
        if denied or l7.http.code >= 400 or l7.kafka.error_code:
            failing.append(one)
    slow.sort(key=lambda pair: -pair[0])
    ranked = sorted(routes.values(), key=lambda route: -sum(route.codes.values()))
    return {
        "routes": [_message(route) for route in ranked[:SHOWN]],
        "slowest": [one for _, one in slow[:FEW]],
        "failing": failing[-FEW:][::-1],
        "bin_ms": [0.1 * 2**number for number in range(BINS)],
    }


def latency_bin(ms: float) -> int:
    return int(np.clip(np.ceil(np.log2(max(ms, 0.1) / 0.1)), 0, BINS - 1))


def _what(l7: flow_pb2.Layer7) -> tuple[str, str]:
    if l7.HasField("kafka"):
        return l7.kafka.api_key, l7.kafka.topic
    return l7.http.method, route_of(l7.http.url)


def route_of(url: str) -> str:
    """A path whose variable segments are `*`."""
    try:
        path = urlsplit(url).path
    except ValueError:
        path = url.partition("?")[0]
    return "/".join("*" if VARIABLE.match(segment) else segment for segment in path.split("/")[:8])[:200] or "/"


def _message(route: Route) -> dict[str, Any]:
    count = sum(route.codes.values())
    bad = sum(number for code, number in route.codes.items() if not code.startswith(("1", "2", "3")))
    latencies = np.array(route.latencies or [0.0])
    return {
        "target": route.target,
        "method": route.method,
        "path": route.path,
        "count": count,
        "bad": round(100 * bad / count, 1),
        "codes": dict(sorted(route.codes.items())),
        "p50": round(float(np.quantile(latencies, 0.5)), 2),
        "p99": round(float(np.quantile(latencies, 0.99)), 2),
        "bins": route.bins,
    }
