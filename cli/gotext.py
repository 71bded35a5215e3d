"""Numbers, times and quotes the way Go's standard library reads and writes them.

In:        text typed by a person, or values to show.
Out:       the same values, texts and error words as the programs Flowscope stands in for.
Elsewhere: flags.py (flags), times.py (points in time), model/text (flows).
Source:    documentation of Go's strconv and time packages.
"""

from __future__ import annotations

from typing import Final

from model.text.durations import format_duration
from model.text.numbers import parse_int, parse_uint
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
