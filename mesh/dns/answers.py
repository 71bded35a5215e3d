"""What a server answered: bytes to addresses, aliases and lifetimes.

In:        a response, from a server that may be hostile.
Out:       Reply; names in the form that text has for them, so that nothing in them can be taken for something else.
Elsewhere: wire.py reads queries and writes messages. Source: RFC 1035 section 4.1.4, RFC 4343.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from mesh.dns.wire import CLASS_IN, HEADER, RECORD_HEAD, Malformed, Type

MAX_POINTERS: Final = 32
"""Jumps within one name; each has to lead backwards, so this is generous."""
MAX_NAME_BYTES: Final = 255
MAX_RECORDS: Final = 4096
"""Answers of one message that are looked at; 64 KiB could name more than that without content."""
MAX_TTL_S: Final = 0x7FFFFFFF
"""A larger one counts as none (RFC 2181, section 8)."""

_PLAIN: Final = re.compile(rb"[-_A-Za-z0-9*/+=]*")

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Reply:
    """One response."""

    code: int
    truncated: bool
    addresses: tuple[Address, ...] = ()
    """Of the name that was asked for, also by way of its aliases."""
    ttl_s: int | None = None
    """The smallest of the answers; None without answers."""
    aliases: tuple[str, ...] = ()
    """Where CNAME records lead, in order, with final dots."""
    types: tuple[int, ...] = ()
    """Of all answers."""


def is_answer_to(packet: bytes, question: bytes) -> bool:
    """Whether a message is a response that repeats `question`; letters may have changed case."""
    if len(packet) < HEADER.size or not packet[2] & 0x80 or packet[4:6] != b"\0\1":
        return False
    repeated = packet[HEADER.size : HEADER.size + len(question)]
    return repeated == question or repeated.lower() == question.lower()


def read_reply(packet: bytes, question: bytes) -> Reply:
    """Read a response to `question` (the section's bytes). Raises: Malformed."""
    if not is_answer_to(packet, question):
        raise Malformed("answers something else")
    _, flags, _, answers, _, _ = HEADER.unpack_from(packet)
    code, truncated = flags & 0xF, bool(flags & 0x0200)
    at = HEADER.size + len(question)
    meant = {question[:-4].lower()}
    addresses: dict[Address, None] = {}
    aliases: dict[str, None] = {}
    types: list[int] = []
    ttl_s: int | None = None
    for _ in range(min(answers, MAX_RECORDS)):
        owner, at = _name(packet, at)
        if len(packet) < at + RECORD_HEAD.size:
            # A server that cuts a message cuts it anywhere.
            if truncated:
                break
            raise Malformed("ends in a record")
        rtype, rclass, record_ttl_s, size = RECORD_HEAD.unpack_from(packet, at)
        at += RECORD_HEAD.size
        if len(packet) < at + size:
            if truncated:
                break
            raise Malformed("ends in a record's data")
        types.append(rtype)
        record_ttl_s = record_ttl_s if record_ttl_s <= MAX_TTL_S else 0
        ttl_s = record_ttl_s if ttl_s is None else min(ttl_s, record_ttl_s)
        # Records of names that nobody asked for teach nothing.
        if rclass == CLASS_IN and owner.lower() in meant:
            if rtype == Type.A and size == 4:
                addresses[IPv4Address(packet[at : at + 4])] = None
            elif rtype == Type.AAAA and size == 16:
                addresses[IPv6Address(packet[at : at + 16])] = None
            elif rtype == Type.CNAME:
                target, _ = _name(packet, at)
                meant.add(target.lower())
                aliases[name_text(target)] = None
        at += size
    return Reply(code, truncated, tuple(addresses), ttl_s, tuple(aliases), tuple(types))


def _name(packet: bytes, at: int) -> tuple[bytes, int]:
    """A name that may be compressed, as labels without compression; and where the record goes on."""
    # Nearly every owner points at the question.
    parts: list[bytes] = []
    end = 0
    size = 0
    lowest = at
    for _ in range(MAX_POINTERS):
        while True:
            if at >= len(packet):
                raise Malformed("ends in a name")
            length = packet[at]
            if length == 0:
                parts.append(b"\0")
                return b"".join(parts), end or at + 1
            if length >= 0xC0:
                break
            if length > 63:
                raise Malformed("has a label of an unknown kind")
            label = packet[at : at + 1 + length]
            if len(label) <= length:
                raise Malformed("ends in a label")
            size += 1 + length
            if size >= MAX_NAME_BYTES:
                raise Malformed("has a name of more than 255 bytes")
            parts.append(label)
            at += 1 + length
        if at + 1 >= len(packet):
            raise Malformed("ends in a pointer")
        target = (length & 0x3F) << 8 | packet[at + 1]
        end = end or at + 2
        if target >= lowest:
            raise Malformed("has a pointer that does not lead back")
        at = lowest = target
    raise Malformed("has too many pointers in one name")


@lru_cache(maxsize=8192)
def name_text(name: bytes) -> str:
    """Labels as text with a final dot. What could be mistaken is written `\\.` or `\\DDD` (RFC 4343)."""
    labels = []
    at = 0
    while length := name[at]:
        labels.append(_label_text(name[at + 1 : at + 1 + length]))
        at += 1 + length
    return ".".join(labels) + "."


def _label_text(label: bytes) -> str:
    if _PLAIN.fullmatch(label):
        return label.decode("ascii")
    return "".join(
        f"\\{chr(one)}" if one in b".\\" else chr(one) if 0x21 <= one <= 0x7E and one not in b'"' else f"\\{one:03d}"
        for one in label
    )
