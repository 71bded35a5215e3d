"""`lab demo`: the whole product at work, in one command.

In:        a terminal; Ctrl-C or a duration.
Out:       a lab with traffic, flows as they happen on stdout, the UI; nothing is left afterwards.
Elsewhere: commands.py brings the lab up and down; replay.py does the same with recordings where no lab can run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cli.command import Call
from lab import replay
from lab.checks import obstacle
from lab.commands import options_of, start, stop
from lab.execute import find_pod, pod_place
from lab.options import LabOptions
from lab.process import Program, flowscope, spawn
from lab.rundir import MARK, RunDir
from service.failure import Failure

CLIENTS: Final = ("client", "client2")
NAMESPACE: Final = "cilium-test"
ROUND: Final = (
    "echo-same-node:8080/",
    "echo-other-node:8080/",
    "echo-other-node:8080/public",
    "echo-same-node:8080/missing",
)
"""What each client asks for, one after the other. Every name is looked up anew, so there is DNS traffic, too."""
PAUSE_S: Final = 0.5
POLL_S: Final = 0.1


class Interrupted(Exception):
    """The person at the terminal, or the system, wants the demo to end."""


def run(call: Call) -> int:
    """Show everything until Ctrl-C or the end of --duration; exit code 0."""
    options = options_of(call)
    duration_s = float(call.number("duration"))
    timeout_s = call.number("timeout") / 1e9
    with _interruptible():
        try:
            if reason := obstacle():
                print(f"{reason}; showing recorded traffic of a lab instead", file=sys.stderr, flush=True)
                with replay.playing(options):
                    _show(options, duration_s)
            else:
                _live(options, duration_s, timeout_s)
        except Interrupted:
            pass
    return 0


def _live(options: LabOptions, duration_s: float, timeout_s: float) -> None:
    run_dir = RunDir(Path(options.run_dir))
    start(options, timeout_s)
    try:
        _start_traffic(run_dir)
        _show(options, duration_s)
    finally:
        with _uninterruptible():
            stop(run_dir)


def _start_traffic(run_dir: RunDir) -> None:
    """Clients that ask for ever; `lab down` ends them like everything else that lives in a pod."""
    pods: list[dict[str, Any]] = run_dir.read_state()["pods"]
    script = "while :; do " + "".join(f"curl -s -o /dev/null -m 5 {url}; sleep {PAUSE_S}; " for url in ROUND) + "done"
    for name in CLIENTS:
        place = pod_place(find_pod(pods, name, NAMESPACE))
        env = {**os.environ, MARK: str(run_dir.path)}
        program = Program(name=f"traffic_{name}", argv=("sh", "-c", script), place=place, env=env)
        with (run_dir.logs / f"{program.name}.log").open("ab") as out:
            spawn(program, out)


def _show(options: LabOptions, duration_s: float) -> None:
    """Flows as they happen, on our stdout. duration_s: 0 means until interrupted."""
    if options.ui_listen:
        print(f"flows follow; the UI is on http://{options.ui_listen}; Ctrl-C ends", flush=True)
    deadline = time.monotonic() + duration_s if duration_s else None
    # A session of its own: Ctrl-C is for us, and we end it in our own order.
    observe = subprocess.Popen(
        flowscope("observe", "-f", "--server", options.relay_listen), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while deadline is None or time.monotonic() < deadline:
            if observe.poll() is not None:
                raise Failure(f"`flowscope observe` ended by itself with code {observe.returncode}")
            time.sleep(POLL_S)
    finally:
        observe.send_signal(signal.SIGINT)
        try:
            observe.wait(5)
        except subprocess.TimeoutExpired:
            observe.kill()


_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Signals that end a program raise Interrupted here."""

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _uninterruptible() -> Iterator[None]:
    """A second Ctrl-C does not stop us from cleaning up."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
