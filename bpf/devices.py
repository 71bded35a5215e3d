"""Programs on network devices, in the network namespace where the devices live.

In:        loaded programs, names of devices.
Out:       entries of the kernel's own list (tcx.py); clsact filters where the kernel has none. Attaching again replaces
           the program in one step, and so does the change from one to the other: no packet goes past it unseen.
Elsewhere: loader.py loads programs; datapath.py decides which goes where.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from bpf import tcx
from bpf.handles import Program
from bpf.libbpf import BpfError

T = TypeVar("T")

CLONE_NEWNET: Final = 0x40000000
NETNS_DIR: Final = Path("/run/netns")
FILTER_PRIORITY: Final = 1
FILTER_HANDLE: Final = 1
PROTOCOL_ALL: Final = 3  # ETH_P_ALL
SO_NETNS_COOKIE: Final = 71


class Hook(IntEnum):
    """Where on a device: the parent of the filter, under the clsact qdisc (ffff:)."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3

    @property
    def direction(self) -> tcx.Direction:
        return tcx.Direction.INGRESS if self is Hook.INGRESS else tcx.Direction.EGRESS


class NodeNamespace:
    """A thread that lives in a network namespace, with a netlink socket there.

    A thread of its own, because a namespace belongs to a thread, and because pyroute2 runs an event loop inside its
    calls, which a caller inside asyncio could not.
    """

    def __init__(self, netns: str | None) -> None:
        self.netns = netns
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")
        self._route: Any = None
        self._entered = False

    def attach(self, ifname: str, hook: Hook, program: Program) -> int:
        """Put `program` on a device; returns its ifindex.

        Raises: BpfError when the device is not there or the kernel refuses.
        """
        return self._call(lambda: self._attach(ifname, hook, program))

    def detach_all(self, programs: frozenset[str]) -> None:
        """Take filters that carry these names off every device; a namespace that is gone has none left."""
        try:
            self._call(lambda: self._detach_all(programs))
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise

    def ifindex(self, ifname: str) -> int | None:
        """Number of a device, or None."""
        return self._call(lambda: _ifindex(ifname))

    def ifname(self, ifindex: int) -> str | None:
        """Name of a device, or None."""
        return self._call(lambda: _ifname(ifindex))

    def mac(self, ifindex: int) -> str:
        """MAC address of a device."""
        return self._call(lambda: str(self._route.get_links(ifindex)[0].get("address")))

    def cookie(self) -> int:
        """What the kernel calls the namespace: the same for as long as it exists."""
        return self._call(_cookie)

    def close(self) -> None:
        """End the thread; filters stay."""
        if self._route is not None:
            self._thread.submit(self._route.close).result()
            self._route = None
        self._thread.shutdown()

    def _call(self, action: Callable[[], T]) -> T:
        return self._thread.submit(self._inside, action).result()

    def _inside(self, action: Callable[[], T]) -> T:
        if not self._entered:
            self._enter()
        if self._route is None:
            self._route = IPRoute()
        return action()

    def _enter(self) -> None:
        if self.netns is not None:
            path = Path(self.netns) if "/" in self.netns else NETNS_DIR / self.netns
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise BpfError(f"network namespace {self.netns}: {error.strerror}", error.errno or 0) from None
            try:
                # os.setns exists from Python 3.12 on.
                if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
                    number = ctypes.get_errno()
                    raise BpfError(f"enter network namespace {self.netns}: {os.strerror(number)}: needs root", number)
            finally:
                os.close(fd)
        self._entered = True

    def _attach(self, ifname: str, hook: Hook, program: Program) -> int:
        index = _ifindex(ifname)
        where = f"device {ifname}" + (f" in {self.netns}" if self.netns else "")
        if index is None:
            raise BpfError(f"attach {program.name}: {where} does not exist", errno.ENODEV)
        if not tcx.is_known():
            self._attach_filter(where, index, hook, program)
        elif not tcx.attach(index, hook.direction, program):
            # An older version may have left a filter, which sees no packet any more.
            self._detach_filters(index, hook, frozenset([program.name]))
        return index

    def _attach_filter(self, where: str, index: int, hook: Hook, program: Program) -> None:
        try:
            self._add_clsact(index)
            self._route.tc(
                "replace-filter",
                "bpf",
                index,
                handle=FILTER_HANDLE,
                parent=int(hook),
                prio=FILTER_PRIORITY,
                protocol=PROTOCOL_ALL,
                fd=program.fd,
                name=program.name,
                direct_action=True,
            )
        except NetlinkError as error:
            remedy = "needs root or CAP_NET_ADMIN" if error.code == errno.EPERM else os.strerror(error.code)
            if error.code in (errno.ENOENT, errno.EOPNOTSUPP):
                remedy = "this kernel has no clsact or cls_bpf (CONFIG_NET_CLS_BPF, CONFIG_NET_SCH_INGRESS)"
            raise BpfError(f"attach {program.name} to {where}: {remedy}", error.code) from None

    def _add_clsact(self, index: int) -> None:
        try:
            self._route.tc("add", "clsact", index)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise

    def _detach_all(self, programs: frozenset[str]) -> None:
        for link in self._route.get_links():
            for hook in Hook:
                if tcx.is_known():
                    tcx.detach(link["index"], hook.direction, programs)
                self._detach_filters(link["index"], hook, programs)

    def _detach_filters(self, ifindex: int, hook: Hook, programs: frozenset[str]) -> None:
        for each in self._route.get_filters(index=ifindex, parent=int(hook)):
            options = each.get_attr("TCA_OPTIONS")
            if options is not None and options.get_attr("TCA_BPF_NAME") in programs:
                self._delete(ifindex, hook)

    def _delete(self, ifindex: int, hook: Hook) -> None:
        try:
            self._route.tc(
                "del-filter",
                "bpf",
                ifindex,
                handle=FILTER_HANDLE,
                parent=int(hook),
                prio=FILTER_PRIORITY,
                protocol=PROTOCOL_ALL,
            )
        except NetlinkError as error:
            if error.code not in (errno.ENODEV, errno.ENOENT):
                raise BpfError(f"detach from device {ifindex}: {os.strerror(error.code)}", error.code) from None


def _cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")


def _ifindex(ifname: str) -> int | None:
    try:
        return socket.if_nametoindex(ifname)
    except OSError:
        return None


def _ifname(ifindex: int) -> str | None:
    try:
        return socket.if_indextoname(ifindex)
    except OSError:
        return None
