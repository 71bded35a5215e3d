"""How a service process ends."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

import pytest

from service.run import Failure, run


@dataclass(frozen=True)
class Config:
    drain_s: float = 0.2
    log_level: str = "error"
    log_json: bool = False


def test_sigterm_sets_stop_and_the_process_ends_well() -> None:
    async def serve(config: Config, stop: asyncio.Event, reload: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

    assert run(serve, Config()) == 0


def test_sighup_asks_for_a_reload() -> None:
    async def serve(config: Config, stop: asyncio.Event, reload: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(reload.wait(), 5)

    assert run(serve, Config()) == 0


def test_a_failure_inside_a_task_group_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    async def refuse() -> None:
        raise Failure("port 4245 is taken by another process;\n choose one with --listen")

    async def serve(config: Config, stop: asyncio.Event, reload: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(refuse())

    assert run(serve, Config()) == 1
    assert capsys.readouterr().err == "flowscope: port 4245 is taken by another process; choose one with --listen\n"


def test_a_service_that_does_not_drain_is_cancelled_after_its_time() -> None:
    async def serve(config: Config, stop: asyncio.Event, reload: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(3600)

    assert run(serve, Config()) == 0


def test_an_unknown_log_level_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    async def serve(config: Config, stop: asyncio.Event, reload: asyncio.Event) -> None:
        raise AssertionError("not reached")

    assert run(serve, Config(log_level="loud")) == 1
    assert "unknown log level 'loud'" in capsys.readouterr().err
