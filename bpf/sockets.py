"""Services at sockets: programs on a cgroup lead processes of the node itself to backends.

In:        a cgroup (version 2), the node's network namespace, the folder of the node's pins.
Out:       links from programs to the cgroup, pinned: they stay while the agent is away.
Elsewhere: cgroup_sock.bpf.c translates; service_maps.py fills the tables that it looks into.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Final

from bpf.handles import CgroupLink, Program
from bpf.libbpf import BpfError
from bpf.loader import load_object

OBJECT: Final = "cgroup_sock.bpf.o"
CONFIG: Final = "flowscope_sockets"
HOOKS: Final = {
    "connect4": 10,
    "connect6": 11,
    "sendmsg4": 14,
    "sendmsg6": 15,
    "recvmsg4": 19,
    "recvmsg6": 20,
    "getpeername4": 29,
    "getpeername6": 30,
}
"""Programs and where they belong (enum bpf_attach_type)."""
CGROUP2: Final = "cgroup2"


class SocketServices:
    """The socket programs of one node."""

    def __init__(self, pin_dir: Path, objects: Path) -> None:
        self._pin_dir = pin_dir
        self._object = objects / OBJECT
        self._links = pin_dir / "sockets"

    def attach(self, cgroup: Path, netns_cookie: int) -> int:
        """Serve the node's own processes in a cgroup, and below it; returns the cgroup's id.

        Attaching again puts the present programs in the place of those that run, one by one: no call goes past them.
        Raises: BpfError, also when `cgroup` is none.
        """
        try:
            folder = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BpfError(f"cgroup {cgroup}: {error.strerror}", error.errno or 0) from None
        try:
            if not (cgroup / "cgroup.procs").exists() or not (cgroup / "cgroup.subtree_control").exists():
                raise BpfError(f"{cgroup} is not a cgroup of version 2: give a folder on a mount of type {CGROUP2}")
            loaded = load_object(self._object, self._pin_dir)
            try:
                number = os.fstat(folder).st_ino
                loaded.maps[CONFIG].update(bytes(4), struct.pack("<QQ", netns_cookie, number))
                self._links.mkdir(exist_ok=True)
                for name, kind in HOOKS.items():
                    self._link(loaded.programs[name], folder, number, kind)
            finally:
                loaded.close()
            return number
        finally:
            os.close(folder)

    def detach(self) -> None:
        """Take the programs off; connections that exist go on."""
        for pin in self._links.glob("*"):
            pin.unlink()

    def _link(self, program: Program, folder: int, number: int, kind: int) -> None:
        pin = self._links / program.name
        old: CgroupLink | None = None
        try:
            old = CgroupLink.pinned(pin)
            if old.cgroup_id() == number:
                old.replace(program)
                return
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise
        finally:
            if old is not None:
                old.close()
        link = CgroupLink.create(program, folder, kind)
        try:
            pin.unlink(missing_ok=True)
            link.pin(pin)
        finally:
            link.close()


def cgroup_mount(mounts: Path = Path("/proc/mounts")) -> Path | None:
    """Where cgroups of version 2 are; None when they are nowhere."""
    for line in mounts.read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == CGROUP2:
            return Path(where)
    return None
