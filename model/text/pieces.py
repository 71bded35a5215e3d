"""Texts that many rows share, each made once; and lines joined from columns of them.

In:        table indices or keys of a few words per row, and a function that makes the texts of a new one.
Out:       columns of text, one entry per row; one text of all lines.
Elsewhere: rows.py and rows_json.py say which texts a line has; model/pieces.py does the same with bytes of the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from model.key_index import KeyIndex

U64 = npt.NDArray[np.uint64]
Column = npt.NDArray[np.object_]
"""One text per row."""

KEPT: Final = 1 << 16
"""Texts kept per kind; when there are more, all are made again as needed."""


class TextByKey:
    """The texts of each distinct key."""

    def __init__(self, words: int, texts: int) -> None:
        self._index = KeyIndex(words)
        self._columns: list[Column] = [np.empty(1024, object) for _ in range(texts)]

    def take(self, keys: U64, make: Callable[[int], Sequence[str]]) -> list[Column]:
        """The texts of each key, as columns. `make` gets the position of a new key in `keys`."""
        if len(self._index) > KEPT:
            self._index.clear()
        numbers = self._numbers(keys, make)
        return [column.take(numbers) for column in self._columns]

    def _numbers(self, keys: U64, make: Callable[[int], Sequence[str]]) -> npt.NDArray[np.int64]:
        hashes = self._index.hashes(keys)
        numbers = self._index.find(keys, hashes)
        missing = np.flatnonzero(numbers < 0)
        while len(missing):
            # One hash is nearly always one key; if not, the other one's turn is the next round.
            _, first = np.unique(hashes[missing], return_index=True)
            new = missing[np.sort(first)]
            count = len(self._index)
            self._grow(count + len(new))
            for place, at in enumerate(new.tolist(), count):
                for column, text in zip(self._columns, make(at), strict=True):
                    column[place] = text
            self._index.add(keys[new], hashes[new])
            numbers[missing] = self._index.find(keys[missing], hashes[missing])
            missing = missing[numbers[missing] < 0]
        return numbers

    def _grow(self, size: int) -> None:
        while size > len(self._columns[0]):
            self._columns = [np.concatenate([column, np.empty_like(column)]) for column in self._columns]


class TextByIndex:
    """The text of each entry of a table, 0 (absent) included."""

    def __init__(self, make: Callable[[int], str]) -> None:
        self._make = make
        self._texts: Column = np.empty(0, object)
        self._made = np.zeros(0, np.bool_)

    def take(self, indices: npt.NDArray[np.uint32]) -> Column:
        """The text of each index, as a column."""
        largest = int(indices.max(initial=0))
        if largest >= len(self._texts):
            self._texts = np.concatenate([self._texts, np.empty(largest + 1, object)])
            self._made = np.concatenate([self._made, np.zeros(largest + 1, np.bool_)])
        made = self._made.take(indices)
        if not made.all():
            for index in np.unique(indices[~made]).tolist():
                self._texts[index] = self._make(index)
                self._made[index] = True
        return self._texts.take(indices)


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

    columns   texts per row, or one text that stands in every row.
    replaced  whole lines by row, in place of what the columns say.
    """
    width = len(columns)
    flat = [""] * (rows * width)
    for place, column in enumerate(columns):
        # Slices of lists are copied in C; joining tuples row by row takes five times as long.
        flat[place::width] = [column] * rows if isinstance(column, str) else column.tolist()
    if replaced:
        for row, text in replaced.items():
            flat[row * width : (row + 1) * width] = [text, *([""] * (width - 1))]
    return "".join(flat)
