"""The columns of the page's table: every field of a flow as words.

In:        a few rows (what a person reads at once) and their tables.
Out:       one list per row: [position, uuid, verdict, cell, cell, ...], in the order of the columns asked for.
Elsewhere: model/text has the words; flows.py finds the rows.

All cells are text from the network, which the page must only set as text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model.encode import Encoder
from model.row import Kind, Rows
from model.tables import Tables
from model.text.parts import FlowStyle, Parts, enum_name, parts_of
from proto.flow import flow_pb2
from ui.cards import card_of

HOW: Final = FlowStyle()
Flow = flow_pb2.Flow
Text = Callable[[Flow, Parts], str]


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    """The field's own name where there is one field."""
    title: str
    text: Text
    width: int = 130
    """Pixels at first."""
    filter: str = ""
    """Word of the filter language that picks flows by this cell."""


def records(rows: Rows, positions: Sequence[int], tables: Tables, columns: Sequence[str]) -> list[list[Any]]:
    """One record per row, in their order. A gap is [position, None, text]."""
    chosen = [COLUMNS[name] for name in columns]
    flows = iter(Encoder(tables).flows(rows[rows["kind"] == Kind.FLOW]))
    found: list[list[Any]] = []
    for position, kind, aux in zip(positions, rows["kind"].tolist(), rows["aux"].tolist(), strict=True):
        if kind == Kind.LOST:
            found.append([position, None, gap_text(tables.aux[aux] or b"")])
            continue
        flow = next(flows)
        parts = parts_of(flow, HOW)
        verdict = enum_name(flow_pb2.Verdict, flow.verdict)
        found.append([position, flow.uuid, verdict, *(column.text(flow, parts) for column in chosen)])
    return found


def gap_text(encoded: bytes) -> str:
    event = flow_pb2.LostEvent.FromString(encoded)
    where = enum_name(flow_pb2.LostEventSource, event.source).replace("_", " ").lower()
    return f"{event.num_events_lost:,} events lost here ({where})"


def column_messages() -> list[dict[str, Any]]:
    """What the page needs to know about columns."""
    return [
        {"name": column.name, "title": column.title, "width": column.width, "filter": column.filter}
        for column in COLUMNS.values()
    ]


def _end(side: str, field: str) -> Text:
    def text(flow: Flow, _: Parts) -> str:
        return str(getattr(getattr(flow, side), field) or "")

    return text


def _labels(side: str) -> Text:
    return lambda flow, _: ", ".join(getattr(flow, side).labels)


def _workload(side: str) -> Text:
    def text(flow: Flow, _: Parts) -> str:
        # Only a pod's own node knows its workload; the map's rule gives all nodes the same answer.
        end = getattr(flow, side)
        return card_of(end).id if end.pod_name else ""

    return text


def _names(side: str) -> Text:
    return lambda flow, _: ", ".join(getattr(flow, f"{side}_names"))


def _service(side: str) -> Text:
    def text(flow: Flow, _: Parts) -> str:
        service = getattr(flow, f"{side}_service")
        return f"{service.namespace}/{service.name}" if service.name else ""

    return text


def _ip(side: str) -> Text:
    return lambda flow, _: str(getattr(flow.IP, side))


def _port(side: str) -> Text:
    def text(flow: Flow, _: Parts) -> str:
        name = flow.l4.WhichOneof("protocol")
        return str(getattr(getattr(flow.l4, name), f"{side}_port")) if name in ("TCP", "UDP", "SCTP") else ""

    return text


def _protocol(flow: Flow, _: Parts) -> str:
    return (flow.l7.WhichOneof("record") or flow.l4.WhichOneof("protocol") or "").upper()


def _flags(flow: Flow, _: Parts) -> str:
    return ", ".join(field.name for field, value in flow.l4.TCP.flags.ListFields() if value)


def _drop_reason(flow: Flow, _: Parts) -> str:
    return enum_name(flow_pb2.DropReason, flow.drop_reason_desc) if flow.drop_reason_desc else ""


def _reply(flow: Flow, _: Parts) -> str:
    return ("reply" if flow.is_reply.value else "request") if flow.HasField("is_reply") else ""


def _latency(flow: Flow, _: Parts) -> str:
    return f"{flow.l7.latency_ns / 1e6:.3g} ms" if flow.l7.latency_ns else ""


def _policies(flow: Flow, _: Parts) -> str:
    lists = (flow.ingress_allowed_by, flow.ingress_denied_by, flow.egress_allowed_by, flow.egress_denied_by)
    return ", ".join(f"{one.namespace}/{one.name}" if one.namespace else one.name for each in lists for one in each)


def _enum(enum: Any, field: str) -> Text:
    def text(flow: Flow, _: Parts) -> str:
        number = getattr(flow, field)
        return str(enum_name(enum, number)) if number else ""

    return text


def _sides() -> list[Column]:
    found = []
    for side, prefix in (("source", "from"), ("destination", "to")):
        label = side.capitalize()
        found += [
            Column(f"{side}_ip", f"{label} IP", _ip(side), 130, f"{prefix}-ip"),
            Column(f"{side}_port", f"{label} port", _port(side), 80, f"{prefix}-port"),
            Column(f"{side}_pod", f"{label} pod", _end(side, "pod_name"), 200),
            Column(f"{side}_namespace", f"{label} namespace", _end(side, "namespace"), 130, f"{prefix}-namespace"),
            Column(f"{side}_workload", f"{label} workload", _workload(side), 170, f"{prefix}-pod"),
            Column(f"{side}_service", f"{label} service", _service(side), 160, f"{prefix}-service"),
            Column(f"{side}_names", f"{label} DNS names", _names(side), 200, f"{prefix}-fqdn"),
            Column(f"{side}_identity", f"{label} identity", _end(side, "identity"), 90, f"{prefix}-identity"),
            Column(f"{side}_labels", f"{label} labels", _labels(side), 260),
            Column(f"{side}_cluster", f"{label} cluster", _end(side, "cluster_name"), 100, f"{prefix}-cluster"),
            Column(
                f"{side}_mac", f"{label} MAC", (lambda s: lambda flow, _: str(getattr(flow.ethernet, s)))(side), 140
            ),
        ]
    return found


_ALL: Final = (
    Column("time", "Time (UTC)", lambda flow, _: flow.time.ToJsonString()[11:23].rstrip("Z"), 118),
    Column("node", "Node", lambda flow, _: flow.node_name, 130, "node-name"),
    Column("source", "Source", lambda _, parts: parts.source, 330),
    Column("destination", "Destination", lambda _, parts: parts.destination, 330),
    Column("type", "Type", lambda _, parts: parts.type, 155, "type"),
    Column("verdict", "Verdict", lambda flow, _: enum_name(flow_pb2.Verdict, flow.verdict), 130, "verdict"),
    Column("summary", "Summary", lambda _, parts: parts.summary, 280),
    Column("drop_reason", "Drop reason", _drop_reason, 170, "drop-reason-desc"),
    Column("protocol", "Protocol", _protocol, 80, "protocol"),
    Column("direction", "Direction", _enum(flow_pb2.TrafficDirection, "traffic_direction"), 90, "traffic-direction"),
    Column("reply", "Reply", _reply, 80),
    Column("tcp_flags", "TCP flags", _flags, 110),
    *_sides(),
    Column("http_method", "HTTP method", lambda flow, _: flow.l7.http.method, 90, "http-method"),
    Column("http_url", "HTTP URL", lambda flow, _: flow.l7.http.url, 260),
    Column("http_status", "HTTP status", lambda flow, _: str(flow.l7.http.code or ""), 90, "http-status"),
    Column("dns_query", "DNS query", lambda flow, _: flow.l7.dns.query, 220),
    Column("dns_rcode", "DNS rcode", lambda f, _: str(f.l7.dns.rcode) if f.l7.HasField("dns") else "", 80),
    Column("latency", "Latency", _latency, 90),
    Column("policies", "Policies", _policies, 200),
    Column("auth", "Authentication", _enum(flow_pb2.AuthType, "auth_type"), 110),
    Column("encrypted", "Encrypted", lambda flow, _: "yes" if flow.IP.encrypted else "", 80),
    Column("interface", "Interface", lambda flow, _: flow.interface.name, 110, "interface"),
    Column("proxy_port", "Proxy port", lambda flow, _: str(flow.proxy_port or ""), 80),
    Column("snat_ip", "Source NAT", lambda flow, _: flow.IP.source_xlated, 130, "snat-ip"),
    Column("point", "Observation point", _enum(flow_pb2.TraceObservationPoint, "trace_observation_point"), 140),
    Column("trace_reason", "Trace reason", _enum(flow_pb2.TraceReason, "trace_reason"), 120),
    Column("trace_id", "Trace", lambda flow, _: flow.trace_context.parent.trace_id, 240, "trace-id"),
    Column("uuid", "UUID", lambda flow, _: flow.uuid, 280, "uuid"),
)

COLUMNS: Final[dict[str, Column]] = {column.name: column for column in _ALL}
USUAL: Final = ("time", "verdict", "source", "destination", "type", "summary")
