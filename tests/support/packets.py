"""Packets and monitor events to test with, built from their parts.

In:        fields, or Hypothesis.
Out:       bytes as the datapath writes them.
Elsewhere: golden/events has what the reference implementation was fed.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st

MACS = bytes.fromhex("0a580af403a40a580af40312")


def tcp(
    sport: int = 43210, dport: int = 8080, flags: int = 0x02, options: bytes = b"", offset: int | None = None
) -> bytes:
    """A TCP header; `offset` lies about its length."""
    words = offset if offset is not None else 5 + len(options) // 4
    return struct.pack(">HHIIHHHH", sport, dport, 1, 2, words << 12 | flags, 502, 0, 0) + options


def udp(sport: int = 1000, dport: int = 53, payload: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack(">HHHH", sport, dport, 8 + len(payload) if length is None else length, 0) + payload


def ipv4(
    payload: bytes,
    protocol: int = 6,
    src: str = "10.244.0.10",
    dst: str = "10.244.1.30",
    fragment: int = 0x4000,
    total: int | None = None,
    options: bytes = b"",
) -> bytes:
    words = 5 + len(options) // 4
    length = words * 4 + len(payload) if total is None else total
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, length & 0xFFFF, 7, fragment, 63, protocol, 0)
    return head + ip_address(src).packed + ip_address(dst).packed + options + payload


def ipv6(
    payload: bytes,
    following: int = 6,
    src: str = "fd00:10:244::10",
    dst: str = "fd00:10:244:1::24",
    length: int | None = None,
) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload) if length is None else length, following, 63)
    return head + ip_address(src).packed + ip_address(dst).packed + payload


def ethernet(payload: bytes, ethertype: int = 0x0800) -> bytes:
    return MACS + struct.pack(">H", ethertype) + payload


def trace(
    packet: bytes,
    point: int = 0,
    source: int = 100,
    labels: tuple[int, int] = (0, 0),
    dst_id: int = 0,
    reason: int = 0,
    flags: int = 0,
    ifindex: int = 100,
    version: int = 1,
    orig: bytes = bytes(16),
    trace_id: int = 0,
) -> bytes:
    head = struct.pack(
        "<BBHIIHBBIIHBBI",
        4,
        point,
        source,
        7,
        len(packet),
        len(packet),
        version,
        0,
        *labels,
        dst_id,
        reason,
        flags,
        ifindex,
    )
    return head + {0: b"", 1: orig, 2: orig + struct.pack("<Q", trace_id)}.get(version, orig) + packet


def drop(
    packet: bytes,
    reason: int = 133,
    source: int = 100,
    labels: tuple[int, int] = (0, 0),
    line: int = 1234,
    file: int = 2,
    flags: int = 0,
    version: int = 3,
    trace_id: int = 0,
) -> bytes:
    head = struct.pack(
        "<BBHIIHBBIIIHBbI", 1, reason, source, 7, len(packet), len(packet), version, 0, *labels, 0, line, file, 0, 2
    )
    if version >= 2:
        head += struct.pack("<B3x", flags)
    if version >= 3:
        head += struct.pack("<Q", trace_id)
    return head + packet


def policy_verdict(
    packet: bytes, remote: int = 20370, verdict: int = 0, flags: int = 0x11, source: int = 100, auth_type: int = 0
) -> bytes:
    head = struct.pack("<BBHIIHBB", 5, 0, source, 7, len(packet), len(packet), 1, 0)
    return head + struct.pack("<IiHBBB3xI4x", remote, verdict, 8080, 6, flags, auth_type, 0) + packet


# What Hypothesis draws: mostly packets that make sense, with the numbers that rules look at; then broken in one place.

_BYTE = st.integers(0, 255)
_PORT = st.one_of(st.sampled_from([0, 53, 80, 443, 4789, 8080, 9090]), st.integers(0, 65535))
ADDRESSES_4 = (
    "10.244.0.10",
    "10.244.0.50",
    "10.244.1.30",
    "10.96.0.10",
    "10.96.0.27",
    "93.184.216.34",
    "0.0.0.0",
    "8.8.8.8",
)
ADDRESSES_6 = ("fd00:10:244::10", "fd00:10:244:1::24", "2001:db8::1", "::", "::1", "::ffff:10.244.0.10")
_OPTIONS = st.one_of(
    st.sampled_from(
        [
            b"",
            bytes.fromhex("0101080a0000000100000002"),
            bytes.fromhex("020405b40402080a000000010000000001030307"),
            bytes.fromhex("0101050a0000000100000002"),
            bytes.fromhex("01010101"),
            bytes.fromhex("00ffffff"),
            bytes.fromhex("01010109"),
            bytes.fromhex("02000000"),
            bytes.fromhex("01ff0101"),
        ]
    ),
    st.binary(max_size=40).map(lambda data: data[: len(data) // 4 * 4]),
)
_TCP = st.builds(tcp, _PORT, _PORT, st.integers(0, 0x1FF), _OPTIONS)
_ODD_TCP = st.builds(tcp, _PORT, _PORT, st.integers(0, 0x1FF), _OPTIONS, st.integers(0, 15))
_UDP = st.builds(udp, _PORT, _PORT, st.binary(max_size=12))
_ODD_UDP = st.builds(udp, _PORT, _PORT, st.binary(max_size=12), st.integers(0, 40))
_ANYTHING = st.one_of(_ODD_TCP, _ODD_UDP, st.binary(max_size=24))
_PROTOCOLS = st.one_of(st.sampled_from([6, 17, 1, 58, 132, 2, 4, 41, 112, 0, 47, 50]), _BYTE)
_USUAL = st.one_of(
    st.tuples(_TCP, st.just(6)),
    st.tuples(_UDP, st.just(17)),
    st.tuples(st.binary(min_size=8, max_size=12), st.sampled_from([1, 58, 132, 50])),
)
_PAYLOADS = st.one_of(_USUAL, _USUAL, st.tuples(_ANYTHING, _PROTOCOLS))


@st.composite
def _ipv4_packets(draw: st.DrawFn) -> bytes:
    (payload, protocol), addresses = draw(_PAYLOADS), st.sampled_from(ADDRESSES_4)
    odd: dict[str, Any] = {}
    match draw(st.sampled_from(["usual"] * 5 + ["fragment", "total", "options"])):
        case "fragment":
            odd["fragment"] = draw(st.sampled_from([0, 0x2000, 0x00B9, 0x6000, 0x8000]))
        case "total":
            odd["total"] = draw(st.integers(0, 80))
        case "options":
            options = [bytes.fromhex(text) for text in ("94040000", "01010101", "0700ffff", "00ffffff", "44040500")]
            odd["options"] = draw(st.sampled_from(options))
    return ipv4(payload, protocol, draw(addresses), draw(addresses), **odd)


@st.composite
def _ipv6_packets(draw: st.DrawFn) -> bytes:
    (payload, protocol), addresses = draw(_PAYLOADS), st.sampled_from(ADDRESSES_6)
    length = draw(st.one_of(st.none(), st.none(), st.none(), st.integers(0, 80)))
    if draw(st.integers(0, 9)) == 0:
        extension = bytes([protocol, 0]) + draw(
            st.sampled_from([b"\1\4\0\0\0\0", bytes(6), b"\xc2\4\0\1\0\0", b"\5\7\0\0\0\0"])
        )
        payload, protocol = extension + payload, 0
    return ipv6(payload, protocol, draw(addresses), draw(addresses), length)


_IPV4, _IPV6 = _ipv4_packets(), _ipv6_packets()
_FRAMES = st.one_of(
    _IPV4.map(ethernet),
    _IPV4.map(ethernet),
    _IPV4.map(ethernet),
    _IPV6.map(lambda packet: ethernet(packet, 0x86DD)),
    st.builds(
        ethernet, st.one_of(_IPV4, _IPV6, st.binary(max_size=40)), st.sampled_from([0x0806, 0x8100, 0xFFFF, 0x6558, 20])
    ),
    st.one_of(_IPV4, _IPV6),
)
_LABELS = st.tuples(*(st.sampled_from([0, 1, 6, 9, 20000, 20370, 31337]),) * 2)
_EMITTERS = st.sampled_from([0, 100, 780, 9999])
_ORIGINALS = st.sampled_from(
    [bytes(16)] * 4
    + [ip_address(text).packed.ljust(16, b"\0") for text in ("10.244.0.10", "10.244.1.30", "172.18.0.2")]
    + [ip_address(text).packed for text in ("fd00:10:244::10", "2001:db8::7")]
)
_FLAGS = st.one_of(st.sampled_from([0] * 6 + [1, 1]), st.integers(0, 15))
_TRACES = st.builds(
    trace,
    _FRAMES,
    st.integers(0, 15),
    _EMITTERS,
    _LABELS,
    st.sampled_from([0, 15001]),
    st.one_of(st.integers(0, 10), st.integers(0, 10).map(lambda reason: reason | 0x80), _BYTE),
    _FLAGS,
    st.sampled_from([0, 2, 100, 70000]),
    st.sampled_from([0, 1, 1, 1, 1, 2, 2, 2, 3, 255]),
    _ORIGINALS,
    st.sampled_from([0, 0, 0, 0, 0, 5]),
)
_DROPS = st.builds(
    drop,
    _FRAMES,
    _BYTE,
    _EMITTERS,
    _LABELS,
    st.integers(0, 65535),
    _BYTE,
    _FLAGS,
    st.sampled_from([0, 1, 2, 3, 3, 3, 4]),
    st.sampled_from([0, 0, 0, 0, 5]),
)
_VERDICTS = st.builds(
    policy_verdict,
    _FRAMES,
    st.sampled_from([0, 20370, 21369]),
    st.sampled_from([0, 0, 1, 15001, -133, -181, -(2**31), 2**31 - 1]),
    _BYTE,
    _EMITTERS,
    st.sampled_from([0, 0, 1, 255]),
)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A monitor event: usual, cut, with one byte changed, or noise."""
    record: bytes = draw(st.one_of(_TRACES, _TRACES, _DROPS, _VERDICTS))
    match draw(st.sampled_from(["whole"] * 8 + ["cut", "changed", "padded", "noise"])):
        case "cut":
            return record[: draw(st.integers(0, len(record)))]
        case "changed":
            at = draw(st.integers(0, len(record) - 1))
            return record[:at] + bytes([draw(_BYTE)]) + record[at + 1 :]
        case "padded":
            return record + draw(st.binary(max_size=8))
        case "noise":
            return draw(st.binary(max_size=120))
    return record
