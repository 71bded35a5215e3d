"""From keys of a few machine words to small numbers, for whole batches.

In:        keys: (n, words) u64.
Out:       numbers counted from 0 in order of adding; -1 for what was never added.
Elsewhere: pieces.py gives the numbers their meaning.

An open-addressing hash table in numpy: every step is one operation for all keys that still look for their place. The
hash is keyed at random, so that traffic cannot be shaped to collide; keys are compared in full all the same.
"""

from __future__ import annotations

import secrets
from typing import Final

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_SMALLEST: Final = 1 << 10
_SCATTER: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
"""2**64 divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4)."""


class KeyIndex:
    """Numbers distinct keys of `words` words. Grows without bound: its owner decides when to `clear`."""

    __slots__ = ("_count", "_hashes", "_keys", "_multipliers", "_places", "_shift", "_words")

    def __init__(self, words: int) -> None:
        self._words = words
        # Multiply-shift hashing (Dietzfelbinger et al., 1997): odd multipliers, the top bits are the good ones.
        self._multipliers = np.frombuffer(secrets.token_bytes(words * 8), np.uint64) | np.uint64(1)
        self.clear()

    def __len__(self) -> int:
        return self._count

    def clear(self) -> None:
        """Forget all keys; numbers start at 0 again."""
        self._count = 0
        self._keys: U64 = np.empty((_SMALLEST // 2, self._words), np.uint64)
        self._hashes: U64 = np.empty(_SMALLEST // 2, np.uint64)
        self._empty_places(_SMALLEST)

    def hashes(self, keys: U64) -> U64:
        """One number per key."""
        mixed = keys ^ (keys >> np.uint64(32))
        sums: U64 = mixed @ self._multipliers
        # Small numbers times an unlucky multiplier stay close to each other: 500 steps instead of 1 were seen.
        sums ^= sums >> np.uint64(29)
        sums *= _SCATTER
        return sums

    def find(self, keys: U64, hashes: U64) -> I64:
        """The number of each key, -1 where it is not known."""
        place = (hashes >> self._shift).astype(np.int64)
        found = self._places[place]
        misplaced = np.flatnonzero((found >= 0) & ~self._is(found, keys))
        while len(misplaced):
            place[misplaced] = (place[misplaced] + 1) & (len(self._places) - 1)
            candidates = self._places[place[misplaced]]
            found[misplaced] = candidates
            wrong = (candidates >= 0) & ~self._is(candidates, keys[misplaced])
            misplaced = misplaced[wrong]
        return found

    def add(self, keys: U64, hashes: U64) -> None:
        """Number keys that are distinct and not known yet."""
        first, self._count = self._count, self._count + len(keys)
        if self._count > len(self._keys):
            self._grow(first)
        self._keys[first : self._count] = keys
        self._hashes[first : self._count] = hashes
        self._settle(np.arange(first, self._count))

    def _is(self, numbers: I64, keys: U64) -> npt.NDArray[np.bool_]:
        """Whether these numbers stand for these keys; any answer for numbers below 0."""
        equal = self._keys.take(numbers, axis=0, mode="wrap") == keys
        same: npt.NDArray[np.bool_] = equal[:, 0].copy()
        for word in range(1, self._words):
            same &= equal[:, word]
        return same

    def _settle(self, numbers: I64) -> None:
        place = (self._hashes[numbers] >> self._shift).astype(np.int64)
        while len(numbers):
            free = self._places[place] < 0
            self._places[place[free]] = numbers[free]
            # Of several that wanted one place the last got it; the others look on like those that found it taken.
            unsettled = self._places[place] != numbers
            numbers, place = numbers[unsettled], (place[unsettled] + 1) & (len(self._places) - 1)

    def _grow(self, used: int) -> None:
        size = len(self._keys)
        while size < self._count:
            size *= 2
        keys, hashes = self._keys, self._hashes
        self._keys, self._hashes = np.empty((size, self._words), np.uint64), np.empty(size, np.uint64)
        self._keys[:used], self._hashes[:used] = keys[:used], hashes[:used]
        self._empty_places(2 * size)
        self._settle(np.arange(used))

    def _empty_places(self, size: int) -> None:
        self._places: I64 = np.full(size, -1, np.int64)
        self._shift = np.uint64(64 - (size.bit_length() - 1))


def distinct(keys: U64) -> tuple[I64, I64]:
    """For keys (n, words): the position of one example of each distinct key, and which of these each key equals."""
    index = KeyIndex(keys.shape[1])
    hashes = index.hashes(keys)
    examples: list[I64] = [np.empty(0, np.int64)]
    numbers = np.full(len(keys), -1, np.int64)
    missing = np.arange(len(keys))
    while len(missing):
        # One hash is nearly always one key; if not, the other one's turn is the next round.
        _, first = np.unique(hashes[missing], return_index=True)
        new = missing[first]
        index.add(keys[new], hashes[new])
        examples.append(new)
        numbers[missing] = index.find(keys[missing], hashes[missing])
        missing = missing[numbers[missing] < 0]
    return np.concatenate(examples), numbers
