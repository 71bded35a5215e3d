"""Consistent hashing after Maglev (Eisenbud et al., 2016): which backend stands in each slot of a table.

In:        ids of a service's backends.
Out:       a table in which each backend has nearly the same number of slots, the same on every node, and in which few
           slots change when a backend comes or goes.
Elsewhere: tail_service.bpf.c looks a connection's slot up; service_maps.py writes tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

MAGLEV_SIZE: Final = 16381
"""Slots; a prime, so that every step walks through all of them."""


def maglev_table(backends: Mapping[str, int]) -> npt.NDArray[np.uint32]:
    """The id in each slot; `backends` are ids by a name that is the same on every node.

    Raises: ValueError when there is no backend.
    """
    if not backends:
        raise ValueError("a Maglev table needs at least one backend")
    names = sorted(backends)
    walks = [_walk(name) for name in names]
    owners = np.full(MAGLEV_SIZE, -1, np.int64)
    taken = bytearray(MAGLEV_SIZE)
    positions = [0] * len(names)
    left = MAGLEV_SIZE
    while True:
        for number, walk in enumerate(walks):
            at = positions[number]
            while taken[walk[at]]:
                at += 1
            taken[walk[at]] = 1
            owners[walk[at]] = number
            positions[number] = at + 1
            left -= 1
            if not left:
                return np.array([backends[name] for name in names], np.uint32)[owners]


def _walk(name: str) -> list[int]:
    """All slots in the order in which a backend would like to have them."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    offset = int.from_bytes(digest[:8], "big") % MAGLEV_SIZE
    skip = int.from_bytes(digest[8:], "big") % (MAGLEV_SIZE - 1) + 1
    walk: list[int] = ((offset + skip * np.arange(MAGLEV_SIZE, dtype=np.int64)) % MAGLEV_SIZE).tolist()
    return walk
