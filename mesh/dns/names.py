"""Addresses that names have had, as each endpoint of a node was told them.

In:        answers that the DNS proxy has passed; the time; which addresses connections are open to.
Out:       names by address, for the policy and for the observer; what changed; a form that survives a restart.
Elsewhere: keeper.py keeps it in a file and tells the policy. Source: spec/policy.md section 9.

An address outlives its answer in two ways: until the next `expire`, which is when what is over is looked for at all,
and after that for as long as a connection to it is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

MAX_NAMES: Final = 20_000
"""Names of one endpoint; a pod that asks for more makes the oldest go."""

Address = IPv4Address | IPv6Address
InUse = Callable[[int, Address], bool]
"""Whether an endpoint has a connection to an address."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much is remembered."""

    min_ttl_s: int = 0
    max_addresses: int = 1000
    """Of one name of one endpoint; those that expire first go first."""
    max_deferred: int = 10_000
    """Addresses of one endpoint that are kept only because connections are open to them."""
    grace_s: float = 0.0
    """How long an address is kept after it was last seen in use."""


@dataclass(slots=True)
class _OfEndpoint:
    names: dict[str, dict[Address, float]] = field(default_factory=dict)
    """When each address of each name expires; seconds since the epoch, because it outlives the process."""
    deferred: dict[tuple[str, Address], float] = field(default_factory=dict)
    """Expired, in use; when it was last seen so."""


class Names:
    """Belongs to one thread."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.forgotten = 0
        """Addresses and names that went because of a limit."""
        self._endpoints: dict[int, _OfEndpoint] = {}
        self._holders: dict[Address, dict[str, int]] = {}
        """How many endpoints know an address by a name."""

    def learn(self, endpoint: int, name: str, addresses: Iterable[Address], ttl_s: int, now_s: float) -> set[Address]:
        """An endpoint was told addresses of a name. Returns those of which the names have changed."""
        mine = self._endpoints.setdefault(endpoint, _OfEndpoint())
        known = mine.names.pop(name, {})
        mine.names[name] = known  # last asked for, so last to go
        changed: set[Address] = set()
        expires_s = now_s + max(ttl_s, self.limits.min_ttl_s)
        for address in addresses:
            if mine.deferred.pop((name, address), None) is None and address not in known:
                self._hold(address, name, changed)
            # The lifetime that lasts longest counts: a connection may start just before it ends.
            known[address] = max(expires_s, known.get(address, 0.0))
        for address in sorted(known, key=known.__getitem__)[: max(0, len(known) - self.limits.max_addresses)]:
            self._drop(known, address, name, changed)
        while len(mine.names) > MAX_NAMES:
            oldest = next(iter(mine.names))
            for address in list(mine.names[oldest]):
                self._drop(mine.names[oldest], address, oldest, changed)
            del mine.names[oldest]
        return changed

    def expire(self, now_s: float, in_use: InUse) -> set[Address]:
        """Forget what is over and not in use. Returns the addresses of which the names have changed."""
        changed: set[Address] = set()
        for number, mine in list(self._endpoints.items()):
            for name, known in list(mine.names.items()):
                for address in [one for one, expires_s in known.items() if expires_s <= now_s]:
                    del known[address]
                    mine.deferred[name, address] = now_s if in_use(number, address) else float("-inf")
                if not known:
                    del mine.names[name]
            for (name, address), seen_s in list(mine.deferred.items()):
                if in_use(number, address):
                    mine.deferred[name, address] = now_s
                elif now_s - seen_s >= self.limits.grace_s:
                    del mine.deferred[name, address]
                    self._release(address, name, changed)
            for name, address in list(mine.deferred)[: max(0, len(mine.deferred) - self.limits.max_deferred)]:
                self.forgotten += 1
                del mine.deferred[name, address]
                self._release(address, name, changed)
            if not mine.names and not mine.deferred:
                del self._endpoints[number]
        return changed

    def keep_endpoints(self, numbers: Iterable[int]) -> set[Address]:
        """Forget endpoints that are not among these. Returns the addresses of which the names have changed."""
        changed: set[Address] = set()
        for number in self._endpoints.keys() - set(numbers):
            for name, address in self._pairs(self._endpoints.pop(number)):
                self._release(address, name, changed)
        return changed

    def of_address(self, address: Address) -> tuple[str, ...]:
        """Names of an address, over all endpoints."""
        return tuple(self._holders.get(address, ()))

    def addresses(self) -> list[Address]:
        """All addresses that have names."""
        return list(self._holders)

    def of_endpoint(self, endpoint: int) -> dict[Address, tuple[str, ...]]:
        """Names by address, as one endpoint knows them."""
        found: dict[Address, set[str]] = {}
        for name, address in self._pairs(self._endpoints.get(endpoint, _OfEndpoint())):
            found.setdefault(address, set()).add(name)
        return {address: tuple(sorted(names)) for address, names in found.items()}

    def dump(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            str(number): {
                "names": {
                    name: {str(address): expires_s for address, expires_s in known.items()}
                    for name, known in mine.names.items()
                },
                "in_use": [[name, str(address)] for name, address in mine.deferred],
            }
            for number, mine in self._endpoints.items()
        }

    def restore(self, dumped: Mapping[str, Any], now_s: float) -> None:
        """Take over what `dump` gave. Nothing expires before the next `expire`. Raises: ValueError for other JSON."""
        try:
            for number, mine in dumped.items():
                for name, known in mine["names"].items():
                    for text, expires_s in known.items():
                        entry = self._endpoints.setdefault(int(number), _OfEndpoint()).names.setdefault(name, {})
                        self._put(entry, name, ip_address(text), float(expires_s))
                for name, text in mine["in_use"]:
                    entry = self._endpoints.setdefault(int(number), _OfEndpoint()).names.setdefault(name, {})
                    self._put(entry, name, ip_address(text), now_s)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not what was written: {error}") from error

    def _put(self, entry: dict[Address, float], name: str, address: Address, expires_s: float) -> None:
        if address not in entry:
            self._hold(address, name, set())
        entry[address] = expires_s

    def _drop(self, known: dict[Address, float], address: Address, name: str, changed: set[Address]) -> None:
        del known[address]
        self.forgotten += 1
        self._release(address, name, changed)

    def _hold(self, address: Address, name: str, changed: set[Address]) -> None:
        holders = self._holders.setdefault(address, {})
        holders[name] = holders.get(name, 0) + 1
        if holders[name] == 1:
            changed.add(address)

    def _release(self, address: Address, name: str, changed: set[Address]) -> None:
        holders = self._holders[address]
        holders[name] -= 1
        if not holders[name]:
            del holders[name]
            changed.add(address)
        if not holders:
            del self._holders[address]

    @staticmethod
    def _pairs(mine: _OfEndpoint) -> list[tuple[str, Address]]:
        return [(name, address) for name, known in mine.names.items() for address in known] + list(mine.deferred)
