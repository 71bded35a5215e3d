"""Answers of servers: whatever comes in, a Reply or Malformed comes out."""

from __future__ import annotations

import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.answers import name_text, read_reply
from mesh.dns.wire import Answer, Malformed, Record, Type, pack_address, pack_name, parse_query, render
from tests.support.dnsnet import query

QUESTION = parse_query(query("a.example")).question
HEAD = struct.pack(">HHHHHH", 7, 0x8180, 1, 1, 0, 0) + QUESTION
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(st.binary(max_size=600))
def test_any_bytes(packet: bytes) -> None:
    with pytest.raises(Malformed):
        read_reply(packet[:2] + b"\x01" + packet[3:], QUESTION)


@given(st.binary(max_size=300), st.integers(0, 65535))
def test_any_records(body: bytes, count: int) -> None:
    packet = HEAD[:6] + count.to_bytes(2, "big") + HEAD[8:] + body
    with contextlib.suppress(Malformed):
        read_reply(packet, QUESTION)


@given(st.lists(st.tuples(ADDRESSES, st.integers(0, 2**31 - 1)), max_size=20), st.data())
def test_what_a_server_writes_is_read(found: list[tuple[object, int]], data: st.DataObject) -> None:
    addresses = [(ip_address(str(one)), ttl_s) for one, ttl_s in found]
    records = tuple(
        Record("A.example", Type.A if one.version == 4 else Type.AAAA, ttl_s, pack_address(one))
        for one, ttl_s in addresses
    )
    packet = render(parse_query(query("A.example")), Answer(answers=records), 65535)
    reply = read_reply(packet, QUESTION)
    assert reply.addresses == tuple(dict.fromkeys(one for one, _ in addresses))
    assert reply.ttl_s == min((ttl_s for _, ttl_s in addresses), default=None)
    # Cut anywhere, it is malformed or says less; it never says something else.
    cut = packet[: data.draw(st.integers(0, len(packet)))]
    with contextlib.suppress(Malformed):
        assert set(read_reply(cut, QUESTION).addresses) <= set(reply.addresses)


def test_addresses_of_other_names_teach_nothing() -> None:
    records = (
        Record("b.example", Type.A, 5, pack_address(ip_address("192.0.2.66"))),
        Record("a.example", Type.CNAME, 9, pack_name("c.example")),
        Record("c.example", Type.A, 7, pack_address(ip_address("192.0.2.1"))),
    )
    reply = read_reply(render(parse_query(query("a.example")), Answer(answers=records), 512), QUESTION)
    assert reply.addresses == (ip_address("192.0.2.1"),)
    assert (reply.aliases, reply.ttl_s, reply.types) == (("c.example.",), 5, (1, 5, 1))


@pytest.mark.parametrize("owner", [b"\xc0\x1b", b"\xc0\xff", b"\xff\xff", b"\x40", b"\xc0"])
def test_pointers_that_lead_nowhere_or_in_circles_are_malformed(owner: bytes) -> None:
    with pytest.raises(Malformed):
        read_reply(HEAD + owner, QUESTION)


def test_a_lifetime_beyond_31_bits_is_none() -> None:
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0xFFFFFFFF, 4) + bytes(4)
    assert read_reply(HEAD + record, QUESTION).ttl_s == 0


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
def test_names_as_text_are_printable_and_tell_labels_apart(labels: list[bytes]) -> None:
    text = name_text(b"".join(bytes((len(one),)) + one for one in labels) + b"\0")
    assert text.isascii()
    assert text.isprintable()
    assert text.endswith(".")
    assert len(text.replace("\\\\", "").replace("\\.", "").split(".")) >= len(labels)
