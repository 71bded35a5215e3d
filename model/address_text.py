"""IP addresses as numbers, the form in which rows and look-ups have them.

In:        text, packet bytes.
Out:       `Address`, its halves for a row, its text.
Elsewhere: the columns of a row are described in row.py.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Final, NamedTuple

LOW_HALF: Final = 0xFFFF_FFFF_FFFF_FFFF
MAPPED: Final = 0xFFFF << 32
"""::ffff:0:0, the prefix of IPv4-mapped IPv6 addresses (RFC 4291, section 2.5.5.2)."""


class Address(NamedTuple):
    """An IP address. Two families can have the same number, so the version is part of it."""

    version: int
    """4 or 6."""
    number: int

    def unmapped(self) -> Address:
        """The IPv4 address that an IPv4-mapped IPv6 address stands for; others as they are."""
        if self.version == 6 and self.number >> 32 == MAPPED >> 32:
            return Address(4, self.number & 0xFFFF_FFFF)
        return self

    def __str__(self) -> str:
        """Canonical text (RFC 5952); an IPv4-mapped address reads as the IPv4 address."""
        address = self.unmapped()
        if address.version == 4:
            return str(ipaddress.IPv4Address(address.number))
        return str(ipaddress.IPv6Address(address.number))


@lru_cache(maxsize=16_384)
def parse_address(text: str) -> Address | None:
    """The address that `text` is; None when it is none. A zone (`%eth0`) makes it none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if "%" in text:
        return None
    return Address(address.version, int(address))
