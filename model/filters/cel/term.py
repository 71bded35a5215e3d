"""The CEL field of a filter as a term over rows.

In:        compiled expressions.
Out:       CelTerm (scan.py).
Elsewhere: compiler.py says which fields an expression looks at; groups.py numbers rows that are equal in them.

Few flows differ in the fields that an expression looks at. So rows are grouped by the columns that hold those fields,
one message is made for each group, and the answers are kept: 65,535 rows with a hundred destination ports and a handful
of verdicts need a few hundred evaluations the first time and none after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from model.filters.cel.compiler import CelError, Expression, Path, bool_expression
from model.filters.cel.functions import CelRuntimeError
from model.filters.cel.groups import Answers, Numbering
from model.filters.errors import InvalidFilter
from model.filters.facts import Facts, facts_of
from model.filters.scan import SLOW, Mask, Scan
from model.mask import FieldMask
from model.row import Bit, Kind
from model.whole_rows import take
from proto.flow import flow_pb2


class Source(NamedTuple):
    """Where in a row a field of the flow comes from."""

    columns: tuple[str, ...]
    bits: int = 0


IN_AUX: Final = Source(("aux",))
PER_FLOW: Final = None
"""A field that differs from flow to flow, or hangs on too much to be worth a group."""
PORTS: Final = Source(("l4", "sport", "dport"))
SOURCE_PORT: Final = Source(("l4", "sport"))
DESTINATION_PORT: Final = Source(("l4", "dport"))
TRANSPORT: Final = Source(("l4",))
SOURCE_ADDRESS: Final = Source(("src_ip_hi", "src_ip_lo", "ip_version"), Bit.FOREIGN)
DESTINATION_ADDRESS: Final = Source(("dst_ip_hi", "dst_ip_lo", "ip_version"), Bit.FOREIGN)

SOURCES: Final[dict[Path, Source | None]] = {
    (): PER_FLOW,
    ("uuid",): PER_FLOW,
    ("time",): PER_FLOW,
    ("Summary",): PER_FLOW,
    ("ethernet",): PER_FLOW,
    ("verdict",): Source(("verdict",)),
    ("drop_reason_desc",): Source(("drop_reason",)),
    ("drop_reason",): Source(("drop_reason", "aux")),
    ("IP",): Source((*SOURCE_ADDRESS.columns, *DESTINATION_ADDRESS.columns, "aux"), Bit.FOREIGN | Bit.ENCRYPTED),
    ("IP", "source"): SOURCE_ADDRESS,
    ("IP", "destination"): DESTINATION_ADDRESS,
    ("IP", "ipVersion"): Source(("ip_version",)),
    ("IP", "encrypted"): Source(("ip_version",), Bit.ENCRYPTED),
    ("IP", "source_xlated"): IN_AUX,
    ("l4",): Source((*PORTS.columns, "tcp_flags", "aux"), Bit.HAS_TCP_FLAGS),
    ("l4", "TCP"): Source((*PORTS.columns, "tcp_flags"), Bit.HAS_TCP_FLAGS),
    ("l4", "TCP", "?"): TRANSPORT,
    ("l4", "TCP", "source_port"): SOURCE_PORT,
    ("l4", "TCP", "destination_port"): DESTINATION_PORT,
    ("l4", "TCP", "flags"): Source(("l4", "tcp_flags"), Bit.HAS_TCP_FLAGS),
    ("l4", "UDP"): PORTS,
    ("l4", "UDP", "?"): TRANSPORT,
    ("l4", "UDP", "source_port"): SOURCE_PORT,
    ("l4", "UDP", "destination_port"): DESTINATION_PORT,
    ("l4", "SCTP"): PORTS,
    ("l4", "SCTP", "?"): TRANSPORT,
    ("l4", "SCTP", "source_port"): SOURCE_PORT,
    ("l4", "SCTP", "destination_port"): DESTINATION_PORT,
    ("l4", "ICMPv4"): PORTS,
    ("l4", "ICMPv4", "?"): TRANSPORT,
    ("l4", "ICMPv6"): PORTS,
    ("l4", "ICMPv6", "?"): TRANSPORT,
    ("source",): Source(("src",)),
    ("destination",): Source(("dst",)),
    ("Type",): Source(("flow_type",)),
    ("node_name",): Source(("node",)),
    ("node_labels",): Source(("node",)),
    ("emitter",): Source(("node", "aux"), Bit.FOREIGN),
    ("source_names",): Source(("src_names",)),
    ("destination_names",): Source(("dst_names",)),
    ("source_service",): Source(("src_svc",)),
    ("destination_service",): Source(("dst_svc",)),
    ("event_type",): Source(("event_type", "sub_type"), Bit.HAS_EVENT_TYPE),
    ("traffic_direction",): Source(("direction",)),
    ("policy_match_type",): Source(("match_type",)),
    ("trace_observation_point",): Source(("obs_point",)),
    ("trace_reason",): Source(("trace_reason",)),
    ("is_reply",): Source(("is_reply",)),
    ("reply",): Source(("is_reply", "aux"), Bit.FOREIGN),
    ("interface",): Source(("iface",)),
    ("proxy_port",): Source(("proxy_port",)),
}
"""By path, the longest one that is listed counts. All other fields stand in aux."""

REMEMBERED: Final = 1 << 18
"""Groups that a term remembers the answers of; then it starts again."""


class CelTerm:
    """One of several expressions is true. An expression that fails ends the matter: the flow does not match."""

    cost = 2 * SLOW

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises: InvalidFilter for an expression that cannot be compiled."""
        try:
            self._expressions: list[Expression] = [bool_expression(text) for text in texts]
        except CelError as error:
            raise InvalidFilter("experimental", f"error compiling CEL expression: {error}") from None
        paths = {path for one in self._expressions for path in one.reads}
        self._source = source_of(paths)
        # Only what the expressions look at is worth encoding; those that look at nothing get any small field.
        self._mask = None if () in paths else FieldMask.parse({path[0] for path in paths} or {"verdict"})
        self._facts: Facts | None = None
        self._forget()

    def _forget(self) -> None:
        self._numbering = Numbering()
        self._answers = Answers()

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
        answers = self._evaluate(scan, None) if self._source is PER_FLOW else self._by_group(scan, self._source)
        hits[np.flatnonzero(flows)] = answers
        return hits

    def _by_group(self, scan: Scan, source: Source) -> Mask:
        facts = facts_of(scan.tables)
        if facts is not self._facts or len(self._answers) > REMEMBERED:
            self._facts = facts
            self._forget()
        columns = [scan.column(name) for name in source.columns]
        if source.bits:
            columns.append(scan.column("bits") & np.uint16(source.bits))
        keys = self._numbering.keys(columns)
        if keys is None:
            return self._evaluate(scan, None)
        answers = self._answers.of(keys, self._numbering.layout)
        unknown = np.flatnonzero(answers < 0)
        if len(unknown):
            new, first = np.unique(keys[unknown], return_index=True)
            self._answers.add(new, self._evaluate(scan, unknown[first]))
            answers = self._answers.of(keys, self._numbering.layout)
        return answers.view(np.bool_)

    def _evaluate(self, scan: Scan, positions: npt.NDArray[np.intp] | None) -> Mask:
        """The answers of some rows, or of all, as messages."""
        from model.encode import Encoder  # only who needs it loads it

        index = scan.chosen
        if positions is not None:
            index = positions if index is None else index[positions]
        rows = scan.rows if index is None else take(scan.rows, index)
        flows = Encoder(scan.tables, self._mask).flows(rows)
        return np.fromiter(map(self.matches, flows), np.bool_, len(flows))


def source_of(paths: Iterable[Path]) -> Source | None:
    """What of a row these fields come from; None when every flow is to be looked at."""
    columns: set[str] = set()
    bits = 0
    for path in paths:
        source = _source(path)
        if source is PER_FLOW:
            return None
        columns.update(source.columns)
        bits |= source.bits
    return Source(tuple(sorted(columns)) or ("l4",), bits)


def _source(path: Path) -> Source | None:
    while path not in SOURCES and len(path) > 1:
        path = path[:-1]
    return SOURCES.get(path, IN_AUX)
