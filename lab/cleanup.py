"""Taking down what a lab left, whether it ended well or not.

In:        a lab's folder: its journal of namespaces, its mark on processes.
Out:       no process, namespace, mount or pin of that lab.
Elsewhere: supervisor.py stops its children properly first; this is for all the rest, and may run any number of times.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from lab.cgroups import remove_cgroup
from lab.linux import delete_netns, netns_inode, netns_path, unmount
from lab.rundir import MARK, RunDir
from mesh.envoy.process import forget_memory
from service.failure import Failure

PATIENCE_S: Final = 6.0
"""Seconds between SIGTERM and SIGKILL; services drain within 5."""
_POLL_S: Final = 0.02


def clean(run_dir: RunDir, patience_s: float = PATIENCE_S) -> int:
    """Remove everything; returns how many things there were. Raises: Failure when something resists."""
    namespaces = [name for name in run_dir.recorded_netns() if netns_path(name).exists()]
    ended = end_processes(run_dir, patience_s)
    for folder in run_dir.path.glob("*/envoy"):
        forget_memory(folder)
    for name in namespaces:
        delete_netns(name)
    for name in run_dir.recorded_netns():
        remove_cgroup(name)
    try:
        unmount(run_dir.bpffs)
    except OSError as error:
        raise Failure(f"cannot unmount {run_dir.bpffs}: {error.strerror}") from error
    run_dir.forget()
    return len(namespaces) + ended


def end_processes(run_dir: RunDir, patience_s: float) -> int:
    """End every process of the lab but this one; returns how many there were."""
    found = set(processes(run_dir))
    _signal_all(found, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while (left := set(processes(run_dir))) and time.monotonic() < deadline:
        # Some are new: a child that was being started when its parent fell.
        _signal_all(left - found, signal.SIGTERM)
        found |= left
        time.sleep(_POLL_S)
    while left := set(processes(run_dir)):
        _signal_all(left, signal.SIGKILL)
        time.sleep(_POLL_S)
        if time.monotonic() > deadline + patience_s:
            raise Failure(f"processes {sorted(left)} do not end even when killed; look at their kernel stacks")
    return len(found)


def processes(run_dir: RunDir) -> Iterator[int]:
    """Processes that carry the lab's mark or live in one of its namespaces, zombies aside."""
    inodes = {netns_inode(netns_path(name)) for name in run_dir.recorded_netns()} - {None}
    mark = f"{MARK}={run_dir.path}".encode()
    me = os.getpid()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != me and _belongs(entry, inodes, mark):
            yield int(entry.name)


def _belongs(process: Path, inodes: set[int | None], mark: bytes) -> bool:
    try:
        if (process / "ns/net").stat().st_ino in inodes:
            return True
        return mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is a zombie
        return False


def _signal_all(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
