"""IP addresses as look-ups have them: one number and its family.

In:        text, packet bytes.
Out:       `Address`.
Elsewhere: address_text.py has text and the halves that rows keep.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from model.address_text import address_text, parse_address_text
from model.row import IPV4, IPV6

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
        return address_text(self.number >> 64, self.number & LOW_HALF, IPV4 if self.version == 4 else IPV6)


@lru_cache(maxsize=16_384)
def parse_address(text: str) -> Address | None:
    """The address that `text` is, None when it is none."""
    parsed = parse_address_text(text)
    if parsed is None:
        return None
    version, hi, lo = parsed
    return Address(4 if version == IPV4 else 6, hi << 64 | lo)
