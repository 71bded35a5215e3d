"""Columns of text, aligned.

In:        text with tabs behind cells and newlines behind lines.
Out:       the same text with blanks in place of tabs.
Elsewhere: what the cells say: flows.py, events.py, cli/.
Source:    behaviour of Go's text/tabwriter with a minimal width of 2 and a padding of 3.
"""

from __future__ import annotations

from typing import Final

_PADDING: Final = 3
_MIN_WIDTH: Final = 2


def align(text: str) -> str:
    """Align the cells of a text.

    Shape:  every cell but the last of its line ends with a tab and is padded to the width of its column block, a run
            of lines that all have such a cell in that column; widths count code points. A form feed ends a line and
            all blocks, a vertical tab is a tab.
    """
    return "\n".join(_align_page(page.replace("\v", "\t")) for page in text.split("\f"))


def _align_page(text: str) -> str:
    lines = [line.split("\t") for line in text.split("\n")]
    widths = [[0] * (len(line) - 1) for line in lines]
    for column in range(max(map(len, widths))):
        for start, end in _blocks(widths, column):
            longest = max(len(line[column]) for line in lines[start:end])
            for row in range(start, end):
                widths[row][column] = max(_MIN_WIDTH, longest + _PADDING)
    return "\n".join(
        "".join([cell.ljust(width) for cell, width in zip(line, cells, strict=False)]) + line[-1]
        for line, cells in zip(lines, widths, strict=True)
    )


def _blocks(widths: list[list[int]], column: int) -> list[tuple[int, int]]:
    """Runs of lines that have a padded cell in `column`."""
    blocks = []
    start = None
    for row, cells in enumerate([*widths, []]):
        if len(cells) > column:
            start = row if start is None else start
        elif start is not None:
            blocks.append((start, row))
            start = None
    return blocks
