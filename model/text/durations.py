"""Spans of time, as Go prints them.

In:        nanoseconds.
Out:       `26h3m4.005s`, `1.5ms`, `0s`.
Elsewhere: spans as people type them: cli/gotext.py.
"""

from __future__ import annotations


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
