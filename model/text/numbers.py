"""Whole numbers the way Go's strconv reads them.

In:        text typed by a person.
Out:       the number, or Go's words about what is wrong with it.
Elsewhere: durations.py (spans), moments.py (times), cli/gotext.py (what only a command line reads).
Source:    documentation of Go's strconv package.
"""

from __future__ import annotations

import re
from typing import Final

from model.text.quote import quote

_LITERAL: Final = re.compile(
    "0[xX](?P<hex>(?:_?[0-9a-fA-F])+)|0[bB](?P<bin>(?:_?[01])+)|0[oO](?P<oct>(?:_?[0-7])+)"
    "|(?P<old>0(?:_?[0-7])*)|(?P<dec>[1-9](?:_?[0-9])*)"
)
_BASES: Final = {"hex": 16, "bin": 2, "oct": 8, "old": 8, "dec": 10}
_DECIMAL: Final = re.compile("[0-9]+")


def _digits(text: str, function: str, original: str, base: int) -> int:
    """Unsigned digits: decimal, or in Go literal syntax when `base` is 0 (0x20, 010, 0o10, 0b11, 1_0)."""
    match = (_DECIMAL if base else _LITERAL).fullmatch(text)
    if match is None:
        raise ValueError(f"strconv.{function}: parsing {quote(original)}: invalid syntax")
    # Python refuses to convert thousands of digits; so many are out of range anyway.
    digits = match[0].lstrip("0")
    if len(digits) > 200:
        digits = "9" * 200
        return int(digits)
    if base:
        return int(match[0])
    return int(match[match.lastgroup or 0].replace("_", ""), _BASES[match.lastgroup or "dec"])


def parse_uint(text: str, bits: int, base: int = 0) -> int:
    """strconv.ParseUint; flags use base 0."""
    value = _digits(text, "ParseUint", text, base)
    if value >= 1 << bits:
        raise ValueError(f"strconv.ParseUint: parsing {quote(text)}: value out of range")
    return value


def parse_int(text: str, bits: int, base: int = 0) -> int:
    """strconv.ParseInt; flags use base 0."""
    sign, digits = (-1, text[1:]) if text[:1] == "-" else (1, text[1:] if text[:1] == "+" else text)
    value = sign * _digits(digits, "ParseInt", text, base)
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value
