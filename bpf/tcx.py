"""Programs in the kernel's own list at a device's hook (tcx, Linux 6.6 on), which costs a packet less than a filter.

In:        loaded programs, numbers of devices of the caller's network namespace.
Out:       entries of that list, one for each name. They stay when the process ends, and go with the device.
Elsewhere: devices.py uses filters where the kernel has no such list.
Source:    kernel/bpf/tcx.c and kernel/bpf/mprog.c of Linux: the list comes before the filters of tc, and what one of
           its programs decides is final, unless it is "next".
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from enum import IntEnum
from functools import cache
from typing import Final

from bpf.handles import NAME_LENGTH, Program
from bpf.libbpf import AttachOptions, libbpf, refusal

_LOOPBACK: Final = 1
"""Its number in every network namespace."""
_REPLACE: Final = 1 << 2  # BPF_F_REPLACE
_LONGEST: Final = 64
"""Programs in one list (BPF_MPROG_MAX)."""


class Direction(IntEnum):
    """enum bpf_attach_type."""

    INGRESS = 46
    EGRESS = 47


@cache
def is_known() -> bool:
    """Whether this kernel has such lists."""
    return query(_LOOPBACK, Direction.INGRESS)[0] != -errno.EINVAL


def attach(ifindex: int, direction: Direction, program: Program) -> bool:
    """Put a program into a list, in one step in the place of the one with its name; False: there was none.

    Raises: BpfError.
    """
    options = AttachOptions(sz=ctypes.sizeof(AttachOptions))
    present = next(_named(ifindex, direction, frozenset([program.name])), None)
    if present is not None:
        options.flags, options.replace_prog_fd = _REPLACE, present.fd
    try:
        result = libbpf().lib.bpf_prog_attach_opts(program.fd, ifindex, direction, ctypes.byref(options))
    finally:
        if present is not None:
            present.close()
    # The kernel refuses to put a program into its own place.
    if result not in (0, -errno.EEXIST):
        raise refusal(f"attach {program.name} to device {ifindex}", result)
    return present is not None


def detach(ifindex: int, direction: Direction, names: frozenset[str]) -> None:
    """Take the programs of these names out of a list. Raises: BpfError."""
    for program in _named(ifindex, direction, names):
        result = libbpf().lib.bpf_prog_detach2(program.fd, ifindex, direction)
        program.close()
        if result not in (0, -errno.ENOENT, -errno.ENODEV):
            raise refusal(f"detach {program.name} from device {ifindex}", result)


def _named(ifindex: int, direction: Direction, names: frozenset[str]) -> Iterator[Program]:
    """Programs of a list by their names; who gets one closes it."""
    kept = {name[:NAME_LENGTH] for name in names}
    for number in query(ifindex, direction)[1]:
        program = Program.of_id(number)
        if program is None:
            continue
        if program.name in kept:
            yield program
        else:
            program.close()


def query(ifindex: int, direction: Direction) -> tuple[int, list[int]]:
    """What the kernel answers, and the programs' ids."""
    ids, count = (ctypes.c_uint32 * _LONGEST)(), ctypes.c_uint32(_LONGEST)
    flags = ctypes.c_uint32()
    result = libbpf().lib.bpf_prog_query(ifindex, direction, 0, ctypes.byref(flags), ids, ctypes.byref(count))
    # The list of a device that never had one is "not there".
    return int(result), list(ids[: count.value]) if result == 0 else []
