"""The packet of an event, put into a row.

In:        packet bytes and the flags that say how they start.
Out:       the row's columns for layers, and the parts for which it has none.
Elsewhere: packet.py reads packets; columns.py does this for usual packets by the thousand.
"""

from __future__ import annotations

from typing import Final

from model.address import MAPPED, Address
from model.draft import IP_VERSIONS, Draft
from model.layouts import NotifyFlag
from model.packet import Layer, Packet, decode_packet
from model.row import L4, Bit
from proto.flow import flow_pb2

_IPV6, _L3_DEVICE = int(NotifyFlag.IPV6), int(NotifyFlag.L3_DEVICE)
_VXLAN, _GENEVE = int(NotifyFlag.VXLAN), int(NotifyFlag.GENEVE)
_HAS_ETHERNET, _HAS_TCP_FLAGS, _SUMMARY_IN_AUX = (
    int(bit) for bit in (Bit.HAS_ETHERNET, Bit.HAS_TCP_FLAGS, Bit.SUMMARY_IN_AUX)
)
_LAYERS: Final = {
    L4.TCP: Layer.TCP,
    L4.UDP: Layer.UDP,
    L4.SCTP: Layer.SCTP,
    L4.ICMPV4: Layer.ICMPV4,
    L4.ICMPV6: Layer.ICMPV6,
    L4.VRRP: Layer.VRRP,
    L4.IGMP: Layer.IGMP,
}
_SUMMARIES: Final = {
    Layer.ETHERNET: "Ethernet",
    Layer.IPV4: "IPv4",
    Layer.IPV6: "IPv6",
    Layer.VXLAN: "VXLAN",
    Layer.GENEVE: "Geneve",
}
"""Of layers that have nothing else to tell."""


def read_packet(data: bytes, flags: int) -> Packet:
    """The packet of an event with these NotifyFlag bits. Raises: Undecodable."""
    first = Layer.ETHERNET
    if flags & _L3_DEVICE:
        first = Layer.IPV6 if flags & _IPV6 else Layer.IPV4
    tunnel = None
    if flags & _VXLAN:
        tunnel = Layer.VXLAN
    elif flags & _GENEVE:
        tunnel = Layer.GENEVE
    return decode_packet(data, first, tunnel)


def show_packet(draft: Draft, packet: Packet) -> None:
    """Put the packet's layers into the row."""
    if packet.smac is not None and packet.dmac is not None:
        draft.bits |= _HAS_ETHERNET
        draft.smac, draft.dmac = packet.smac, packet.dmac
    draft.ip_version, draft.l4 = IP_VERSIONS[packet.ip_version], packet.l4
    draft.set_addresses(packet.src, packet.dst)
    draft.sport, draft.dport = packet.sport, packet.dport
    if packet.l4 is L4.TCP:
        draft.bits |= _HAS_TCP_FLAGS
        draft.tcp_flags = packet.tcp_flags
    elif packet.l4 is L4.VRRP:
        kind, vrid, priority = packet.vrrp
        draft.more.l4.VRRP.CopyFrom(flow_pb2.VRRP(type=kind, vrid=vrid, priority=priority))
    elif packet.l4 is L4.IGMP:
        draft.more.l4.IGMP.CopyFrom(flow_pb2.IGMP(type=packet.igmp[0], group_address=str(packet.igmp[1])))
    last = packet.last
    if packet.tunnel is not None:
        _show_tunnel(draft.more.tunnel, packet, packet.tunnel)
        if len(packet.layers) == 1:
            last = None
    if last is not _implied_last(packet):
        draft.bits |= _SUMMARY_IN_AUX
        draft.more.Summary = _SUMMARIES[last] if last else ""


def show_translation(draft: Draft, packet: Packet, original: Address) -> None:
    """Show the source before translation; the packet's own stands beside it."""
    draft.more.IP.source_xlated = str(packet.src)
    if packet.ip_version == 6 and original.version == 4:
        original = Address(6, MAPPED | original.number)
    elif packet.ip_version != original.version:
        draft.more.IP.source = str(original)  # a row's addresses are of the packet's family
    draft.set_addresses(original, None)


def _implied_last(packet: Packet) -> Layer | None:
    """The last layer of a packet with these layers, one inside the other as usual. Summaries are made from it."""
    if packet.l4 is not L4.NONE:
        return _LAYERS[packet.l4]
    if packet.ip_version:
        return Layer.IPV4 if packet.ip_version == 4 else Layer.IPV6
    return Layer.ETHERNET if packet.smac is not None else None


def _show_tunnel(tunnel: flow_pb2.Tunnel, packet: Packet, outer: Packet) -> None:
    vxlan = packet.layers[0] is Layer.VXLAN
    tunnel.protocol = flow_pb2.Tunnel.VXLAN if vxlan else flow_pb2.Tunnel.GENEVE
    tunnel.vni = packet.vni
    tunnel.IP.source, tunnel.IP.destination = str(outer.src), str(outer.dst)
    tunnel.IP.ipVersion = IP_VERSIONS[outer.ip_version]  # type: ignore[assignment]
    tunnel.l4.UDP.source_port, tunnel.l4.UDP.destination_port = outer.sport, outer.dport
