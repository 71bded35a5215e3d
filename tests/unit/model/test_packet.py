"""One packet, layer by layer."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.address import Address
from model.packet import Layer, Packet, Undecodable, decode_packet
from model.row import L4
from tests.support.packets import ethernet, ipv4, ipv6, tcp, udp


def frame(data: bytes) -> Packet:
    return decode_packet(data, Layer.ETHERNET)


def test_no_bytes_are_a_packet_without_layers() -> None:
    assert frame(b"") == Packet()


def test_the_innermost_ip_packet_is_shown() -> None:
    packet = frame(ethernet(ipv4(ipv6(tcp()), protocol=41)))
    assert (packet.ip_version, str(packet.src), packet.l4) == (6, "fd00:10:244::10", L4.TCP)


def test_what_follows_a_fragment_is_not_read() -> None:
    packet = frame(ethernet(ipv4(tcp(), fragment=0x2000)))
    assert (packet.last, packet.l4) == (Layer.IPV4, L4.NONE)


def test_bytes_behind_the_ip_packet_are_padding() -> None:
    assert frame(ethernet(ipv4(b"", total=20) + tcp())).last is Layer.IPV4


def test_hop_by_hop_options_are_stepped_over() -> None:
    extension = bytes([6, 0]) + bytes.fromhex("010400000000")
    packet = frame(ethernet(ipv6(extension + tcp(), following=0), 0x86DD))
    assert (packet.l4, packet.dport) == (L4.TCP, 8080)


def test_a_tunnel_shows_the_inner_packet_and_keeps_the_outer() -> None:
    inner = ethernet(ipv4(tcp()))
    vxlan = bytes.fromhex("0800000000512900") + inner
    packet = decode_packet(ethernet(ipv4(udp(42472, 8472, vxlan), 17, "172.18.0.2")), Layer.ETHERNET, Layer.VXLAN)
    assert (packet.l4, packet.vni, str(packet.src)) == (L4.TCP, 20777, "10.244.0.10")
    assert packet.tunnel is not None
    assert (packet.tunnel.dport, packet.tunnel.src) == (8472, Address(4, 0xAC120002))


def test_geneve_options_are_stepped_over() -> None:
    geneve = bytes.fromhex("0200655800512900") + b"\1\2\3\1abcd" + ethernet(ipv4(tcp()))
    packet = decode_packet(ethernet(ipv4(udp(1, 6081, geneve), 17)), Layer.ETHERNET, Layer.GENEVE)
    assert (packet.l4, packet.vni) == (L4.TCP, 20777)


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 13,
        ethernet(ipv4(tcp())[:19]),
        ethernet(ipv4(tcp()[:19])),
        ethernet(ipv4(tcp(offset=4))),
        ethernet(ipv4(tcp(offset=8))),
        ethernet(ipv4(tcp(options=b"\2\1\0\0"))),
        ethernet(ipv4(udp(length=7), 17)),
        ethernet(ipv4(b"\x12\1\1\1" + bytes(8), 112)),
        ethernet(ipv4(b"\x21\1\1\2" + bytes(8), 112)),
        ethernet(ipv6(tcp(), length=0), 0x86DD),
        ethernet(ipv4(tcp(), options=b"\7\2\0\0")),
    ],
)
def test_half_a_header_or_a_wrong_length_is_no_packet(data: bytes) -> None:
    with pytest.raises(Undecodable):
        frame(data)


@settings(max_examples=300)
@given(st.binary(max_size=120), st.sampled_from(Layer), st.sampled_from([None, Layer.VXLAN, Layer.GENEVE]))
def test_any_bytes_are_a_packet_or_undecodable(data: bytes, first: Layer, tunnel: Layer | None) -> None:
    with contextlib.suppress(Undecodable):
        decode_packet(data, first, tunnel)
