"""The rows that a page's table shows: newest first, page by page, of any span, sorted or counted by a column.

In:        the ring, a filter, a span of time.
Out:       chosen rows with their positions; groups with counts.
Elsewhere: cells.py words them; model/ring.py keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.ring import Ring
from model.row import Kind, Rows, empty_rows
from model.tables import Tables
from model.whole_rows import joined, take
from ui.cells import COLUMNS, records
from ui.query import Query

I64 = npt.NDArray[np.int64]

CHUNK: Final = 16_384
MOST_SORTED: Final = 20_000
"""Newest matches among which a sort looks; a person who sorts wants the extremes of what is on the screen."""
MOST_GROUPS: Final = 2_000
FAR_FUTURE_NS: Final = 2**62


@dataclass(frozen=True, slots=True)
class Span:
    """From `start_ns` up to, not including, `stop_ns`."""

    start_ns: int = 0
    stop_ns: int = FAR_FUTURE_NS


@dataclass(frozen=True, slots=True)
class Found:
    """Rows (a copy), oldest first, and where they lie in the ring."""

    rows: Rows
    positions: I64
    more: bool = False
    """Whether there are older ones."""

    def __len__(self) -> int:
        return len(self.rows)


def newest(ring: Ring, query: Query, span: Span, most: int, before: int | None = None, lost: bool = True) -> Found:
    """The newest `most` matches, older than position `before`."""
    stop = ring.head if before is None else min(before, ring.head)
    parts: list[Rows] = []
    places: list[I64] = []
    count = 0
    while stop > ring.tail and count <= most:
        start = max(stop - CHUNK, ring.tail, (stop - 1) // ring.capacity * ring.capacity)
        rows = ring.slice(start, stop)
        hits = np.flatnonzero(_inside(rows, span, lost) & query.mask(rows, ring.tables))
        parts.insert(0, take(rows, hits))
        places.insert(0, hits + start)
        count += len(hits)
        stop = start
    rows, positions = joined([empty_rows(0), *parts]), np.concatenate([np.zeros(0, np.int64), *places])
    return Found(rows[-most:].copy(), positions[-most:], more=count > most)


def everything(ring: Ring, query: Query, span: Span) -> Found:
    """All matches that are flows."""
    return newest(ring, query, span, ring.capacity, lost=False)


def _inside(rows: Rows, span: Span, lost: bool) -> npt.NDArray[np.bool_]:
    inside: npt.NDArray[np.bool_] = (rows["ts_ns"] >= span.start_ns) & (rows["ts_ns"] < span.stop_ns)
    if not lost:
        inside &= rows["kind"] == Kind.FLOW
    return inside


KEYS: Final[dict[str, tuple[str, ...]]] = {
    "time": ("ts_ns",),
    "node": ("node",),
    "verdict": ("verdict",),
    "drop_reason": ("drop_reason",),
    "direction": ("direction",),
    "reply": ("is_reply",),
    "tcp_flags": ("tcp_flags", "bits"),
    "interface": ("iface",),
    "proxy_port": ("proxy_port",),
    "point": ("obs_point",),
    "trace_reason": ("trace_reason",),
    "encrypted": ("bits",),
    "type": ("event_type", "sub_type", "match_type", "direction", "flow_type", "aux"),
    "protocol": ("l4", "flow_type", "aux"),
}
"""Fields of a row that decide a column. Other columns are decided by the ends (by name) or by aux."""


def _fields(column: str) -> tuple[str, ...]:
    for side, prefix in (("source", "src"), ("destination", "dst")):
        if column == f"{side}_port":
            return ("l4", "sport" if prefix == "src" else "dport")
        if column == f"{side}_ip":
            return (f"{prefix}_ip_hi", f"{prefix}_ip_lo")
        if column == side:
            port = "sport" if prefix == "src" else "dport"
            return (prefix, f"{prefix}_svc", f"{prefix}_names", f"{prefix}_ip_hi", f"{prefix}_ip_lo", "l4", port)
        if column.startswith(side):
            return (prefix, f"{prefix}_svc", f"{prefix}_names")
    return KEYS.get(column, ("aux", "flow_type"))


def _distinct(rows: Rows, column: str) -> tuple[I64, I64, I64]:
    """First index, inverse and counts of rows that are equal as far as a column can tell."""
    fields = [rows[field] for field in _fields(column)]
    if column in ("type", "protocol"):
        l7 = rows["flow_type"] == 1
        fields[-1] = np.where(l7, fields[-1], 0)
    keys = np.stack([field.astype(np.uint64) for field in fields], axis=1)
    order = np.lexsort(keys.T[::-1])
    sorted_keys = keys[order]
    fresh = np.ones(len(rows), np.bool_)
    fresh[1:] = (sorted_keys[1:] != sorted_keys[:-1]).any(axis=1)
    inverse = np.empty(len(rows), np.int64)
    inverse[order] = np.cumsum(fresh) - 1
    first = order[fresh]
    return first, inverse, np.bincount(inverse, minlength=len(first))


def _texts(rows: Rows, tables: Tables, column: str, first: I64) -> list[str]:
    """The column's cell of the rows at `first`."""
    chosen = rows[first]
    return [str(cells[3]) for cells in records(chosen, [0] * len(chosen), tables, (column,))]


def group_by(found: Found, tables: Tables, columns: Sequence[str]) -> dict[str, Any]:
    """Counts by up to three columns: {"columns", "groups": [[count, dropped, cell, ...]], "flows", "cut"}."""
    rows = found.rows
    if len(rows) == 0:
        return {"columns": list(columns), "groups": [], "flows": 0, "cut": False}
    codes = np.zeros(len(rows), np.int64)
    words: list[list[str]] = []
    cut = False
    for column in columns:
        first, inverse, counts = _distinct(rows, column)
        if len(first) > MOST_GROUPS:
            keep = np.sort(np.argsort(-counts, kind="stable")[:MOST_GROUPS])
            moved = np.full(len(first), len(keep))
            moved[keep] = np.arange(len(keep))
            texts, inverse, cut = [*_texts(rows, tables, column, first[keep]), "(others)"], moved[inverse], True
        else:
            texts = _texts(rows, tables, column, first)
        known = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        inverse = np.array([known[text] for text in texts])[inverse]
        words.append(list(known))
        codes = codes * len(known) + inverse
    groups, line, counts = np.unique(codes, return_inverse=True, return_counts=True)
    dropped = np.bincount(line, rows["verdict"] == 2, len(groups)).astype(int)
    result = []
    for at in np.argsort(-counts, kind="stable")[:MOST_GROUPS].tolist():
        code = int(groups[at])
        cells: list[str] = []
        for known_words in reversed(words):
            code, rest = divmod(code, len(known_words))
            cells.insert(0, known_words[rest])
        result.append([int(counts[at]), int(dropped[at]), *cells])
    return {"columns": list(columns), "groups": result, "flows": len(rows), "cut": cut or len(groups) > MOST_GROUPS}


def sort_by(found: Found, tables: Tables, column: str, descending: bool, most: int) -> Found:
    """The first `most` rows by a column: numbers by value, everything else by its text."""
    rows = found.rows
    if len(rows) == 0:
        return found
    first, inverse, _ = _distinct(rows, column)
    if column == "time":
        ranks = rows["ts_ns"]
    else:
        texts = _texts(rows, tables, column, first)
        ranked = {text: rank for rank, text in enumerate(sorted(set(texts), key=natural))}
        ranks = np.array([ranked[text] for text in texts])[inverse]
    order = np.argsort(-ranks if descending else ranks, kind="stable")[:most]
    return Found(choose(rows, order), found.positions[order], more=len(rows) > most)


def choose(rows: Rows, order: I64) -> Rows:
    return rows[order].copy()


def natural(text: str) -> tuple[int, float, str]:
    """Numbers before words, and by their value."""
    number = text.partition(" ")[0]
    try:
        return 0, float(number), text
    except ValueError:
        return 1, 0.0, text


def funnel(ring: Ring, query: Query, span: Span) -> list[dict[str, Any]]:
    """How many flows each condition left over: [{"condition", "left"}], the first for the span of time alone."""
    stages = query.conditions()
    left = np.zeros(len(stages) + 1, np.int64)
    for _, rows in ring.backwards(CHUNK, CHUNK):
        rows = take(rows, _inside(rows, span, lost=False))
        left[0] += len(rows)
        hits = np.ones(len(rows), np.bool_)
        for number, (_, node) in enumerate(stages, 1):
            hits &= node.mask(rows, ring.tables)
            left[number] += np.count_nonzero(hits)
    words = ["flows in this span", *(words for words, _ in stages)]
    return [{"condition": word, "left": count} for word, count in zip(words, left.tolist(), strict=True)]


def known_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Raises: ValueError naming the column that does not exist."""
    for name in names:
        if name not in COLUMNS:
            raise ValueError(f"no column is called {name[:40]!r}")
    return tuple(names)
