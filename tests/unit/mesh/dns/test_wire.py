"""DNS messages: whatever comes in, nothing but an answer or Malformed comes out."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.servers.coredns import Responder
from mesh.dns.wire import (
    MAX_EDNS_UDP,
    MAX_UDP,
    Answer,
    Code,
    Malformed,
    Record,
    Type,
    pack_address,
    pack_name,
    parse_query,
    render,
    unpack_name,
)

LABELS = st.lists(st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True), max_size=6)


def question(name: str, rtype: int = Type.A, ident: int = 7, edns: int | None = None) -> bytes:
    head = struct.pack(">HHHHHH", ident, 0x0100, 1, 0, 0, 0 if edns is None else 1)
    opt = b"" if edns is None else struct.pack(">BHHIH", 0, 41, edns, 0, 0)
    return head + pack_name(name) + struct.pack(">HH", rtype, 1) + opt


def test_a_query_is_read_as_it_was_asked() -> None:
    query = parse_query(question("Echo.Cilium-Test.svc.cluster.local", Type.AAAA, ident=0xBEEF))
    assert (query.ident, query.name, query.type) == (0xBEEF, "Echo.Cilium-Test.svc.cluster.local", 28)
    assert query.recursion_desired
    assert query.udp_size == MAX_UDP


@pytest.mark.parametrize(("asked", "granted"), [(100, MAX_UDP), (1000, 1000), (65535, MAX_EDNS_UDP)])
def test_the_size_of_udp_answers_is_the_client_s_within_reason(asked: int, granted: int) -> None:
    assert parse_query(question("a", edns=asked)).udp_size == granted


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "shorter than a header"),
        (struct.pack(">HHHHHH", 1, 0x8000, 1, 0, 0, 0), "is a response"),
        (struct.pack(">HHHHHH", 1, 0x2800, 1, 0, 0, 0), "is no standard query"),
        (struct.pack(">HHHHHH", 1, 0, 2, 0, 0, 0), "has 2 questions"),
        (question("abc")[:14], "ends in a label"),
        (question("abc")[:16], "ends in a name"),
        (question("abc")[:18], "ends in the question"),
        (struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1", "has a compressed question"),
        (struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + b"\x3f" + b"a" * 63 + question("a")[12:], ""),
    ],
)
def test_what_is_no_query_is_refused_with_its_reason(packet: bytes, reason: str) -> None:
    if not reason:
        assert parse_query(packet).name.endswith(".a")
        return
    with pytest.raises(Malformed, match=reason):
        parse_query(packet)


def test_a_name_of_more_than_255_bytes_is_refused() -> None:
    packet = struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1"
    with pytest.raises(Malformed, match="more than 255"):
        parse_query(packet)


def test_a_response_is_never_answered() -> None:
    assert Responder().reply(struct.pack(">HHHHHH", 1, 0x8180, 0, 0, 0, 0)) is None


def test_a_broken_query_with_an_id_gets_format_error() -> None:
    answer = Responder().reply(question("abc")[:16])
    assert answer is not None
    assert struct.unpack_from(">HH", answer) == (7, 0x8000 | Code.FORMAT_ERROR)


def test_an_answer_that_does_not_fit_is_cut_at_a_record_and_says_so() -> None:
    query = parse_query(question("many.local"))
    records = tuple(Record("many.local", Type.A, 30, pack_address(IPv4Address(number))) for number in range(100))
    packet = render(query, Answer(answers=records), query.udp_size)
    _, flags, _, answers, _, _ = struct.unpack_from(">HHHHHH", packet)
    assert len(packet) <= MAX_UDP
    assert flags & 0x0200
    assert 0 < answers < 100
    whole = render(query, Answer(answers=records), 65535)
    assert struct.unpack_from(">HHHHHH", whole)[3] == 100


@given(LABELS)
def test_names_come_back_as_they_went(labels: list[str]) -> None:
    name = ".".join(labels)
    assert unpack_name(pack_name(name)) == name
    assert parse_query(question(name)).name == name


@settings(max_examples=500)
@given(st.binary(max_size=600))
def test_hostile_packets_never_break_the_server(packet: bytes) -> None:
    answer = Responder().reply(packet)
    assert answer is None or len(answer) <= MAX_EDNS_UDP


@settings(max_examples=500)
@given(LABELS, st.integers(0, 65535), st.data())
def test_queries_with_some_bytes_changed_never_break_the_server(
    labels: list[str], rtype: int, data: st.DataObject
) -> None:
    packet = bytearray(question(".".join([*labels, "cluster.local"]), rtype, edns=1232))
    for _ in range(data.draw(st.integers(0, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packet)))
    answer = Responder().reply(bytes(packet[:cut]))
    assert answer is None or len(answer) <= MAX_EDNS_UDP
