"""agent.json: what an agent says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mesh.report import ALIVE_S, AgentReport


class Clock:
    """Time that stands still."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_nothing_is_told_before_the_first_round(tmp_path: Path) -> None:
    report = AgentReport(tmp_path / "agent.json", "worker")
    report.refresh()
    assert not (tmp_path / "agent.json").exists()
    report.round(3, ["a"])
    told = read(tmp_path)
    assert (told["node"], told["revision"], told["pods"], told["parts"]) == ("worker", 3, ["a"], {})


def test_parts_are_asked_again_between_rounds(tmp_path: Path) -> None:
    clock, envoy = Clock(), {"state": "ok", "message": "5 listeners"}
    report = AgentReport(tmp_path / "agent.json", "worker", clock)
    report.add("envoy", lambda: envoy)
    report.round(1, [])
    envoy = {"state": "failure", "message": "down"}
    report.refresh()
    assert read(tmp_path)["parts"] == {"envoy": envoy}


def test_an_unchanged_report_is_written_now_and_then(tmp_path: Path) -> None:
    clock = Clock()
    report = AgentReport(tmp_path / "agent.json", "worker", clock)
    report.round(1, [])
    clock.now_s += 1
    report.refresh()
    assert read(tmp_path)["written_s"] == 1000
    clock.now_s += ALIVE_S
    report.refresh()
    assert read(tmp_path)["written_s"] == 1001 + ALIVE_S


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "agent.json").read_text())
    return content
