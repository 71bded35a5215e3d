"""The CEL field of a filter as a term over rows.

In:        compiled expressions.
Out:       CelTerm (scan.py).
Elsewhere: compiler.py says which fields an expression looks at; model/encode.py makes messages of rows.

Few flows differ in the fields that an expression looks at. So rows are grouped by the columns that hold those fields,
one message is made for each group, and the answers are kept: 65,535 rows with a hundred destination ports and a handful
of verdicts need a few hundred evaluations the first time and none after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.filters.cel.compiler import CelError, Expression, Path, bool_expression
from model.filters.cel.functions import CelRuntimeError
from model.filters.errors import InvalidFilter
from model.filters.facts import Facts, facts_of
from model.filters.scan import SLOW, Mask, Scan, take_rows
from model.row import Kind
from proto.flow import flow_pb2

Keys = npt.NDArray[np.uint64]

ALL_OF_IT: Final = None
"""A field that differs from flow to flow, or hangs on too much to be worth a group."""

COLUMNS: Final[dict[Path, tuple[str, ...] | None]] = {
    (): ALL_OF_IT,
    ("uuid",): ALL_OF_IT,
    ("time",): ALL_OF_IT,
    ("Summary",): ALL_OF_IT,
    ("ethernet",): ALL_OF_IT,
    ("verdict",): ("verdict",),
    ("drop_reason_desc",): ("drop_reason", "verdict"),
    ("IP",): ("src_ip_hi", "src_ip_lo", "dst_ip_hi", "dst_ip_lo", "ip_version", "aux"),
    ("IP", "source"): ("src_ip_hi", "src_ip_lo", "ip_version"),
    ("IP", "destination"): ("dst_ip_hi", "dst_ip_lo", "ip_version"),
    ("IP", "ipVersion"): ("ip_version",),
    ("IP", "encrypted"): ("ip_version",),
    ("l4",): ("l4", "sport", "dport", "tcp_flags", "aux"),
    ("l4", "TCP"): ("l4", "sport", "dport", "tcp_flags"),
    ("l4", "UDP"): ("l4", "sport", "dport"),
    ("l4", "SCTP"): ("l4", "sport", "dport"),
    ("l4", "ICMPv4"): ("l4", "sport", "dport"),
    ("l4", "ICMPv6"): ("l4", "sport", "dport"),
    ("l4", "TCP", "source_port"): ("l4", "sport"),
    ("l4", "TCP", "destination_port"): ("l4", "dport"),
    ("l4", "TCP", "flags"): ("l4", "tcp_flags"),
    ("l4", "UDP", "source_port"): ("l4", "sport"),
    ("l4", "UDP", "destination_port"): ("l4", "dport"),
    ("l4", "SCTP", "source_port"): ("l4", "sport"),
    ("l4", "SCTP", "destination_port"): ("l4", "dport"),
    ("l4", "TCP", "?"): ("l4",),
    ("l4", "UDP", "?"): ("l4",),
    ("l4", "SCTP", "?"): ("l4",),
    ("l4", "ICMPv4", "?"): ("l4",),
    ("l4", "ICMPv6", "?"): ("l4",),
    ("source",): ("src",),
    ("destination",): ("dst",),
    ("Type",): ("flow_type",),
    ("node_name",): ("node",),
    ("node_labels",): ("node",),
    ("emitter",): ("node", "aux"),
    ("source_names",): ("src_names",),
    ("destination_names",): ("dst_names",),
    ("source_service",): ("src_svc",),
    ("destination_service",): ("dst_svc",),
    ("event_type",): ("event_type", "sub_type"),
    ("traffic_direction",): ("direction",),
    ("policy_match_type",): ("match_type",),
    ("trace_observation_point",): ("obs_point",),
    ("trace_reason",): ("trace_reason",),
    ("is_reply",): ("is_reply",),
    ("reply",): ("is_reply", "aux"),
    ("drop_reason",): ("drop_reason", "aux"),
    ("interface",): ("iface",),
    ("proxy_port",): ("proxy_port",),
}
"""The columns of a row that a field of the flow is made of, for the longest path that is listed. All others: aux."""

REMEMBERED: Final = 65_536
"""Answers kept per term."""


class CelTerm:
    """One of several expressions is true. An expression that fails ends the matter: the flow does not match."""

    cost = 2 * SLOW

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises: InvalidFilter for an expression that cannot be compiled."""
        try:
            self._expressions: list[Expression] = [bool_expression(text) for text in texts]
        except CelError as error:
            raise InvalidFilter("experimental", f"error compiling CEL expression: {error}") from None
        self._columns = columns_of(path for one in self._expressions for path in one.reads)
        self._facts: Facts | None = None
        self._known: dict[tuple[Any, ...], bool] = {}

    def matches(self, flow: flow_pb2.Flow) -> bool:
        try:
            return any(expression.evaluate(flow) is True for expression in self._expressions)
        except CelRuntimeError:
            return False

    def test(self, scan: Scan) -> Mask:
        hits = np.zeros(len(scan), np.bool_)
        flows: Mask = scan.column("kind") == Kind.FLOW
        if not flows.any():
            return hits
        scan = scan if flows.all() else scan.narrow(flows)
        hits[np.flatnonzero(flows)] = self._evaluate_all(scan) if self._columns is ALL_OF_IT else self._by_group(scan)
        return hits

    def _evaluate_all(self, scan: Scan) -> Mask:
        return np.array([self.matches(flow) for flow in flows_at(scan, np.arange(len(scan)))], np.bool_)

    def _by_group(self, scan: Scan) -> Mask:
        assert self._columns is not None
        facts = facts_of(scan.tables)
        if facts is not self._facts or len(self._known) > REMEMBERED:
            self._facts, self._known = facts, {}
        columns = [scan.column(name) for name in self._columns]
        group, first = groups(columns)
        values = list(zip(*(column[first].tolist() for column in columns), strict=True))
        new = [number for number, value in enumerate(values) if value not in self._known]
        if new:
            flows = flows_at(scan, first[new])
            self._known |= {values[number]: self.matches(flow) for number, flow in zip(new, flows, strict=True)}
        answers: Mask = np.fromiter(map(self._known.__getitem__, values), np.bool_, len(values))
        return answers.take(group)


def columns_of(paths: Iterable[Path]) -> list[str] | None:
    """Names of the columns that hold these fields; None when every flow is to be looked at."""
    names = {"bits"}  # which parts are there at all
    for path in paths:
        columns = _columns(path)
        if columns is ALL_OF_IT:
            return None
        names.update(columns)
    return sorted(names)


def _columns(path: Path) -> tuple[str, ...] | None:
    while path not in COLUMNS and len(path) > 1:
        path = path[:-1]
    return COLUMNS.get(path, ("aux",))


def flows_at(scan: Scan, positions: npt.NDArray[np.intp]) -> list[flow_pb2.Flow]:
    """Some rows of a scan as messages."""
    from model.encode import Encoder  # encoding is a room of its own; only who needs it loads it

    index = positions if scan.chosen is None else scan.chosen[positions]
    return Encoder(scan.tables, None).flows(take_rows(scan.rows, index))


def groups(columns: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows that are equal in all columns.

    Shape: the number of its group for each row, and one row of each group.
    """
    count = len(columns[0])
    keys, width = np.zeros(count, np.uint64), 0
    for column in columns:
        column_keys, column_width = _numbered(column)
        if width + column_width > 64:
            keys, width = _compact(keys, width)
        if width + column_width > 64:
            column_keys, column_width = _compact(column_keys, column_width)
        keys = keys << np.uint64(column_width) | column_keys if column_width < 64 else column_keys
        width += column_width
    keys, width = _compact(keys, width)
    group = keys.astype(np.intp)
    first = np.zeros(int(group.max()) + 1, np.intp)
    first[group[::-1]] = np.arange(count - 1, -1, -1)
    return group, first


def _numbered(column: npt.NDArray[Any]) -> tuple[Keys, int]:
    """Values as distances from the smallest one, and how many bits these have."""
    least, most = int(column.min()), int(column.max())
    if column.dtype.kind == "i":
        return (column.astype(np.int64) - least).astype(np.uint64), (most - least).bit_length()
    return column.astype(np.uint64) - np.uint64(least), (most - least).bit_length()


SMALL_WIDTH: Final = 20


def _compact(keys: Keys, width: int) -> tuple[Keys, int]:
    """The same keys numbered without gaps, and how many bits the numbers have."""
    if width <= SMALL_WIDTH:
        seen = np.zeros(1 << width, np.bool_)
        seen[keys] = True
        numbers = np.cumsum(seen, dtype=np.uint64) - np.uint64(1)
        return numbers.take(keys.astype(np.intp)), int(numbers[-1]).bit_length()
    # np.unique with return_inverse takes three times as long.
    ordered = np.sort(keys)
    distinct = ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]
    return np.searchsorted(distinct, keys).astype(np.uint64), (len(distinct) - 1).bit_length()
