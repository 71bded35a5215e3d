"""Which pairs are tried when: a handshake for each, again after a while when it failed, never too many at once.

In:        pairs that packets ask for; how their handshakes ended; the time.
Out:       pairs to try now; pairs whose packets may ask again; why pairs are not authenticated.
Elsewhere: node.py shakes hands and tells the kernel. Pure.

The kernel asks once for a pair and then stays silent until it is answered. So a pair that failed is not tried more
often than this says, however many packets want it; and one that nobody wants any more is not tried at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from bpf.facts import AuthPair

MOST_PAIRS: Final = 1024
MOST_RUNNING: Final = 16
FIRST_PAUSE_S: Final = 0.1
"""After the first failure, twice as long after each further one: certificates may only be on their way."""
LONGEST_PAUSE_S: Final = 8.0
EAGER: Final = 5
"""So often a pair is tried of itself; after that only when another packet asks."""
FORGOTTEN_S: Final = 60.0
"""A failure that nobody has asked about again for this long is history."""


@dataclass(slots=True)
class _Attempt:
    running: bool = True
    failures: int = 0
    reason: str = ""
    again_s: float = 0.0
    """When it may be tried again."""
    quiet: bool = False
    """The kernel was answered: the pair is tried when it asks again."""


@dataclass(slots=True)
class Attempts:
    """One node's; times are of any clock that goes on."""

    _pairs: dict[AuthPair, _Attempt] = field(default_factory=dict)
    refused: int = 0
    """Pairs that found no room, counted each time they asked."""

    def due(self, wanted: Iterable[AuthPair], now_s: float) -> list[AuthPair]:
        """Pairs to try now, of those that are wanted; each is running from now on."""
        free = MOST_RUNNING - sum(one.running for one in self._pairs.values())
        found: list[AuthPair] = []
        for pair in wanted:
            if len(found) >= free:
                break
            known = self._pairs.get(pair)
            if known is None and len(self._pairs) >= MOST_PAIRS:
                self.refused += 1
                continue
            if known is None:
                known = self._pairs[pair] = _Attempt(running=False)
            if known.running or now_s < known.again_s or (known.failures >= EAGER and not known.quiet):
                continue
            known.running, known.quiet = True, False
            found.append(pair)
        return found

    def succeeded(self, pair: AuthPair) -> None:
        """Its packets may ask again, when its time comes."""
        self._pairs.pop(pair, None)

    def failed(self, pair: AuthPair, reason: str, now_s: float) -> bool:
        """Note why; says whether that is news."""
        known = self._pairs.setdefault(pair, _Attempt())
        news = known.reason != reason
        known.running = False
        known.failures += 1
        known.reason = reason
        known.again_s = now_s + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (known.failures - 1))
        return news

    def answered(self, now_s: float) -> list[AuthPair]:
        """Pairs whose packets may ask again, because the next attempt is theirs to cause."""
        found = []
        for pair, one in list(self._pairs.items()):
            if one.running or now_s < one.again_s:
                continue
            if one.failures >= EAGER and not one.quiet:
                one.quiet = True
                found.append(pair)
            elif now_s - one.again_s > FORGOTTEN_S:
                del self._pairs[pair]
        return found

    def keep(self, wanted: Callable[[AuthPair], bool]) -> list[AuthPair]:
        """Forget pairs that nobody may ask for any more; returns those that were waiting."""
        gone = [pair for pair, one in self._pairs.items() if not wanted(pair) and not one.running]
        for pair in gone:
            del self._pairs[pair]
        return gone

    def failures(self) -> dict[AuthPair, str]:
        """Why pairs have failed that somebody has asked for lately."""
        return {pair: one.reason for pair, one in self._pairs.items() if one.reason}
