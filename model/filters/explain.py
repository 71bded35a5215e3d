"""A request in words, for `--explain-filter`.

In:        the two lists of flow.FlowFilter of a request.
Out:       English text, one condition a line.
Elsewhere: compile.py evaluates the same lists; what it refuses is refused there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from model.filters.names import namespace_and_name
from model.row import TcpFlag
from model.vocabulary import MESSAGE_TYPES, RESERVED_IDENTITIES, TRACE_POINTS
from proto.flow import flow_pb2

TYPE_NAMES: Final = {number: name for name, number in MESSAGE_TYPES.items()}
TRACE: Final = MESSAGE_TYPES["trace"]
ANY_SIDE: Final = "source or destination "

Words = Callable[[Any], str]


def explain(whitelist: Sequence[flow_pb2.FlowFilter], blacklist: Sequence[flow_pb2.FlowFilter] = ()) -> str:
    """What passes, in words.

    Shape: lines without a newline at the end.
    """
    if not whitelist and not blacklist:
        return "all flows"
    lines = _alternatives("flows where", whitelist) if whitelist else ["all flows"]
    if blacklist:
        lines += _alternatives("except those where", blacklist)
    return "\n".join(lines)


def _alternatives(start: str, filters: Sequence[flow_pb2.FlowFilter]) -> list[str]:
    """The conditions of each filter, below `start` or `or where`."""
    lines: list[str] = []
    for conditions in _merged([_conditions(one) for one in filters]):
        lines.append(start if not lines else "or where")
        lines += [f"  {condition}" for condition in _and(conditions)]
    return lines


def _and(conditions: Sequence[str]) -> list[str]:
    return [condition if number == 0 else f"and {condition}" for number, condition in enumerate(conditions)]


def _merged(filters: list[list[str]]) -> list[list[str]]:
    """Two filters that say the same of the two ends, as flags without a side make them, in one."""
    if len(filters) != 2 or len(filters[0]) != len(filters[1]):
        return filters
    differing = [pair for pair in zip(*filters, strict=True) if pair[0] != pair[1]]
    if len(differing) != 1:
        return filters
    source, destination = differing[0]
    if source.removeprefix("source ") != destination.removeprefix("destination ") or not source.startswith("source "):
        return filters
    either = ANY_SIDE + source.removeprefix("source ")
    return [[either if condition == source else condition for condition in filters[0]]]


def _conditions(flow_filter: flow_pb2.FlowFilter) -> list[str]:
    """One text per field that is set, in order of declaration."""
    conditions = []
    for field, value in flow_filter.ListFields():
        if field.name == "experimental":
            conditions.append(
                _either("", [_marked("`", text) for text in value.cel_expression], "CEL expression ", " is true")
            )
            continue
        subject, verb, words = _phrase(field.name)
        conditions.append(_either(f"{subject} {verb} ", [words(one) for one in value]))
    return conditions or ["anything holds"]


def _either(start: str, values: Sequence[str], before: str = "", after: str = "") -> str:
    return start + " or ".join(f"{before}{value}{after}" for value in dict.fromkeys(values))


def _phrase(field: str) -> tuple[str, str, Words]:
    """Subject, verb and the words for one value of a field."""
    for side in ("source", "destination"):
        if field.startswith(f"{side}_") and field.removeprefix(f"{side}_") in SIDE_PHRASES:
            subject, verb, words = SIDE_PHRASES[field.removeprefix(f"{side}_")]
            return f"{side} {subject}", verb, words
    if field in PHRASES:
        return PHRASES[field]
    return field.replace("_", " "), "is", _text


def _text(value: object) -> str:
    """Text from a stranger, in quotes where it would not read as one word."""
    text = str(value)
    return text if text and text.isprintable() and " " not in text else repr(text)


def _marked(mark: str, text: str) -> str:
    """An expression between marks of its own, unless it would not print as it is."""
    return f"{mark}{text}{mark}" if text.isprintable() else repr(text)


def _regexp(text: str) -> str:
    return _marked("/", text)


def _yes_no(yes: str, no: str) -> Words:
    return lambda value: yes if value else no


def _enum(enum: Any) -> Words:
    def words(number: int) -> str:
        known: Iterable[int] = enum.values()
        return str(enum.Name(number)) if number in known else str(number)

    return words


def _address(value: str) -> str:
    return f"in {_text(value)}" if "/" in value else _text(value)


def _named(value: str) -> str:
    namespace, name = namespace_and_name(value)
    start = f"{_text(name)}*" if name else "any"
    return f"{start} in any namespace" if namespace is None else f"{start} in namespace {_text(namespace)}"


def _workload(value: flow_pb2.Workload) -> str:
    return f"{_text(value.kind) if value.kind else 'any kind'} {_text(value.name) if value.name else 'of any name'}"


def _identity(value: int) -> str:
    name = RESERVED_IDENTITIES.get(value)
    return f"{value} ({name})" if name else str(value)


def _event_type(value: flow_pb2.EventTypeFilter) -> str:
    name = "any" if value.type == 0 else TYPE_NAMES.get(value.type, str(value.type))
    if not value.match_sub_type:
        return name
    sub = TRACE_POINTS.get(value.sub_type) if value.type == TRACE else None
    return f"{name}:{sub or value.sub_type}"


def _flags(value: flow_pb2.TCPFlags) -> str:
    names = [flag.name for flag in TcpFlag if getattr(value, flag.name)]
    return " and ".join(names) if names else "any"


def _interface(value: flow_pb2.NetworkInterface) -> str:
    parts = [_text(value.name)] if value.name else []
    parts += [f"index {value.index}"] if value.index else []
    return " with ".join(parts) or "any"


SIDE_PHRASES: Final[dict[str, tuple[str, str, Words]]] = {
    "ip": ("address", "is", _address),
    "ip_xlated": ("address after translation", "is", _address),
    "pod": ("pod", "is", _named),
    "fqdn": ("DNS name", "matches", _text),
    "label": ("labels", "match", _text),
    "service": ("service", "is", _named),
    "workload": ("workload", "is", _workload),
    "cluster_name": ("cluster", "is", _text),
    "port": ("port", "is", _text),
    "identity": ("identity", "is", _identity),
}
PHRASES: Final[dict[str, tuple[str, str, Words]]] = {
    "uuid": ("uuid", "is", _text),
    "traffic_direction": ("direction", "is", lambda value: _enum(flow_pb2.TrafficDirection)(value).lower()),
    "verdict": ("verdict", "is", _enum(flow_pb2.Verdict)),
    "drop_reason_desc": ("drop reason", "is", _enum(flow_pb2.DropReason)),
    "interface": ("interface", "is", _interface),
    "event_type": ("event type", "is", _event_type),
    "http_status_code": ("HTTP status", "is", lambda value: _text(value.replace("+", "…"))),
    "protocol": ("protocol", "is", lambda value: _text(value.lower())),
    "reply": ("packet", "is", _yes_no("a reply", "no reply")),
    "dns_query": ("DNS query", "matches", _regexp),
    "http_method": ("HTTP method", "is", lambda value: _text(value.upper())),
    "http_path": ("HTTP path", "matches", _regexp),
    "http_url": ("HTTP URL", "matches", _regexp),
    "http_header": ("HTTP header", "is", lambda value: f"{_text(value.key)}: {_text(value.value)}"),
    "tcp_flags": ("TCP flags", "include", _flags),
    "node_name": ("node", "matches", _text),
    "node_labels": ("node labels", "match", _text),
    "ip_version": ("IP version", "is", lambda value: _enum(flow_pb2.IPVersion)(value).replace("IP_NOT_USED", "none")),
    "trace_id": ("trace id", "is", _text),
    "ip_trace_id": ("IP trace id", "is", _text),
    "encrypted": ("packet", "is", _yes_no("encrypted", "not encrypted")),
}
