"""Identities of prefixes: numbers that mean something on this node only.

In:        prefixes that policies name; names that a DNS proxy has seen addresses of.
Out:       one identity for each prefix, for the ipcache and for selectors.
Elsewhere: node.py decides which are needed; the kernel's ipcache keeps the numbers while no agent runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from typing import Final

from mesh.policy.documents.fields import Network
from mesh.policy.peers import EVERYTHING, Identity
from service.failure import Failure

FIRST: Final = 0x01000001
LAST: Final = 0x01FFFFFF

_FIXED: Final[dict[Network, int]] = {ip_network(text): number for number, text in EVERYTHING.items()}


class LocalIdentities:
    """Numbers by prefix. A number that was given back is not given out again until all others have been."""

    def __init__(self) -> None:
        self._numbers: dict[Network, int] = {}
        self._identities: dict[Network, Identity] = {}
        """The same objects for as long as nothing changes about them."""
        self._names: dict[Network, tuple[str, ...]] = {}
        self._taken: set[int] = set()
        self._next = FIRST

    def restore(self, known: Mapping[Network, int]) -> None:
        """Take over what the kernel has from an earlier agent, so that no packet meets a number of another meaning."""
        for prefix, number in known.items():
            if FIRST <= number <= LAST:
                self._give(prefix, number, ())
                self._next = max(self._next, number + 1)

    def want(self, prefixes: Iterable[Network], names: Mapping[Network, tuple[str, ...]] | None = None) -> None:
        """Make sure that these have identities.

        `names` are the toFQDNs selectors that stand for a prefix now; an address whose names change is somebody else
        to policies, so it gets another number.
        """
        names = names or {}
        for prefix in {*prefixes, *names}:
            if prefix in _FIXED:
                self._numbers[prefix] = _FIXED[prefix]
            elif prefix not in self._numbers or self._names[prefix] != names.get(prefix, ()):
                self._give(prefix, self._free(), names.get(prefix, ()))

    def release(self, prefixes: Iterable[Network]) -> None:
        """Forget prefixes; call it when the ipcache has forgotten them."""
        for prefix in prefixes:
            self._taken.discard(self._numbers.pop(prefix, 0))
            self._names.pop(prefix, None)
            self._identities.pop(prefix, None)

    @property
    def numbers(self) -> dict[Network, int]:
        """All numbers by prefix."""
        return dict(self._numbers)

    def identities(self) -> list[Identity]:
        """All of them, for selectors."""
        return list(self._identities.values())

    def _give(self, prefix: Network, number: int, names: tuple[str, ...]) -> None:
        self._taken.discard(self._numbers.get(prefix, 0))
        self._taken.add(number)
        self._numbers[prefix], self._names[prefix] = number, names
        self._identities[prefix] = Identity(number, labels_of(prefix, names), prefix)

    def _free(self) -> int:
        for _ in range(FIRST, LAST + 1):
            number, self._next = self._next, self._next + 1 if self._next < LAST else FIRST
            if number not in self._taken:
                return number
        raise Failure("all identities of prefixes are taken; use fewer CIDR rules")


def labels_of(prefix: Network, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Labels of a prefix's identity: `cidr:10.0.0.0/8`; a colon would end a label's source, so IPv6 has dashes."""
    text = str(prefix)
    if prefix.version == 6:
        address, _, length = text.partition("/")
        address = f"0{address}" if address.startswith(":") else address
        address = f"{address}0" if address.endswith(":") else address
        text = f"{address.replace(':', '-')}/{length}"
    return (f"cidr:{text}", *(f"fqdn:{name}" for name in names), "reserved:world")
