"""Columns of text, as kubectl lays them out.

In:        rows of cells, the first of them the headings.
Out:       lines without trailing blanks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_GAP: Final = 3
_NARROWEST: Final = 6
"""Of a column with its gap (kubectl's printer uses a tab writer with these figures)."""


def widths_of(rows: Sequence[Sequence[str]], so_far: Sequence[int] = ()) -> list[int]:
    """Width of each column with its gap; no column gets narrower than it is `so_far`."""
    longest = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    before = so_far or [0] * len(longest)
    return [max(width + _GAP, _NARROWEST, old) for width, old in zip(longest, before, strict=True)]


def lines_of(rows: Sequence[Sequence[str]], widths: Sequence[int] | None = None) -> list[str]:
    """One line for each row."""
    if not rows:
        return []
    widths = widths_of(rows) if widths is None else widths
    return ["".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
