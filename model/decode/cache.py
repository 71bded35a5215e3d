"""A dictionary from a few numbers to one, asked for whole columns at a time.

In:        columns of u64 that make up the key (an address in two halves, and what else matters).
Out:       a column of small integers.
Elsewhere: resolve.py says what keys and values mean.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]

_START: Final = 1 << 10
_EMPTY: Final = 0xFFFF_FFFF
_ALL_BITS: Final = (1 << 64) - 1


class KeyCache:
    """Open addressing in numpy arrays, at most half full. Forgets everything when `limit` keys are reached."""

    __slots__ = ("_keys", "_limit", "_multipliers", "_shift", "_used", "_values", "cleared")

    def __init__(self, columns: int, limit: int) -> None:
        self._limit = limit
        # Multiply-shift hashing (Dietzfelbinger et al., 1997), with numbers of this process: who sends packets cannot
        # choose addresses that all fall into one place.
        self._multipliers = [secrets.randbits(64) | 1 for _ in range(columns)]
        self.cleared = 0
        """How often it was emptied: whoever keeps more per key than the value starts anew, too."""
        self._allocate(_START)

    def __len__(self) -> int:
        return self._used

    def clear(self) -> None:
        """Forget everything."""
        self._allocate(_START)
        self.cleared += 1

    def look_up(self, keys: Sequence[U64], make: Callable[..., int]) -> U32:
        """The value of each key. `make` gets the numbers of a key that is not there yet, once for each."""
        values = self._find(keys)
        missing = np.flatnonzero(values == _EMPTY)
        if len(missing):
            new = _distinct([column[missing] for column in keys])
            if self._used + len(new) > self._limit:
                self.clear()
                new = _distinct(keys)
            for key in new:
                self._add(key, make(*key))
            values = self._find(keys)
        return values

    def _find(self, keys: Sequence[U64]) -> U32:
        mixed = keys[0] * np.uint64(self._multipliers[0])
        for column, multiplier in zip(keys[1:], self._multipliers[1:], strict=True):
            mixed += column * np.uint64(multiplier)
        mixed >>= self._shift
        slot = mixed.view(np.int64)
        values = self._values[slot]
        at = np.flatnonzero(self._differ(slot, keys) & (values != _EMPTY))
        if len(at):
            self._walk(keys, slot, values, at)
        return values

    def _walk(self, keys: Sequence[U64], slot: Indices, values: U32, at: Indices) -> None:
        """Few keys are not where they belong; those walk on until they meet themselves or a free place."""
        slot, keys = slot[at], [column[at] for column in keys]
        while len(at):
            slot = (slot + 1) & (len(self._values) - 1)
            found = self._values[slot]
            values[at] = found
            on = self._differ(slot, keys) & (found != _EMPTY)
            at, slot, keys = at[on], slot[on], [column[on] for column in keys]

    def _differ(self, slot: Indices, keys: Sequence[U64]) -> npt.NDArray[np.bool_]:
        """Where the key in a slot is another one."""
        differ: npt.NDArray[np.bool_] = self._keys[0][slot] != keys[0]
        for known, column in zip(self._keys[1:], keys[1:], strict=True):
            differ |= known[slot] != column
        return differ

    def _add(self, key: tuple[int, ...], value: int) -> None:
        if self._used * 2 >= len(self._values):
            self._grow()
        mixed = sum(number * multiplier for number, multiplier in zip(key, self._multipliers, strict=True))
        slot = (mixed & _ALL_BITS) >> int(self._shift)
        while self._values[slot] != _EMPTY:
            slot = (slot + 1) % len(self._values)
        self._values[slot] = value
        for known, number in zip(self._keys, key, strict=True):
            known[slot] = number
        self._used += 1

    def _allocate(self, size: int) -> None:
        self._keys = [np.zeros(size, np.uint64) for _ in self._multipliers]
        self._values = np.full(size, _EMPTY, np.uint32)
        self._shift = np.uint64(64 - (size.bit_length() - 1))
        self._used = 0

    def _grow(self) -> None:
        keep = np.flatnonzero(self._values != _EMPTY)
        keys = [column[keep].tolist() for column in self._keys]
        values = self._values[keep].tolist()
        self._allocate(len(self._values) * 2)
        for key, value in zip(zip(*keys, strict=True), values, strict=True):
            self._add(key, value)


def _distinct(keys: Sequence[U64]) -> list[tuple[int, ...]]:
    """The different keys among the rows of columns."""
    return list(dict.fromkeys(zip(*(column.tolist() for column in keys), strict=True)))
