"""Children of the supervisor: started somewhere, restarted when they fall, stopped in time.

In:        what to run, where, with which environment.
Out:       a running process and its log file; a call when its state changes.
Elsewhere: linux.py enters namespaces; supervisor.py decides what runs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Literal

import structlog

from lab.linux import Place

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 10.0
STEADY_S: Final = 10.0
"""A process that ran for so long starts over with the first pause."""

NOT_STARTED: Final = 127
"""Exit code of a program that could not be started; as shells have it."""

Restart = Literal["Always", "OnFailure", "Never"]

log = structlog.get_logger(component="lab")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run and where."""

    name: str
    """Unique; the log file is called like this."""
    argv: tuple[str, ...]
    place: Place = field(default_factory=Place)
    env: Mapping[str, str] = field(default_factory=dict)
    """The whole environment."""
    restart: Restart = "Always"


class Process:
    """One child. Belongs to the loop that starts it."""

    def __init__(self, program: Program, log_file: Path, on_change: Callable[[], None]) -> None:
        self.program = program
        self.log_file = log_file
        self.restarts = 0
        self.exit_code: int | None = None
        """Of the last run; None while the first one lasts."""
        self._on_change = on_change
        self._child: subprocess.Popen[bytes] | None = None
        self._gone = asyncio.Event()
        self._gone.set()
        self._stopping = False
        self._pause_s = FIRST_PAUSE_S
        self._started = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return None if self._gone.is_set() or self._child is None else self._child.pid

    @property
    def is_done(self) -> bool:
        """Whether it has ended and is not to be started again."""
        if self.exit_code is None or self.pid is not None:
            return False
        return self.program.restart == "Never" or (self.program.restart == "OnFailure" and self.exit_code == 0)

    def start(self) -> None:
        """Start the program; when that fails, try again like after a fall."""
        self._timer = None
        self._started = time.monotonic()
        try:
            with self.log_file.open("ab") as out:
                self._child = spawn(self.program, out)
        except (OSError, subprocess.SubprocessError) as error:
            log.error("cannot start", process=self.program.name, error=str(error))
            self.exit_code = NOT_STARTED
            if not self.is_done:
                self._again()
            return
        self._gone.clear()
        # The descriptor becomes readable when the process has ended: no thread and no SIGCHLD handler is needed.
        self._watch(os.pidfd_open(self._child.pid))
        self._on_change()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process runs."""
        if self._child is not None and not self._gone.is_set():
            self._child.send_signal(number)

    async def stop(self, patience_s: float) -> None:
        """End the process: SIGTERM, and SIGKILL after `patience_s`. It will not be started again."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience_s):
                await self._gone.wait()
        except TimeoutError:
            log.warning("process does not end, killed", process=self.program.name)
            self.signal(signal.SIGKILL)
            await self._gone.wait()

    def _watch(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self._ended()

        loop.add_reader(descriptor, ended)

    def _ended(self) -> None:
        assert self._child is not None
        self.exit_code = self._child.wait()
        self._gone.set()
        if self._stopping:
            return
        if self.is_done:
            self._on_change()
            return
        log.warning("process ended", process=self.program.name, code=self.exit_code, log=str(self.log_file))
        self._again()

    def _again(self) -> None:
        if time.monotonic() - self._started > STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        self.restarts += 1
        self._timer = asyncio.get_running_loop().call_later(self._pause_s, self.start)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._on_change()


def spawn(program: Program, out: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a program where it belongs; its output goes to `out`. Raises: OSError, SubprocessError."""

    def enter() -> None:
        try:
            program.place.enter()
        except OSError as error:
            # What goes wrong here reaches the parent without its text, so tell the log.
            os.write(2, f"cannot enter {program.place}: {error}\n".encode())
            raise

    return subprocess.Popen(
        program.argv,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        env=dict(program.env),
        cwd="/",
        start_new_session=True,
        preexec_fn=enter,
    )


def flowscope(*words: str) -> tuple[str, ...]:
    """Command line of one of our own commands."""
    return (sys.executable, "-m", "cli", *words)
