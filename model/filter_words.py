"""The language of filters: flags such as `--pod x`, `--not`, `--verdict DROPPED`, and the FlowFilters they stand for.

In:        filter flags in the order in which they stand.
Out:       an allow list and a deny list of FlowFilter, as plain mappings (`FilterSet.allow()`, `.deny()`);
           FILTER_WORDS, every flag with its help.
Elsewhere: what a filter matches, and whether its value makes sense, is model/filters (or the server);
           cli/filters.py makes command-line flags of the words, ui/query.py reads them from a text box.

Each list is a left and a right filter, of which a flow must match one. `--pod x` writes "source is x" to the left and
"destination is x" to the right; `--from-pod x` and flags without sides write to both. Flags typed together therefore
describe one end of a flow: `--ip X --port 80` is "from X:80 or to X:80".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from model.text.numbers import parse_uint
from model.text.quote import quote
from model.vocabulary import AGENT_NOTIFICATIONS, MESSAGE_TYPES, RESERVED_IDENTITY_NUMBERS, TRACE_POINTS

Filter = dict[str, Any]
"""One FlowFilter: field name to list of values."""

CONFLICTS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "from-fqdn",
        "from-ip",
        "ip",
        "fqdn",
        "from-namespace",
        "namespace",
        "from-all-namespaces",
        "all-namespaces",
    ),
    ("from-fqdn", "from-ip", "ip", "fqdn", "from-pod", "pod"),
    ("to-fqdn", "to-ip", "ip", "fqdn", "to-namespace", "namespace", "to-all-namespaces", "all-namespaces"),
    ("to-fqdn", "to-ip", "ip", "fqdn", "to-pod", "pod"),
    ("to-pod", "namespace", "all-namespaces"),
    ("from-pod", "namespace", "all-namespaces"),
    ("to-service", "namespace", "all-namespaces"),
    ("from-service", "namespace", "all-namespaces"),
    ("label", "from-label"),
    ("label", "to-label"),
    ("service", "from-service"),
    ("service", "to-service"),
    ("port", "to-port"),
    ("port", "from-port"),
    ("identity", "to-identity"),
    ("identity", "from-identity"),
    ("workload", "to-workload"),
    ("workload", "from-workload"),
    ("encrypted", "unencrypted"),
)
"""No two flags of one group may be used for the same list. The order is that of the names in the error."""

_TCP_FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")


class Sides:
    """One list: its left and right filter, and the namespaces that are added to their pods and services at the end."""

    def __init__(self) -> None:
        self.left: Filter = {}
        self.right: Filter = {}
        self.used: list[str] = []
        self.namespaces: dict[str, list[str]] = {"": [], "from-": [], "to-": []}

    def add(self, field: str, value: object) -> None:
        """Put `value` on both sides."""
        self.left.setdefault(field, []).append(value)
        self.right.setdefault(field, []).append(value)

    def add_split(self, side: str, field: str, value: object) -> None:
        """Put `value` where a flag with prefix `side` (`from-`, `to-` or none) belongs."""
        if side == "from-":
            self.add(f"source_{field}", value)
        elif side == "to-":
            self.add(f"destination_{field}", value)
        else:
            self.left.setdefault(f"source_{field}", []).append(value)
            self.right.setdefault(f"destination_{field}", []).append(value)

    def check(self, name: str) -> None:
        """Note that the flag `name` is used.

        Raises: ValueError when it contradicts one used before.
        """
        if name not in self.used:
            self.used.append(name)
        for group in CONFLICTS:
            both = [flag for flag in group if flag in self.used]
            if len(both) > 1:
                raise ValueError(f"filters --{both[0]} and --{both[1]} cannot be combined")

    def check_namespaces(self) -> None:
        """Raises: ValueError when pods, services and namespaces cannot all hold."""
        for side in (self.left, self.right):
            problems = list(self._namespace_problems(side))
            if problems:
                raise ValueError("\n".join(problems))

    def _namespace_problems(self, side: Filter) -> Iterable[str]:
        entries = [side.get(field, []) for field in _NAMESPACED]
        addressed = (("", entries), ("from-", entries[:2]), ("to-", entries[2:]))
        for prefix, lists in addressed:
            for names in lists:
                if problem := _outside(self.namespaces[prefix], names):
                    yield problem
        for pods, services in (entries[:2], entries[2:]):
            if problem := _different(pods, services):
                yield problem

    def filters(self) -> list[Filter]:
        """The filters of this list: none, one when both sides are equal, or left and right."""
        left, right = (dict(side) for side in (self.left, self.right))
        if not self.used:
            return []
        for namespaces, sides in (
            (self.namespaces["to-"], ((left, "destination"), (right, "destination"))),
            (self.namespaces["from-"], ((left, "source"), (right, "source"))),
            (self.namespaces[""], ((left, "source"), (right, "destination"))),
        ):
            for side, end in sides if namespaces else ():
                _add_namespaces(side, end, namespaces)
        return [left] if left == right else [left, right]


_NAMESPACED: Final = ("source_pod", "source_service", "destination_pod", "destination_service")


def _namespace_of(entry: str) -> str:
    return entry.partition("/")[0] if "/" in entry else ""


def _outside(namespaces: list[str], entries: list[str]) -> str | None:
    for namespace in namespaces:
        for entry in entries:
            if _namespace_of(entry) not in ("", namespace):
                return f"namespace conflict: {quote(namespace)} does not contain {quote(entry)}"
    return None


def _different(pods: list[str], services: list[str]) -> str | None:
    for pod in pods:
        namespace = _namespace_of(pod)
        for service in services if namespace else ():
            if _namespace_of(service) != namespace:
                return f"namespace of service {quote(service)} conflict with pod {quote(namespace)}"
    return None


def _add_namespaces(side: Filter, end: str, namespaces: list[str]) -> None:
    pods, services = f"{end}_pod", f"{end}_service"
    if not side.get(pods) and not side.get(services):
        side[pods] = [""]
    for field in (pods, services):
        if side.get(field):
            side[field] = [
                full
                for entry in side[field]
                for full in ([entry] if "/" in entry else [f"{namespace}/{entry}" for namespace in namespaces])
            ]


class FilterSet:
    """All filter flags of one command line."""

    def __init__(self) -> None:
        self.negate_next = False
        self._allow = Sides()
        self._deny = Sides()

    def use(self, name: str, text: str) -> None:
        """One use of a filter flag.

        Raises: ValueError.
        """
        if name == "not":
            if self.negate_next:
                raise ValueError("consecutive --not statements")
            self.negate_next = True
            return
        sides = self._deny if self.negate_next else self._allow
        self.negate_next = False
        sides.check(name)
        _ADD[name](sides, text)
        sides.check_namespaces()

    def allow(self) -> list[Filter]:
        """The allow list."""
        return self._allow.filters()

    def deny(self) -> list[Filter]:
        """The deny list."""
        return self._deny.filters()


Add = Callable[[Sides, str], None]


def _plain(field: str, convert: Callable[[str], object] = str) -> Add:
    return lambda sides, text: sides.add(field, convert(text))


def _fixed(field: str, value: object) -> Add:
    return lambda sides, _text: sides.add(field, value)


def _split(side: str, field: str, convert: Callable[[str], object] = str) -> Add:
    return lambda sides, text: sides.add_split(side, field, convert(text))


def _namespace(side: str) -> Add:
    return lambda sides, text: sides.namespaces[side].append(text)


def _all_namespaces(side: str) -> Add:
    return lambda sides, _text: sides.namespaces[side].append("")


def _verdict(text: str) -> int:
    from proto.flow import flow_pb2

    number = flow_pb2.Verdict.DESCRIPTOR.values_by_name.get(text)
    if number is None:
        raise ValueError(f"invalid --verdict value: {text}")
    return int(number.number)


def _drop_reason(text: str) -> int:
    from proto.flow import flow_pb2

    if not text:
        raise ValueError("empty --drop-reason-desc value")
    number = flow_pb2.DropReason.DESCRIPTOR.values_by_name.get(text)
    if number is None:
        raise ValueError(f"invalid --drop-reason-desc value: {text}")
    return int(number.number)


def _ip_version(text: str) -> int:
    return {"4": 1, "v4": 1, "ipv4": 1, "ip4": 1, "6": 2, "v6": 2, "ipv6": 2, "ip6": 2}.get(text.lower(), 0)


def _tcp_flags(text: str) -> dict[str, bool]:
    flags = {}
    for word in text.split(","):
        if word.upper() not in _TCP_FLAGS:
            raise ValueError(f"unknown tcp flag: {word}")
        flags[word.upper()] = True
    return flags


def _http_header(text: str) -> dict[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"invalid http-header value {quote(text)}, expected name:value")
    return {"key": key, "value": value}


def _ip_trace_id(text: str) -> int:
    if text == "0":
        raise ValueError("invalid --ip-trace-id value; must be greater than 0")
    try:
        return parse_uint(text, 64, 10)
    except ValueError as error:
        raise ValueError(f"invalid --ip-trace-id value: {error}") from error


def _identity(text: str) -> int:
    if text in RESERVED_IDENTITY_NUMBERS:
        return RESERVED_IDENTITY_NUMBERS[text]
    try:
        return parse_uint(text, 32)
    except ValueError:
        # The last name has no text in Hubble's own list, so its number is shown.
        names = " ".join(str(number) if number == 11 else name for name, number in RESERVED_IDENTITY_NUMBERS.items())
        raise ValueError(f"invalid security identity, expected one of [{names}] or a numeric value") from None


def _workload(text: str) -> dict[str, str]:
    kind, slash, name = text.partition("/")
    if not slash:
        return {"name": text} if text else {}
    return {key: value for key, value in (("name", name), ("kind", kind)) if value}


def _direction(text: str) -> int:
    word = text.lower()
    number = {"ingress": 1, "egress": 2}.get(word)
    if number is None:
        raise ValueError(f"{word}: invalid traffic direction, expected ingress or egress")
    return number


def _interface(text: str) -> dict[str, str]:
    return {"name": text}


def _signed(number: int) -> int:
    """An unsigned 32-bit number as the signed one that the wire carries."""
    return number - (1 << 32) if number >= 1 << 31 else number


def event_type(text: str) -> Filter:
    """`TYPE[:SUBTYPE]` as an EventTypeFilter."""
    name, colon, sub = text.partition(":")
    found: Filter = {}
    if name in MESSAGE_TYPES:
        found["type"] = MESSAGE_TYPES[name]
    else:
        try:
            found["type"] = _signed(parse_uint(name, 32, 10))
        except ValueError as error:
            raise ValueError(
                f"unable to parse type '{name}', not a known type name and unable to parse as numeric value: {error}"
            ) from error
    if colon:
        names = _SUB_TYPES.get(name, {})
        try:
            found["sub_type"] = names[sub] if sub in names else _signed(parse_uint(sub, 32, 10))
        except ValueError as error:
            raise ValueError(
                f"unable to parse event sub-type '{sub}', not a known sub-type name "
                f"and unable to parse as numeric value: {error}"
            ) from error
        found["match_sub_type"] = True
    return found


_SUB_TYPES: Final = {"trace": {text: number for number, text in TRACE_POINTS.items()}, "agent": AGENT_NOTIFICATIONS}


def _cel(sides: Sides, text: str) -> None:
    for side in (sides.left, sides.right):
        side.setdefault("experimental", {}).setdefault("cel_expression", []).append(text)


_ADD: Final[dict[str, Add]] = {
    "uuid": _plain("uuid"),
    "node-name": _plain("node_name"),
    "node-label": _plain("node_labels"),
    "protocol": _plain("protocol"),
    "tcp-flags": _plain("tcp_flags", _tcp_flags),
    "type": _plain("event_type", event_type),
    "verdict": _plain("verdict", _verdict),
    "drop-reason-desc": _plain("drop_reason_desc", _drop_reason),
    "http-status": _plain("http_status_code"),
    "http-method": _plain("http_method"),
    "http-path": _plain("http_path"),
    "http-url": _plain("http_url"),
    "http-header": _plain("http_header", _http_header),
    "trace-id": _plain("trace_id"),
    "ip-trace-id": _plain("ip_trace_id", _ip_trace_id),
    "snat-ip": _plain("source_ip_xlated"),
    "ipv4": _fixed("ip_version", 1),
    "ipv6": _fixed("ip_version", 2),
    "ip-version": _plain("ip_version", _ip_version),
    "traffic-direction": _plain("traffic_direction", _direction),
    "cel-expression": _cel,
    "interface": _plain("interface", _interface),
    "encrypted": _fixed("encrypted", True),
    "unencrypted": _fixed("encrypted", False),
}
for _side in ("", "from-", "to-"):
    for _name, _field, _convert in (
        ("cluster", "cluster_name", str),
        ("fqdn", "fqdn", str),
        ("ip", "ip", str),
        ("pod", "pod", str),
        ("label", "label", str),
        ("service", "service", str),
        ("port", "port", str),
        ("workload", "workload", _workload),
        ("identity", "identity", _identity),
    ):
        _ADD[_side + _name] = _split(_side, _field, _convert)
    _ADD[_side + "namespace"] = _namespace(_side)
    _ADD[_side + "all-namespaces"] = _all_namespaces(_side)


@dataclass(frozen=True, slots=True)
class FilterWord:
    """One flag of the language."""

    name: str
    help: str
    value: str
    """What its value is called; empty: it has none."""
    short: str = ""
    choices: tuple[str, ...] = ()
    completes: str = ""
    """What a server is asked for to complete the value: pods, namespaces, nodes, ..."""


def _trio(
    name: str, what: str, value: str, short: str = "", completes: str = "", choices: tuple[str, ...] = ()
) -> Iterable[FilterWord]:
    yield FilterWord(f"from-{name}", f"flows from {what}", value, "", choices, completes)
    yield FilterWord(name, f"flows from or to {what}", value, short, choices, completes)
    yield FilterWord(f"to-{name}", f"flows to {what}", value, "", choices, completes)


VERDICTS: Final = ("FORWARDED", "DROPPED", "AUDIT", "REDIRECTED", "ERROR", "TRACED", "TRANSLATED")
PROTOCOLS: Final = ("icmp", "icmpv4", "icmpv6", "tcp", "udp", "sctp", "vrrp", "igmp", "dns", "http", "kafka")
TYPES: Final = (
    "drop",
    "capture",
    "l7",
    "policy-verdict",
    "trace",
    "trace-sock",
    *(f"trace:{point}" for point in TRACE_POINTS.values()),
)

FILTER_WORDS: Final[tuple[FilterWord, ...]] = (
    FilterWord("not", "show what does not match the next filter", ""),
    *_trio("pod", "pods whose name begins so, in namespace `default` unless one is named", "[ns/]prefix", "", "pods"),
    *_trio("namespace", "pods and services of the namespace", "name", "n", "namespaces"),
    *_trio("all-namespaces", "pods and services of any namespace", "", "A"),
    *_trio("service", "services whose name begins so", "[ns/]prefix", "", "services"),
    *_trio("label", "endpoints with the labels: k=v, k!=v, k, !k, k in (a,b)", "selector", "l"),
    *_trio("workload", "the workload", "[kind/]name", "", "workloads"),
    *_trio(
        "identity", "the security identity, by number or reserved name", "id", "", "", tuple(RESERVED_IDENTITY_NUMBERS)
    ),
    *_trio("ip", "an address, or a prefix such as 10.0.0.0/8", "address"),
    *_trio("fqdn", "a DNS name; * stands for any part of it", "pattern"),
    *_trio("port", "a TCP, UDP or SCTP port", "port"),
    *_trio("cluster", "endpoints of the cluster", "name"),
    FilterWord("verdict", "what was decided: " + ", ".join(VERDICTS), "verdict", "", VERDICTS),
    FilterWord("drop-reason-desc", "why it was dropped, e.g. POLICY_DENIED", "reason", "", (), "drop-reasons"),
    FilterWord("protocol", "layer 4 or 7 protocol: " + ", ".join(PROTOCOLS), "protocol", "", PROTOCOLS),
    FilterWord(
        "type",
        "kind of event, e.g. drop, l7, policy-verdict, trace:to-endpoint, or by number",
        "TYPE[:SUBTYPE]",
        "t",
        TYPES,
    ),
    FilterWord(
        "traffic-direction", "seen from the endpoint: ingress or egress", "direction", "", ("ingress", "egress")
    ),
    FilterWord("tcp-flags", "all of these flags are set, e.g. SYN,ACK", "flags", "", _TCP_FLAGS),
    FilterWord("ipv4", "IPv4 only", "", "4"),
    FilterWord("ipv6", "IPv6 only", "", "6"),
    FilterWord("ip-version", "version of IP: 4, 6, or none", "version", "", ("4", "6", "none")),
    FilterWord("snat-ip", "the source address was rewritten to this one", "address"),
    FilterWord("http-status", "HTTP status: 404, or 5+ for all that begin so", "status"),
    FilterWord(
        "http-method", "HTTP method", "method", "", ("get", "post", "put", "delete", "patch", "head", "options")
    ),
    FilterWord("http-path", "HTTP path, a regular expression", "regexp"),
    FilterWord("http-url", "HTTP URL, a regular expression", "regexp"),
    FilterWord("http-header", "HTTP header, both parts exactly", "name:value"),
    FilterWord("trace-id", "OpenTelemetry trace", "id"),
    FilterWord("ip-trace-id", "IP trace option", "number"),
    FilterWord("interface", "network interface", "name"),
    FilterWord("encrypted", "only encrypted flows", ""),
    FilterWord("unencrypted", "only unencrypted flows", ""),
    FilterWord("node-name", "node that saw the flow; * stands for any part", "[cluster/]pattern", "", (), "nodes"),
    FilterWord("node-label", "labels of the node that saw the flow", "selector"),
    FilterWord("uuid", "the one flow of this name", "uuid"),
    FilterWord("cel-expression", "expression in the Common Expression Language over `_flow`", "expression"),
)
