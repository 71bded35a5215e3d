"""Sockets that speak for others: to clients as the server they asked, to servers as the proxy of a client.

In:        addresses, marks.
Out:       sockets that do not block; where a datagram was going.
Elsewhere: bpf/include/proxy.h finds the listeners at the loopback addresses, and knows packets of proxies by mark.
Source: spec/datapath.md section 2, ip(7).
"""

from __future__ import annotations

import socket
import struct
from typing import Final

# Not in the socket module of Python 3.11.
_IP_TRANSPARENT: Final = 19
_IP_RECVORIGDSTADDR: Final = 20
_IPV6_RECVORIGDSTADDR: Final = 74
_IPV6_TRANSPARENT: Final = 75

MARK_FROM_EGRESS_PROXY: Final = 0x0B00
LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
BACKLOG: Final = 1024
RECEIVE_BUFFER: Final = 4 * 2**20
"""Bytes for queries that arrive while others are looked at."""
ANCILLARY: Final = socket.CMSG_SPACE(28)
"""Room for one address of either family."""

Kind = socket.SocketKind
Target = tuple[str, int]


def mark_for(identity: int) -> int:
    """SO_MARK of connections to servers on behalf of an identity."""
    return MARK_FROM_EGRESS_PROXY | (identity & 0xFFFF) << 16 | identity >> 16 & 0xFF


def family_of(address: str) -> socket.AddressFamily:
    """The address's family."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listener(family: socket.AddressFamily, kind: Kind, port: int) -> socket.socket:
    """Where the kernel puts what clients send. Raises: OSError."""
    sock = _transparent(family, kind)
    try:
        if kind is socket.SOCK_DGRAM:
            option = (
                (socket.IPPROTO_IP, _IP_RECVORIGDSTADDR)
                if family is socket.AF_INET
                else (socket.IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR)
            )
            sock.setsockopt(*option, 1)
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        sock.bind((LOOPBACK[family], port))
        if kind is socket.SOCK_STREAM:
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def speaking_as(address: str, port: int) -> socket.socket:
    """A datagram socket whose packets come from somebody else's address. Raises: OSError."""
    sock = _transparent(family_of(address), socket.SOCK_DGRAM)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def toward(address: str, kind: Kind, mark: int) -> socket.socket:
    """A socket for asking a server. Raises: OSError."""
    sock = socket.socket(family_of(address), kind)
    sock.setblocking(False)
    try:
        # Not as a number: Python takes only those that fit a signed one.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
    except OSError:
        sock.close()
        raise
    return sock


def original_target(ancillary: bytes) -> Target:
    """Where a datagram was going, from the one control message that comes with it."""
    if len(ancillary) >= 28:
        return socket.inet_ntop(socket.AF_INET6, ancillary[8:24]), struct.unpack_from("!H", ancillary, 2)[0]
    return socket.inet_ntop(socket.AF_INET, ancillary[4:8]), struct.unpack_from("!H", ancillary, 2)[0]


def _transparent(family: socket.AddressFamily, kind: Kind) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK_FROM_EGRESS_PROXY)
    except OSError:
        sock.close()
        raise
    return sock


_SO_RCVBUFFORCE: Final = 33
