"""The words of a flow: hosts, identities, type, verdict, summary.

In:        a flow.Flow.
Out:       Parts, the texts that every output but JSON is made of.
Elsewhere: flows.py puts parts into lines; rows.py finds the same parts for whole batches of rows. This module is the
           definition of both: it handles any flow, one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from posixpath import normpath
from typing import Any, Final

from model.text.style import CYAN, GREEN, MAGENTA, RED, YELLOW, Style
from model.vocabulary import DROP_REASONS, MESSAGE_TYPES, POLICY_MATCH_TYPES, RESERVED_IDENTITIES, TRACE_POINTS
from proto.flow import flow_pb2

TRACE: Final = MESSAGE_TYPES["trace"]
DROP: Final = MESSAGE_TYPES["drop"]
POLICY_VERDICT: Final = MESSAGE_TYPES["policy-verdict"]
CAPTURE: Final = MESSAGE_TYPES["capture"]
TRACE_SOCK: Final = MESSAGE_TYPES["trace-sock"]


@dataclass(frozen=True, slots=True)
class FlowStyle:
    """How flows are worded."""

    translate: bool = True
    """Names of pods, services and DNS in place of addresses."""
    policy_names: bool = False
    style: Style = field(default_factory=lambda: Style(colour=False))


@dataclass(frozen=True, slots=True)
class Parts:
    """The words of one flow."""

    source: str
    destination: str
    source_identity: str
    destination_identity: str
    arrow: str
    type: str
    verdict: str
    summary: str


def enum_name(enum: Any, number: int) -> str:
    """The name of an enum value; the number when it has none."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return str(number) if value is None else str(value.name)


def parts_of(flow: flow_pb2.Flow, how: FlowStyle) -> Parts:
    """The words of `flow`."""
    source, destination = hosts(flow, how)
    arrow = "<>"
    if flow.HasField("is_reply"):
        arrow = "<-" if flow.is_reply.value else "->"
    return Parts(
        source,
        destination,
        identity_text(flow.source.identity, how.style),
        identity_text(flow.destination.identity, how.style),
        arrow,
        type_text(flow),
        verdict_text(flow, how),
        summary_text(flow, how.style),
    )


def hosts(flow: flow_pb2.Flow, how: FlowStyle) -> tuple[str, str]:
    """Who sent, and to whom, with ports."""
    if not flow.HasField("IP"):
        if not flow.HasField("ethernet"):
            return "", ""
        return how.style.paint(flow.ethernet.source, CYAN), how.style.paint(flow.ethernet.destination, CYAN)
    source_port, destination_port = ports(flow)
    return (
        host_text(
            flow.IP.source,
            source_port,
            flow.source,
            flow.source_service if flow.HasField("source_service") else None,
            flow.source_names,
            how,
        ),
        host_text(
            flow.IP.destination,
            destination_port,
            flow.destination,
            flow.destination_service if flow.HasField("destination_service") else None,
            flow.destination_names,
            how,
        ),
    )


def ports(flow: flow_pb2.Flow) -> tuple[int, int]:
    """Ports of the protocols that have them; 0: none."""
    protocol = flow.l4.WhichOneof("protocol")
    if protocol not in ("TCP", "UDP", "SCTP"):
        return 0, 0
    layer = getattr(flow.l4, protocol)
    return layer.source_port, layer.destination_port


def host_text(
    ip: str,
    port: int,
    endpoint: flow_pb2.Endpoint,
    service: flow_pb2.Service | None,
    names: Sequence[str],
    how: FlowStyle,
) -> str:
    """One end of a flow: pod, service, DNS names or address, and the port."""
    host = host_name(ip, endpoint, service, names) if how.translate else ip
    return with_port(host, str(port) if port else "", how.style)


def host_name(ip: str, endpoint: flow_pb2.Endpoint, service: flow_pb2.Service | None, names: Sequence[str]) -> str:
    """The best name of one end. A service, when there is one, lends its namespace also to the pod."""
    namespace = endpoint.namespace if service is None else service.namespace
    if endpoint.pod_name:
        return join_path(namespace, endpoint.pod_name)
    if service is not None and service.name:
        return join_path(namespace, service.name)
    return ",".join(names) or ip


def with_port(host: str, port: str, style: Style) -> str:
    """`host:port`, painted; an empty port is none."""
    if port:
        shown = style.paint(port, YELLOW)
        host = f"[{host}]:{shown}" if ":" in host else f"{host}:{shown}"
    return style.paint(host, CYAN)


def join_path(namespace: str, name: str) -> str:
    """`namespace/name`, shortened as paths are (`a//b`, `a/./b`)."""
    path = f"{namespace}/{name}" if namespace else name
    # Pod names hold no dots or slashes that matter, so mostly there is nothing to do.
    if "//" not in path and "." not in path and not path.endswith("/"):
        return path
    path = normpath(path)
    # POSIX gives two leading slashes a meaning; Go's path.Clean does not.
    return path[1:] if path.startswith("//") else path


def identity_text(number: int, style: Style) -> str:
    """`(host)` or `(ID:34511)`."""
    name = RESERVED_IDENTITIES.get(number)
    return style.paint(f"(ID:{number})" if name is None else f"({name})", MAGENTA)


def type_text(flow: flow_pb2.Flow) -> str:
    """What kind of event it was."""
    if flow.HasField("l7"):
        return l7_type_text(flow.l7)
    return event_type_text(
        flow.event_type.type,
        flow.event_type.sub_type,
        flow.policy_match_type,
        flow.traffic_direction,
        flow.debug_capture_point,
        flow.sock_xlate_point,
    )


def l7_type_text(l7: flow_pb2.Layer7) -> str:
    """`http-request`, `dns-response proxy`, ..."""
    kind = enum_name(flow_pb2.L7FlowType, l7.type).lower()
    record = l7.WhichOneof("record")
    if record == "dns":
        return f"dns-{kind} {l7.dns.observation_source}"
    return f"{record or 'l7'}-{kind}"


def event_type_text(
    event_type: int, sub_type: int, match_type: int, direction: int, capture_point: int, xlate_point: int
) -> str:
    """The type of an event that is not L7."""
    if event_type == TRACE:
        return TRACE_POINTS.get(sub_type & 0xFF, str(sub_type & 0xFF))
    if event_type == DROP:
        return DROP_REASONS.get(sub_type & 0xFF, f"{sub_type & 0xFF}, 0")
    if event_type == POLICY_VERDICT:
        match = POLICY_MATCH_TYPES.get(match_type, "unknown")
        return f"policy-verdict:{match} {enum_name(flow_pb2.TrafficDirection, direction)}"
    if event_type == CAPTURE:
        return enum_name(flow_pb2.DebugCapturePoint, capture_point)
    if event_type == TRACE_SOCK:
        return _XLATE_POINTS.get(xlate_point) or enum_name(flow_pb2.SocketTranslationPoint, xlate_point)
    return "UNKNOWN"


_XLATE_POINTS: Final[dict[int, str]] = {
    flow_pb2.SOCK_XLATE_POINT_PRE_DIRECTION_FWD: "pre-xlate-fwd",
    flow_pb2.SOCK_XLATE_POINT_POST_DIRECTION_FWD: "post-xlate-fwd",
    flow_pb2.SOCK_XLATE_POINT_PRE_DIRECTION_REV: "pre-xlate-rev",
    flow_pb2.SOCK_XLATE_POINT_POST_DIRECTION_REV: "post-xlate-rev",
}

_ALLOWED: Final = (flow_pb2.FORWARDED, flow_pb2.REDIRECTED)
_DENIED: Final = (flow_pb2.DROPPED, flow_pb2.ERROR)
_YELLOW: Final = (flow_pb2.AUDIT, flow_pb2.TRACED, flow_pb2.TRANSLATED)


def verdict_text(flow: flow_pb2.Flow, how: FlowStyle) -> str:
    """What was decided, and with policy names by whom."""
    by = ""
    if how.policy_names and flow.event_type.type == POLICY_VERDICT:
        by = policy_names(flow)
    return verdict_word(flow.verdict, flow.event_type.type == POLICY_VERDICT, by, how.style)


def verdict_word(verdict: int, of_policy: bool, by: str, style: Style) -> str:
    """The verdict of an event; policy verdicts have words of their own."""
    if verdict in _ALLOWED:
        return style.paint(("ALLOWED" if of_policy else enum_name(flow_pb2.Verdict, verdict)) + by, GREEN)
    if verdict in _DENIED:
        return style.paint(("DENIED" if of_policy else enum_name(flow_pb2.Verdict, verdict)) + by, RED)
    if verdict in _YELLOW:
        of_audit = of_policy and verdict == flow_pb2.AUDIT
        return style.paint("AUDITED" if of_audit else enum_name(flow_pb2.Verdict, verdict), YELLOW)
    return enum_name(flow_pb2.Verdict, verdict)


def policy_names(flow: flow_pb2.Flow) -> str:
    """` BY name (kind), name (kind)`: the policies that decided, as far as they are named."""
    direction = {flow_pb2.INGRESS: "ingress", flow_pb2.EGRESS: "egress"}.get(flow.traffic_direction)
    outcome = "allowed_by" if flow.verdict in _ALLOWED else "denied_by" if flow.verdict in _DENIED else ""
    if not direction or not outcome:
        return ""
    policies = [policy for policy in getattr(flow, f"{direction}_{outcome}") if policy.name and policy.kind]
    return " BY " + ", ".join(f"{policy.name} ({policy.kind})" for policy in policies) if policies else ""


def summary_text(flow: flow_pb2.Flow, style: Style) -> str:
    """What else there is to say."""
    trace_id = flow.ip_trace_id.trace_id
    return wrap_summary(flow.Summary, trace_id, flow.auth_type, style)


def wrap_summary(summary: str, trace_id: int, auth_type: int, style: Style) -> str:
    """The summary with what stands before and behind it."""
    before = f"IP Trace ID: {trace_id}; " if trace_id else ""
    if auth_type == flow_pb2.DISABLED:
        return before + summary
    name = enum_name(flow_pb2.AuthType, auth_type)
    colour = RED if auth_type == flow_pb2.TEST_ALWAYS_FAIL else GREEN
    return f"{before}{summary}; Auth: {style.paint(name, colour)}"
