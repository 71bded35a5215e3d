"""Lines of JSON that resemble each other, read by what differs.

In:        lines as exporters and `-o json` write them: GetFlowsResponse, one per line.
Out:       rows for regular lines; the others are named, to be read one by one.
Elsewhere: fromjson.py reads any line, and is asked here for the first ones of each kind.

Most lines differ from an earlier one only in times, uuid and ports. What lies between is looked up as a whole, so a
line costs a few searches instead of a parse. A line is regular when its holes stand where they do in our own JSON and
hold plain values; everything else takes the slow way, with the same result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.ingest import rows_from_responses
from model.row import ROW, Rows, empty_rows
from model.tables import Tables
from model.text.times import SECOND_NS, parse_rfc3339
from model.text.tojson import to_json
from model.whole_rows import put, take
from proto.observer import observer_pb2

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

Read = Callable[[bytes], observer_pb2.GetFlowsResponse | None]
"""Reads any line; None when it cannot be read."""

Holes = tuple[Any, bytes, bytes, bytes, int, int]
"""A line taken apart: what lies between the holes; time of the flow, time of the response, uuid (empty: none), source
and destination port (0: none)."""

TEMPLATES_KEPT: Final = 20_000
"""About 25 MB. When there are more, all are found again as needed."""

_HEAD: Final = re.compile(rb'\{"flow":\{"time":"([^"]{20,30})"(?:,"uuid":"([^"]{36})")?').match
_UUID_CHARS: Final = 36
_PORTS: Final = re.compile(rb'"source_port":([0-9]{1,5}),"destination_port":([0-9]{1,5})(?=[,}])').search
_PORT: Final = b'"source_port":'
_TIME: Final = b'"time":"'
_L7: Final = b'"l7":{'
_TAIL: Final = b'"}'

_SLOW: Final = -1

_UUID_BYTES: Final = np.zeros(256, np.bool_)
_UUID_BYTES[np.frombuffer(b"0123456789abcdef-", np.uint8)] = True

_LAST_YEAR: Final = 2200
"""Later times do not fit into nanoseconds for much longer, and nobody has seen one."""


@dataclass(frozen=True, slots=True)
class LineBatch:
    """What some lines say."""

    rows: Rows
    """One per line; zeros where the line is not regular."""
    regular: Bools
    canonical: Bools
    """Regular, and written exactly as we would write it. Only known when it was asked for."""
    outer_ns: I64
    """The time of the response, for regular lines."""


class Lines:
    """Reads lines. Remembers templates; `tables` is replaced when there were too many."""

    def __init__(self, *, for_json: bool = False) -> None:
        """With `for_json`, lines are wanted as they are; without it, nobody asks whether they are `canonical`."""
        self._for_json = for_json
        self.forget()

    def forget(self) -> None:
        """Start anew, with new tables."""
        self.tables = Tables()
        self._numbers: dict[Any, int] = {}
        self._seen: set[int] = set()
        self._rows: Rows = empty_rows(256)
        self._canonical = np.zeros(256, np.bool_)
        self._count = 0
        self._ports: dict[bytes, int] = {}

    def read(self, lines: Sequence[bytes], read_one: Read) -> LineBatch:
        """Read what is regular. `read_one` is asked about lines whose kind is not known yet; it must not report."""
        if len(self._numbers) > TEMPLATES_KEPT:
            self.forget()
        found: list[tuple[int, int, Holes]] = []
        known = self._numbers.get
        for at, line in enumerate(lines):
            holes = self._cut(line)
            if holes is None:
                continue
            number = known(holes[0])
            if number is None:
                number = self._learn(line, holes, read_one)
            if number != _SLOW:
                found.append((at, number, holes))
        return self._batch(len(lines), found)

    def _batch(self, count: int, found: list[tuple[int, int, Holes]]) -> LineBatch:
        rows = empty_rows(count)
        regular, canonical = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        outer_ns = np.zeros(count, np.int64)
        if not found:
            return LineBatch(rows, regular, canonical, outer_ns)
        places, template_numbers, holes = zip(*found, strict=True)
        _, flow_times, outer_times, uuids, sports, dports = zip(*holes, strict=True)
        at, numbers = np.array(places), np.array(template_numbers)
        flow_ns, good, neat = parse_times(flow_times)
        outer, outer_good, outer_neat = parse_times(outer_times)
        regular[at] = good & outer_good & (flow_ns > 0) & _plain_uuids(uuids)
        outer_ns[at] = outer
        canonical[at] = regular[at] & neat & outer_neat & self._canonical[numbers]
        filled = take(self._rows, numbers)
        filled["ts_ns"] = flow_ns
        ports = np.array(sports, np.uint16), np.array(dports, np.uint16)
        has_ports = ports[0] != 0
        for field, values in zip(("sport", "dport"), ports, strict=True):
            filled[field][has_ports] = values[has_ports]
        put(rows, at, filled)
        return LineBatch(rows, regular, canonical, outer_ns)

    def _cut(self, line: bytes) -> Holes | None:
        """The holes of a line; None where it does not look like one of ours."""
        head = _HEAD(line)
        tail = line.rfind(_TIME, -48)
        if head is None or tail < 0 or line[-2:] != _TAIL:
            return None
        flow_time, uuid = head.groups(b"")
        # The quote behind the uuid tells lines with one from lines without.
        start = head.end() - 1 if uuid else head.end()
        if tail <= start:
            return None
        ports = _PORTS(line, start)
        if ports is None:
            if line.find(_PORT, start) >= 0:
                return None
            return line[start:tail], flow_time, line[tail + 8 : -2], uuid, 0, 0
        known = self._ports.get
        source, destination = ports.groups()
        sport, dport = known(source) or self._port(source), known(destination) or self._port(destination)
        if not sport or not dport:
            return None
        first, behind = ports.span()
        return (line[start:first], line[behind:tail]), flow_time, line[tail + 8 : -2], uuid, sport, dport

    def _port(self, text: bytes) -> int:
        """A port from 1 on; 0 for any other text."""
        port = int(text) if len(text) <= 5 and text.isdigit() and text[:1] != b"0" else 0
        if 0 < port <= 0xFFFF:
            self._ports[text] = port
            return port
        return 0

    def _learn(self, line: bytes, holes: Holes, read_one: Read) -> int:
        """Make a template of a new kind of line. With L7 details it must come twice: most of those never do."""
        if _L7 in line:
            seen = hash(holes[0])
            if seen not in self._seen:
                if len(self._seen) > 8 * TEMPLATES_KEPT:
                    self._seen.clear()
                self._seen.add(seen)
                return _SLOW
        response = read_one(line)
        number = _SLOW if response is None else self._template(line, holes, response)
        self._numbers[holes[0]] = number
        return number

    def _template(self, line: bytes, holes: Holes, response: observer_pb2.GetFlowsResponse) -> int:
        flow = response.flow
        if not _fits(line, holes, response):
            return _SLOW
        canonical = self._for_json and to_json(response).encode() == line
        # What no text shows: without it, lines share what they point at.
        flow.ClearField("uuid")
        flow.ClearField("emitter")
        flow.time.seconds, flow.time.nanos = 1, 0
        row = rows_from_responses([observer_pb2.GetFlowsResponse(flow=flow)], self.tables)
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros(len(self._rows), ROW)])
            self._canonical = np.concatenate([self._canonical, np.zeros_like(self._canonical)])
        self._rows[self._count] = row[0]
        self._canonical[self._count] = canonical
        self._count += 1
        return self._count - 1


def _fits(line: bytes, holes: Holes, response: observer_pb2.GetFlowsResponse) -> bool:
    """Whether the holes are what they look like: the flow's own time, uuid and ports, the response's own time."""
    _, flow_time, outer_time, uuid, sport, dport = holes
    flow = response.flow
    if not response.HasField("flow") or flow.uuid != uuid.decode("ascii", "replace"):
        return False
    for stamp, text in ((flow.time, flow_time), (response.time, outer_time)):
        if (stamp.seconds, stamp.nanos) != parse_rfc3339(text.decode()):
            return False
    if not sport:
        return True
    protocol = flow.l4.WhichOneof("protocol")
    if protocol not in ("TCP", "UDP", "SCTP") or line.count(_PORT) != 1:
        return False
    layer = getattr(flow.l4, protocol)
    return (layer.source_port, layer.destination_port) == (sport, dport)


def _plain_uuids(uuids: Sequence[bytes]) -> Bools:
    """Which are absent, or nothing but digits and dashes."""
    plain = np.ones(len(uuids), np.bool_)
    present = np.fromiter(map(len, uuids), np.int64, len(uuids)) == _UUID_CHARS
    text = np.frombuffer(b"".join(uuids), np.uint8).reshape(-1, _UUID_CHARS)
    plain[present] = _UUID_BYTES[text].all(axis=1)
    return plain


_SEPARATORS: Final = ((4, b"-"), (7, b"-"), (10, b"T"), (13, b":"), (16, b":"))
_DIGITS: Final = (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18)
_DAYS: Final = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


def parse_times(texts: Sequence[bytes]) -> tuple[I64, Bools, Bools]:
    """Nanoseconds since the epoch; which texts are plain UTC times from 1970 on; which have the form of our JSON."""
    ns = np.zeros(len(texts), np.int64)
    good = np.zeros(len(texts), np.bool_)
    neat = np.zeros(len(texts), np.bool_)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    for length in np.unique(lengths).tolist():
        if length != 20 and not 22 <= length <= 30:
            continue
        at = np.flatnonzero(lengths == length)
        text = np.frombuffer(b"".join([texts[place] for place in at.tolist()]), np.uint8).reshape(-1, length)
        ns[at], good[at] = _parse_times(text)
        if length == 20:
            neat[at] = True
        elif length in (24, 27, 30):
            neat[at] = (text[:, -4:-1] != ord("0")).any(axis=1)
    return ns, good, neat & good


def _parse_times(text: U8) -> tuple[I64, Bools]:
    length = text.shape[1]
    places = [*_DIGITS, *range(20, length - 1)]
    digits = text[:, places].astype(np.int64) - ord("0")
    good: Bools = ((digits >= 0) & (digits <= 9)).all(axis=1) & (text[:, -1] == ord("Z"))
    for place, separator in _SEPARATORS:
        good &= text[:, place] == separator[0]
    if length > 20:
        good &= text[:, 19] == ord(".")
    year = digits[:, 0] * 1000 + digits[:, 1] * 100 + digits[:, 2] * 10 + digits[:, 3]
    month, day, hour, minute, second = (digits[:, at] * 10 + digits[:, at + 1] for at in (4, 6, 8, 10, 12))
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    good &= (year >= 1970) & (year <= _LAST_YEAR) & (month >= 1) & (month <= 12)
    good &= (hour < 24) & (minute < 60) & (second < 60) & (day >= 1)
    good &= day <= _DAYS[np.where(good, month, 0)] + (leap & (month == 2))
    # Days since the epoch in a calendar whose years begin in March, so that leap days come last.
    march = year - (month <= 2)
    days = 365 * march + march // 4 - march // 100 + march // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 719469
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    fraction = np.zeros(len(text), np.int64)
    for at in range(14, digits.shape[1]):
        fraction += digits[:, at] * 10 ** (22 - at)
    return np.where(good, seconds * SECOND_NS + fraction, 0), good
