"""The world outside the cluster: names and addresses that stand for the internet.

In:        nothing; these are facts of the lab.
Out:       addresses by name; all addresses that the outside namespace has.
Elsewhere: network.py gives the namespace its addresses, servers/world.py serves there, servers/cluster_dns.py answers
           for the names.

Addresses are those kept for documentation (RFC 5737, RFC 3849), so that nothing real can be meant.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

IpAddress = IPv4Address | IPv6Address

TTL_S: Final = 60
HTTP_PORT: Final = 80
HTTPS_PORT: Final = 443
FOLDED: Final = "cdn.example.net"
"""A name that another one is an alias of."""


def _addresses(*numbers: int) -> tuple[IpAddress, ...]:
    return tuple(ip_address(f"192.0.2.{one}") for one in numbers) + tuple(
        ip_address(f"2001:db8::{one:x}") for one in numbers
    )


NAMES: Final[dict[str, tuple[IpAddress, ...]]] = {
    "one.one.one.one": _addresses(1, 2),
    "k8s.io": _addresses(3),
    "cilium.io": _addresses(4),
    "example.com": _addresses(5),
    "api.example.com": _addresses(6),
    FOLDED: _addresses(7),
}
ALIASES: Final = {"www.example.com": FOLDED}
SILENT: Final = "192.0.2.254"
"""Takes whatever comes and never answers: a DNS server that is asked there leaves its clients waiting."""


def addresses() -> list[IpAddress]:
    """All that the outside namespace has to have."""
    found = {one for each in NAMES.values() for one in each} | {ip_address(SILENT)}
    return sorted(found, key=lambda one: (one.version, int(one)))
