"""DNS messages: bytes to a query, an answer to bytes.

In:        packets from anyone; answers made of records.
Out:       Query; a response that repeats the question as it was asked, compressed where it is cheap.
Elsewhere: answers.py reads what servers say; lab/servers/ is such a server. Source: RFC 1035, 3596, 2782, 6891.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

MAX_UDP: Final = 512
"""Bytes of a UDP answer when the client does not say more (RFC 1035, section 4.2.1)."""
MAX_EDNS_UDP: Final = 1232
"""Bytes of a UDP answer at most, whatever the client says: larger ones fragment (DNS flag day 2020)."""
MAX_TCP: Final = 65535
HEADER: Final = struct.Struct(">HHHHHH")
QUESTION_TAIL: Final = struct.Struct(">HH")
RECORD_HEAD: Final = struct.Struct(">HHIH")
OPT: Final = 41
CLASS_IN: Final = 1


class Type(IntEnum):
    """Record types that the cluster's zone has."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    ANY = 255


class Code(IntEnum):
    """Response codes."""

    NO_ERROR = 0
    FORMAT_ERROR = 1
    SERVER_FAILURE = 2
    NAME_ERROR = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


class Malformed(ValueError):
    """Not a query we can read; `ident` is None when not even the header is there."""

    def __init__(self, reason: str, ident: int | None = None) -> None:
        super().__init__(reason)
        self.ident = ident


@dataclass(frozen=True, slots=True)
class Query:
    """One question."""

    ident: int
    name: str
    """As it was asked, with dots between labels and none at the end; case kept."""
    type: int
    recursion_desired: bool
    udp_size: int
    """Bytes that the client takes in a UDP answer."""
    edns: bool
    question: bytes
    """The question section as it came; goes back as it is."""
    rclass: int = CLASS_IN


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record. `data` is what pack_* made."""

    name: str
    type: Type
    ttl_s: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the zone says."""

    code: Code = Code.NO_ERROR
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = True


def parse_query(packet: bytes) -> Query:
    """Read a query of one question. Raises: Malformed."""
    if len(packet) < HEADER.size:
        raise Malformed("shorter than a header")
    ident, flags, questions, _, _, extra = HEADER.unpack_from(packet)
    if flags & 0x8000:
        raise Malformed("is a response")  # never answered: two servers would answer each other for ever
    if flags & 0x7800:
        raise Malformed("is no standard query", ident)
    if questions != 1:
        raise Malformed(f"has {questions} questions", ident)
    name, end = _parse_name(packet, HEADER.size, ident)
    if len(packet) < end + QUESTION_TAIL.size:
        raise Malformed("ends in the question", ident)
    rtype, rclass = QUESTION_TAIL.unpack_from(packet, end)
    end += QUESTION_TAIL.size
    size = _edns_size(packet, end, extra)
    question = packet[HEADER.size : end]
    return Query(ident, name, rtype, bool(flags & 0x100), size or MAX_UDP, size is not None, question, rclass)


def _parse_name(packet: bytes, at: int, ident: int) -> tuple[str, int]:
    """A name without compression: nothing stands before the first question that it could point to."""
    labels: list[str] = []
    start = at
    while True:
        if at >= len(packet):
            raise Malformed("ends in a name", ident)
        length = packet[at]
        at += 1
        if length == 0:
            break
        if length > 63:
            raise Malformed("has a compressed question", ident)
        label = packet[at : at + length]
        if len(label) < length:
            raise Malformed("ends in a label", ident)
        # A dot inside a label would read as two labels; no name of ours has one.
        labels.append(label.decode("latin-1").replace(".", "\\."))
        at += length
    if at - start > 255:
        raise Malformed("has a name of more than 255 bytes", ident)
    return ".".join(labels), at


def _edns_size(packet: bytes, at: int, extra: int) -> int | None:
    """The UDP size of an OPT record that follows the question; None without one, or when it cannot be read."""
    if extra and len(packet) >= at + 1 + RECORD_HEAD.size and packet[at] == 0:
        rtype, size, _, _ = RECORD_HEAD.unpack_from(packet, at + 1)
        if rtype == OPT:
            return min(max(int(size), MAX_UDP), MAX_EDNS_UDP)
    return None


def render(query: Query, answer: Answer, limit: int) -> bytes:
    """The response, at most `limit` bytes; what does not fit is cut at a record, and then TC is set."""
    flags = 0x8000 | (0x0400 if answer.authoritative else 0) | (0x0100 if query.recursion_desired else 0) | answer.code
    if query.recursion_desired:
        flags |= 0x0080  # recursion available, as CoreDNS says with its forward plugin: resolvers look no further
    opt = struct.pack(">BHHIH", 0, OPT, MAX_EDNS_UDP, 0, 0) if query.edns else b""
    room = limit - HEADER.size - len(query.question) - len(opt)
    body = bytearray()
    counts = [0, 0, 0]
    for section, records in enumerate((answer.answers, answer.authority, answer.additional)):
        for record in records:
            data = _render_record(record, query.name)
            if len(body) + len(data) > room:
                if section < 2:
                    flags |= 0x0200
                break
            body += data
            counts[section] += 1
        if flags & 0x0200:
            break
    head = HEADER.pack(query.ident, flags, 1, counts[0], counts[1], counts[2] + (1 if opt else 0))
    return head + query.question + bytes(body) + opt


def render_error(ident: int, code: Code) -> bytes:
    """An answer to a packet whose question could not be read."""
    return HEADER.pack(ident, 0x8000 | code, 0, 0, 0, 0)


def _render_record(record: Record, asked: str) -> bytes:
    # 0xC00C points at the question's name, which is the owner of most answers.
    owner = b"\xc0\x0c" if record.name == asked else pack_name(record.name)
    return owner + RECORD_HEAD.pack(record.type, CLASS_IN, record.ttl_s, len(record.data)) + record.data


def pack_name(name: str) -> bytes:
    """A name as labels, without compression. Raises: ValueError for a name that DNS cannot carry."""
    packed = bytearray()
    for label in name.split(".") if name else ():
        raw = label.encode("latin-1")
        if not 0 < len(raw) <= 63:
            raise ValueError(f"not a DNS name: {name!r}")
        packed += bytes((len(raw),)) + raw
    if len(packed) > 254:
        raise ValueError(f"not a DNS name: {name!r}")
    return bytes(packed) + b"\0"


def unpack_name(data: bytes) -> str:
    """The inverse of pack_name, for what pack_name made."""
    labels, at = [], 0
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return ".".join(labels)


def pack_address(address: IPv4Address | IPv6Address) -> bytes:
    """Data of A and AAAA."""
    return address.packed


def pack_soa(primary: str, mailbox: str, serial: int, timers_s: Sequence[int]) -> bytes:
    """Data of SOA; timers are refresh, retry, expire and minimum."""
    return pack_name(primary) + pack_name(mailbox) + struct.pack(">IIIII", serial, *timers_s)


def pack_srv(priority: int, weight: int, port: int, target: str) -> bytes:
    """Data of SRV."""
    return struct.pack(">HHH", priority, weight, port) + pack_name(target)


def pack_txt(text: str) -> bytes:
    """Data of TXT: one string of at most 255 bytes."""
    raw = text.encode()[:255]
    return bytes((len(raw),)) + raw
