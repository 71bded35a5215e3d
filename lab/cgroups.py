"""A cgroup per node: the processes of the node itself, told from those of pods and of the machine.

In:        names of the nodes' namespaces.
Out:       folders below the machine's cgroups of version 2, called like the namespaces.
Elsewhere: linux.py moves processes in; the node's agent attaches its socket programs.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Final

import structlog

from bpf.sockets import cgroup_mount

PATIENCE_S: Final = 1.0

log: Final = structlog.get_logger(component="lab")


def make_cgroup(name: str) -> Path | None:
    """Make a node's cgroup; None where that is impossible: its services are then translated in packets only."""
    mount = cgroup_mount()
    try:
        if mount is None:
            raise FileNotFoundError(errno.ENOENT, "no cgroups of version 2 are mounted")
        (mount / name).mkdir(exist_ok=True)
    except OSError as error:
        log.info("no translation of services at sockets", node=name, reason=error.strerror)
        return None
    return mount / name


def find_cgroup(name: str) -> Path | None:
    """A node's cgroup, if there is one."""
    mount = cgroup_mount()
    return mount / name if mount is not None and (mount / name / "cgroup.procs").exists() else None


def remove_cgroup(name: str) -> None:
    """Remove it, once its last process has ended; a missing one is fine."""
    path = find_cgroup(name)
    deadline = time.monotonic() + PATIENCE_S
    while path is not None and path.exists():
        try:
            path.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                log.warning("cgroup stays", path=str(path), reason=error.strerror)
                return
            time.sleep(0.02)
