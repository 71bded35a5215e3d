"""What a datapath is told and tells: endpoints, owners of addresses, sizes, counts.

In:        nothing; these are values.
Out:       the words that callers of datapath.py speak.
Elsewhere: encoding.py turns them into entries of maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


class Aggregation(IntEnum):
    """How many trace events the kernel sends (spec/events.md, section 13)."""

    NONE = 0
    LOWEST = 1
    LOW = 2
    MEDIUM = 3
    MAX = 4

    @classmethod
    def parse(cls, text: str) -> Aggregation:
        """Read a level as users write it: none, disabled, empty, lowest, low, medium, max, maximum or 0 to 4.

        Raises: ValueError for anything else.
        """
        words = {"": 0, "none": 0, "disabled": 0, "lowest": 1, "low": 2, "medium": 3, "max": 4, "maximum": 4}
        words |= {str(level.value): level.value for level in cls}
        level = words.get(text.strip().lower())
        if level is None:
            raise ValueError(f"aggregation is none, lowest, low, medium, max or 0 to 4, got {text!r}")
        return cls(level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A workload of this node and the device it hangs on."""

    endpoint_id: int
    """1 to 65535, unique on the node."""
    identity: int
    ifname: str
    """Host side of the veth, in the node's network namespace."""
    pod_mac: str
    """MAC of the device inside the pod, as "aa:bb:cc:dd:ee:ff"."""
    host_mac: str
    """MAC of the host side."""
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcacheEntry:
    """Who owns an address or prefix, and behind which node."""

    identity: int
    tunnel_endpoint: Address | None = None
    """Node to encapsulate to; None: local, or reached without a tunnel."""
    node_id: int = 0
    """Of that node, in records of authentication; 0: this node, or none."""


class AuthPair(NamedTuple):
    """Whom a record of authentication is about."""

    local: int
    """Identity of an endpoint here, whose policy asks for it."""
    remote: int
    node_id: int
    """Of the node of the other one; 0: this node."""
    kind: int
    """Authentication type of the policy: 1 required, 2 test-always-fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSizes:
    """Entries of the maps that grow with use. Connection tracking is allocated up front: about 150 bytes per entry."""

    conntrack_tcp: int = 65536
    conntrack_any: int = 32768
    nat: int = 65536
    affinity: int = 65536
    ipcache: int = 512000
    fragments: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCounters:
    """What the programs of this node wanted to send, since the maps were created."""

    emitted: int
    """Events offered to a perf ring with a reader: delivered + lost."""
    ring_full: int
    """Part of `emitted` that the kernel could not store."""
    no_reader: int
    """Events nobody could take: no observer was attached."""
    failed: int
    """Events that could not be sent for another reason; 0 unless something is broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketCounter:
    """Packets counted by the programs, over all CPUs (spec/events.md, section 14)."""

    reason: int
    """0 forwarded, 3 arrived, 130 and above: drop reason."""
    direction: int
    """1 ingress, 2 egress."""
    line: int
    """Of a drop: where it was decided, in `file`."""
    file: str
    packets: int
    bytes: int
