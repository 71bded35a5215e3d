"""What filters mean, one flow and one field at a time: slow and obvious, to hold the fast predicate against.

In:        flow.Flow and flow.FlowFilter messages; filters are valid.
Out:       whether the flow passes.
Elsewhere: model/filters does the same for millions of rows. Nothing of it is used here.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from proto.flow import flow_pb2

Check = Callable[[flow_pb2.Flow, Any], bool]


def passes(
    flow: flow_pb2.Flow,
    whitelist: Sequence[flow_pb2.FlowFilter],
    blacklist: Sequence[flow_pb2.FlowFilter],
) -> bool:
    """Whether a flow is delivered."""
    wanted = not whitelist or any(matches(flow, one) for one in whitelist)
    return wanted and not any(matches(flow, one) for one in blacklist)


def matches(flow: flow_pb2.Flow, one: flow_pb2.FlowFilter) -> bool:
    """Whether all fields of a filter that are set hold. CEL is not covered."""
    return all(CHECKS[field.name](flow, list(values)) for field, values in one.ListFields())


def pod_matches(namespace: str, name: str, entries: Iterable[str]) -> bool:
    if namespace == "" and name == "":
        return False
    for entry in entries:
        if "/" not in entry:
            if namespace == "default" and name.startswith(entry):
                return True
            continue
        wanted_namespace, prefix = entry.split("/")[:2]
        if wanted_namespace in ("", namespace) and name.startswith(prefix):
            return True
    return False


def workload_matches(workloads: Iterable[flow_pb2.Workload], entries: Iterable[flow_pb2.Workload]) -> bool:
    for workload in workloads:
        for entry in entries:
            if entry.name in ("", workload.name) and entry.kind in ("", workload.kind):
                return True
    return False


def address_matches(text: str, entries: Iterable[str]) -> bool:
    if text == "":
        return False
    for entry in entries:
        if "/" not in entry:
            if entry == text:
                return True
            continue
        try:
            if ipaddress.ip_address(text) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            pass
    return False


def port_matches(flow: flow_pb2.Flow, side: str, entries: Iterable[str]) -> bool:
    for protocol in ("TCP", "UDP", "SCTP"):
        if flow.l4.HasField(protocol):
            port = getattr(getattr(flow.l4, protocol), side) & 0xFFFF
            for entry in entries:
                first, _, last = entry.partition("-")
                if int(first) <= port <= int(last or first):
                    return True
    return False


def protocol_matches(flow: flow_pb2.Flow, names: Iterable[str]) -> bool:
    for name in names:
        for field in {"icmp": ("ICMPv4", "ICMPv6"), "icmpv4": ("ICMPv4",), "icmpv6": ("ICMPv6",)}.get(
            name.lower(), (name.upper(),)
        ):
            if field in ("DNS", "HTTP", "KAFKA"):
                if flow.l7.HasField(field.lower()):
                    return True
            elif flow.l4.HasField(field):
                return True
    return False


def pattern_matches(name: str, pattern: str) -> bool:
    pattern = pattern.strip().removesuffix(".").lower()
    return re.fullmatch("[-.0-9a-z]*".join(map(re.escape, pattern.split("*"))), name) is not None


def node_matches(name: str, patterns: Iterable[str]) -> bool:
    if name == "":
        return False
    if "/" not in name:
        name = "default/" + name
    any_name = r"[-0-9_a-z]+(?:\.[-0-9_a-z]+)*"
    for pattern in patterns:
        cluster, node = pattern.split("/") if "/" in pattern else ("", pattern)
        parts = []
        for part in (cluster, node):
            part = part.strip().removesuffix(".").lower() if part else part
            parts.append("[-.0-9a-z]*".join(map(re.escape, part.split("*"))) if part else any_name)
        if re.fullmatch("/".join(parts), name):
            return True
    return False


def label_matches(labels: Sequence[str], selectors: Iterable[str]) -> bool:
    parsed = []
    for label in labels:
        source, colon, rest = label.partition(":")
        if label.startswith("$"):
            source, rest = "reserved", label[1:]
        elif not colon and label.startswith("reserved."):
            source, rest = "reserved", label[len("reserved.") :]
        elif not colon:
            source, rest = "unspec", label
        key, equals, value = rest.partition("=")
        if equals and key == "" and source == "reserved":
            key, value = value, ""
        parsed.append((key, source or "unspec", value))
    parsed.sort(key=lambda label: label[0])
    return any(selector_matches(parsed, selector) for selector in selectors)


def selector_matches(labels: Sequence[tuple[str, str, str]], selector: str) -> bool:
    """`a=b,!c,d in (e,f)`: all of it holds."""
    for requirement in re.findall(r"(?:[^,(]|\([^)]*\))+", selector):
        found = re.fullmatch(r"\s*(!?)\s*([^\s=!<>]+)\s*(==|=|!=|<|>|\bin\b|\bnotin\b)?\s*(.*?)\s*", requirement)
        assert found, requirement
        negated, key, operator, operand = found.groups()
        source, _, name = key.partition(":") if ":" in key else ("any", "", key)
        values = [
            value for label_key, label_source, value in labels if key_matches(label_source, label_key, source, name)
        ]
        wanted = [value.strip() for value in operand.strip("()").split(",")]
        value = values[0] if values else None
        if negated or operator is None:
            holds = (value is None) == bool(negated)
        elif operator in ("!=", "notin"):
            holds = value is None or value not in wanted
        elif operator in ("<", ">"):
            holds = value is not None and re.fullmatch(r"[+-]?\d+", value, re.ASCII) is not None
            holds = holds and (
                int(value or 0) > int(wanted[0]) if operator == ">" else int(value or 0) < int(wanted[0])
            )
        else:
            holds = value is not None and value in wanted
        if not holds:
            return False
    return True


def key_matches(label_source: str, label_key: str, source: str, key: str) -> bool:
    if source not in ("any", label_source):
        return False
    if source == "cidr":
        try:
            inner = ipaddress.ip_network(label_key.replace("-", ":"), strict=False)
            outer = ipaddress.ip_network(key.replace("-", ":"), strict=False)
            if inner.version == outer.version and outer.supernet_of(inner):  # type: ignore[arg-type]
                return True
        except ValueError:
            pass
    return label_key == key


def event_type_matches(flow: flow_pb2.Flow, entries: Iterable[flow_pb2.EventTypeFilter]) -> bool:
    if not flow.HasField("event_type"):
        return False
    for entry in entries:
        if entry.type != 0 and entry.type != flow.event_type.type:
            continue
        if entry.match_sub_type and entry.sub_type != flow.event_type.sub_type:
            continue
        return True
    return False


def reply_matches(flow: flow_pb2.Flow, values: Sequence[bool]) -> bool:
    if flow.HasField("is_reply"):
        return flow.is_reply.value in values
    return flow.verdict == flow_pb2.DROPPED and False in values


def flags_match(flow: flow_pb2.Flow, entries: Iterable[flow_pb2.TCPFlags]) -> bool:
    if not flow.l4.TCP.HasField("flags"):
        return False
    has = {field.name for field, _ in flow.l4.TCP.flags.ListFields()}
    return any({field.name for field, _ in entry.ListFields()} <= has for entry in entries)


def interface_matches(flow: flow_pb2.Flow, entries: Iterable[flow_pb2.NetworkInterface]) -> bool:
    if not flow.HasField("interface"):
        return False
    index, name = flow.interface.index, flow.interface.name
    return any(entry.index in (0, index) and entry.name in ("", name) for entry in entries)


def status_matches(code: int, entries: Iterable[str]) -> bool:
    if code == 0:
        return False
    text = f"{code:03}"
    return any(text.startswith(entry[:-1]) if entry.endswith("+") else text == entry for entry in entries)


def path_matches(url: str, patterns: Iterable[str]) -> bool:
    """URLs of the tests are plain: an absolute URL or path, `*`, or nonsense without a slash in front."""
    if url == "*":
        return any(re.search(pattern, url) for pattern in patterns)
    if not url or any(ord(char) < 0x20 for char in url):
        return False
    found = re.fullmatch(r"(?:[a-z]+://[^/?#]*)?(/[^?]*)?(\?.*)?", url)
    if not found or re.search("%(?![0-9a-fA-F]{2})", found[1] or "") or (found[1] is None and "://" not in url):
        return False
    path = unquote_to_bytes(found[1] or "").decode(errors="replace")
    return any(re.search(pattern, path) for pattern in patterns)


def endpoint_side(side: str) -> dict[str, Check]:
    """The checks of the fields that exist for both ends."""
    names = f"{side}_names"
    return {
        f"{side}_ip": lambda flow, values: address_matches(getattr(flow.IP, side), values),
        f"{side}_pod": lambda flow, values: pod_matches(
            getattr(flow, side).namespace, getattr(flow, side).pod_name, values
        ),
        f"{side}_fqdn": lambda flow, values: any(
            pattern_matches(name, pattern) for name in getattr(flow, names) for pattern in values
        ),
        f"{side}_label": lambda flow, values: label_matches(getattr(flow, side).labels, values),
        f"{side}_service": lambda flow, values: pod_matches(
            getattr(flow, f"{side}_service").namespace, getattr(flow, f"{side}_service").name, values
        ),
        f"{side}_workload": lambda flow, values: workload_matches(getattr(flow, side).workloads, values),
        f"{side}_cluster_name": lambda flow, values: getattr(flow, side).cluster_name in values,
        f"{side}_port": lambda flow, values: port_matches(flow, f"{side}_port", values),
        f"{side}_identity": lambda flow, values: flow.HasField(side) and getattr(flow, side).identity in values,
    }


CHECKS: dict[str, Check] = {
    **endpoint_side("source"),
    **endpoint_side("destination"),
    "uuid": lambda flow, values: flow.uuid in values,
    "source_ip_xlated": lambda flow, values: address_matches(flow.IP.source_xlated, values),
    "traffic_direction": lambda flow, values: flow.traffic_direction in values,
    "verdict": lambda flow, values: flow.verdict in values,
    "drop_reason_desc": lambda flow, values: flow.verdict == flow_pb2.DROPPED and flow.drop_reason_desc in values,
    "interface": interface_matches,
    "event_type": event_type_matches,
    "http_status_code": lambda flow, values: status_matches(flow.l7.http.code, values),
    "protocol": protocol_matches,
    "reply": reply_matches,
    "dns_query": lambda flow, values: flow.l7.HasField("dns") and any(re.search(v, flow.l7.dns.query) for v in values),
    "http_method": lambda flow, values: (
        flow.l7.http.method != "" and flow.l7.http.method.lower() in [value.lower() for value in values]
    ),
    "http_path": lambda flow, values: path_matches(flow.l7.http.url, values),
    "http_url": lambda flow, values: flow.l7.http.url != "" and any(re.search(v, flow.l7.http.url) for v in values),
    "http_header": lambda flow, values: any(
        header.key == value.key and header.value == value.value for header in flow.l7.http.headers for value in values
    ),
    "tcp_flags": flags_match,
    "node_name": lambda flow, values: node_matches(flow.node_name, values),
    "node_labels": lambda flow, values: label_matches(flow.node_labels, values),
    "ip_version": lambda flow, values: flow.IP.ipVersion in values,
    "trace_id": lambda flow, values: flow.trace_context.parent.trace_id in values,
    "ip_trace_id": lambda flow, values: flow.ip_trace_id.trace_id in values,
    "encrypted": lambda flow, values: flow.IP.encrypted in values,
}
