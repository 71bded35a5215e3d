"""The life of a service process: start, signals, drain, exit code.

SIGTERM and SIGINT set `stop`; the service then has `config.drain_s` seconds to finish its streams. SIGHUP sets
`reload`. A Failure, from anywhere inside, becomes one line on stderr and exit code 1.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from service import log
from service.failure import Failure

__all__ = ["Failure", "ServiceConfig", "fail", "run"]


class ServiceConfig(Protocol):
    """What every service's configuration has."""

    @property
    def drain_s(self) -> float: ...
    @property
    def log_level(self) -> str: ...
    @property
    def log_json(self) -> bool: ...


C = TypeVar("C", bound=ServiceConfig)
Serve = Callable[[C, asyncio.Event, asyncio.Event], Awaitable[None]]

DRAIN_MARGIN_S = 1.0
"""What we give `serve` beyond drain_s before it is cancelled."""


def run(serve: Serve[C], config: C) -> int:
    """Run `serve(config, stop, reload)` to its end; returns the exit code."""
    try:
        log.setup(config.log_level, config.log_json)
        asyncio.run(_supervised(serve, config))
    except Failure as failure:
        return fail(failure)
    except BaseExceptionGroup as group:
        failures = group.subgroup(Failure)
        if failures is None:
            raise
        return fail(_first(failures))
    return 0


def fail(failure: BaseException) -> int:
    """Print the one line; returns the exit code."""
    print(f"flowscope: {failure}", file=sys.stderr)
    return 1


async def _supervised(serve: Serve[C], config: C) -> None:
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    serving = asyncio.ensure_future(serve(config, stop, reload))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not serving.done():
        await asyncio.wait({serving}, timeout=config.drain_s + DRAIN_MARGIN_S)
        serving.cancel()
    try:
        await serving
    except asyncio.CancelledError:
        return


def _first(group: BaseExceptionGroup[Failure]) -> BaseException:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
