"""Folders of recorded events that are not as they should be. What good ones become: test_golden_events.py."""

from __future__ import annotations

from typing import Any

import pytest

from model.decode.folder import decode_folder
from tests.support.packets import ethernet, ipv4, tcp, trace

RECORD = trace(ethernet(ipv4(tcp())))
PERF = {"kind": "perf", "name": "one", "offset": 0, "length": len(RECORD)}


def decode(*index: dict[str, Any], expected: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    return list(decode_folder(index, RECORD, {}, expected or ()))


def test_events_without_a_time_are_a_millisecond_apart() -> None:
    lines = decode(PERF, PERF)
    assert [line["event_time"] for line in lines] == [
        "2026-01-15T10:00:00.000123456Z",
        "2026-01-15T10:00:00.001123456Z",
    ]
    assert len({line["json"]["uuid"] for line in lines}) == 2


def test_events_take_the_times_of_expected_lines() -> None:
    (line,) = decode(PERF, expected=[{"i": 0, "event_time": "2020-02-02T02:02:02Z"}])
    assert line["event_time"] == line["json"]["time"] == "2020-02-02T02:02:02Z"


@pytest.mark.parametrize(
    ("entry", "error_class"),
    [
        ({"kind": "perf", "offset": 0, "length": 9999}, "decode_error"),
        ({"kind": "perf", "offset": -1, "length": 1}, "decode_error"),
        ({"kind": "perf"}, "decode_error"),
        ({"kind": "perf", "offset": 0, "length": 0}, "empty_data"),
        ({"kind": "other"}, "unknown_event_type"),
        ({}, "unknown_event_type"),
        ({"kind": "accesslog", "record": 7}, "decode_error"),
        ({"kind": "agent", "event_type": 131}, "unknown_event_type"),
        ({"kind": "agent", "event_type": 130}, "invalid_agent_message_type"),
        ({"kind": "lost", "lost": {"first": "x"}}, "decode_error"),
        ({**PERF, "event_time": "yesterday"}, "decode_error"),
    ],
)
def test_an_entry_that_makes_no_sense_is_an_error_and_the_next_one_is_decoded(
    entry: dict[str, Any], error_class: str
) -> None:
    broken, good = decode(entry, PERF)
    assert (broken["result"], broken["error_class"]) == ("error", error_class)
    assert good["result"] == "flow"
