"""Pieces of bytes that many messages share, each kept once and found by what it was made from.

In:        table indices or keys, and a function that makes the piece of a new one.
Out:       numbers of pieces, and messages joined from them.
Elsewhere: flow_parts.py makes the pieces of flows; encode.py says which pieces a row needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from model.key_index import KeyIndex

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

EMPTY: Final = 0
"""Number of the piece without bytes."""

_OVERHEAD: Final = 100
"""Bytes that a piece takes beside its own: object header, length, key, hash, place."""


class PieceStore:
    """All pieces of one encoder, by number."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all pieces but the empty one."""
        self._pieces: npt.NDArray[np.object_] = np.empty(1024, object)
        self.lengths: I64 = np.zeros(1024, np.int64)
        self.marks: I64 = np.zeros(1024, np.int64)
        """A number that goes with each piece, of its maker's choice."""
        self._count = 0
        self.bytes = 0
        """Memory taken by the pieces."""
        self.add(b"")

    def add(self, piece: bytes, mark: int = 0) -> int:
        """Keep a piece; the caller remembers its number."""
        if self._count == len(self._pieces):
            self._pieces = np.concatenate([self._pieces, np.empty_like(self._pieces)])
            self.lengths = np.concatenate([self.lengths, np.zeros_like(self.lengths)])
            self.marks = np.concatenate([self.marks, np.zeros_like(self.marks)])
        number = self._count
        self._pieces[number] = piece
        self.lengths[number] = len(piece)
        self.marks[number] = mark
        self._count += 1
        self.bytes += len(piece) + _OVERHEAD
        return number

    def __getitem__(self, number: int) -> bytes:
        piece: bytes = self._pieces[number]
        return piece

    def join(self, numbers: I64) -> bytearray:
        """The pieces of an (n, k) array of numbers, row by row, one behind the other."""
        return bytearray().join(self._pieces.take(numbers.ravel()).tolist())


class ByIndex:
    """One piece per entry of a table. `make` gets an index and returns the number of the piece it added."""

    def __init__(self, make: Callable[[int], int]) -> None:
        self._make = make
        self.clear()

    def clear(self) -> None:
        """Forget which pieces exist; to be called with the store's `clear`."""
        self._pieces: I64 = np.full(256, -1, np.int64)

    def pieces(self, indices: npt.NDArray[np.uint32]) -> I64:
        """The number of the piece of each table index."""
        largest = int(indices.max(initial=0))
        if largest >= len(self._pieces):
            room = np.full(2 * (largest + 1), -1, np.int64)
            room[: len(self._pieces)] = self._pieces
            self._pieces = room
        pieces = self._pieces[indices]
        missing = pieces < 0
        if missing.any():
            for index in np.unique(indices[missing]).tolist():
                self._pieces[index] = self._make(index)
            pieces = self._pieces[indices]
        return pieces


class ByKey:
    """One piece per distinct key of a few words."""

    def __init__(self, words: int) -> None:
        self._index = KeyIndex(words)
        self.clear()

    def clear(self) -> None:
        """Forget which pieces exist; to be called with the store's `clear`."""
        self._index.clear()
        self._pieces: I64 = np.empty(256, np.int64)

    def pieces(self, keys: U64, make: Callable[[int], int]) -> I64:
        """The number of the piece of each key. `make` gets the position of a new key in `keys` and returns the number
        of the piece it added.
        """
        hashes = self._index.hashes(keys)
        numbers = self._index.find(keys, hashes)
        missing = np.flatnonzero(numbers < 0)
        while len(missing):
            # One hash is nearly always one key; if not, the other one's turn is the next round.
            _, first = np.unique(hashes[missing], return_index=True)
            new = missing[first]
            count = len(self._index)
            while count + len(new) > len(self._pieces):
                self._pieces = np.concatenate([self._pieces, np.empty_like(self._pieces)])
            self._pieces[count : count + len(new)] = [make(at) for at in new.tolist()]
            self._index.add(keys[new], hashes[new])
            numbers[missing] = self._index.find(keys[missing], hashes[missing])
            missing = missing[numbers[missing] < 0]
        return self._pieces[numbers]
