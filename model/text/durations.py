"""Spans of time, as Go prints and reads them.

In:        nanoseconds; text typed by a person.
Out:       `26h3m4.005s`, `1.5ms`, `0s`; nanoseconds.
Elsewhere: moments.py has longer spans and points in time.
Source:    documentation of Go's time package.
"""

from __future__ import annotations

from typing import Final

from model.text.quote import quote

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


def _fraction(value: int, scale: int) -> str:
    """`value / scale` without trailing zeros."""
    whole, rest = divmod(value, scale)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(scale)) - 1).rstrip('0')}"


def format_duration(ns: int) -> str:
    """time.Duration.String: `26h3m4.005s`, `1.5ms`, `0s`."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    if ns < 1_000:
        return f"{sign}{ns}ns"
    if ns < 1_000_000:
        return f"{sign}{_fraction(ns, 1_000)}µs"
    if ns < 1_000_000_000:
        return f"{sign}{_fraction(ns, 1_000_000)}ms"
    minutes, rest = divmod(ns, 60_000_000_000)
    text = f"{_fraction(rest, 1_000_000_000)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{minutes}m{text}"
        if hours:
            text = f"{hours}h{text}"
    return sign + text


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
