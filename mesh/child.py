"""A process that a node's agent keeps running, and that goes on while no agent is there.

In:        a command line; a file for the process id.
Out:       the process: taken over when an earlier agent has started it, started again when it ends.
Elsewhere: who has one, as mesh/dns/keeper.py, says when, and hears from the process by other ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
STEADY_S: Final = 10.0
"""A process that ran for so long starts over with the first pause."""

log = structlog.get_logger(component="agent")


class Child:
    """Belongs to one loop. `start` makes it run from then on."""

    def __init__(self, name: str, command: Callable[[], Sequence[str]], pid_file: Path) -> None:
        """
        command   asked for at each start.
        pid_file  written here; a process that it names and that runs our program is taken over.
        """
        self.name = name
        self.restarts = 0
        self._command = command
        self._pid_file = pid_file
        self._pid = 0
        self._pidfd = -1
        self._pause_s = FIRST_PAUSE_S
        self._started_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return self._pid

    def start(self) -> None:
        """Take over the process of an earlier agent, or start one; keep it running."""
        if self._wanted:
            return
        self._wanted = True
        pid = self._surviving()
        if pid:
            log.info("process taken over", process=self.name, pid=pid)
            self._watch(pid)
        else:
            self._spawn()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the process that runs now, so that another is started."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def let_go(self) -> None:
        """Watch no more; the process stays."""
        self._wanted = False
        if self._timer is not None:
            self._timer.cancel()
        self._unwatch()

    def _surviving(self) -> int:
        """The process that the file names, if it is ours: ids are used again."""
        try:
            pid = int(self._pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return 0
        # By its own folder, as nothing else on the machine has it among its words.
        mine = os.fsencode(self._pid_file.parent)
        return pid if any(mine in word for word in words) else 0

    def _spawn(self) -> None:
        self._timer = None
        self._started_s = time.monotonic()
        try:
            pid = spawn(self._command())
            self._pid_file.write_text(str(pid))
        except OSError as error:
            log.error("cannot start a process", process=self.name, error=str(error))
            self._again()
            return
        log.info("process started", process=self.name, pid=pid)
        self._watch(pid)

    def _watch(self, pid: int) -> None:
        try:
            # Readable once the process has ended, whoever its parent is.
            self._pidfd = os.pidfd_open(pid)
        except OSError:
            self._ended()
            return
        self._pid = pid
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _ended(self) -> None:
        self._unwatch()
        self._pid = 0
        log.warning("process ended", process=self.name)
        self._again()

    def _again(self) -> None:
        if not self._wanted:
            return
        if time.monotonic() - self._started_s > STEADY_S:
            self._pause_s = FIRST_PAUSE_S
        self.restarts += 1
        self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._spawn)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)


_ORPHAN: Final = '( read -r _; exec "$@" </dev/null ) <&0 >&2 & echo $!'
"""Starts a process that waits for its parent's end, and tells its id."""


def spawn(command: Sequence[str]) -> int:
    """Start a process that outlives us; returns its id. Raises: OSError.

    It is nobody's child when it begins: there are programs, Envoy's package among them, that end with their parent.
    """
    shell = subprocess.Popen(
        ["sh", "-c", _ORPHAN, "sh", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        # It may write to a pipe whose reader we are: then our end must not be its end.
        restore_signals=False,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    with shell.stdin, shell.stdout:
        number = shell.stdout.readline()
        shell.wait()
    if not number.strip().isdigit():
        raise OSError(f"cannot start {command[0]}")
    return int(number)
