"""Numbers for rows that are equal in some columns, and what is known about such a group.

In:        columns of rows, call after call.
Out:       the same key for equal rows, in every call; a remembered answer by key.
Elsewhere: term.py evaluates what is not known yet.

Values are numbered in the order in which they are first seen, so keys stay small: five ports and three verdicts are
sixteen bits apart in a row and need five bits here. Up to SMALL_BITS an answer is one look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.filters.facts import distinct

Keys = npt.NDArray[np.int64]
Column = npt.NDArray[Any]

SMALL_BITS: Final = 20
"""Keys up to this size index a table of a megabyte."""
KEY_BITS: Final = 62
DIRECT_MAX: Final = 1 << 20
"""Values below this are numbered by a look-up, others by a search."""


class ValueNumbers:
    """Numbers 0, 1, 2, ... for the distinct values of one column."""

    def __init__(self) -> None:
        self.count = 0
        self._direct = np.full(0, -1, np.int64)
        self._values: Column = np.zeros(0, np.uint64)
        self._numbers = np.zeros(0, np.int64)

    def of(self, column: Column) -> Keys:
        """The number of each value; new values get the next ones."""
        if column.dtype.kind == "i":
            # Small negative numbers would look huge; which number a value gets does not matter.
            column = column.astype(np.int64).view(np.uint64)
        if not len(self._values) and int(column.max()) < DIRECT_MAX:
            return self._look_up(column.astype(np.intp))
        return self._search(column.astype(np.uint64))

    def _look_up(self, column: npt.NDArray[np.intp]) -> Keys:
        size = int(column.max()) + 1
        if size > len(self._direct):
            grown = np.full(max(size, 2 * len(self._direct)), -1, np.int64)
            grown[: len(self._direct)] = self._direct
            self._direct = grown
        numbers = self._direct.take(column)
        if numbers.min() < 0:
            new = distinct(column[numbers < 0], size)
            self._direct[new] = np.arange(self.count, self.count + len(new))
            self.count += len(new)
            numbers = self._direct.take(column)
        return numbers

    def _search(self, column: Column) -> Keys:
        if len(self._direct):  # the first large value: from now on all are searched for
            known = np.flatnonzero(self._direct >= 0)
            self._values, self._numbers = known.astype(np.uint64), self._direct[known]
            self._direct = np.full(0, -1, np.int64)
        places = self._places(column)
        missing = self._values.take(places) != column if len(self._values) else np.ones(len(column), np.bool_)
        if missing.any():
            new = np.unique(column[missing])
            values = np.concatenate((self._values, new))
            numbers = np.concatenate((self._numbers, np.arange(self.count, self.count + len(new))))
            order = np.argsort(values)
            self._values, self._numbers = values[order], numbers[order]
            self.count += len(new)
            places = self._places(column)
        return self._numbers.take(places)

    def _places(self, column: Column) -> npt.NDArray[np.intp]:
        places = np.searchsorted(self._values, column)
        return np.minimum(places, max(len(self._values) - 1, 0))


class Numbering:
    """One number for what several columns hold."""

    def __init__(self) -> None:
        self._columns: list[ValueNumbers] = []
        self.layout: tuple[int, ...] = ()
        """Bits of each column in the keys. Keys of one layout can be compared, those of different ones cannot."""

    def keys(self, columns: Sequence[Column]) -> Keys | None:
        """A key per row; None when the columns hold more than a key can tell apart.

        Shape: the same columns in each call, none of them empty.
        """
        self._columns = self._columns or [ValueNumbers() for _ in columns]
        parts = [numbers.of(column) for numbers, column in zip(self._columns, columns, strict=True)]
        # Room for twice the values, so that the layout rarely changes.
        self.layout = tuple(numbers.count.bit_length() for numbers in self._columns)
        if sum(self.layout) > KEY_BITS:
            return None
        keys = parts[0]
        for part, bits in zip(parts[1:], self.layout[1:], strict=True):
            keys = keys << bits | part
        return keys


class Answers:
    """What was found out, by key."""

    def __init__(self) -> None:
        self._start(())

    def _start(self, layout: tuple[int, ...]) -> None:
        bits = sum(layout)
        self._layout = layout
        self._count = 0
        self._by_key = np.full(1 << bits if bits <= SMALL_BITS else 0, -1, np.int8)
        self._keys = np.zeros(0, np.int64)
        self._answers = np.zeros(0, np.int8)

    def __len__(self) -> int:
        return self._count

    def of(self, keys: Keys, layout: tuple[int, ...]) -> npt.NDArray[np.int8]:
        """1, 0, or -1 for not known. With a new layout nothing is known."""
        if layout != self._layout:
            self._start(layout)
        if len(self._by_key):
            return self._by_key.take(keys)
        if not len(self._keys):
            return np.full(len(keys), -1, np.int8)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys.take(places) == keys, self._answers.take(places), np.int8(-1))

    def add(self, keys: Keys, answers: npt.NDArray[np.bool_]) -> None:
        """Remember answers of keys that were not known."""
        self._count += len(keys)
        if len(self._by_key):
            self._by_key[keys] = answers
            return
        merged = np.concatenate((self._keys, keys))
        order = np.argsort(merged)
        self._keys = merged[order]
        self._answers = np.concatenate((self._answers, answers.view(np.int8)))[order]
