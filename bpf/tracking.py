"""Tables of connections and translations: who talks to whom, and what has expired.

In:        the pinned maps of a node, by name.
Out:       connections; expired entries are removed.
Elsewhere: include/conntrack.h and include/nat.h make entries; nat.py says which translations nobody needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import numpy as np

from bpf import maps
from bpf.census import note_removed
from bpf.facts import Address
from bpf.handles import Map
from bpf.nat import U8Array, stale_entries

_CONNTRACK_KEYS: Final[dict[str, tuple[int, np.dtype[np.void]]]] = {
    maps.CT4_TCP: (maps.FAMILY_IPV4, maps.CT4_KEY),
    maps.CT4_ANY: (maps.FAMILY_IPV4, maps.CT4_KEY),
    maps.CT6_TCP: (maps.FAMILY_IPV6, maps.CT6_KEY),
    maps.CT6_ANY: (maps.FAMILY_IPV6, maps.CT6_KEY),
}


def collect(tables: Mapping[str, Map], now_s: int) -> int:
    """Remove what has expired of connections and translations; returns how many entries."""
    removed = 0
    for name in maps.CONNTRACK:
        table = tables[name]
        keys, values = table.dump()
        expired = values.view(maps.CT_ENTRY)[:, 0]["lifetime_s"] < now_s
        removed += _delete(tables, name, keys[expired])
    for name, width, tracked in (
        (maps.NAT4, 4, (maps.CT4_TCP, maps.CT4_ANY)),
        (maps.NAT6, 16, (maps.CT6_TCP, maps.CT6_ANY)),
    ):
        table = tables[name]
        keys, values = table.dump()
        if not len(keys):
            continue
        connections = {key.tobytes() for each in tracked for key in tables[each].dump()[0]}
        removed += _delete(tables, name, stale_entries(keys, values, connections, width, now_s))
    return removed


def connections(tables: Mapping[str, Map], now_s: int) -> set[tuple[Address, Address]]:
    """Who has connections to whom: source and destination of all that have not expired."""
    found: set[tuple[Address, Address]] = set()
    for name in maps.CONNTRACK:
        family, layout = _CONNTRACK_KEYS[name]
        keys, values = tables[name].dump()
        alive = keys[values.view(maps.CT_ENTRY)[:, 0]["lifetime_s"] >= now_s].view(layout)[:, 0]
        for pair in {(one["saddr"].tobytes(), one["daddr"].tobytes()) for one in alive}:
            source, destination = (IPv4Address(raw) if family == maps.FAMILY_IPV4 else IPv6Address(raw) for raw in pair)
            found.add((source, destination))
    return found


def _delete(tables: Mapping[str, Map], name: str, keys: U8Array) -> int:
    removed = tables[name].delete_many(keys)
    note_removed(tables[maps.INSERTS], name, removed)
    return removed
