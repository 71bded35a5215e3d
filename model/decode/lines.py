"""What the node's own Envoy tells of requests and responses: lines of fields, many at once, into rows.

In:        lines as mesh/envoy/module/records.c writes them: the fields of FIELDS, SEPARATOR between two.
Out:       `Lines`, columns of such a batch; their rows, which say what accesslog.py says of the same in JSON.
Elsewhere: accesslog.py reads the records that any proxy may send; decoder.py owns both.

A node with policies for HTTP has two such lines for each request, all day long, and reads them on the cores that serve
the requests. What differs from line to line stands in front and is read by column; the rest, the line's shape, is the
same for many and is worked out once.

No field holds the separator: HTTP has no such bytes in what Envoy takes (RFC 9110, sections 4.2 and 5.5), and a line
with another number of fields is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from model.address import Address
from model.decode.accesslog import AccessLogDecoder, about, odd_addresses, version_of
from model.decode.http_parts import (
    FLOW,
    HTTP,
    HTTP_CODE,
    L7,
    L7_LATENCY,
    L7_TYPE,
    REDACTED,
    REQUEST_ID,
    TRACEPARENT,
    USER_AGENT,
    Redaction,
    header_start,
    make_header,
    method_and_protocol,
    sized,
    trace_context,
    trace_id_of,
)
from model.decode.resolve import Resolver
from model.row import ROW, Rows
from model.wire import number, varint, varints
from proto.flow import flow_pb2

I64 = npt.NDArray[np.int64]

SEPARATOR: Final = "\x1f"
"""ASCII's unit separator. JSON may not hold it as it is: a record is a line with it, or JSON, never both."""
OWN_FIELDS: Final = ("time", "began", "client_port", "request_id", "traceparent", "url")
"""What differs: when it happened and when the request began, ns since the epoch; which request it was."""
SHAPE_FIELDS: Final = (
    "type", "verdict", "observation_point", "protocol", "code", "client", "server", "server_port", "method",
    "user_agent",
)  # fmt: skip
"""What many lines have in common. The words are those of JSON records."""
FIELDS: Final = OWN_FIELDS + SHAPE_FIELDS

_SEPARATOR: Final = SEPARATOR.encode()
_REMEMBERED: Final = 4096
"""Shapes, and as many pieces of aux entries."""
_TCP: Final = 6
_MS: Final = 1_000_000
_LATENCY_BYTES: Final = 8
"""Of a latency, whatever it is: 285 years."""
_LARGEST: Final = 2 ** (7 * _LATENCY_BYTES) - 1


@dataclass(frozen=True, slots=True)
class Lines:
    """Columns of lines."""

    times_ns: I64
    began_ns: I64
    ports: npt.NDArray[np.uint16]
    request_ids: Sequence[bytes]
    traces: Sequence[bytes]
    urls: Sequence[bytes]
    shapes: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, at: npt.NDArray[np.int64]) -> Lines:
        """Some of the lines, in this order."""
        texts = (self.request_ids, self.traces, self.urls, self.shapes)
        where = at.tolist()
        return Lines(
            self.times_ns[at], self.began_ns[at], self.ports[at], *([column[one] for one in where] for column in texts)
        )


def join_lines(parts: Sequence[Lines]) -> Lines:
    """At least one part; all of them as one."""
    if len(parts) == 1:
        return parts[0]
    texts = (
        [text for one in parts for text in getattr(one, name)] for name in ("request_ids", "traces", "urls", "shapes")
    )
    return Lines(
        np.concatenate([one.times_ns for one in parts]),
        np.concatenate([one.began_ns for one in parts]),
        np.concatenate([one.ports for one in parts]),
        *texts,
    )


def is_line(text: bytes) -> bool:
    """Whether a record is such a line, perhaps a broken one."""
    return _SEPARATOR in text


def lines_of(records: Sequence[bytes]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Such lines, and what is none; usually all are."""
    lines = [one for one in records if _SEPARATOR in one]
    if len(lines) == len(records):
        return lines, ()
    return lines, [one for one in records if _SEPARATOR not in one]


def read_lines(texts: Sequence[bytes]) -> Lines:
    """Those of the lines that can be read."""
    try:
        return _read(texts)
    except (ValueError, OverflowError):
        return _read([one for one in texts if _is_readable(one)])


def _read(texts: Sequence[bytes]) -> Lines:
    split = [one.split(_SEPARATOR, len(OWN_FIELDS)) for one in texts]
    columns: Sequence[Sequence[bytes]] = list(zip(*split, strict=True)) if split else [()] * (len(OWN_FIELDS) + 1)
    times, began, ports, request_ids, traces, urls, shapes = columns
    numbers = np.array([*map(int, times), *map(int, began), *map(int, ports)], np.int64).reshape(3, -1)
    if len(split) and not (numbers.min() >= 0 and numbers[2].max() <= 0xFFFF):
        raise ValueError("no time or no port")
    return Lines(
        numbers[0], numbers[1], numbers[2].astype(np.uint16), _valid(request_ids), _valid(traces), _valid(urls), shapes
    )


def _is_readable(text: bytes) -> bool:
    try:
        _read([text])
    except (ValueError, OverflowError):
        return False
    return True


def _valid(column: Sequence[bytes]) -> Sequence[bytes]:
    """The same as UTF-8, which texts of the API have to be."""
    return column if b"".join(column).isascii() else [_text(one).encode() for one in column]


def _text(part: bytes) -> str:
    return part.decode("utf-8", "replace")


class _Shape(NamedTuple):
    """What lines of one shape have in common."""

    number: int
    row: bytes
    is_response: bool
    is_connection: bool
    """Refused before anything was asked, so that it is about no request."""
    http: bytes
    """The first fields of flow.HTTP."""
    agent: bytes
    """The header of that name."""
    code: bytes
    method: bytes
    summary: bytes
    """Up to the milliseconds, or the URL."""
    more: bytes
    client: Address | None
    """Where services listen, too; so the port has a meaning."""


class _Pieces(NamedTuple):
    """An aux entry, cut where it is different in each line: at latency or trace, URL, request id, and URL again."""

    first: bytes
    then: bytes
    third: bytes
    fourth: bytes
    last: bytes


class LineDecoder:
    """Decodes lines with what an AccessLogDecoder knows about addresses."""

    def __init__(self, records: AccessLogDecoder, resolver: Resolver, redaction: Redaction) -> None:
        self._records = records
        self._resolver = resolver
        self._redaction = redaction
        self._hides_id, self._hides_trace = redaction.hides(REQUEST_ID), redaction.hides(TRACEPARENT)
        self._shapes: dict[bytes, _Shape] = {}
        self._pieces: dict[tuple[int, int, int, int, int], _Pieces] = {}
        self._made = 0

    def forget(self) -> None:
        """Drop indices into tables, which now have other numbers or other texts."""
        self._shapes.clear()
        self._pieces.clear()

    def decode(self, lines: Lines, times_ns: I64) -> Rows:
        """Rows of those lines whose shape can be read, in order. `times_ns`: when each is to have been."""
        found = [self._shapes.get(one) or self._make_shape(one) for one in lines.shapes]
        if None in found:
            good = np.array([at for at, one in enumerate(found) if one is not None], np.int64)
            lines, times_ns = lines.take(good), times_ns[good]
        shapes = [one for one in found if one is not None]
        rows = np.frombuffer(bytearray(b"".join([one.row for one in shapes])), ROW)
        rows["ts_ns"] = times_ns
        rows["aux"] = self._resolver.tables.aux.append_all(self._auxes(shapes, lines))
        answers = np.array([one.is_response for one in shapes], np.bool_)
        for name, mine in (("sport", ~answers), ("dport", answers)):
            rows[name][mine] = lines.ports[mine]
        for at, shape in enumerate(shapes):
            if shape.client is not None:
                field = "dst_svc" if shape.is_response else "src_svc"
                rows[field][at] = self._resolver.service(shape.client, int(lines.ports[at]))
        return rows

    def _auxes(self, shapes: Sequence[_Shape], lines: Lines) -> list[bytes]:
        """Aux entries: concatenations and nothing else, because this is what each line costs."""
        latencies = np.clip(lines.times_ns - lines.began_ns, 0, _LARGEST)
        texts = varints(latencies.astype(np.uint64), _LATENCY_BYTES).view(f"V{_LATENCY_BYTES}").ravel().tolist()
        known = self._pieces
        found: list[bytes] = []
        add, join = found.append, b"".join
        for shape, request_id, trace, url, latency, ms in zip(
            shapes,
            _hidden(lines.request_ids) if self._hides_id else lines.request_ids,
            lines.traces,
            self._visible(lines.urls),
            texts,
            (latencies // _MS).tolist(),
            strict=True,
        ):
            more = shape.more
            if trace:
                more = trace_context(trace_id_of(_text(trace))) + more
                if self._hides_trace:
                    trace = _HIDDEN
            if shape.is_response:
                key = (shape.number, len(request_id), 0, len(url), ms)
                first, then, third, fourth, last = known.get(key) or self._make_pieces(shape, key)
                add(join((first, latency, then, url, third, request_id, fourth, url, last, more)))
            else:
                key = (shape.number, len(request_id), len(trace), len(url), 0)
                first, then, third, fourth, last = known.get(key) or self._make_pieces(shape, key)
                add(join((first, url, then, trace, third, request_id, fourth, url, last, more)))

        return found

    def _make_pieces(self, shape: _Shape, key: tuple[int, int, int, int, int]) -> _Pieces:
        """Everything around texts of these lengths."""
        if shape.is_connection:
            # Nothing was asked, so there are no texts.
            return _Pieces(sized(FLOW["l7"], number(L7_TYPE, flow_pb2.REQUEST)), b"", b"", b"", b"")
        _, id_length, trace_length, url_length, ms = key
        request_id = header_start(REQUEST_ID, id_length) if id_length else b""
        trace = header_start(TRACEPARENT, trace_length) if trace_length else b""
        start = shape.http + HTTP["url"] + varint(url_length)
        own = url_length + trace_length + id_length
        size = len(start) + len(trace) + len(shape.agent) + len(request_id) + len(shape.code) + own
        http = L7["http"] + varint(size) + start
        kind = number(L7_TYPE, flow_pb2.RESPONSE if shape.is_response else flow_pb2.REQUEST)
        kind += L7_LATENCY if shape.is_response else b""
        size += len(kind) + len(http) - len(start) + (_LATENCY_BYTES if shape.is_response else 0)
        l7 = FLOW["l7"] + varint(size) + kind
        front, last = shape.summary, b""
        if shape.is_response:
            front, last = b"%s%dms (%s " % (front, ms, shape.method), b")"
        fourth = shape.code + FLOW["Summary"] + varint(len(front) + url_length + len(last)) + front
        third = shape.agent + request_id
        pieces = (
            _Pieces(l7, http, third, fourth, last)
            if shape.is_response
            else _Pieces(l7 + http, trace, third, fourth, last)
        )
        if len(self._pieces) >= _REMEMBERED:
            self._pieces.clear()
        self._pieces[key] = pieces
        return pieces

    def _visible(self, urls: Sequence[bytes]) -> Sequence[bytes]:
        if not (self._redaction.query or b"@" in b"".join(urls)):
            return urls
        return [self._redaction.url(one.decode()).encode() for one in urls]

    def _make_shape(self, text: bytes) -> _Shape | None:
        """None: it cannot be read."""
        try:
            shape = self._read_shape([_text(one) for one in text.split(_SEPARATOR)])
        except (KeyError, ValueError, struct.error):
            return None
        if len(self._shapes) >= _REMEMBERED:
            self._shapes.clear()
        self._shapes[text] = shape
        self._made += 1
        return shape

    def _read_shape(self, fields: Sequence[str]) -> _Shape:
        kind, verdict, point, protocol, code, client, server, port, method, agent = fields
        is_response = _IS_RESPONSE[kind]
        source, target = (server, client) if is_response else (client, server)
        sport, dport = (int(port or 0), 0) if is_response else (0, int(port or 0))
        words = about(
            "Request" if kind == _CONNECTION else kind, verdict, point, version_of(source) if source else None, _TCP
        )
        src, dst = (self._records.end({"ip": one} if one else {}, words.family) for one in (source, target))
        asking = dst if is_response else src
        if agent and self._redaction.hides(USER_AGENT):
            agent = REDACTED
        return _Shape(
            number=self._made,
            row=self._records.pack(words, src, dst, sport, dport, 0, 0),
            is_response=is_response,
            is_connection=kind == _CONNECTION,
            http=method_and_protocol(method, protocol),
            agent=make_header(USER_AGENT, agent) if agent else b"",
            code=number(HTTP_CODE, int(code or 0)) if is_response else b"",
            method=method.encode(),
            summary=f"{protocol} {int(code or 0)} ".encode() if is_response else f"{protocol} {method} ".encode(),
            more=odd_addresses(src, dst),
            client=asking.address if asking.is_frontend else None,
        )


_CONNECTION: Final = "Connection"
_IS_RESPONSE: Final = {"Request": False, "Response": True, _CONNECTION: False}
_HIDDEN: Final = REDACTED.encode()


def _hidden(values: Sequence[bytes]) -> Sequence[bytes]:
    return [_HIDDEN if one else one for one in values]
