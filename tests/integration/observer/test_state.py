"""observer/state.py and observer/watch.py: the state file is followed, whatever happens to it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from observer.state import BrokenState, NodeState, StateFile, parse_state
from tests.support.waiting import eventually_async


@asynccontextmanager
async def followed(path: Path) -> AsyncIterator[list[NodeState]]:
    """States as they are taken over while the file is followed."""
    states: list[NodeState] = []
    file = StateFile(str(path))
    if (first := file.read()) is not None:
        states.append(first)
    task = asyncio.create_task(file.follow(states.append))
    await asyncio.sleep(0)
    try:
        yield states
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def write(path: Path, name: str) -> None:
    """Replace the file as the agent does."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"node_name": name}))
    os.replace(temporary, path)


def names(states: list[NodeState]) -> list[str]:
    return [state.node_name for state in states]


async def test_a_replaced_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write(path, "one")
    async with followed(path) as states:
        assert names(states) == ["one"]
        write(path, "two")
        await eventually_async(lambda: names(states) == ["one", "two"])
        path.write_text('{"node_name": "three"}')
        await eventually_async(lambda: names(states)[-1] == "three")


async def test_a_file_that_comes_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with followed(path) as states:
        await asyncio.sleep(0.01)
        assert states == []
        write(path, "one")
        await eventually_async(lambda: names(states) == ["one"])


async def test_a_folder_that_comes_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "run" / "state.json"
    async with followed(path) as states:
        await asyncio.sleep(0.01)
        path.parent.mkdir()
        write(path, "one")
        await eventually_async(lambda: names(states) == ["one"])


async def test_a_broken_file_changes_nothing_and_is_logged_once(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write(path, "one")
    with capture_logs() as lines:
        async with followed(path) as states:
            for text in ("{", "{ "):
                path.write_text(text)
                await asyncio.sleep(0.05)
            write(path, "two")
            await eventually_async(lambda: names(states) == ["one", "two"])
    assert [line["event"] for line in lines] == ["state file is broken; keeping what is known"]


async def test_nothing_is_read_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write(path, "one")
    async with followed(path) as states:
        await asyncio.sleep(0.01)
        (tmp_path / "another").write_text("x")
        await asyncio.sleep(0.05)
        assert len(states) == 1


async def test_a_reload_reads_an_unchanged_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write(path, "one")
    states: list[NodeState] = []
    file = StateFile(str(path))
    task = asyncio.create_task(file.follow(states.append))
    file.reload()
    await eventually_async(lambda: names(states) == ["one"])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"peers": [{}]}',
        '{"local_endpoints": 5}',
        '{"ipcache": [{"prefix": "x"}]}',
        '{"node_labels": 1}',
    ],
)
def test_what_is_no_state_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BrokenState) as caught:
        parse_state(text.encode())
    assert "\n" not in str(caught.value)


def test_the_golden_state_is_read(golden: Path) -> None:
    state = parse_state((golden / "events" / "getters.json").read_bytes())
    assert state.node_name == "kind-worker"
    assert "kubernetes.io/os=linux" in state.node_labels
