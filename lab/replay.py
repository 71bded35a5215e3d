"""The product on recorded traffic, where no lab can run: no root, or a kernel without eBPF.

In:        lab/recordings/, one file per node, as `lab up --record DIR` makes them.
Out:       the real observers, relay and UI; only the kernel is replayed.
Elsewhere: demo.py shows it; the observer knows how to replay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lab.checks import answers, taken_ports
from lab.options import SOURCE_ROOT, STOP_S, LabOptions
from lab.process import flowscope
from service.failure import Failure

RECORDINGS: Final = Path(__file__).parent / "recordings"
SUFFIX: Final = ".fsr"
PERIOD_S: Final = 30
"""Seconds from lap to lap, a little more than the recordings are long: so the nodes' laps stay in step."""
READY_S: Final = 30.0
POLL_S: Final = 0.05


@contextmanager
def playing(options: LabOptions, folder: Path = RECORDINGS) -> Iterator[None]:
    """Observers, relay and UI on recordings, as long as the body runs. Raises: Failure when they do not serve."""
    recordings = sorted(folder.glob(f"*{SUFFIX}"))
    if not recordings:
        raise Failure(f"there is no recording in {folder}; make some with `flowscope lab up --record {folder}`")
    if reason := taken_ports(one for one in (options.relay_listen, options.ui_listen) if one):
        raise Failure(reason)
    here = Path(tempfile.mkdtemp(prefix="flowscope-demo-"))
    children: list[subprocess.Popen[bytes]] = []
    try:
        sockets = {file.stem: f"unix://{here / file.stem}.sock" for file in recordings}
        for file in recordings:
            children.append(_child(here, f"{file.stem}_observer", observer_command(file, sockets[file.stem])))
        _await(list(sockets.values()), children, here)
        children.append(_child(here, "relay", relay_command(options.relay_listen, sockets)))
        _await([options.relay_listen], children, here)
        if options.ui_listen:
            children.append(
                _child(here, "ui", ("ui", f"--listen={options.ui_listen}", f"--server={options.relay_listen}"))
            )
            _await([options.ui_listen], children, here)
        yield
    finally:
        _end(children)
        shutil.rmtree(here, ignore_errors=True)


def observer_command(recording: Path, listen: str) -> tuple[str, ...]:
    """An observer that plays a recording again and again."""
    return (
        "observer",
        f"--node-name={recording.stem}",
        f"--listen={listen}",
        f"--replay={recording}",
        "--replay-loops=0",
        f"--replay-period-s={PERIOD_S}",
        "--state-file=",
        "--events=none",
    )


def relay_command(listen: str, sockets: Mapping[str, str]) -> tuple[str, ...]:
    """A relay in front of observers. sockets: by node."""
    return (
        "relay",
        f"--listen={listen}",
        "--health-listen=",
        "--peers=" + ",".join(f"{node}={address}" for node, address in sockets.items()),
        "--disable-client-tls=true",
        "--disable-server-tls=true",
    )


def _child(here: Path, name: str, words: Sequence[str]) -> subprocess.Popen[bytes]:
    with (here / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            flowscope(*words),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(SOURCE_ROOT)},
            start_new_session=True,
        )


def _await(addresses: Sequence[str], children: Sequence[subprocess.Popen[bytes]], here: Path) -> None:
    deadline = time.monotonic() + READY_S
    waiting = list(addresses)
    while waiting := [one for one in waiting if not answers(one)]:
        for child in children:
            if child.poll() is not None:
                said = "; ".join(log.read_text(errors="replace").strip() for log in here.glob("*.log"))
                raise Failure(f"a process of the demo ended: {said or 'no output'}")
        if time.monotonic() > deadline:
            raise Failure(f"not ready in time: {', '.join(waiting)}")
        time.sleep(POLL_S)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Last started, first ended: the UI needs the relay, the relay the observers."""
    for child in reversed(children):
        child.terminate()
    deadline = time.monotonic() + STOP_S + 1
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
