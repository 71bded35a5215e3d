"""Every recorded event becomes the flow, event or error that the reference implementation made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.decode.folder import decode_folder


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def outcomes(golden: Path) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(index entry, expected line, our line)."""
    folder = golden / "events"
    index, expected = read_lines(folder / "index.jsonl"), read_lines(folder / "expected.jsonl")
    state = json.loads((folder / "getters.json").read_text())
    ours = decode_folder(index, (folder / "events.bin").read_bytes(), state, expected)
    return list(zip(index, expected, ours, strict=True))


GROUPS = (
    "trace", "trace_reason", "resolve", "l4", "l3dev", "overlay", "truncated", "drop", "policy", "capture", "debug",
    "sock", "malformed", "l7", "agent", "lost",
)  # fmt: skip


@pytest.mark.parametrize("group", GROUPS)
def test_all_events_of_a_group_become_what_the_reference_made_of_them(group: str, outcomes: Any) -> None:
    cases = [case for case in outcomes if case[0]["group"] == group]
    assert cases
    for _, expected, ours in cases:
        assert ours["name"] == expected["name"]
        assert ours["result"] == expected["result"], (expected["name"], expected.get("error"), ours.get("error"))
        if expected["result"] == "error":
            assert ours["error_class"] == expected["error_class"], expected["name"]
            continue
        assert ours["event_time"] == expected["event_time"]
        for line in (ours, expected):
            line["json"].pop("uuid", None)
        assert ours["json"] == expected["json"], expected["name"]


def test_no_group_is_left_out(outcomes: Any) -> None:
    assert {index["group"] for index, _, _ in outcomes} == set(GROUPS)
