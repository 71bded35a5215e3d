"""Suggestions for the filter box: filters, and values that were really seen.

In:        the text so far and where the caret is.
Out:       {"from", "to", "items": [{"text", "hint"}]}: what may stand in place of text[from:to].
Elsewhere: query.py reads the finished text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np

from model.address_text import address_text
from model.vocabulary import RESERVED_IDENTITIES
from proto.flow import flow_pb2
from ui.cards import NOISE
from ui.hub import Hub
from ui.query import WORDS

MOST: Final = 12
LOOK_BACK: Final = 16_384
_UNFINISHED: Final = re.compile(r"(?:^|[\s(])(--?)?([A-Za-z0-9-]*)$")
_VALUE: Final = re.compile(r"""(?:^|[\s(])-{0,2}([a-z0-9-]+)(?:\s+|=)("[^"]*|'[^']*|[^\s()"']*)$""")
JOINERS: Final = {"and": "both must hold", "or": "one must hold", "not": "must not hold"}


def suggest(hub: Hub, text: str, at: int) -> dict[str, Any]:
    """Suggestions for the word at the caret."""
    before = text[:at]
    value = _VALUE.search(before)
    if value is not None and value[1] in WORDS and WORDS[value[1]].value:
        start = value.start(2)
        typed = value[2].lstrip("\"'")
        items = [{"text": quoted(one), "hint": hint} for one, hint in values(hub, value[1], typed)]
        return {"from": start, "to": at, "items": items[:MOST]}
    word = _UNFINISHED.search(before)
    if word is None:
        return {"from": at, "to": at, "items": []}
    typed = word[2].lower()
    names = sorted(
        (name for name in WORDS if typed in name and name != "not"),
        key=lambda name: (not name.startswith(typed), len(name) > 12),
    )
    items = [{"text": f"--{name}", "hint": WORDS[name].help} for name in names]
    if before.strip() and not word[1]:
        items = [{"text": name, "hint": hint} for name, hint in JOINERS.items() if name.startswith(typed)] + items
    return {"from": word.start(1) if word[1] else word.start(2), "to": at, "items": items[:MOST]}


def values(hub: Hub, name: str, typed: str) -> list[tuple[str, str]]:
    """Values of a filter that contain what was typed: those that begin with it first, then by how often they occur."""
    word = WORDS[name]
    bare = re.sub("^(from|to)-", "", name)
    source = SOURCES.get(bare)
    found = Counter(source(hub)) if source is not None else Counter(dict.fromkeys(word.choices, 0))
    typed = typed.lower()
    hits = [(text, count) for text, count in found.items() if text and typed in text.lower()]
    hits.sort(key=lambda hit: (not hit[0].lower().startswith(typed), -hit[1], hit[0]))
    return [(text, f"{count:,} times" if count > 1 else "") for text, count in hits[:MOST]]


def quoted(text: str) -> str:
    """A value as it must be typed."""
    if re.fullmatch(r"""[^\s()"'\\]+""", text) and text.lower() not in JOINERS:
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def _endpoints(hub: Hub) -> list[flow_pb2.Endpoint]:
    return [flow_pb2.Endpoint.FromString(one) for one in hub.ring.tables.endpoints.values if one]


def _pods(hub: Hub) -> Iterable[str]:
    return (f"{end.namespace}/{end.pod_name}" for end in _endpoints(hub) if end.pod_name)


def _labels(hub: Hub) -> Iterable[str]:
    labels = (label.partition(":")[2] or label for end in _endpoints(hub) for label in end.labels)
    return (label for label in labels if not NOISE.search(label))


def _workloads(hub: Hub) -> Iterable[str]:
    return (f"{one.kind}/{one.name}" for end in _endpoints(hub) for one in end.workloads)


def _identities(hub: Hub) -> Iterable[str]:
    return (RESERVED_IDENTITIES.get(end.identity, str(end.identity)) for end in _endpoints(hub))


def _services(hub: Hub) -> Iterable[str]:
    return (f"{one.namespace}/{one.name}" for one in hub.ring.tables.services.values if one)


def _names(hub: Hub) -> Iterable[str]:
    return (name for names in hub.ring.tables.names.values if names for name in names)


def _ports(hub: Hub) -> Iterable[str]:
    rows = hub.ring.slice(max(hub.ring.head - LOOK_BACK, hub.ring.tail), hub.ring.head)
    ports, counts = np.unique(np.concatenate([rows["sport"], rows["dport"]]), return_counts=True)
    found: Counter[str] = Counter()
    for port, count in zip(ports.tolist(), counts.tolist(), strict=True):
        if port:
            found[str(port)] = count
    return found.elements()


def _addresses(hub: Hub) -> Iterable[str]:
    rows = hub.ring.slice(max(hub.ring.head - LOOK_BACK, hub.ring.tail), hub.ring.head)
    for side in ("src", "dst"):
        keys = np.unique(
            np.stack([rows["ip_version"].astype(np.uint64), rows[f"{side}_ip_hi"], rows[f"{side}_ip_lo"]], axis=1),
            axis=0,
        )
        for version, high, low in keys[:500].tolist():
            if version:
                yield address_text(high, low, version)


def _drop_reasons(hub: Hub) -> Iterable[str]:
    rows = hub.ring.slice(max(hub.ring.head - LOOK_BACK, hub.ring.tail), hub.ring.head)
    seen = set(np.unique(rows["drop_reason"]).tolist())
    names = flow_pb2.DropReason.DESCRIPTOR.values
    # Reasons that occurred stand first, because the others count less.
    return (value.name for value in names for _ in range(2 if value.number in seen and value.number else 1))


def _http(field: str) -> Callable[[Hub], Iterable[str]]:
    def found(hub: Hub) -> Iterable[str]:
        for aux in hub.ring.tables.aux.values[-2000:]:
            http = flow_pb2.Flow.FromString(aux).l7.http if aux and b"HTTP/" in aux else None
            if http is not None and getattr(http, field):
                yield str(getattr(http, field))

    return found


SOURCES: Final[dict[str, Callable[[Hub], Iterable[str]]]] = {
    "pod": _pods,
    "namespace": lambda hub: (end.namespace for end in _endpoints(hub)),
    "label": _labels,
    "workload": _workloads,
    "identity": _identities,
    "cluster": lambda hub: (end.cluster_name for end in _endpoints(hub)),
    "service": _services,
    "fqdn": _names,
    "ip": _addresses,
    "port": _ports,
    "drop-reason-desc": _drop_reasons,
    "node-name": lambda hub: (node.name for node in hub.ring.tables.nodes.values if node),
    "node-label": lambda hub: (label for node in hub.ring.tables.nodes.values if node for label in node.labels),
    "interface": lambda hub: (one.name for one in hub.ring.tables.ifaces.values if one),
    "http-method": _http("method"),
    "http-status": _http("code"),
    "http-url": lambda hub: (re.escape(url) for url in _http("url")(hub)),
}
