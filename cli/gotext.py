"""Numbers, times and quotes the way Go's standard library reads and writes them.

In:        text typed by a person, or values to show.
Out:       the same values, texts and error words as the programs Flowscope stands in for.
Elsewhere: flags.py (flags), times.py (points in time), model/text (flows).
Source:    documentation of Go's strconv and time packages.
"""

from __future__ import annotations

import re
from typing import Final

from model.text.durations import format_duration
from model.text.quote import quote

__all__ = ["format_duration", "parse_bool", "parse_duration", "parse_int", "parse_uint"]

_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))

NS_PER: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
MAX_INT64: Final = (1 << 63) - 1


def parse_bool(text: str) -> bool:
    """strconv.ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


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


def parse_duration(text: str) -> int:
    """time.ParseDuration: nanoseconds.

    Shape:  [+-] then `0` or a sequence of decimal numbers with unit, e.g. `1h43m`, `1.5h`, `300ms`.
    Raises: ValueError with Go's words.
    """
    rest = text
    negative = False
    if rest[:1] in ("+", "-"):
        negative = rest[0] == "-"
        rest = rest[1:]
    if rest == "0":
        return 0
    invalid = ValueError(f"time: invalid duration {quote(text)}")
    if not rest:
        raise invalid
    total = 0
    while rest:
        end = _span(rest, "0123456789")
        whole, rest = rest[:end], rest[end:]
        fraction = ""
        if rest[:1] == ".":
            end = _span(rest[1:], "0123456789") + 1
            fraction, rest = rest[1:end], rest[end:]
        if not whole and not fraction:
            raise invalid
        end = 0
        while end < len(rest) and rest[end] not in ".0123456789":
            end += 1
        unit, rest = rest[:end], rest[end:]
        if not unit:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if unit not in NS_PER:
            raise ValueError(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        total += int(whole or "0") * NS_PER[unit]
        if fraction:
            total += int(fraction) * NS_PER[unit] // 10 ** len(fraction)
        if total > MAX_INT64 + negative:
            raise invalid
    return -total if negative else total


def _span(text: str, characters: str) -> int:
    end = 0
    while end < len(text) and text[end] in characters:
        end += 1
    return end
