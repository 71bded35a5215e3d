"""L7 records of proxies into rows.

In:        access-log records (HTTP, DNS, Kafka, other) as parsed JSON; field names: golden/README.md. An endpoint with
           `ip` instead of `ipv4` and `ipv6` is just an address and a port: who that is, the node's knowledge says.
Out:       the bytes of one row each; what has no column (l7, Summary, trace context) stands in its aux entry.
Elsewhere: the proxies' own formats are turned into records by whoever runs the proxy.

Records are one in twenty events and each has texts of its own, so that the messages in aux are written by hand: the
generated classes take three times as long. Latencies and trace contexts join a response with its request by the
header X-Request-Id.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

from model.address import LOW_HALF, Address, parse_address
from model.decode import other_parts
from model.decode.errors import DecodeError, ErrorClass
from model.decode.http_parts import (
    FLOW,
    HTTP,
    HTTP_CODE,
    IP,
    L7,
    L7_LATENCY,
    L7_TYPE,
    REDACTED,
    REQUEST_ID,
    TRACEPARENT,
    Redaction,
    header,
    make_header,
    method_and_protocol,
    sized,
    trace_context,
    trace_id_of,
)
from model.decode.resolve import Resolver
from model.draft import pack_fields
from model.knowledge import add_workload, cluster_of
from model.layouts import MessageType
from model.row import IP_NOT_USED, IPV4, IPV6, L4, Bit, Kind, Reply
from model.text.times import parse_rfc3339
from model.wire import number
from proto.flow import flow_pb2

V = TypeVar("V")

_REMEMBERED: Final = 10_000
"""Requests that wait for their response."""
_ENDS: Final = 65_536
_TYPES: Final = {"Request": flow_pb2.REQUEST, "Response": flow_pb2.RESPONSE, "Sample": flow_pb2.SAMPLE}
_VERDICTS: Final = {
    "Forwarded": flow_pb2.FORWARDED,
    "Denied": flow_pb2.DROPPED,
    "Error": flow_pb2.ERROR,
    "Redirected": flow_pb2.REDIRECTED,
}
_DIRECTIONS: Final = {"Ingress": flow_pb2.INGRESS, "Egress": flow_pb2.EGRESS}
_PROTOCOLS: Final = {6: L4.TCP, 17: L4.UDP, 132: L4.SCTP}
_FAMILIES: Final = {"ipv4": IPV4, "ipv6": IPV6}
_ADDRESS_KEYS: Final = {IP_NOT_USED: "", IPV4: "ipv4", IPV6: "ipv6"}
_NOTHING: Final[Mapping[str, Any]] = {}


class _Memory(Generic[V]):
    """Values by request id; the oldest are forgotten when there are too many."""

    def __init__(self) -> None:
        self._values: OrderedDict[str, V] = OrderedDict()

    def remember(self, request_id: str, value: V) -> None:
        self._values[request_id] = value
        self._values.move_to_end(request_id)
        if len(self._values) > _REMEMBERED:
            self._values.popitem(last=False)

    def recall(self, request_id: str) -> V | None:
        """The value, which is then forgotten: a request has one response."""
        return self._values.pop(request_id, None)


class RecordEnd(NamedTuple):
    """One side of a record, remembered."""

    labels: Sequence[str]
    """As told, in this order: another list makes another endpoint."""
    endpoint: int
    id: int
    address: Address | None
    hi: int
    lo: int
    text: bytes
    odd_text: bool
    """The row's numbers would not give back this text, which then stands in aux."""
    is_named: bool
    is_frontend: bool


class About(NamedTuple):
    """The words of a record that are few, as numbers."""

    kind: int
    verdict: int
    direction: int
    family: int
    l4: int


def odd_addresses(src: RecordEnd, dst: RecordEnd) -> bytes:
    """flow.IP, where the row's numbers would not give back the texts."""
    if not (src.odd_text or dst.odd_text):
        return b""
    return sized(FLOW["IP"], sized(IP["source"], src.text) + sized(IP["destination"], dst.text))


class AccessLogDecoder:
    """Decodes records one after the other; their order matters, since responses look for their requests."""

    def __init__(self, resolver: Resolver, redaction: Redaction) -> None:
        self._resolver = resolver
        self._redaction = redaction
        self._started: _Memory[int] = _Memory()
        self._traces: _Memory[str] = _Memory()
        self._ends: dict[tuple[Any, ...], RecordEnd] = {}
        self.node = 0
        """Index of this node in Tables.nodes."""

    def forget(self) -> None:
        """Drop indices into tables, which now have other numbers or other texts."""
        self._ends.clear()

    def decode(self, record: Mapping[str, Any], ts_ns: int) -> bytes:
        """The row of one record. Raises: DecodeError."""
        try:
            return self._decode(record.get, ts_ns)
        except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError, struct.error) as error:
            raise DecodeError(ErrorClass.DECODE_ERROR, f"access log record: {error}") from error

    def _decode(self, get: Callable[[str], Any], ts_ns: int) -> bytes:
        logged_ns = _nanoseconds(get("timestamp") or "")
        told_src, told_dst = get("source_endpoint") or _NOTHING, get("destination_endpoint") or _NOTHING
        version = version_of(told_src["ip"]) if "ip" in told_src else get("ip_version")
        words = about(get("type"), get("verdict"), get("observation_point"), version, get("transport_protocol"))
        src, dst = self.end(told_src, words.family), self.end(told_dst, words.family)
        sport, dport = (told_src.get("port") or 0, told_dst.get("port") or 0) if words.l4 else (0, 0)
        http = get("http")
        latency_ns, trace_id = self._join(http, words.kind, logged_ns) if http else (0, "")
        l7, summary = self._l7(get, http, words.kind, latency_ns)
        aux = sized(FLOW["l7"], l7)
        if summary:
            aux += sized(FLOW["Summary"], summary.encode("utf-8", "replace"))
        aux += trace_context(trace_id) + odd_addresses(src, dst)
        return self.pack(words, src, dst, sport, dport, ts_ns, self._resolver.tables.aux.intern(aux))

    def pack(self, words: About, src: RecordEnd, dst: RecordEnd, sport: int, dport: int, ts_ns: int, aux: int) -> bytes:
        """A row. `aux` is an index."""
        resolver = self._resolver
        return pack_fields(
            ts_ns,
            0,
            src.hi,
            src.lo,
            dst.hi,
            dst.lo,
            src.endpoint,
            dst.endpoint,
            resolver.names(dst.id, src.address) if src.is_named else 0,
            resolver.names(src.id, dst.address) if dst.is_named else 0,
            resolver.service(src.address, sport) if src.is_frontend else 0,
            resolver.service(dst.address, dport) if dst.is_frontend else 0,
            0,
            self.node,
            aux,
            _ACCESS_LOG,
            0,
            0,
            sport,
            dport,
            0,
            0,
            _BITS,
            b"",
            b"",
            _KIND,
            flow_pb2.L7,
            words.verdict,
            words.family,
            words.l4,
            _TRUE if words.kind == flow_pb2.RESPONSE else _FALSE,
            words.direction,
            0,
            0,
            0,
        )

    def end(self, told: Mapping[str, Any], family: int) -> RecordEnd:
        """One side: id, identity and labels as told, the rest as known for its address."""
        text = told.get("ip") or told.get(_ADDRESS_KEYS[family]) or ""
        labels = told.get("labels") or ()
        key = (text, told.get("id"), told.get("identity"), family)
        end = self._ends.get(key)
        if end is None or end.labels != labels:
            end = self._make_end(told, text, labels, family)
            if len(self._ends) >= _ENDS:
                self._ends.clear()
            self._ends[key] = end
        return end

    def _make_end(self, told: Mapping[str, Any], text: str, labels: Sequence[str], family: int) -> RecordEnd:
        address = parse_address(text)
        knowledge = self._resolver.knowledge
        if "ip" in told:
            # The proxy tells where, and leaves it to us to know who.
            known = self._resolver.end(address, told.get("identity") or 0)
            index, endpoint_id = known.endpoint, known.id
        else:
            index, endpoint_id = self._told_endpoint(told, labels, address)
        number = address.number if address else 0
        usual = address is not None and address.version == (4 if family == IPV4 else 6) and str(address) == text
        return RecordEnd(
            labels=labels,
            endpoint=index,
            id=endpoint_id,
            address=address,
            hi=number >> 64,
            lo=number & LOW_HALF,
            text=text.encode("utf-8", "replace"),
            odd_text=bool(family) and not usual,
            is_named=address in knowledge.named_addresses,
            is_frontend=address in knowledge.service_addresses,
        )

    def _told_endpoint(
        self, told: Mapping[str, Any], labels: Sequence[str], address: Address | None
    ) -> tuple[int, int]:
        """Index and id of an endpoint as the proxy describes it."""
        knowledge = self._resolver.knowledge
        known = knowledge.cached(address)
        endpoint = flow_pb2.Endpoint(
            ID=told.get("id") or 0,
            identity=told.get("identity") or 0,
            cluster_name=cluster_of(labels),
            namespace=known.namespace,
            labels=sorted(labels),
            pod_name=known.pod,
        )
        local = knowledge.endpoints.get(address) if address else None
        if local is not None:
            add_workload(endpoint, local)
        return self._resolver.tables.endpoints.intern(endpoint.SerializeToString(deterministic=True)), endpoint.ID

    def _join(self, http: Mapping[str, Any], kind: int, logged_ns: int) -> tuple[int, str]:
        """Latency and trace id, by request id: a request is remembered, its response recalls it."""
        headers = http.get("headers") or {}
        request_id = _first(headers, REQUEST_ID)
        if kind == flow_pb2.REQUEST:
            trace_id = trace_id_of(_first(headers, TRACEPARENT))
            if request_id:
                self._started.remember(request_id, logged_ns)
                if trace_id:
                    self._traces.remember(request_id, trace_id)
            return 0, trace_id
        if kind == flow_pb2.RESPONSE and request_id:
            started_ns = self._started.recall(request_id)
            latency_ns = 0 if started_ns is None else max(0, logged_ns - started_ns)
            return latency_ns, self._traces.recall(request_id) or ""
        return 0, ""

    def _l7(
        self, get: Callable[[str], Any], http: Mapping[str, Any] | None, kind: int, latency_ns: int
    ) -> tuple[bytes, str]:
        """flow.Layer7 and the summary of the flow."""
        start = _L7_STARTS[kind]
        if http is not None:
            body, summary = self._http(http, kind, latency_ns)
            if latency_ns:
                start += number(L7_LATENCY, latency_ns)
            return start + sized(L7["http"], body), summary
        dns = get("dns")
        if dns is not None:
            body, summary = other_parts.dns(dns, kind)
            if kind == flow_pb2.RESPONSE and (waited_ns := get("latency_ns")):
                start += number(L7_LATENCY, int(waited_ns))
            return start + sized(L7["dns"], body), summary
        kafka = get("kafka")
        if kafka is not None:
            body, summary = other_parts.kafka(kafka, kind)
            return start + sized(L7["kafka"], body), summary
        other = get("l7")
        return start, other_parts.generic_summary(other) if other is not None else ""

    def _http(self, http: Mapping[str, Any], kind: int, latency_ns: int) -> tuple[bytes, str]:
        method, protocol, url = http.get("method") or "", http.get("protocol") or "", http.get("url") or ""
        if self._redaction.query or "@" in url:
            url = self._redaction.url(url)
        body = method_and_protocol(method, protocol) + sized(HTTP["url"], url.encode("utf-8", "replace"))
        headers = http.get("headers")
        if headers:
            body += self._headers(headers)
        if kind == flow_pb2.REQUEST:
            return body, f"{protocol} {method} {url}"
        code = http.get("code") or 0
        body += number(HTTP_CODE, code)
        if kind != flow_pb2.RESPONSE:
            return body, ""
        return body, f"{protocol} {code} {latency_ns // 1_000_000}ms ({method} {url})"

    def _headers(self, headers: Mapping[str, Sequence[str] | str]) -> bytes:
        parts = []
        for key in sorted(headers):
            values = headers[key]
            if isinstance(values, str):
                values = (values,)
            if self._redaction.headers and self._redaction.hides(key):
                values = (REDACTED,) * len(values)
            # Request ids are as many as requests and would push everything else out of the cache.
            make = make_header if key == REQUEST_ID else header
            for value in values:
                parts.append(make(key, value))
        return b"".join(parts)


_BITS: Final = int(Bit.HAS_EVENT_TYPE | Bit.SUMMARY_IN_AUX)
_KIND, _TRUE, _FALSE = int(Kind.FLOW), int(Reply.TRUE), int(Reply.FALSE)
_ACCESS_LOG: Final = int(MessageType.ACCESS_LOG)


_L7_STARTS: Final = {kind: number(L7_TYPE, kind) for kind in (0, *_TYPES.values())}


def version_of(ip: str) -> str:
    """As in the field ip_version."""
    return "ipv6" if ":" in ip else "ipv4"


@lru_cache(maxsize=1024)
def about(kind: str | None, verdict: str | None, point: str | None, version: str | None, protocol: int | None) -> About:
    """Numbers for words."""
    return About(
        _TYPES.get(kind or "", flow_pb2.UNKNOWN_L7_TYPE),
        _VERDICTS.get(verdict or "", flow_pb2.VERDICT_UNKNOWN),
        _DIRECTIONS.get(point or "", flow_pb2.TRAFFIC_DIRECTION_UNKNOWN),
        _FAMILIES.get(version or "", IP_NOT_USED),
        int(_PROTOCOLS.get(protocol or 0, L4.NONE)),
    )


def _first(headers: Mapping[str, Sequence[str] | str], name: str) -> str:
    """First value of a header; proxies differ in the case of names."""
    values = headers.get(name)
    if values is None:
        values = headers.get(name.lower())
    if not values:
        return ""
    return values if isinstance(values, str) else values[0]


@lru_cache(maxsize=256)
def _second_ns(text: str) -> int:
    return parse_rfc3339(text + "Z")[0] * 1_000_000_000


def _nanoseconds(text: str) -> int:
    """Nanoseconds since the epoch. Raises: ValueError."""
    if text[-1:] == "Z":
        if len(text) == 20:
            return _second_ns(text[:19])
        fraction = text[20:-1]
        if text[19] == "." and fraction.isdecimal() and fraction.isascii():
            return _second_ns(text[:19]) + int(fraction[:9].ljust(9, "0"))
    seconds, nanos = parse_rfc3339(text)
    return seconds * 1_000_000_000 + nanos
