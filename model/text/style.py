"""Colours, and what must not reach a terminal.

In:        text, partly from the network.
Out:       the same text with colour sequences, or without what could control a terminal.
"""

from __future__ import annotations

import re
from typing import Final

RED: Final = 31
GREEN: Final = 32
YELLOW: Final = 33
MAGENTA: Final = 35
CYAN: Final = 36

_ESCAPES: Final = re.compile(r"\x1b(?!\[(?:3[1-6]|0)m)")


class Style:
    """Colours on or off."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def paint(self, text: str, number: int) -> str:
        """`text` in a colour."""
        return f"\x1b[{number}m{text}\x1b[0m" if self.colour else text

    def harmless(self, text: str) -> str:
        """What is printed for `text`: escape and carriage return as visible characters.

        With colours on, our own sequences pass, also when they come from a flow, as in Hubble.
        """
        if "\x1b" in text:
            text = _ESCAPES.sub("^[", text) if self.colour else text.replace("\x1b", "^[")
        return text.replace("\r", "\\r")
