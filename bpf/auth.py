"""Records of authentication: which identities have proved to each other who they are.

In:        the agent's handshakes.
Out:       records that let packets pass, until their time; pairs that packets ask for.
Elsewhere: include/auth.h looks them up and asks; mesh/auth/ shakes hands.

Times are nanoseconds since the machine started (CLOCK_BOOTTIME), which also count while it sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np

from bpf import maps
from bpf.facts import AuthPair
from bpf.handles import Map, U8Array


def now_ns() -> int:
    """The clock that records are held against."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class AuthMaps:
    """The three maps of one node; they stay the caller's."""

    def __init__(self, records: Map, wanted: Map, missed: Map) -> None:
        self._records = records
        self._wanted = wanted
        self._missed = missed

    def records(self) -> dict[AuthPair, int]:
        """When each record is over, in ns; those that are over are among them until somebody removes them."""
        keys, values = self._records.dump()
        return dict(zip(_pairs(keys), values.view(maps.AUTH_RECORD)[:, 0]["expires_ns"].tolist(), strict=True))

    def allow(self, pair: AuthPair, expires_ns: int) -> None:
        """Let the pair's packets pass until then. Raises: BpfError when there are too many records."""
        self._records.update(_key(pair), expires_ns.to_bytes(8, "little"))

    def revoke(self, pairs: Iterable[AuthPair]) -> None:
        """Let them pass no more; unknown pairs are fine."""
        for pair in pairs:
            self._records.delete(_key(pair))

    def wanted(self) -> list[AuthPair]:
        """Pairs that packets have asked for since `answer`."""
        return _pairs(self._wanted.dump()[0])

    def answer(self, pairs: Iterable[AuthPair]) -> None:
        """Their packets may ask again."""
        for pair in pairs:
            self._wanted.delete(_key(pair))

    def missed(self) -> int:
        """How often a packet could not ask, because too many pairs were asked for."""
        return int.from_bytes(self._missed.lookup(bytes(4)) or b"", "little")


def _pairs(keys: U8Array) -> list[AuthPair]:
    found = keys.view(maps.AUTH_KEY)[:, 0]
    columns = (found[name].tolist() for name in ("local_identity", "remote_identity", "remote_node_id", "auth_type"))
    return [AuthPair(*one) for one in zip(*columns, strict=True)]


def _key(pair: AuthPair) -> bytes:
    key = np.zeros(1, maps.AUTH_KEY)
    key["local_identity"], key["remote_identity"], key["remote_node_id"], key["auth_type"] = pair
    return key.tobytes()
