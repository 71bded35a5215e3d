"""One packet, read layer by layer as far as it goes.

In:        packet bytes as captured, and which layer they start with.
Out:       `Packet`: the addresses, ports and flags that a flow shows.
Elsewhere: decode/columns.py reads the usual packets by the thousand; this reads any packet, and both agree.

A packet that was cut within a header is `Undecodable`, as the reference implementation has it: half a header would
show wrong ports. A packet that was cut within a payload is fine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from model.address import Address
from model.row import L4


class Undecodable(ValueError):
    """These bytes are not what they should be."""


class Layer(Enum):
    """What can be read. Anything else ends the packet: `Ethernet` is the last layer of an ARP frame."""

    ETHERNET = auto()
    IPV4 = auto()
    IPV6 = auto()
    TCP = auto()
    UDP = auto()
    SCTP = auto()
    ICMPV4 = auto()
    ICMPV6 = auto()
    VRRP = auto()
    IGMP = auto()
    VXLAN = auto()
    GENEVE = auto()


@dataclass(slots=True)
class Packet:
    """What was found, from the outside in; of two layers of one kind the inner one counts (IP in IP)."""

    smac: bytes | None = None
    dmac: bytes | None = None
    ip_version: int = 0
    """4, 6, or 0 without an IP layer."""
    src: Address | None = None
    dst: Address | None = None
    l4: L4 = L4.NONE
    sport: int = 0
    """ICMP: the type."""
    dport: int = 0
    """ICMP: the code."""
    tcp_flags: int = 0
    vrrp: tuple[int, int, int] = (0, 0, 0)
    """Type, virtual router id, priority."""
    igmp: tuple[int, Address] = (0, Address(4, 0))
    """Type, group."""
    layers: list[Layer] = field(default_factory=list)
    udp_payload: bytes = b""
    tunnel: Packet | None = None
    """The outer packet; this one is the inner."""
    vni: int = 0
    """Of the tunnel that this packet came in."""

    @property
    def last(self) -> Layer | None:
        """The innermost layer that was read."""
        return self.layers[-1] if self.layers else None


ETHERTYPES: Final = {
    0x0800: Layer.IPV4,
    0x86DD: Layer.IPV6,
    0x6558: Layer.ETHERNET,  # transparent Ethernet bridging (RFC 1701)
    0xFFFF: Layer.IPV4,  # "raw IP" of the reference implementation's packet library
}
IP_PROTOCOLS: Final = {
    1: Layer.ICMPV4,
    2: Layer.IGMP,
    4: Layer.IPV4,
    6: Layer.TCP,
    17: Layer.UDP,
    41: Layer.IPV6,
    58: Layer.ICMPV6,
    94: Layer.IPV4,
    112: Layer.VRRP,
    132: Layer.SCTP,
}
"""IPv6 extension headers have no decoder: the flow then ends at IPv6."""
_TUNNEL_PORTS: Final = {4789: Layer.VXLAN, 6081: Layer.GENEVE}
_HOP_BY_HOP: Final = 0
_JUMBO_PAYLOAD: Final = 0xC2

_Step = tuple[Layer | None, bytes]
"""The next layer, None for one that cannot be read, and its bytes."""


def decode_packet(data: bytes, first: Layer, tunnel: Layer | None = None) -> Packet:
    """The packet `data`, which starts with layer `first`.

    With `tunnel` (VXLAN or Geneve, because the datapath says so) the result is the inner packet, and `.tunnel` the
    outer one. Raises: Undecodable.
    """
    if not data:
        return Packet()
    outer = Packet()
    _read(data, first, outer, _PLAIN)
    if tunnel is None:
        return outer
    inner = Packet(tunnel=outer)
    # Without UDP there is no payload, and no payload is too short for a tunnel header.
    _read(outer.udp_payload, tunnel, inner, _IN_TUNNEL)
    return inner


def _read(data: bytes, first: Layer, packet: Packet, decoders: dict[Layer, Callable[[bytes, Packet], _Step]]) -> None:
    layer: Layer | None = first
    while layer is not None and (decoder := decoders.get(layer)) is not None:
        packet.layers.append(layer)
        layer, data = decoder(data, packet)
        if not data:
            return


def _need(data: bytes, size: int, what: str) -> None:
    if len(data) < size:
        raise Undecodable(f"{what}: {len(data)} bytes, expected at least {size}")


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _ethernet(data: bytes, packet: Packet) -> _Step:
    _need(data, 14, "Ethernet header")
    packet.dmac, packet.smac = data[:6], data[6:12]
    # Below 0x600 the field is a length and an LLC header follows (IEEE 802.3), which has no decoder.
    return ETHERTYPES.get(_u16(data, 12)), data[14:]


def _ipv4(data: bytes, packet: Packet) -> _Step:
    """Source: RFC 791. A total length of 0 means "as captured": segmentation offload leaves it so."""
    _need(data, 20, "IPv4 header")
    total = _u16(data, 2) or len(data)
    header = (data[0] & 0x0F) * 4
    if total < 20 or header < 20 or header > total:
        raise Undecodable(f"IPv4 header: {header} bytes of a packet of {total}")
    _need(data, header, "IPv4 header")
    _check_ipv4_options(data[20:header])
    packet.ip_version = 4
    packet.src = Address(4, int.from_bytes(data[12:16], "big"))
    packet.dst = Address(4, int.from_bytes(data[16:20], "big"))
    fragment = _u16(data, 6) & 0x3FFF  # more-fragments bit and offset
    return None if fragment else IP_PROTOCOLS.get(data[9]), data[header:total]


def _check_ipv4_options(options: bytes) -> None:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length <= 2 or at + length > len(options):
            raise Undecodable(f"IPv4 option {options[at]} of length {length}")
        at += length


def _ipv6(data: bytes, packet: Packet) -> _Step:
    """Source: RFC 8200. A hop-by-hop header counts as part of it, because a jumbogram's length stands there."""
    _need(data, 40, "IPv6 header")
    following, length, payload = data[6], _u16(data, 4), data[40:]
    if following == _HOP_BY_HOP:
        following, extension, jumbo = _hop_by_hop(payload)
        if (jumbo is None) == (length == 0):
            raise Undecodable(f"IPv6 header: length {length} with a jumbo length of {jumbo}")
        payload = payload[: length if jumbo is None else jumbo][extension:]
    elif length == 0:
        raise Undecodable("IPv6 header: length 0 without a hop-by-hop header")
    else:
        payload = payload[:length]
    packet.ip_version = 6
    packet.src = Address(6, int.from_bytes(data[8:24], "big"))
    packet.dst = Address(6, int.from_bytes(data[24:40], "big"))
    return IP_PROTOCOLS.get(following), payload


def _hop_by_hop(data: bytes) -> tuple[int, int, int | None]:
    """Next header, length of this one, jumbo payload length if there is one (RFC 2675)."""
    _need(data, 2, "hop-by-hop header")
    size = data[1] * 8 + 8
    _need(data, size, "hop-by-hop header")
    at, jumbo = 2, None
    while at < size:
        _need(data, at + 2, "hop-by-hop option")
        if data[at] == 0:
            at += 1
            continue
        end = at + 2 + data[at + 1]
        _need(data, end, "hop-by-hop option")
        if data[at] == _JUMBO_PAYLOAD and jumbo is None:
            jumbo = int.from_bytes(data[at + 2 : end], "big")
            if end - at != 6 or jumbo <= 0xFFFF:
                raise Undecodable(f"hop-by-hop option: jumbo length {jumbo} in {end - at - 2} bytes")
        at = end
    return data[0], size, jumbo


def _tcp(data: bytes, packet: Packet) -> _Step:
    """Source: RFC 9293."""
    _need(data, 20, "TCP header")
    header = (data[12] >> 4) * 4
    if header < 20:
        raise Undecodable(f"TCP header: data offset {header // 4}, expected at least 5")
    _need(data, header, "TCP header")
    _check_tcp_options(data[20:header])
    packet.l4, packet.sport, packet.dport = L4.TCP, _u16(data, 0), _u16(data, 2)
    packet.tcp_flags = _u16(data, 12) & 0x1FF
    return None, data[header:]


def _check_tcp_options(options: bytes) -> None:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            raise Undecodable(f"TCP option {options[at]} of length {length}")
        at += length


def _udp(data: bytes, packet: Packet) -> _Step:
    """Source: RFC 768. Length 0 is a jumbogram (RFC 2675)."""
    _need(data, 8, "UDP header")
    length = _u16(data, 4)
    if 0 < length < 8:
        raise Undecodable(f"UDP header: length {length}, expected at least 8")
    packet.l4, packet.sport, packet.dport = L4.UDP, _u16(data, 0), _u16(data, 2)
    packet.udp_payload = data[8 : length or None]
    return _TUNNEL_PORTS.get(packet.dport, _TUNNEL_PORTS.get(packet.sport)), packet.udp_payload


def _sctp(data: bytes, packet: Packet) -> _Step:
    _need(data, 12, "SCTP header")
    packet.l4, packet.sport, packet.dport = L4.SCTP, _u16(data, 0), _u16(data, 2)
    return None, data[12:]


def _icmpv4(data: bytes, packet: Packet) -> _Step:
    _need(data, 8, "ICMPv4 header")
    packet.l4, packet.sport, packet.dport = L4.ICMPV4, data[0], data[1]
    return None, data[8:]


def _icmpv6(data: bytes, packet: Packet) -> _Step:
    _need(data, 4, "ICMPv6 header")
    packet.l4, packet.sport, packet.dport = L4.ICMPV6, data[0], data[1]
    return None, data[4:]


def _vrrp(data: bytes, packet: Packet) -> _Step:
    """Version 2; version 3 has the fields that a flow shows in the same places. Source: RFC 3768, RFC 5798."""
    _need(data, 8, "VRRP header")
    kind, addresses = data[0] & 0x0F, data[3]
    if kind != 1 or addresses == 0:
        raise Undecodable(f"VRRP header: type {kind} with {addresses} addresses")
    _need(data, 8 + 4 * addresses, "VRRP addresses")
    packet.l4, packet.vrrp = L4.VRRP, (kind, data[1], data[2])
    return None, b""


def _igmp(data: bytes, packet: Packet) -> _Step:
    """Read as version 1 or 2: type and group. Source: RFC 2236."""
    _need(data, 8, "IGMP header")
    packet.l4, packet.igmp = L4.IGMP, (data[0], Address(4, int.from_bytes(data[4:8], "big")))
    return None, b""


def _vxlan(data: bytes, packet: Packet) -> _Step:
    """Source: RFC 7348, section 5."""
    _need(data, 8, "VXLAN header")
    packet.vni = int.from_bytes(data[4:7], "big")
    return Layer.ETHERNET, data[8:]


def _geneve(data: bytes, packet: Packet) -> _Step:
    """Source: RFC 8926, section 3.4."""
    _need(data, 8, "Geneve header")
    end = 8 + (data[0] & 0x3F) * 4
    _need(data, end, "Geneve options")
    packet.vni = int.from_bytes(data[4:7], "big")
    return ETHERTYPES.get(_u16(data, 2)), data[end:]


_PLAIN: Final[dict[Layer, Callable[[bytes, Packet], _Step]]] = {
    Layer.ETHERNET: _ethernet,
    Layer.IPV4: _ipv4,
    Layer.IPV6: _ipv6,
    Layer.TCP: _tcp,
    Layer.UDP: _udp,
    Layer.SCTP: _sctp,
    Layer.ICMPV4: _icmpv4,
    Layer.ICMPV6: _icmpv6,
    Layer.VRRP: _vrrp,
    Layer.IGMP: _igmp,
}
_IN_TUNNEL: Final = {**_PLAIN, Layer.VXLAN: _vxlan, Layer.GENEVE: _geneve}
