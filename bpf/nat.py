"""Garbage of source translation: entries whose connection is gone.

In:        dumps of the translation maps and of connection tracking.
Out:       keys to delete.
Elsewhere: include/nat.h makes the entries; datapath.py collects.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bpf import maps

YOUNG_S: Final = 60
"""Younger entries stay: their connection may have been made after connection tracking was read."""

U8Array = npt.NDArray[np.uint8]
_ECHO: Final = frozenset({1, 58})
_CT_OUT: Final = 0


def stale_entries(keys: U8Array, values: U8Array, connections: set[bytes], width: int, now_s: int) -> U8Array:
    """Keys of entries without a connection.

    `connections` are keys of conntrack entries; `width` is the size of an address in them, 4 or 16.
    """
    stale = [
        index
        for index, (key, value) in enumerate(
            zip(keys.view(maps.NAT_KEY)[:, 0], values.view(maps.NAT_ENTRY)[:, 0], strict=True)
        )
        if int(value["created_s"]) + YOUNG_S < now_s and _connection(key, value, width) not in connections
    ]
    return keys[stale]


def _connection(key: np.void, value: np.void, width: int) -> bytes:
    """The conntrack key of an entry's connection, as the pod that opened it sees it."""
    if key["direction"] == maps.NAT_OUT:
        daddr, saddr, dport, sport = key["daddr"], key["saddr"], key["dport"], key["sport"]
    else:
        daddr, saddr, dport, sport = key["saddr"], value["address"], key["sport"], value["port"]
    if int(key["protocol"]) in _ECHO:  # where the id of a question stands
        dport, sport = sport, dport
    ports = int(dport).to_bytes(2, "big") + int(sport).to_bytes(2, "big")
    connection: bytes = (
        daddr.tobytes()[:width] + saddr.tobytes()[:width] + ports + bytes([int(key["protocol"]), _CT_OUT])
    )
    return connection
