"""What a page shows beside the map, by the name of the view.

In:        the hub, the page's filter and span.
Out:       JSON-ready data, made about every two seconds while the view is open; None: nothing to send.
Elsewhere: requests.py, dns.py, findings.py and health.py make it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from model.row import Rows
from ui.dns import dns_message, names_of
from ui.findings import findings
from ui.flows import Span, newest
from ui.health import health
from ui.hub import NS, Hub, Seconds
from ui.query import Query, parse_query
from ui.requests import requests
from ui.rollup import arrow_keys

View = Callable[[Hub, Query, Seconds], Any]

MOST_L7: Final = 10_000
"""Newest L7 flows that a view looks at."""
MOST_DROPS: Final = 20_000
DROPS: Final = parse_query("--verdict DROPPED")


def _l7(hub: Hub, query: Query, span: Seconds, protocol: str) -> Rows:
    text = f"({query.text}) and --protocol {protocol} --type l7" if query.text else f"--protocol {protocol} --type l7"
    return newest(hub.ring, hub.query(text), _ns(span), MOST_L7, lost=False).rows


def _ns(span: Seconds) -> Span:
    return Span(span[0] * NS, span[1] * NS)


def http_view(hub: Hub, query: Query, span: Seconds) -> Any:
    return requests(hub, _l7(hub, query, span, "http"))


def dns_view(hub: Hub, query: Query, span: Seconds) -> Any:
    return dns_message(names_of(hub, _l7(hub, query, span, "dns")))


def findings_view(hub: Hub, query: Query, span: Seconds) -> Any:
    totals = hub.rollup(query).totals(*span)
    names = names_of(hub, _l7(hub, query, span, "dns"))
    return findings(totals, hub.cards, _reasons(hub, query, span), names)


def _reasons(hub: Hub, query: Query, span: Seconds) -> dict[int, dict[int, int]]:
    """Drop reasons by arrow."""
    rows = newest(hub.ring, DROPS, _ns(span), MOST_DROPS, lost=False).rows
    rows = rows[query.mask(rows, hub.ring.tables)]
    found: dict[int, dict[int, int]] = {}
    pairs = np.stack([arrow_keys(rows, hub.cards), rows["drop_reason"].astype(np.uint64)], axis=1)
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    for (key, reason), count in zip(distinct.tolist(), counts.tolist(), strict=True):
        found.setdefault(key, {})[reason] = count
    return found


VIEWS: Final[dict[str, View]] = {
    "map": lambda hub, query, span: None,
    "flows": lambda hub, query, span: None,
    "l7": http_view,
    "dns": dns_view,
    "findings": findings_view,
    "health": lambda hub, query, span: health(hub),
}
