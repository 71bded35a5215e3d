"""Filters of a request become one predicate over rows.

In:        two lists of flow.FlowFilter, as a request has them.
Out:       FlowPredicate.mask: one answer per row, for millions of rows per second.
Elsewhere: the terms of each field: basic.py, addresses.py, names.py, labels.py, patterns.py, l7.py, cel.py.

Values of one field are alternatives, different fields must all hold, filters of a list are alternatives. A row passes
when the whitelist is empty or one of its filters holds, and none of the blacklist.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from model.filters import l7
from model.filters.addresses import AddressSet, AddressTerm, PortTerm
from model.filters.basic import (
    DirectionTerm,
    DropReasonTerm,
    EncryptedTerm,
    EventTypeTerm,
    IPVersionTerm,
    ReplyTerm,
    TcpFlagsTerm,
    UuidTerm,
    VerdictTerm,
)
from model.filters.errors import InvalidFilter
from model.filters.labels import labels_judge
from model.filters.names import NamespacedNames, cluster_judge, identity_judge, interface_judge, workload_judge
from model.filters.patterns import fqdn_judge, node_name_judge
from model.filters.scan import SLOW, AuxTerm, Judge, Mask, Scan, TableTerm, Term
from model.row import Kind, Rows
from model.tables import Tables
from model.whole_rows import take
from proto.flow import flow_pb2

ENDPOINT_COLUMNS: Final = {"source": "src", "destination": "dst"}


def compile_filters(
    whitelist: Sequence[flow_pb2.FlowFilter],
    blacklist: Sequence[flow_pb2.FlowFilter] = (),
    *,
    port_ranges: bool = False,
) -> FlowPredicate:
    """The predicate of a request.

    With `port_ranges`, ports may be ranges such as `8000-8100`: more than Hubble accepts, so a client that must refuse
    what Hubble refuses leaves it off.

    Raises: InvalidFilter for what cannot be evaluated, unknown fields included: a filter that is ignored lies.
    """
    return FlowPredicate(
        [CompiledFilter(flow_filter, port_ranges) for flow_filter in whitelist],
        [CompiledFilter(flow_filter, port_ranges) for flow_filter in blacklist],
    )


class CompiledFilter:
    """One FlowFilter: its terms, cheap ones first."""

    def __init__(self, flow_filter: flow_pb2.FlowFilter, port_ranges: bool = False) -> None:
        refuse_unknown_fields(flow_filter)
        self.event_types = EventTypeTerm(flow_filter.event_type) if flow_filter.event_type else None
        content = content_terms(flow_filter, port_ranges)
        self.looks_at_content = bool(content)
        """Whether flows are asked more than their event type. If so, agent and debug events do not match."""
        terms: list[Term] = [*content, self.event_types] if self.event_types else content
        self.terms = sorted(terms, key=lambda term: term.cost)

    def test(self, scan: Scan) -> Mask:
        """Answer per row; rows of Scan.odd and other kinds than flows may get any answer."""
        hits: Mask = np.ones(len(scan), np.bool_)
        for term in self.terms:
            if term.cost < SLOW:
                hits &= term.test(scan)
            else:
                hits[np.flatnonzero(hits)] = term.test(scan.narrow(hits))
            if not hits.any():
                break
        return hits

    def matches(self, flow: flow_pb2.Flow) -> bool:
        """Answer for one whole message."""
        return all(term.matches(flow) for term in self.terms)

    def test_others(self, scan: Scan) -> Mask:
        """Answer for agent and debug events, which have nothing but an event type."""
        if self.looks_at_content:
            return np.zeros(len(scan), np.bool_)
        return self.event_types.test(scan) if self.event_types else np.ones(len(scan), np.bool_)


class FlowPredicate:
    """What compile_filters returns. Keeps answers by table index between calls; one owner, not thread-safe."""

    def __init__(self, whitelist: Sequence[CompiledFilter], blacklist: Sequence[CompiledFilter]) -> None:
        self._whitelist = whitelist
        self._blacklist = blacklist

    @property
    def passes_all(self) -> bool:
        """Whether there is no filter at all."""
        return not self._whitelist and not self._blacklist

    def mask(self, rows: Rows, tables: Tables, lost_passes: bool = True) -> Mask:
        """Which rows pass.

        Shape: one bool per row. Lost events pass on a server; without `lost_passes` they are judged as a flow about
        which nothing is known, which is what Hubble's CLI does with the lines of a file.
        """
        return self._mask(rows, tables, lost_passes or self.matches_nothing())

    def export_mask(self, rows: Rows, tables: Tables) -> Mask:
        """The same by the rules of the exporter, where lost events pass event type filters only."""
        return self._mask(rows, tables, self._passes(lambda one: not one.looks_at_content))

    def matches(self, flow: flow_pb2.Flow) -> bool:
        """Whether one whole message passes: the slow way, for a flow that is no row."""
        return self._passes(lambda one: one.matches(flow))

    def matches_nothing(self) -> bool:
        """Whether what is no flow passes where it is judged as one: lost events and node states in a file."""
        return self._passes(matches_nothing)

    def _mask(self, rows: Rows, tables: Tables, lost_passes: bool) -> Mask:
        if self.passes_all:
            return np.ones(len(rows), np.bool_)
        scan = Scan(rows, tables)
        hits = self._combine(scan, CompiledFilter.test)
        odd = scan.odd()
        if len(odd):
            hits[odd] = [self.matches(flow) for flow in flows_of(take(rows, odd), tables)]
        kinds = scan.column("kind")
        if kinds.any():
            hits[kinds == Kind.LOST] = lost_passes
            others = (kinds == Kind.AGENT) | (kinds == Kind.DEBUG)
            hits[others] = self._combine(scan.narrow(others), CompiledFilter.test_others)
        return hits

    def _passes(self, match: Callable[[CompiledFilter], bool]) -> bool:
        return (not self._whitelist or any(map(match, self._whitelist))) and not any(map(match, self._blacklist))

    def _combine(self, scan: Scan, test: Callable[[CompiledFilter, Scan], Mask]) -> Mask:
        hits = _any_of(self._whitelist, scan, test) if self._whitelist else np.ones(len(scan), np.bool_)
        if self._blacklist and hits.any():
            hits &= ~_any_of(self._blacklist, scan, test)
        return hits


def _any_of(filters: Sequence[CompiledFilter], scan: Scan, test: Callable[[CompiledFilter, Scan], Mask]) -> Mask:
    hits = test(filters[0], scan)
    for one in filters[1:]:
        hits |= test(one, scan)
    return hits


def matches_nothing(compiled: CompiledFilter) -> bool:
    """Whether a filter matches a flow about which nothing is known, not even that it is one."""
    known = (IPVersionTerm, UuidTerm)
    return all(not isinstance(term, known) and term.matches(flow_pb2.Flow()) for term in compiled.terms)


def flows_of(rows: Rows, tables: Tables) -> list[flow_pb2.Flow]:
    """Rows as messages."""
    from model.encode import Encoder  # only for the few rows that need it

    return Encoder(tables, None).flows(rows)


def refuse_unknown_fields(message: Message) -> None:
    """Raises: InvalidFilter when a message or one inside it has a field that we do not know."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        name = message.DESCRIPTOR.full_name
        raise InvalidFilter("", f"unknown field {unknown[0].field_number} in {name}: this filter cannot be evaluated")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                refuse_unknown_fields(inner)


def content_terms(flow_filter: flow_pb2.FlowFilter, port_ranges: bool) -> list[Term]:
    """Terms of all fields but event_type. The first field that is wrong raises InvalidFilter, in Hubble's order."""
    f = flow_filter
    terms: list[Term] = []
    tables: dict[str, list[tuple[str, Judge]]] = {}
    aux: list[l7.FlowJudge] = []

    def ask(column: str, question: str, judge: Judge) -> None:
        tables.setdefault(column, []).append((question, judge))

    if f.uuid:
        terms.append(UuidTerm(f.uuid))
    if f.verdict:
        terms.append(VerdictTerm(f.verdict))
    if f.drop_reason_desc:
        terms.append(DropReasonTerm(f.drop_reason_desc))
    if f.reply:
        terms.append(ReplyTerm(f.reply))
    if f.encrypted:
        terms.append(EncryptedTerm(f.encrypted))
    for side, column in ENDPOINT_COLUMNS.items():
        if identities := getattr(f, f"{side}_identity"):
            ask(column, "identity", identity_judge(identities))
    if f.protocol:
        terms.append(l7.ProtocolTerm(f.protocol))
    for side, column in ENDPOINT_COLUMNS.items():
        if entries := getattr(f, f"{side}_ip"):
            terms.append(AddressTerm(column, AddressSet(f"{side}_ip", entries)))
    if f.source_ip_xlated:
        translated = AddressSet("source_ip_xlated", f.source_ip_xlated)
        aux.append(lambda flow: translated.has_text(flow.IP.source_xlated))
    for side, column in ENDPOINT_COLUMNS.items():
        if entries := getattr(f, f"{side}_pod"):
            ask(column, "pod", NamespacedNames(f"{side}_pod", entries).has)
    for side, column in ENDPOINT_COLUMNS.items():
        if entries := getattr(f, f"{side}_workload"):
            ask(column, "workloads", workload_judge(entries))
    for side, column in ENDPOINT_COLUMNS.items():
        if entries := getattr(f, f"{side}_service"):
            names = NamespacedNames(f"{side}_service", entries, f"invalid {side} service filter: ")
            ask(f"{column}_svc", "", names.has_service)
    for side, column in ENDPOINT_COLUMNS.items():
        if entries := getattr(f, f"{side}_fqdn"):
            ask(f"{column}_names", "", fqdn_judge(f"{side}_fqdn", entries))
    if f.dns_query:
        aux.append(l7.dns_query_judge(f.dns_query))
    for side, column in ENDPOINT_COLUMNS.items():
        if entries := getattr(f, f"{side}_label"):
            ask(column, "labels", labels_judge(f"{side}_label", entries, side))
    if f.node_labels:
        judge = labels_judge("node_labels", f.node_labels, "node")
        ask("node", "", lambda node: judge(node.labels if node else ()))
    for side in ENDPOINT_COLUMNS:
        if entries := getattr(f, f"{side}_port"):
            terms.append(PortTerm(side, entries, ranges=port_ranges))
    aux += http_judges(f)
    if f.tcp_flags:
        terms.append(TcpFlagsTerm(f.tcp_flags))
    if f.node_name:
        ask("node", "", node_name_judge("node_name", f.node_name))
    for side, column in ENDPOINT_COLUMNS.items():
        if entries := getattr(f, f"{side}_cluster_name"):
            ask(column, "cluster", cluster_judge(f"{side}_cluster_name", entries))
    if f.ip_version:
        terms.append(IPVersionTerm(f.ip_version))
    if f.trace_id:
        aux.append(l7.trace_id_judge(f.trace_id))
    if f.traffic_direction:
        terms.append(DirectionTerm(f.traffic_direction))
    if f.experimental.cel_expression:
        from model.filters.cel.term import CelTerm  # the CEL library takes a fifth of a second to load

        terms.append(CelTerm(f.experimental.cel_expression))
    if f.interface:
        ask("iface", "", interface_judge(f.interface))
    if f.ip_trace_id:
        aux.append(l7.ip_trace_id_judge(f.ip_trace_id))
    terms += [TableTerm(column, checks) for column, checks in tables.items()]
    return [*terms, AuxTerm(aux)] if aux else terms


def http_judges(f: flow_pb2.FlowFilter) -> list[l7.FlowJudge]:
    """Judges of the HTTP fields. Raises InvalidFilter."""
    judges: list[l7.FlowJudge] = []
    if f.http_status_code:
        l7.require_l7("status code", "http_status_code", f.event_type)
        judges.append(l7.http_status_judge(f.http_status_code))
    if f.http_method:
        l7.require_l7("method", "http_method", f.event_type)
        judges.append(l7.http_method_judge(f.http_method))
    if f.http_path:
        l7.require_l7("path", "http_path", f.event_type)
        judges.append(l7.http_path_judge(f.http_path))
    if f.http_url:
        l7.require_l7("url", "http_url", f.event_type)
        judges.append(l7.http_url_judge(f.http_url))
    if f.http_header:
        l7.require_l7("headers", "http_header", f.event_type)
        judges.append(l7.http_header_judge(f.http_header))
    return judges
