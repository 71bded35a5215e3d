"""Texts that many rows share, each made once; and lines joined from columns of them.

In:        table indices or keys of a few words per row, and a function that makes the texts of a new one.
Out:       columns of text, one entry per row; one text of all lines.
Elsewhere: rows.py and rows_json.py say which texts a line has; model/pieces.py does the same with bytes of the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from model.key_index import KeyIndex

U64 = npt.NDArray[np.uint64]
Column = npt.NDArray[np.object_]
"""One text per row."""

KEPT: Final = 1 << 16
"""Texts kept per kind; when there are more, all are made again as needed."""


Make = Callable[[npt.NDArray[np.int64]], Iterable[Sequence[str]]]
"""From positions to the texts of each."""


class TextByKey:
    """The texts of each distinct key."""

    def __init__(self, words: int, texts: int) -> None:
        self._index = KeyIndex(words)
        self._columns: list[Column] = [np.empty(1024, object) for _ in range(texts)]

    def take(self, keys: U64, make: Make) -> list[Column]:
        """The texts of each key, as columns. `make` gets the positions of new keys in `keys`."""
        if len(self._index) > KEPT:
            self._index.clear()
        numbers = self._numbers(keys, make)
        return [column.take(numbers) for column in self._columns]

    def _numbers(self, keys: U64, make: Make) -> npt.NDArray[np.int64]:
        hashes = self._index.hashes(keys)
        numbers = self._index.find(keys, hashes)
        missing = np.flatnonzero(numbers < 0)
        while len(missing):
            # One hash is nearly always one key; if not, the other one's turn is the next round.
            _, first = np.unique(hashes[missing], return_index=True)
            new = missing[np.sort(first)]
            count = len(self._index)
            self._grow(count + len(new))
            for place, texts in enumerate(make(new), count):
                for column, text in zip(self._columns, texts, strict=True):
                    column[place] = text
            self._index.add(keys[new], hashes[new])
            numbers[missing] = self._index.find(keys[missing], hashes[missing])
            missing = missing[numbers[missing] < 0]
        return numbers

    def _grow(self, size: int) -> None:
        while size > len(self._columns[0]):
            self._columns = [np.concatenate([column, np.empty_like(column)]) for column in self._columns]


class TextByIndex:
    """The texts of each entry of a table, 0 (absent) included."""

    def __init__(self, make: Callable[[int], Sequence[str]], texts: int = 1) -> None:
        self._make = make
        self._columns: list[Column] = [np.empty(0, object) for _ in range(texts)]
        self._made = np.zeros(0, np.bool_)

    def take(self, indices: npt.NDArray[np.unsignedinteger]) -> list[Column]:
        """The texts of each index, as columns."""
        largest = int(indices.max(initial=0))
        if largest >= len(self._made):
            room = largest + 1
            self._columns = [np.concatenate([column, np.empty(room, object)]) for column in self._columns]
            self._made = np.concatenate([self._made, np.zeros(room, np.bool_)])
        made = self._made.take(indices)
        if not made.all():
            for index in np.unique(indices[~made]).tolist():
                for column, text in zip(self._columns, self._make(index), strict=True):
                    column[index] = text
                self._made[index] = True
        return [column.take(indices) for column in self._columns]


_FEW: Final = 512

_numbers: Column = np.empty(0, object)


def number_texts(numbers: npt.NDArray[np.uint16]) -> Column:
    """Ports as text; 0 is the empty text."""
    global _numbers
    if len(numbers) < _FEW:
        texts: Column = np.empty(len(numbers), object)
        texts[:] = [str(number) if number else "" for number in numbers.tolist()]
        return texts
    if not len(_numbers):
        # 10 ms, 4 MB: worth it only for whoever prints many flows.
        _numbers = np.array(["", *map(str, range(1, 1 << 16))], dtype=object)
    return _numbers.take(numbers)


def join_lines(columns: Sequence[Column | str], rows: int, replaced: dict[int, str]) -> str:
    """All lines as one text.

    columns   texts per row, or one text that stands in every row; only of the rows that are not replaced.
    rows      how many lines there are.
    replaced  whole lines by row.
    """
    width = len(columns)
    count = rows - len(replaced)
    flat = [""] * (count * width)
    for place, column in enumerate(columns):
        # Slices of lists are copied in C; joining tuples row by row takes five times as long.
        flat[place::width] = [column] * count if isinstance(column, str) else column.tolist()
    if not replaced:
        return "".join(flat)
    parts = []
    done = 0
    for before, row in enumerate(sorted(replaced)):
        upto = (row - before) * width
        parts += [*flat[done:upto], replaced[row]]
        done = upto
    return "".join(parts + flat[done:])
