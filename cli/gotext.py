"""What Go's standard library reads and writes, as far as flags need it.

In:        text typed by a person, or values to show.
Out:       the same values, texts and error words as the programs Flowscope stands in for.
Elsewhere: flags.py (flags), model/text (numbers, times, flows).
Source:    documentation of Go's strconv and time packages.
"""

from __future__ import annotations

from typing import Final

from model.text.durations import NS_PER, format_duration, parse_duration
from model.text.numbers import parse_int, parse_uint
from model.text.quote import quote

__all__ = ["NS_PER", "format_duration", "parse_bool", "parse_duration", "parse_int", "parse_uint"]

_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def parse_bool(text: str) -> bool:
    """strconv.ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")
