"""Text of addresses, in the form that flows carry, and back.

In:        halves of 128-bit numbers as rows have them, six bytes, text.
Out:       canonical text (Go's netip form), numbers.
Elsewhere: address.py has addresses as look-ups need them; filters compare the numbers of rows.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Final

from model.row import IPV4, IPV6

_MAPPED: Final = 0xFFFF
"""Bits 32 to 47 of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2)."""


def address_text(hi: int, lo: int, version: int) -> str:
    """Canonical text of an address (RFC 5952); `version` tells `::1` from 0.0.0.1."""
    if version == IPV4:
        return f"{lo >> 24 & 255}.{lo >> 16 & 255}.{lo >> 8 & 255}.{lo & 255}"
    if hi == 0 and lo >> 32 == 0:
        # inet_ntop writes the low half of these with dots, which RFC 4291 calls deprecated and Go does not do.
        return _low_ipv6_text(lo)
    if hi == 0 and lo >> 32 == _MAPPED:
        # The reference shows the address that is meant, whatever the version of the packet's IP header.
        return address_text(0, lo & 0xFFFFFFFF, IPV4)
    return inet_ntop(AF_INET6, hi.to_bytes(8, "big") + lo.to_bytes(8, "big"))


def parse_address_text(text: str) -> tuple[int, int, int] | None:
    """Version, high half and low half of an address in any accepted spelling; None when it is not one."""
    try:
        if ":" in text:
            packed = inet_pton(AF_INET6, text)
            return IPV6, int.from_bytes(packed[:8], "big"), int.from_bytes(packed[8:], "big")
        return IPV4, 0, int.from_bytes(inet_pton(AF_INET, text), "big")
    except (OSError, ValueError):  # ValueError: a NUL or a lone surrogate in the text
        return None


def mac_text(mac: bytes) -> str:
    """Lower-case colon form of six bytes."""
    return mac.hex(":")


def parse_mac(text: str) -> bytes | None:
    """The six bytes of a MAC address in exactly the form of `mac_text`; None for every other text."""
    try:
        mac = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        return None
    return mac if len(mac) == 6 and mac_text(mac) == text else None


def _low_ipv6_text(low: int) -> str:
    words = (low >> 16, low & 0xFFFF)
    if words[0]:
        return f"::{words[0]:x}:{words[1]:x}"
    return f"::{words[1]:x}" if words[1] else "::"
