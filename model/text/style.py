"""Colours, and what must not reach a terminal.

In:        text, partly from the network.
Out:       the same text with colour sequences, or without what could control a terminal.
"""

from __future__ import annotations

import re
from typing import Final

from model.text.quote import quote

RED: Final = 31
GREEN: Final = 32
YELLOW: Final = 33
MAGENTA: Final = 35
CYAN: Final = 36

BEYOND_ASCII: Final = (*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
"""What terminals obey instead of showing it: C1 controls (ECMA-48), line ends, changes of direction (UAX #9)."""
_ASCII: Final = "".join(map(chr, (*range(0x09), 0x0B, 0x0C, *range(0x0E, 0x1B), *range(0x1C, 0x20), 0x7F)))
"""Of ASCII: all but newline and tab, and but escape and carriage return, which have a form of their own."""
_ESCAPES: Final = re.compile(r"\x1b(?!\[(?:3[1-6]|0)m)")
_CONTROLS: Final = re.compile(f"[{re.escape(_ASCII + ''.join(map(chr, BEYOND_ASCII)))}]")


class Style:
    """Colours on or off."""

    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def paint(self, text: str, number: int) -> str:
        """`text` in a colour."""
        return f"\x1b[{number}m{text}\x1b[0m" if self.colour else text

    def harmless(self, text: str) -> str:
        """What is printed for `text`: all that could control a terminal, or hide on it, as visible characters.

        Escape and carriage return look as in Hubble, which leaves the others; newline and tab are the caller's. With
        colours on, our own sequences pass, also when they come from a flow, as in Hubble.
        """
        if "\x1b" in text:
            text = _ESCAPES.sub("^[", text) if self.colour else text.replace("\x1b", "^[")
        text = text.replace("\r", "\\r")
        # To look for each is faster than to look at all characters, which nearly always are harmless.
        if text.isascii() and not any(char in text for char in _ASCII):
            return text
        return _CONTROLS.sub(lambda found: quote(found[0])[1:-1], text)
