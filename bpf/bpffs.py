"""The BPF file system: where maps, programs and links have names and outlive processes.

In:        a path.
Out:       whether one is mounted there; `ensure_bpffs` mounts one.
Elsewhere: handles.py pins and opens by path.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from bpf.libbpf import BpfError, libbpf

BPF_FS_MAGIC: Final = 0xCAFE4A11
DEFAULT_BPFFS: Final = Path("/sys/fs/bpf")


def is_bpffs(path: Path) -> bool:
    """Is `path` on a mounted BPF file system?"""
    buffer = ctypes.create_string_buffer(256)
    if libbpf().libc.statfs(os.fsencode(path), buffer) != 0:
        return False
    kind = int.from_bytes(buffer.raw[:8], "little")  # f_type, the first word of struct statfs on 64-bit machines
    return kind == BPF_FS_MAGIC


def ensure_bpffs(path: Path) -> None:
    """Mount a BPF file system at `path` unless there is one."""
    if is_bpffs(path):
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BpfError(f"cannot create {path} for pinned maps: {error.strerror}; choose another --bpffs") from None
    libc = libbpf().libc
    if libc.mount(b"bpf", os.fsencode(path), b"bpf", ctypes.c_ulong(0), b"mode=0700") != 0:
        number = ctypes.get_errno()
        raise BpfError(
            f"no BPF file system at {path} and none could be mounted ({os.strerror(number)}): "
            f"run `mount -t bpf bpf {path}` as root",
            number,
        )
