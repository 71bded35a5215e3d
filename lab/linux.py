"""The few system calls that Python 3.11 does not offer: namespaces and mounts.

In:        paths of network namespaces, folders with a pod's /etc files.
Out:       this process (or thread) somewhere else. Errors are OSError with the path in them.
Elsewhere: network.py fills namespaces with devices; process.py starts programs in them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.failure import Failure

NETNS_DIR: Final = Path("/run/netns")

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWNET: Final = 0x40000000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_SLAVE: Final = 0x80000
MNT_DETACH: Final = 2

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program of the lab runs."""

    netns: str | None = None
    """Name below /run/netns; None for the machine's own."""
    hostname: str | None = None
    etc: Path | None = None
    """Folder whose files (hosts, resolv.conf, ...) stand in for those of /etc."""
    own_sys: bool = False
    """Whether /sys is to show the devices of the namespace (hides mounts below /sys)."""
    cgroup: Path | None = None
    """Cgroup of version 2 to be in; None: where the parent is."""

    def enter(self) -> None:
        """Move this process there, for good. Call it in a fresh child, or just before exec.

        Raises: OSError.
        """
        if self.cgroup is not None:
            # 0 stands for whoever writes.
            (self.cgroup / "cgroup.procs").write_text("0")
        if self.netns is not None:
            with _opened(NETNS_DIR / self.netns) as namespace:
                setns(namespace, CLONE_NEWNET)
        if self.hostname is None and self.etc is None and not self.own_sys:
            return
        _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWUTS), "unshare")
        # Slave: what the machine unmounts disappears here too, what is mounted here stays here.
        mount("none", "/", "", MS_SLAVE | MS_REC)
        if self.hostname is not None:
            socket.sethostname(self.hostname)
        for path in sorted(self.etc.iterdir()) if self.etc else ():
            if os.path.exists(f"/etc/{path.name}"):
                mount(str(path), f"/etc/{path.name}", "", MS_BIND)
        if self.own_sys:
            try:
                mount("sysfs", "/sys", "sysfs", 0)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EBUSY):  # inside another container: not needed that badly
                    raise


def netns_path(name: str) -> Path:
    """Where a named network namespace is."""
    return NETNS_DIR / name


def make_netns(name: str) -> None:
    """A new network namespace, visible to `ip netns`. Raises: Failure."""
    _ip_netns("add", name)


def delete_netns(name: str) -> None:
    """Forget a namespace; it is gone once its last process has left. A missing one is fine. Raises: Failure."""
    if netns_path(name).exists():
        _ip_netns("delete", name)


def _ip_netns(action: str, name: str) -> None:
    try:
        done = subprocess.run(["ip", "netns", action, name], capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        raise Failure("the program `ip` is missing; install the package iproute2 (or run `make setup`)") from None
    if done.returncode:
        raise Failure(f"cannot {action} network namespace {name}: {done.stderr.strip()}")


def netns_inode(path: Path) -> int | None:
    """What tells namespaces apart; None when there is none at `path`."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Run the body of `with` in a namespace; sockets opened there stay there. For the calling thread only."""
    with _opened(Path("/proc/thread-self/ns/net")) as home, _opened(netns_path(name)) as there:
        setns(there, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE_NEWNET)


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into a namespace. Raises: OSError."""
    _check(_libc.setns(descriptor, kind), "setns")


def raise_limit(name: str, least: int) -> int | None:
    """Make a limit of the machine (a name below /proc/sys) at least that high; the old value if it was changed.

    Raises: OSError.
    """
    path = Path("/proc/sys", name)
    now = int(path.read_text())
    if now >= least:
        return None
    path.write_text(str(least))
    return now


def mount(source: str, target: str, fstype: str, flags: int) -> None:
    """mount(2). Raises: OSError."""
    _check(_libc.mount(source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), None), target)


def unmount(target: Path) -> None:
    """umount(2), at once even when something is in use; what is not mounted is fine. Raises: OSError."""
    try:
        _check(_libc.umount2(os.fsencode(target), MNT_DETACH), str(target))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def is_mounted(target: Path) -> bool:
    """Whether something is mounted exactly there."""
    return target.exists() and os.path.ismount(target)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
