"""Times and spans are read in all forms that people type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.text.durations import format_duration, parse_duration
from model.text.moments import parse_time
from model.text.numbers import parse_int, parse_uint
from model.text.times import FORMATS, json_time, parse_rfc3339, time_format

NOW = 1_715_679_000_000_000_000
"""2024-05-14T09:30:00Z."""
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", NOW),
        ("300ms", NOW - 300_000_000),
        ("1h43m", NOW - 6180 * SECOND),
        ("1.5h", NOW - 5400 * SECOND),
        ("-5m", NOW + 300 * SECOND),
        ("2d", NOW - 2 * 86400 * SECOND),
        ("1w1d12h", NOW - (8 * 86400 + 43200) * SECOND),
        ("1.5d", NOW - 129_600 * SECOND),
        ("2024-05-14", NOW - 34200 * SECOND),
        ("2024-05-14T09Z", NOW - 1800 * SECOND),
        ("2024-05-14T9:30Z", NOW),
        ("2024-05-14T11:30+02:00", NOW),
        ("2024-05-14T09:30:00.5Z", NOW + SECOND // 2),
        ("2024-05-14T09:30:00,1234567899Z", NOW + 123_456_789),
        ("Tue, 14 May 2024 11:30:00 +0200", NOW),
    ],
)
def test_points_in_time(text: str, expected: int) -> None:
    assert parse_time(text, NOW) == expected


@pytest.mark.parametrize(
    "text",
    ["yesterday", "", "1h43", "d", "2024-5-14", "2024-05-14T09:30", "2024-05-14 09:30:00Z", "2024-05-14T09:30:00z",
     "2024-13-01", "2024-02-30", "2024-05-14T24Z", "1715679000", "12024-05-14", "May 14 09:30:00.120", "2d-1h"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="failed to convert"):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("StampMilli", "May 14 09:30:00.120"),
        ("YearMonthDay", "2024-05-14"),
        ("YearMonthDayHour", "2024-05-14T09Z"),
        ("YearMonthDayHourMinute", "2024-05-14T09:30Z"),
        ("RFC3339", "2024-05-14T09:30:00Z"),
        ("rfc3339milli", "2024-05-14T09:30:00.12Z"),
        ("RFC3339Micro", "2024-05-14T09:30:00.1204Z"),
        ("RFC3339Nano", "2024-05-14T09:30:00.1204005Z"),
        ("RFC1123Z", "Tue, 14 May 2024 09:30:00 +0000"),
        ("nonsense", "May 14 09:30:00.120"),
    ],
)
def test_times_are_shown_in_the_format_of_that_name(name: str, expected: str) -> None:
    assert time_format(name).one(NOW // SECOND, 120_400_500) == expected


def test_times_outside_of_what_the_wire_holds_are_not_shown() -> None:
    assert time_format("RFC3339").one(1 << 40, 0) == "N/A"
    assert time_format("RFC3339").one(0, -1) == "N/A"


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 3).map(lambda n: n * 1000), max_size=5))
def test_batches_of_times_read_like_single_ones(times: list[int]) -> None:
    import numpy as np

    for one in (*map(time_format, FORMATS), json_time()):
        columns = one.columns(np.array(times, np.int64))
        together = ["".join(parts) for parts in zip(*columns, strict=True)]
        assert together == [one.one(*divmod(ts, SECOND)) for ts in times]


@given(st.integers(0, (1 << 63) - 1))
def test_json_times_are_read_back(ts_ns: int) -> None:
    seconds, nanos = parse_rfc3339(json_time().one(*divmod(ts_ns, SECOND)))
    assert seconds * SECOND + nanos == ts_ns


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_durations_are_read_back(ns: int) -> None:
    assert parse_duration(format_duration(ns)) == ns


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0s"), (1, "1ns"), (1500, "1.5µs"), (1_500_000, "1.5ms"), (93_784_005_000_000, "26h3m4.005s"), (-1, "-1ns")],
)
def test_durations_are_shown_as_go_shows_them(ns: int, text: str) -> None:
    assert format_duration(ns) == text


@pytest.mark.parametrize("text", ["08", "0x", "_1", "1__0", "1_", "0b2", "١", "", "+1"])
def test_numbers_follow_go_literals(text: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax"):
        parse_uint(text, 64)


def test_numbers_have_a_range() -> None:
    with pytest.raises(ValueError, match="value out of range"):
        parse_uint("65536", 16)
    with pytest.raises(ValueError, match="value out of range"):
        parse_uint("9" * 5000, 64)
    assert parse_int("-9223372036854775808", 64) == -(1 << 63)
