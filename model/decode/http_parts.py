"""The parts of an L7 flow's aux entry, by hand, and what of a request nobody shall read.

In:        texts and numbers of requests.
Out:       encoded fields of flow.Flow, flow.Layer7, flow.HTTP.
Elsewhere: accesslog.py and lines.py put them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from model.wire import BYTES, VARINT, tag, varint
from proto.flow import flow_pb2

REDACTED: Final = "HUBBLE_REDACTED"
REQUEST_ID: Final = "X-Request-Id"
TRACEPARENT: Final = "Traceparent"
USER_AGENT: Final = "User-Agent"

FLOW: Final = {field.name: tag(field.number, BYTES) for field in flow_pb2.Flow.DESCRIPTOR.fields}
IP: Final = {field.name: tag(field.number, BYTES) for field in flow_pb2.IP.DESCRIPTOR.fields}
L7: Final = {field.name: tag(field.number, BYTES) for field in flow_pb2.Layer7.DESCRIPTOR.fields}
L7_TYPE: Final = tag(flow_pb2.Layer7.DESCRIPTOR.fields_by_name["type"].number, VARINT)
L7_LATENCY: Final = tag(flow_pb2.Layer7.DESCRIPTOR.fields_by_name["latency_ns"].number, VARINT)
HTTP: Final = {field.name: tag(field.number, BYTES) for field in flow_pb2.HTTP.DESCRIPTOR.fields}
HTTP_CODE: Final = tag(flow_pb2.HTTP.DESCRIPTOR.fields_by_name["code"].number, VARINT)
HEADER_KEY, HEADER_VALUE = (tag(field.number, BYTES) for field in flow_pb2.HTTPHeader.DESCRIPTOR.fields)
_FIRST: Final = tag(1, BYTES)
"""Of flow.TraceContext and flow.TraceParent: their only fields."""
_ONE_BYTE: Final = tuple(bytes([length]) for length in range(0x80))


def sized(field_tag: bytes, body: bytes) -> bytes:
    """A length-delimited field. As `wire.message`; a call less counts here."""
    length = len(body)
    return field_tag + (_ONE_BYTE[length] if length < 0x80 else varint(length)) + body


@dataclass(frozen=True, slots=True)
class Redaction:
    """What of a request nobody shall read. Header names in lower case."""

    userinfo: bool = True
    """The password in a URL."""
    query: bool = False
    """Query and fragment of a URL."""
    headers: bool = False
    """Values of headers: all of them, unless lists say which."""
    allow: frozenset[str] = field(default_factory=frozenset)
    deny: frozenset[str] = field(default_factory=frozenset)

    def hides(self, header: str) -> bool:
        """Whether the values of this header are hidden."""
        if not self.headers:
            return False
        name = header.lower()
        return name not in self.allow and (name in self.deny or bool(self.allow) or not self.deny)

    def url(self, text: str) -> str:
        """A URL without what must be hidden."""
        if self.query:
            text = text.partition("#")[0].partition("?")[0]
        if self.userinfo and "@" in text:
            text = _without_password(text)
        return text


def _without_password(url: str) -> str:
    scheme, slashes, rest = url.partition("//")
    if not slashes:
        return url
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    userinfo, at, host = rest[:end].rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if not at or not colon:
        return url
    return f"{scheme}//{user}:{REDACTED}@{host}{rest[end:]}"


@lru_cache(maxsize=1024)
def method_and_protocol(method: str, protocol: str) -> bytes:
    """The two first fields of flow.HTTP."""
    return b"".join(
        sized(HTTP[name], text.encode("utf-8", "replace"))
        for name, text in (("method", method), ("protocol", protocol))
        if text
    )


def make_header(key: str, value: str) -> bytes:
    """A header of flow.HTTP."""
    pair = sized(HEADER_KEY, key.encode("utf-8", "replace")) + sized(HEADER_VALUE, value.encode("utf-8", "replace"))
    return sized(HTTP["headers"], pair)


header = lru_cache(maxsize=4096)(make_header)
"""For values that come again."""


def header_start(key: str, length: int) -> bytes:
    """What stands before the value, of that many bytes, of a header."""
    name = sized(HEADER_KEY, key.encode())
    start = HEADER_VALUE + varint(length)
    return HTTP["headers"] + varint(len(name) + len(start) + length) + name + start


def trace_context(trace_id: str) -> bytes:
    """flow.TraceContext; nothing when there is no trace."""
    return sized(FLOW["trace_context"], sized(_FIRST, sized(_FIRST, trace_id.encode()))) if trace_id else b""


def trace_id_of(traceparent: str) -> str:
    """Trace id of a header of that name, empty unless it is valid. Source: W3C Trace Context, section 3.2."""
    parts = traceparent.split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2]:
        return ""
    if not all(_LOWER_HEX.issuperset(part) for part in parts[:4]):
        return ""
    version, trace_id, parent_id, flags = parts[:4]
    valid = version != "ff" and int(trace_id, 16) and int(parent_id, 16)
    if version == "00" and (len(parts) > 4 or int(flags, 16) > 2):
        valid = 0
    return trace_id if valid else ""


_LOWER_HEX: Final = frozenset("0123456789abcdef")
