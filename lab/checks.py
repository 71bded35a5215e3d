"""What stands in the way of a lab, in one line each.

In:        this machine.
Out:       an obstacle with its remedy, or None.
Elsewhere: commands.py asks before anything is made.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

BTF: Final = Path("/sys/kernel/btf/vmlinux")
CLONE_NEWNET: Final = 0x40000000

BPF_SYSCALL: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
"""Number of bpf(2) by machine."""
BPF_MAP_CREATE: Final = 0
BPF_MAP_TYPE_ARRAY: Final = 2


def obstacle() -> str | None:
    """Why no lab can run here, or None."""
    if os.geteuid() != 0:
        return "the lab needs root for network namespaces and eBPF; run it with sudo"
    if not BTF.exists():
        return f"the lab needs a kernel with BTF, and {BTF} is missing; use one built with CONFIG_DEBUG_INFO_BTF=y"
    if shutil.which("ip") is None:
        return "the lab needs the program `ip`; install the package iproute2 (or run `make setup`)"
    return _refused(_try_bpf(), "eBPF maps", "CAP_BPF and CAP_SYS_ADMIN") or _refused(
        _try_netns(), "network namespaces", "CAP_SYS_ADMIN"
    )


def taken_ports(listen: Iterable[str]) -> str | None:
    """Which of the TCP addresses (host:port) is in use, as a message, or None."""
    for address in listen:
        host, _, port = address.rpartition(":")
        try:
            candidates = socket.getaddrinfo(host.strip("[]") or None, int(port), type=socket.SOCK_STREAM)
        except (ValueError, OSError) as error:
            return f"cannot use the address {address!r}: {error}; give host:port"
        for family, kind, protocol, _, where in candidates:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(where)
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:
                        return f"port {port} is taken by another program; end it, or choose another address"
    return None


def answers(address: str) -> bool:
    """Whether somebody accepts connections at `unix:///path` or `host:port`."""
    try:
        if address.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(address.removeprefix("unix://"))
        else:
            host, _, port = address.rpartition(":")
            with socket.create_connection((host.strip("[]") or "localhost", int(port)), timeout=0.2):
                pass
    except OSError:
        return False
    return True


def _refused(error: int, what: str, capabilities: str) -> str | None:
    if error == 0:
        return None
    return f"the kernel refuses {what} ({os.strerror(error)}); run the lab with {capabilities}"


def _try_bpf() -> int:
    """Make and drop a tiny array map; returns errno."""
    number = BPF_SYSCALL.get(platform.machine())
    if number is None:
        return 0  # not known here; the loader will say what is wrong
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = ctypes.create_string_buffer(struct.pack("=IIII", BPF_MAP_TYPE_ARRAY, 4, 4, 1), 128)
    descriptor = libc.syscall(number, BPF_MAP_CREATE, attributes, 128)
    if descriptor < 0:
        return ctypes.get_errno()
    os.close(descriptor)
    return 0


def _try_netns() -> int:
    """Make a network namespace in a child and drop it; returns errno."""
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        os._exit(ctypes.get_errno() & 0xFF if libc.unshare(CLONE_NEWNET) < 0 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
