"""`flowscope debug decode`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.__main__ import main


def test_a_folder_is_decoded_line_by_line(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", "decode", str(golden / "events")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["i"] for line in lines] == list(range(len(lines)))
    assert {line["result"] for line in lines} == {"flow", "error", "debug_event", "agent_event", "lost_event"}


def test_a_folder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["debug", "decode", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"{tmp_path}/getters.json: No such file or directory")
    assert message.count("\n") == 1


def test_a_broken_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "getters.json").write_text("{}")
    (tmp_path / "events.bin").write_bytes(b"")
    (tmp_path / "index.jsonl").write_text('{"kind":"lost","lost":{}}\n{"kind":\n')
    assert main(["debug", "decode", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["result"] == "lost_event"
    assert captured.err.startswith(f"{tmp_path}/index.jsonl:2: not valid JSON")


def test_broken_knowledge_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "getters.json").write_text('{"ipcache":[{"prefix":"x","identity":1}]}')
    (tmp_path / "events.bin").write_bytes(b"")
    (tmp_path / "index.jsonl").write_text("")
    assert main(["debug", "decode", str(tmp_path)]) == 1
    assert "getters.json: ipcache[0]" in capsys.readouterr().err
