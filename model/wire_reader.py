"""Many messages that resemble each other, read without parsing each of them.

In:        GetFlowsResponse messages as bytes.
Out:       rows.
Elsewhere: ingest.py reads one message, of which this module makes a pattern.

Flows of one kind differ in time, UUID, ports, addresses and endpoints. Where these stand in a message follows from a
walk over its first fields. Addresses and endpoints are looked up by their bytes, and so is what remains when all of
them are cut out: the pattern, which knows the other columns of the row. Numpy reads times and UUIDs of all messages at
once. Whatever has an unusual form is read the long way.

Why that is exact: cuts are whole fields of the flow, and what stands between them is compared cut by cut. So messages
of one pattern say the same but for the cuts, if none of these fields stands anywhere else in them, too. This is checked
for each pattern by parsing what remains of it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from model import wire
from model.address_text import address_text, parse_mac
from model.flow_id import SEQ_MASK, UUID_CHARS, parse_uuid_bytes, store_foreign_uuids
from model.ingest import NS_PER_S, address_halves, draft_from_response, ip_version
from model.row import ROW, Bit, Rows
from model.tables import Tables
from model.whole_rows import put, take
from proto.flow import flow_pb2
from proto.observer import observer_pb2

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

REMEMBERED_BYTES: Final = 16 << 20
"""Bound of the memory for patterns and parts; when it is used up, all are dropped."""
_OVERHEAD: Final = 500
"""Bytes that a pattern or part takes beside its own."""

_FLOW: Final = 0x0A
"""Tag of the flow in a response."""
_OUTER_NODE, _OUTER_TIME = 1000, 1001
_TIME, _ETHERNET, _IP, _L4, _SOURCE, _DESTINATION, _UUID = 1, 4, 5, 6, 8, 9, 34
_WALKED: Final = frozenset({_TIME, 2, 3, _ETHERNET, _IP, _L4, _SOURCE, _DESTINATION, _UUID, 41})
"""Fields before the last cut, in messages of ours and in those of writers that go by field number."""
_UUID_TAG: Final = wire.tag(_UUID, wire.BYTES) + bytes([UUID_CHARS])
_VERSION_AT: Final = 14
"""The character of a UUID that says its version."""
_OURS: Final = ord("8")
_OURS_DIFFER_FROM: Final = 21
"""In a UUID of ours the characters before this one name the node (and hold bits that take centuries to change)."""
_PORT_MEMBERS: Final = b"\x0a\x12\x2a"
"""Tags of TCP, UDP and SCTP in flow.Layer4."""
_FIRST_NUMBER, _SECOND_NUMBER, _TCP_FLAGS = 0x08, 0x10, 0x1A
"""Tags of ports and flags, of seconds and nanos."""
_LARGEST_PORT: Final = 0xFFFF
_TIME_BYTES: Final = 12
"""Of the longest time that is read here: two tags, two numbers of five bytes."""
_NANOS_AT: Final = 7
"""Where the nanoseconds begin in such a time, if it has any."""


_LAST_SECOND: Final = 2**63 // NS_PER_S
_ADDRESS_BYTES: Final = 32
_MAC_BYTES: Final = 12


class _UnusualError(Exception):
    """A message to be read the long way."""


class Cuts:
    """What one message says that others of its pattern say differently."""

    __slots__ = (
        "destination",
        "distinct",
        "dport",
        "ethernet",
        "ip",
        "key",
        "ports",
        "rest",
        "source",
        "sport",
        "time",
        "uuid",
    )

    def __init__(self) -> None:
        self.time = (0, 0)
        """Where its value begins, and its length."""
        self.uuid = 0
        """Where its text begins."""
        self.ports = False
        """Whether there are any. A port of 0 may have no field."""
        self.sport = self.dport = 0
        self.ip: bytes | None = None
        self.ethernet: bytes | None = None
        self.source: bytes | None = None
        self.destination: bytes | None = None
        self.distinct = True
        """Whether each field was cut out once."""
        self.key: tuple[object, ...] = ()
        """The numbers of the fields that are cut, and what stands between them."""
        self.rest: list[bytes] = []
        """What remains of the flow without the cut fields."""


Found = tuple[int, bytes, bytes, bytes, int, int, Cuts]
"""Position of a message; its pattern's row, its addresses, its MAC addresses, as bytes; its endpoints; its cuts."""


class WireReader:
    """Reads messages into rows of one set of tables, always the same one. Remembers until their indices change."""

    def __init__(self, *, remembered_bytes: int = REMEMBERED_BYTES) -> None:
        self._limit = remembered_bytes
        self._forget(generation=0)

    def rows(self, messages: Sequence[bytes], tables: Tables) -> Rows:
        """One row for each message with a flow or lost events, in their order.

        Raises: ValueError for bytes that are no GetFlowsResponse.
        """
        if self._generation != tables.generation or self._bytes > self._limit:
            self._forget(tables.generation)
        rows = np.zeros(len(messages), ROW)
        found: list[Found] = []
        unusual: list[int] = []
        for at, message in enumerate(messages):
            try:
                found.append(self._find(at, message, tables))
            except (_UnusualError, IndexError, ValueError):
                unusual.append(at)
        if found:
            unusual += _write(rows, messages, found)
        is_row = np.ones(len(messages), np.bool_)
        for at in unusual:
            draft = draft_from_response(_parse(messages[at]), tables)
            is_row[at] = draft is not None
            if draft is not None:
                put(rows, slice(at, at + 1), np.frombuffer(draft.pack(), ROW))
        return rows if is_row.all() else take(rows, is_row)

    def _forget(self, generation: int) -> None:
        self._generation = generation
        self._bytes = 0
        self._patterns: dict[tuple[object, ...], bytes | None] = {}
        self._addresses: dict[bytes | None, tuple[bytes, int] | None] = {None: (bytes(_ADDRESS_BYTES), 0)}
        self._macs: dict[bytes | None, bytes | None] = {None: bytes(_MAC_BYTES)}
        self._endpoints: dict[bytes | None, int] = {None: 0}

    def _find(self, at: int, message: bytes, tables: Tables) -> Found:
        """What makes up the row of a message. Raises as `find_cuts`."""
        cuts = find_cuts(message)
        if cuts.ip is not None and cuts.ip not in self._addresses:
            self._addresses[cuts.ip] = _read_addresses(cuts.ip)
            self._bytes += len(cuts.ip) + _OVERHEAD
        if cuts.ethernet is not None and cuts.ethernet not in self._macs:
            self._macs[cuts.ethernet] = _read_macs(cuts.ethernet)
            self._bytes += len(cuts.ethernet) + _OVERHEAD
        addresses, macs = self._addresses[cuts.ip], self._macs[cuts.ethernet]
        if addresses is None or macs is None:
            raise _UnusualError
        source, destination = self._endpoint(cuts.source, tables), self._endpoint(cuts.destination, tables)
        key = (addresses[1], cuts.key)
        try:
            pattern = self._patterns[key]
        except KeyError:
            pattern = self._patterns[key] = _pattern(message, cuts, tables)
            self._bytes += sum(map(len, cuts.rest)) + _OVERHEAD
        if pattern is None:
            raise _UnusualError
        return at, pattern, addresses[0], macs, source, destination, cuts

    def _endpoint(self, value: bytes | None, tables: Tables) -> int:
        index = self._endpoints.get(value)
        if index is None:
            assert value is not None
            try:
                endpoint = flow_pb2.Endpoint.FromString(value)
            except DecodeError:
                raise _UnusualError from None
            index = tables.endpoints.intern(endpoint.SerializeToString(deterministic=True))
            self._endpoints[value] = index
            self._bytes += len(value) + _OVERHEAD
        return index


def _pattern(message: bytes, cuts: Cuts, tables: Tables) -> bytes | None:
    """The row of a message that is to be a pattern; None when messages like it have to be read the long way."""
    if not cuts.distinct:
        return None
    try:
        response = observer_pb2.GetFlowsResponse.FromString(message)
        rest = flow_pb2.Flow.FromString(b"".join(cuts.rest))
    except DecodeError:
        return None
    start = cuts.uuid
    text = message[start : start + UUID_CHARS].decode("ascii", "replace")
    if response.flow.uuid != text or response.WhichOneof("response_types") != "flow":
        return None
    if rest.uuid or any(rest.HasField(field) for field in ("time", "IP", "source", "destination")):
        return None
    if (cuts.ports and rest.HasField("l4")) or (cuts.ethernet is not None and rest.HasField("ethernet")):
        return None
    draft = draft_from_response(response, tables)
    # A foreign UUID takes the place of MAC addresses, which then stand in aux, or else stands there itself.
    if draft is None or (draft.bits & Bit.FOREIGN and (draft.bits & Bit.HAS_ETHERNET or cuts.ethernet is not None)):
        return None
    return draft.pack()


def find_cuts(message: bytes) -> Cuts:
    """Where times, UUID, ports, addresses and endpoints stand in a message with a flow.

    Raises: _UnusualError, IndexError, ValueError when it is not laid out as expected.
    """
    cuts = Cuts()
    kinds: list[int] = []
    kept: list[bytes] = []
    outer = b""
    at = before = 0
    while message[at] != _FLOW:  # ours say time and node before the flow
        start = at
        field, value, at = _field(message, at)
        if field == _OUTER_TIME:
            outer = message[value:at]
            kinds.append(field)
            kept.append(message[before:start])
            before = at
        elif field != _OUTER_NODE:
            raise _UnusualError
    kept.append(message[before : at + 1])
    _, at, end = _field(message, at)
    before = _cut_flow(message, at, end, cuts, kinds, kept)
    cuts.rest.append(message[before:end])
    kept.append(message[before:end])
    at = before = end
    while at < len(message):
        start = at
        field, value, at = _field(message, at)
        if field == _OUTER_TIME:
            outer = message[value:at]
            kinds.append(field)
            kept.append(message[before:start])
            before = at
        elif field != _OUTER_NODE:
            raise _UnusualError
    kept.append(message[before:])
    start, length = cuts.time
    if not length or outer != message[start : start + length]:
        raise _UnusualError
    cuts.key = (*kinds, *kept)
    cuts.distinct = len(set(kinds)) == len(kinds)
    return cuts


def _cut_flow(message: bytes, at: int, end: int, cuts: Cuts, kinds: list[int], kept: list[bytes]) -> int:
    """Cut up a flow; returns where the last cut ends."""
    before = at
    while at < end:
        start = at
        field, value, at = _field(message, at)
        kept_of_it = b""
        if field == _TIME:
            cuts.time = (value, at - value)
        elif field == _IP:
            cuts.ip = message[value:at]
        elif field == _SOURCE:
            cuts.source = message[value:at]
        elif field == _DESTINATION:
            cuts.destination = message[value:at]
        elif field == _L4 and message[value] in _PORT_MEMBERS:
            kept_of_it = _read_ports(message, value, at, cuts)
        elif field == _UUID:
            kept_of_it = _take_uuid(message, value, at, cuts)
        elif field == _ETHERNET and cuts.uuid and message[cuts.uuid + _VERSION_AT] == _OURS:
            cuts.ethernet = message[value:at]
        elif field in _WALKED:
            continue
        else:
            at = start
            break
        kinds.append(field)
        kept += (message[before:start], kept_of_it)
        cuts.rest.append(message[before:start])
        before = at
    if not cuts.uuid:
        start = message.find(_UUID_TAG, at, end)
        if start < 0:
            raise _UnusualError
        kinds.append(_UUID)
        value = start + len(_UUID_TAG)
        kept += (message[before:start], _take_uuid(message, value, value + UUID_CHARS, cuts))
        cuts.rest.append(message[before:start])
        before = value + UUID_CHARS
    return before


def _take_uuid(message: bytes, start: int, end: int, cuts: Cuts) -> bytes:
    """Note a UUID; returns the characters that belong to the pattern."""
    if end - start != UUID_CHARS:
        raise _UnusualError
    cuts.uuid = start
    return message[start : start + _OURS_DIFFER_FROM] if message[start + _VERSION_AT] == _OURS else b""


def _read_ports(message: bytes, at: int, end: int, cuts: Cuts) -> bytes:
    """Note the ports of a flow.Layer4; returns what else it says."""
    member = message[at : at + 1]
    at += 2
    if message[at - 1] != end - at:
        raise _UnusualError
    if at < end and message[at] == _FIRST_NUMBER:
        cuts.sport, at = wire.read_varint(message, at + 1)
    if at < end and message[at] == _SECOND_NUMBER:
        cuts.dport, at = wire.read_varint(message, at + 1)
    flags = message[at:end]
    if at > end or cuts.sport > _LARGEST_PORT or cuts.dport > _LARGEST_PORT:
        raise _UnusualError
    if flags and (flags[0] != _TCP_FLAGS or flags[1] != len(flags) - 2):
        raise _UnusualError
    cuts.ports = True
    return member + flags


def _field(message: bytes, at: int) -> tuple[int, int, int]:
    """Number of the field at `at`, and where its value begins and ends. Raises as `find_cuts`."""
    tag = message[at]
    at += 1
    if tag >= 0x80:
        tag = tag & 0x7F | message[at] << 7
        at += 1
        if tag >= 0x80 << 7:  # no field with such a number stands where we look
            raise _UnusualError
    kind = tag & 7
    if kind == wire.VARINT:
        start = at
        while message[at] >= 0x80:
            at += 1
        return tag >> 3, start, at + 1
    if kind != wire.BYTES:
        raise _UnusualError
    length = message[at]
    at += 1
    if length >= 0x80:
        length, at = wire.read_varint(message, at - 1)
    if at + length > len(message):
        raise IndexError
    return tag >> 3, at, at + length


def _read_addresses(value: bytes) -> tuple[bytes, int] | None:
    """A row's four halves for a flow.IP and what matters to other columns; None when a row would say less than it."""
    try:
        ip = flow_pb2.IP.FromString(value)
    except DecodeError:
        return None
    version = ip_version(ip)
    source, destination = address_halves(ip.source, version), address_halves(ip.destination, version)
    if not version or not source or not destination or not any(source) or not any(destination):
        return None
    said = flow_pb2.IP(
        source=address_text(*source, version),
        destination=address_text(*destination, version),
        ipVersion=ip.ipVersion,
        encrypted=ip.encrypted,
    )
    if said.SerializeToString(deterministic=True) != ip.SerializeToString(deterministic=True):
        return None
    return struct.pack("<4Q", *source, *destination), version << 1 | ip.encrypted


def _read_macs(value: bytes) -> bytes | None:
    """Both addresses of a flow.Ethernet; None when a row would say less than it."""
    try:
        ethernet = flow_pb2.Ethernet.FromString(value)
    except DecodeError:
        return None
    source, destination = parse_mac(ethernet.source), parse_mac(ethernet.destination)
    if source is None or destination is None:
        return None
    known = flow_pb2.Ethernet(source=ethernet.source, destination=ethernet.destination)
    return source + destination if known.ByteSize() == ethernet.ByteSize() else None


def _write(rows: Rows, messages: Sequence[bytes], found: list[Found]) -> list[int]:
    """Put the rows of messages where they belong; returns the positions of those that are unusual after all."""
    places, patterns, addresses, macs, sources, destinations, all_cuts = zip(*found, strict=True)
    made = np.frombuffer(b"".join(patterns), ROW).copy()
    halves = np.frombuffer(b"".join(addresses), np.uint64).reshape(-1, 4)
    for column, field in enumerate(("src_ip_hi", "src_ip_lo", "dst_ip_hi", "dst_ip_lo")):
        made[field] = halves[:, column]
    octets = np.frombuffer(b"".join(macs), np.uint8).reshape(-1, _MAC_BYTES)
    has_macs = np.array([cuts.ethernet is not None for cuts in all_cuts])
    made["smac"][has_macs], made["dmac"][has_macs] = octets[has_macs, :6], octets[has_macs, 6:]
    made["src"], made["dst"] = sources, destinations
    has_ports = np.array([cuts.ports for cuts in all_cuts])
    made["sport"] = np.where(has_ports, [cuts.sport for cuts in all_cuts], made["sport"])
    made["dport"] = np.where(has_ports, [cuts.dport for cuts in all_cuts], made["dport"])

    data = np.frombuffer(b"".join((*(messages[at] for at in places), bytes(UUID_CHARS))), np.uint8)
    lengths = np.array([len(messages[at]) for at in places])
    starts = np.cumsum(lengths) - lengths
    times = np.array([cuts.time for cuts in all_cuts])
    made["ts_ns"], good = _read_times(data, starts + times[:, 0], times[:, 1])
    good &= _read_uuids(made, data, starts + np.array([cuts.uuid for cuts in all_cuts]))
    at = np.array(places)
    put(rows, at[good], take(made, good))
    unusual: list[int] = at[~good].tolist()
    return unusual


def _read_times(data: U8, starts: I64, lengths: I64) -> tuple[I64, Bools]:
    """Times in ns from timestamps of seconds in five bytes and, if any, nanos; and which were in that form."""
    octets = data[starts[:, None] + np.arange(_TIME_BYTES)].astype(np.int64)
    continued, bits = octets >= 0x80, octets & 0x7F
    good = (octets[:, 0] == _FIRST_NUMBER) & continued[:, 1:5].all(axis=1) & ~continued[:, 5]
    seconds = _number(bits[:, 1:6])
    nanos = np.zeros(len(starts), np.int64)
    in_form = lengths == _NANOS_AT - 1
    for width in range(1, 6):
        last = _NANOS_AT + width - 1
        form = (lengths == last + 1) & (octets[:, _NANOS_AT - 1] == _SECOND_NUMBER)
        form &= continued[:, _NANOS_AT:last].all(axis=1) & ~continued[:, last]
        nanos[form] = _number(bits[form, _NANOS_AT : last + 1])
        in_form |= form
    good &= in_form & (nanos < NS_PER_S) & (seconds < _LAST_SECOND)
    times_ns: I64 = seconds * NS_PER_S + nanos
    return times_ns, good & (times_ns > 0)


def _number(bits: I64) -> I64:
    """Numbers from what the bytes of varints carry: (n, width)."""
    numbers: I64 = (bits << (7 * np.arange(bits.shape[1]))).sum(axis=1)
    return numbers


def _read_uuids(rows: Rows, data: U8, starts: I64) -> Bools:
    high, low, good = parse_uuid_bytes(data[starts[:, None] + np.arange(UUID_CHARS)])
    rows["seq"] = low & np.uint64(SEQ_MASK)
    foreign = (rows["bits"] & Bit.FOREIGN) != 0
    if foreign.any():
        store_foreign_uuids(rows, foreign, high, low)
        good &= (high | low) != 0
    return good


def _parse(message: bytes) -> observer_pb2.GetFlowsResponse:
    try:
        return observer_pb2.GetFlowsResponse.FromString(message)
    except DecodeError as error:
        raise ValueError(f"not a GetFlowsResponse: {' '.join(str(error).split())[:200]}") from error
