"""What stands in aux: HTTP, DNS, Kafka, protocols, trace ids, addresses before translation.

In:        lists of a flow.FlowFilter.
Out:       judges of a flow message, whole or the part of it that is an aux entry (scan.py: AuxTerm).
Elsewhere: patterns.py compiles regular expressions; gotext.py words refusals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

import numpy as np

from model.filters.errors import InvalidFilter
from model.filters.patterns import Search, regexp
from model.filters.scan import AuxTerm, Mask, Scan, byte_table
from model.row import L4
from model.text.quote import quote
from proto.flow import flow_pb2

FlowJudge = Callable[[flow_pb2.Flow], bool]

L7_EVENT: Final = 129
"""Monitor message type of L7 records."""

L4_PROTOCOLS: Final = {
    "icmp": ("ICMPv4", "ICMPv6"),
    "icmpv4": ("ICMPv4",),
    "icmpv6": ("ICMPv6",),
    "tcp": ("TCP",),
    "udp": ("UDP",),
    "sctp": ("SCTP",),
    "vrrp": ("VRRP",),
    "igmp": ("IGMP",),
}
"""Members of flow.Layer4 by the name in a filter."""
L4_IN_AUX: Final = ("VRRP", "IGMP")
L7_PROTOCOLS: Final = ("dns", "http", "kafka")


class ProtocolTerm:
    """Any of the named protocols. An L7 flow has its transport protocol too."""

    def __init__(self, entries: Sequence[str]) -> None:
        """Raises: InvalidFilter for an unknown name."""
        self._layers: set[str] = set()
        self._records: set[str] = set()
        for entry in entries:
            name = entry.lower()
            if name in L4_PROTOCOLS:
                self._layers.update(L4_PROTOCOLS[name])
            elif name in L7_PROTOCOLS:
                self._records.add(name)
            else:
                raise InvalidFilter("protocol", f"invalid protocol filter: unknown protocol: {quote(entry)}")
        in_row = self._layers.difference(L4_IN_AUX)
        self._answers = byte_table([L4[name.upper()] for name in in_row]) if in_row else None
        self._in_aux = AuxTerm([self.matches]) if self._records or self._layers.intersection(L4_IN_AUX) else None
        self.cost = 2 if self._in_aux is None else AuxTerm.cost

    def test(self, scan: Scan) -> Mask:
        hits = np.zeros(len(scan), np.bool_)
        if self._answers is not None:
            hits |= self._answers.take(scan.column("l4"))
        if self._in_aux is not None:
            hits |= self._in_aux.test(scan)
        return hits

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return flow.l4.WhichOneof("protocol") in self._layers or flow.l7.WhichOneof("record") in self._records


def dns_query_judge(patterns: Sequence[str]) -> FlowJudge:
    """RE2 anywhere in the query of a DNS flow."""
    try:
        searches = [regexp(pattern) for pattern in patterns]
    except ValueError as error:
        text = f"invalid DNS query filter: failed to compile regexp: {error}"
        raise InvalidFilter("dns_query", text) from None

    def judge(flow: flow_pb2.Flow) -> bool:
        if not flow.l7.HasField("dns"):
            return False
        return any(search(flow.l7.dns.query) for search in searches)

    return judge


def require_l7(what: str, field: str, event_types: Sequence[flow_pb2.EventTypeFilter]) -> None:
    """Refuse an HTTP field beside event types none of which has HTTP. Raises InvalidFilter."""
    if event_types and not any(entry.type == L7_EVENT for entry in event_types):
        text = f"filtering by http {what} requires the event type filter to only match 'l7' events"
        raise InvalidFilter(field, text)


def http_status_judge(entries: Sequence[str]) -> FlowJudge:
    """Whole status codes, or how they start: `404`, `5+`, `40+`. Requests have none."""
    whole, starts = set(), []
    for entry in entries:
        if re.fullmatch(r"[1-5][0-9]{2}", entry, re.ASCII):
            whole.add(entry)
        elif re.fullmatch(r"[1-5][0-9]?\+", entry, re.ASCII):
            starts.append(entry.removesuffix("+"))
        else:
            text = f"invalid http status code filter: invalid status code prefix: {quote(entry)}"
            raise InvalidFilter("http_status_code", text)
    prefixes = tuple(starts)

    def judge(flow: flow_pb2.Flow) -> bool:
        code = f"{flow.l7.http.code:03}"
        return flow.l7.http.code != 0 and (code in whole or code.startswith(prefixes))

    return judge


def http_method_judge(entries: Sequence[str]) -> FlowJudge:
    """Method in any case."""
    methods = {entry.casefold() for entry in entries}

    def judge(flow: flow_pb2.Flow) -> bool:
        method = flow.l7.http.method
        return method != "" and method.casefold() in methods

    return judge


def http_url_judge(patterns: Sequence[str]) -> FlowJudge:
    """RE2 anywhere in the URL."""
    searches = _http_searches("url", patterns)

    def judge(flow: flow_pb2.Flow) -> bool:
        url = flow.l7.http.url
        return url != "" and any(search(url) for search in searches)

    return judge


def http_path_judge(patterns: Sequence[str]) -> FlowJudge:
    """RE2 anywhere in the decoded path of the URL."""
    searches = _http_searches("path", patterns)

    def judge(flow: flow_pb2.Flow) -> bool:
        path = url_path(flow.l7.http.url)
        return path is not None and any(search(path) for search in searches)

    return judge


def _http_searches(what: str, patterns: Sequence[str]) -> list[Search]:
    searches = []
    for pattern in patterns:
        try:
            searches.append(regexp(pattern))
        except ValueError as error:
            raise InvalidFilter(f"http_{what}", f"invalid http {what} filter: {pattern}: {error}") from None
    return searches


def http_header_judge(entries: Sequence[flow_pb2.HTTPHeader]) -> FlowJudge:
    """Key and value of one header, both exactly."""
    wanted = {(entry.key, entry.value) for entry in entries}

    def judge(flow: flow_pb2.Flow) -> bool:
        return any((header.key, header.value) in wanted for header in flow.l7.http.headers)

    return judge


def trace_id_judge(entries: Sequence[str]) -> FlowJudge:
    """Exact; the empty text finds flows without a trace."""
    wanted = frozenset(entries)
    return lambda flow: flow.trace_context.parent.trace_id in wanted


def ip_trace_id_judge(entries: Sequence[int]) -> FlowJudge:
    """Exact; 0 finds flows without one."""
    wanted = frozenset(entries)
    return lambda flow: flow.ip_trace_id.trace_id in wanted


# URLs, as Go's url.ParseRequestURI takes them apart: what a proxy saw in a request line is no URL of a browser.

SCHEME: Final = re.compile(r"([A-Za-z][-+.A-Za-z0-9]*):")
USER: Final = re.compile(r"(?:[-A-Za-z0-9._:~!$&'()*+,;=@]|%[0-9A-Fa-f]{2})*")
HOST: Final = re.compile(r"(?:[-A-Za-z0-9._~!$&'()*+,;=:\[\]<>\"]|[^\x00-\x7f]|%[89A-Fa-f][0-9A-Fa-f])*")
BRACKETED_HOST: Final = re.compile(r"\[(?:[^\]%]*(?:%25[^\]]*)?)\]")
PORT: Final = re.compile(r"(?::[0-9]*)?")
BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def url_path(url: str) -> str | None:
    """Decoded path of an absolute URL or of an absolute path; None for anything else. A fragment is part of it."""
    if not url or CONTROL.search(url) or url.startswith(":"):
        return None
    if url == "*":
        return url
    scheme = SCHEME.match(url)
    rest = (url[scheme.end() :] if scheme else url).partition("?")[0]
    if not rest.startswith("/"):
        return "" if scheme else None
    if scheme and rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        if not _is_authority(authority):
            return None
        rest = slash + path
    if BAD_ESCAPE.search(rest):
        return None
    return unquote_to_bytes(rest).decode(errors="replace")


def _is_authority(text: str) -> bool:
    user, at, host = text.rpartition("@")
    if at and not USER.fullmatch(user):
        return False
    if host.startswith("["):
        end = host.rfind("]")
        return end > 0 and bool(BRACKETED_HOST.fullmatch(host[: end + 1]) and PORT.fullmatch(host[end + 1 :]))
    _, colon, port = host.rpartition(":")
    return bool(HOST.fullmatch(host)) and (not colon or bool(PORT.fullmatch(f":{port}")))
