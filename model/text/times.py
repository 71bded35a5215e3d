"""Times as they are printed, always UTC.

In:        seconds and nanoseconds since the epoch, one by one or as an array.
Out:       text in one of Hubble's formats, chosen by name; and back from the form inside JSON.
Elsewhere: times as people type them: moments.py.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Column = npt.NDArray[np.object_]

SECOND_NS: Final = 1_000_000_000

MIN_SECONDS: Final = -62_135_596_800
MAX_SECONDS: Final = 253_402_300_799
"""The range of google.protobuf.Timestamp: years 1 to 9999."""

NOT_A_TIME: Final = "N/A"

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _stamp(t: time.struct_time) -> str:
    return f"{_MONTHS[t.tm_mon - 1]} {t.tm_mday:2} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"


def _day(t: time.struct_time) -> str:
    return f"{t.tm_year:04}-{t.tm_mon:02}-{t.tm_mday:02}"


def _minute(t: time.struct_time) -> str:
    return f"{_day(t)}T{t.tm_hour:02}:{t.tm_min:02}"


def _rfc3339(t: time.struct_time) -> str:
    return f"{_minute(t)}:{t.tm_sec:02}"


def _rfc1123(t: time.struct_time) -> str:
    return (
        f"{_WEEKDAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
    )


def _no_fraction(_nanos: int) -> str:
    return ""


def _milliseconds(nanos: int) -> str:
    return f".{nanos // 1_000_000:03}"


def _trimmed(digits: int) -> Callable[[int], str]:
    scale = 10 ** (9 - digits)

    def fraction(nanos: int) -> str:
        part = nanos // scale
        return "." + str(part).zfill(digits).rstrip("0") if part else ""

    return fraction


def json_fraction(nanos: int) -> str:
    """0, 3, 6 or 9 digits, as JSON forms of messages have them."""
    if not nanos:
        return ""
    if nanos % 1_000_000 == 0:
        return f".{nanos // 1_000_000:03}"
    if nanos % 1_000 == 0:
        return f".{nanos // 1_000:06}"
    return f".{nanos:09}"


def json_fractions(nanos: npt.NDArray[np.int64], tail: str) -> Column:
    """`json_fraction` of many, each followed by `tail`."""
    import numpy as np

    # Bytes of zero at the end of a fixed-width text are no part of it, so shorter fractions need no loop.
    text = np.zeros((len(nanos), 10 + len(tail)), np.uint8)
    text[:, 0] = ord(".")
    for place in range(9):
        text[:, 1 + place] = nanos // 10 ** (8 - place) % 10 + ord("0")
    behind = np.frombuffer(tail.encode("ascii"), np.uint8)
    for digits, shorter in (
        (9, nanos % 1_000 != 0),
        (6, nanos % 1_000 == 0),
        (3, nanos % 1_000_000 == 0),
        (0, nanos == 0),
    ):
        end = digits + 1 if digits else 0
        if shorter.any():
            text[shorter, end:] = 0
            text[shorter, end : end + len(tail)] = behind
    column: Column = text.view(f"S{10 + len(tail)}").ravel().astype(f"U{10 + len(tail)}").astype(object)
    return column


class TimeFormat:
    """One way to print times: text up to the second, fraction, and what follows."""

    def __init__(self, second: Callable[[time.struct_time], str], fraction: Callable[[int], str], tail: str) -> None:
        self._second = second
        self._fraction = fraction
        self._tail = tail
        self._last: tuple[int, str] = (0, second(time.gmtime(0)))
        self._table: Column | None = None

    def one(self, seconds: int, nanos: int) -> str:
        """One point in time; `N/A` when it is outside of what a protobuf timestamp holds."""
        if not (MIN_SECONDS <= seconds <= MAX_SECONDS and 0 <= nanos < SECOND_NS):
            return NOT_A_TIME
        return self.second(seconds) + self._fraction(nanos) + self._tail

    def second(self, seconds: int) -> str:
        """The part up to the second. Flows come in order of time, so the last answer mostly serves again."""
        if self._last[0] != seconds:
            self._last = (seconds, self._second(time.gmtime(seconds)))
        return self._last[1]

    def columns(self, ts_ns: npt.NDArray[np.int64]) -> list[Column]:
        """Many points in time, in two columns of text to be joined per row.

        ts_ns   nanoseconds since the epoch, all within the years 1 to 9999 (any int64 is).
        """
        import numpy as np

        seconds, nanos = np.divmod(ts_ns, SECOND_NS)
        distinct, index = np.unique(seconds, return_inverse=True)
        texts = np.array([self.second(second) for second in distinct.tolist()], dtype=object)
        return [texts[index], self._fractions(nanos)]

    def _fractions(self, nanos: npt.NDArray[np.int64]) -> Column:
        import numpy as np

        if self._fraction is _no_fraction:
            return np.full(len(nanos), self._tail, dtype=object)
        if self._fraction is _milliseconds:
            if self._table is None:
                self._table = np.array([f".{n:03}" for n in range(1000)], dtype=object)
            return self._table.take(nanos // 1_000_000)
        if self._fraction is json_fraction:
            return json_fractions(nanos, self._tail)
        tail, fraction = self._tail, self._fraction
        return np.array([fraction(n) + tail for n in nanos.tolist()], dtype=object)


FORMATS: Final[dict[str, tuple[Callable[[time.struct_time], str], Callable[[int], str], str]]] = {
    "StampMilli": (_stamp, _milliseconds, ""),
    "YearMonthDay": (_day, _no_fraction, ""),
    "YearMonthDayHour": (lambda t: f"{_day(t)}T{t.tm_hour:02}", _no_fraction, "Z"),
    "YearMonthDayHourMinute": (_minute, _no_fraction, "Z"),
    "RFC3339": (_rfc3339, _no_fraction, "Z"),
    "RFC3339Milli": (_rfc3339, _trimmed(3), "Z"),
    "RFC3339Micro": (_rfc3339, _trimmed(6), "Z"),
    "RFC3339Nano": (_rfc3339, _trimmed(9), "Z"),
    "RFC1123Z": (_rfc1123, _no_fraction, ""),
}
"""By name as help shows it."""

_BY_LOWER_NAME: Final = {name.lower(): parts for name, parts in FORMATS.items()}


def time_format(name: str) -> TimeFormat:
    """A format by its name in any case; unknown names mean StampMilli."""
    return TimeFormat(*_BY_LOWER_NAME.get(name.lower(), FORMATS["StampMilli"]))


def json_time() -> TimeFormat:
    """The form inside JSON."""
    return TimeFormat(_rfc3339, json_fraction, "Z")


_RFC3339: Final = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)T(?P<hour>\d\d?):(?P<minute>\d\d):(?P<second>\d\d)"
    r"(?:[.,](?P<fraction>\d+))?(?:Z|(?P<sign>[+-])(?P<zone_hours>\d\d):(?P<zone_minutes>\d\d))",
    re.ASCII,
)


def parse_rfc3339(text: str) -> tuple[int, int]:
    """Seconds and nanoseconds since the epoch of `2024-05-14T09:30:00.5+02:00`.

    Raises: ValueError.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time such as 2006-01-02T15:04:05Z")
    if match["sign"] is None:
        # Nearly every line of a file comes here: most times are of the same second, or close to it.
        return _second_of(text[:19] if text[12] != ":" else text[:18]), int(
            (match["fraction"] or "0")[:9].ljust(9, "0")
        )
    return from_calendar(match.groupdict())


@lru_cache(maxsize=64)
def _second_of(text: str) -> int:
    match = _RFC3339.fullmatch(text + "Z")
    assert match is not None
    return from_calendar(match.groupdict())[0]


_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LIMITS: Final = (("hour", 23), ("minute", 59), ("second", 59), ("zone_hours", 24), ("zone_minutes", 60))


def from_calendar(parts: dict[str, str | None]) -> tuple[int, int]:
    """Seconds and nanoseconds since the epoch.

    parts   texts of year, month, day, hour, minute, second, fraction, sign, zone_hours, zone_minutes; absent is 0.
    Raises: ValueError for a day or an hour that does not exist.
    """

    def number(name: str) -> int:
        return int(parts.get(name) or "0")

    year, month, day = number("year"), number("month"), number("day")
    if not 1 <= month <= 12 or not 1 <= day <= (29 if month == 2 and calendar.isleap(year) else _DAYS[month - 1]):
        raise ValueError(f"day {year:04}-{month:02}-{day:02} does not exist")
    for name, limit in _LIMITS:
        if number(name) > limit:
            raise ValueError(f"{name} {number(name)} is more than {limit}")
    zone = number("zone_hours") * 3600 + number("zone_minutes") * 60
    seconds = calendar.timegm((year, month, day, number("hour"), number("minute"), number("second")))
    nanos = int((parts.get("fraction") or "")[:9].ljust(9, "0"))
    return seconds + (zone if parts.get("sign") == "-" else -zone), nanos
