"""Telling the network that an address has a new place.

In:        addresses that this node speaks for from now on; its devices.
Out:       an ARP announcement, or an unsolicited neighbour advertisement, for each.
Elsewhere: announcing.py chooses the node; the kernel's programs answer whoever asks (bpf/include/announce.h).

Without it, neighbours would go on with the node that had the address before until they ask again, and one that asked
too early, when nobody had it, asks again only after a second.

Source: RFC 5227 section 3, RFC 4861 section 7.2.6.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import structlog

from mesh.services.kinds import IpAddress

log: Final = structlog.get_logger(component="services")

ALL_NODES: Final = IPv6Address("ff02::1")
_ETH_ARP: Final = 0x0806
_ETH_IPV6: Final = 0x86DD
_OVERRIDE: Final = 0x20000000


def tell_neighbours(addresses: Iterable[IpAddress], devices: Iterable[str]) -> None:
    """Send it once; whoever misses it will ask. A device that does not take it is logged."""
    told = sorted(addresses, key=lambda one: (one.version, int(one)))
    for device in devices if told else ():
        try:
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
                sock.bind((device, 0))
                mac = bytes(sock.getsockname()[4])
                for address in told:
                    sock.send(announcement(address, mac))
        except OSError as error:
            log.warning("neighbours are not told", device=device, reason=error.strerror)


def announcement(address: IpAddress, mac: bytes) -> bytes:
    """The Ethernet frame that says where `address` is."""
    if isinstance(address, IPv4Address):
        ip = address.packed
        arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, ip, bytes(6), ip)
        return b"\xff" * 6 + mac + _ETH_ARP.to_bytes(2, "big") + arp
    source, target = address.packed, ALL_NODES.packed
    body = struct.pack("!BBHI16sBB6s", 136, 0, 0, _OVERRIDE, source, 2, 1, mac)
    pseudo = source + target + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    body = body[:2] + _checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    head = struct.pack("!IHBB16s16s", 6 << 28, len(body), socket.IPPROTO_ICMPV6, 255, source, target)
    return b"\x33\x33\x00\x00\x00\x01" + mac + _ETH_IPV6.to_bytes(2, "big") + head + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
