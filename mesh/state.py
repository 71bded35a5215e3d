"""state.json: what the observer has to know to put names to packets.

In:        the cluster as each round sees it; what policies and the DNS proxy have added to it meanwhile.
Out:       the file, replaced as a whole; at once after a round, now and then while names are learned.
Elsewhere: knowledge.py says what the cluster contributes; model/knowledge.py reads the file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bpf.datapath import Prefix
from mesh import identities, ipam
from mesh.dns.names import Address
from mesh.files import write_atomically
from mesh.policy.node import NodePolicies
from mesh.policy.outcome import Outcome

PAUSE_S: Final = 0.2
"""Between two files while names are learned; each is as long as the cluster is large."""


class StateFile:
    """Owns the file."""

    def __init__(
        self, path: Path, policies: NodePolicies, names_told: Callable[[int], Mapping[Address, Sequence[str]]]
    ) -> None:
        """names_told  what an endpoint has learned from the DNS proxy: addresses and their names."""
        self._path = path
        self._policies = policies
        self._names_told = names_told
        self.base: dict[str, Any] | None = None
        """The file as far as the store says it; None before the first round."""
        self.taken: set[Prefix] = set()
        """Prefixes of the cluster's own addresses."""
        self._later: asyncio.TimerHandle | None = None
        self._written_s = float("-inf")

    def write(self, decided: Outcome) -> dict[str, Any]:
        """Write it now; returns what was written."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        state = self.of(decided)
        write_atomically(self._path, state)
        self._written_s = time.monotonic()
        return state

    def write_now_or_soon(self, decided: Outcome) -> None:
        """Write it, unless it was written just before: the observer shows numbers for names meanwhile."""
        if time.monotonic() - self._written_s > PAUSE_S:
            self.write(decided)
        else:
            self.write_soon()

    def write_soon(self) -> None:
        """Names for the observer, some at a time: they are no more than words beside flows."""
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(PAUSE_S, self._write_what_holds)

    def _write_what_holds(self) -> None:
        self.write(self._policies.learn(self._policies.names))

    def of(self, decided: Outcome) -> dict[str, Any]:
        """Its content: the cluster, which rules stand behind verdicts, and who names and prefixes are."""
        assert self.base is not None
        state = dict(self.base)
        self.taken = {ipam.network_of(one["prefix"]) for one in state["ipcache"] if one["identity"] != identities.WORLD}
        state["local_endpoints"] = [self._endpoint(one) for one in state["local_endpoints"]]
        numbers = {*decided.ipcache.values(), *decided.nodes.values()}
        state["identities"] = state["identities"] + [
            {"id": one.number, "labels": list(one.labels)} for one in decided.identities if one.number in numbers
        ]
        # Who lives at an address is stronger than what a policy calls it.
        free = {prefix: number for prefix, number in decided.ipcache.items() if prefix not in self.taken}
        known = [
            self._told_apart(one, decided) for one in state["ipcache"] if ipam.network_of(one["prefix"]) not in free
        ]
        state["ipcache"] = known + [{"prefix": str(prefix), "identity": number} for prefix, number in free.items()]
        return state

    def _told_apart(self, entry: dict[str, Any], decided: Outcome) -> dict[str, Any]:
        number = decided.nodes.get(entry.get("host_ip", ""))
        return {**entry, "identity": number} if number and entry["identity"] == identities.REMOTE_NODE else entry

    def _endpoint(self, endpoint: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(endpoint)
        if rules := self._policies.rules_behind(found["id"]):
            found["policy"] = rules
        if names := self._names_told(found["id"]):
            found["dns"] = [
                {"ip": str(address), "names": [name.removesuffix(".") for name in each]}
                for address, each in names.items()
            ]
        return found
