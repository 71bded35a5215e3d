"""Points in time as people type them: `--since 5m`, `--until 2024-05-14T09:30Z`.

In:        text, and what time it is now.
Out:       nanoseconds since the epoch.
Elsewhere: times as they are printed: times.py; short spans: durations.py.
"""

from __future__ import annotations

import re
from typing import Final

from model.text.durations import MAX_INT64, parse_duration
from model.text.times import SECOND_NS, from_calendar

_MONTHS: Final = {
    name: str(number)
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}

_DATE: Final = r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)"
_ZONE: Final = r"(?:Z|(?P<sign>[+-])(?P<zone_hours>\d\d):(?P<zone_minutes>\d\d))"
_SECONDS: Final = r"(?P<second>\d\d)(?:[.,](?P<fraction>\d+))?"
_FORMS: Final = (
    re.compile(_DATE, re.ASCII),
    re.compile(rf"{_DATE}T(?P<hour>\d\d?){_ZONE}", re.ASCII),
    re.compile(rf"{_DATE}T(?P<hour>\d\d?):(?P<minute>\d\d){_ZONE}", re.ASCII),
    re.compile(rf"{_DATE}T(?P<hour>\d\d?):(?P<minute>\d\d):{_SECONDS}{_ZONE}", re.ASCII),
    re.compile(
        rf"(?:mon|tue|wed|thu|fri|sat|sun), (?P<day>\d\d) (?P<name>[a-z]{{3}}) (?P<year>\d{{4}}) "
        rf"(?P<hour>\d\d?):(?P<minute>\d\d):{_SECONDS} (?P<sign>[+-])(?P<zone_hours>\d\d)(?P<zone_minutes>\d\d)",
        re.ASCII | re.IGNORECASE,
    ),
)

_LONG: Final = re.compile(r"(?P<sign>[+-]?)(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+(?:\.\d+)?)d)?(?P<rest>.*)", re.ASCII)
_DAY_NS: Final = 86_400_000_000_000


def parse_span(text: str) -> int:
    """A span of time in nanoseconds: Go's durations (`1h30m`), and days and weeks in front of them (`2d`, `1w3d12h`).

    Raises: ValueError.
    """
    try:
        return parse_duration(text)
    except ValueError:
        match = _LONG.fullmatch(text)
        if match is None or not (match["weeks"] or match["days"]):
            raise
        rest = match["rest"]
        if rest[:1] in ("+", "-"):
            raise
        total = int(match["weeks"] or "0") * 7 * _DAY_NS + (parse_duration(rest) if rest else 0)
        total += round(float(match["days"] or "0") * _DAY_NS)
        if total > MAX_INT64:
            raise
        return -total if match["sign"] == "-" else total


def parse_time(text: str, now_ns: int) -> int:
    """A point in time: a span before now, or a date and time.

    Raises: ValueError, `failed to convert x to time`.
    """
    try:
        return now_ns - parse_span(text)
    except ValueError:
        pass
    for form in _FORMS:
        match = form.fullmatch(text)
        if match is not None:
            parts = match.groupdict()
            if parts.get("name"):
                parts["month"] = _MONTHS.get((parts["name"] or "").lower(), "0")
            try:
                seconds, nanos = from_calendar(parts)
            except ValueError:
                break
            return seconds * SECOND_NS + nanos
    raise ValueError(f"failed to convert {text} to time")
