"""Kernel objects by file descriptor: maps, programs, and links to cgroups.

In:        paths of pinned objects, or descriptors.
Out:       bytes read from and written to maps; programs run on test packets, attached, measured.
Elsewhere: loader.py makes them from object files; maps.py knows what keys and values mean.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from bpf.libbpf import (
    CgroupLinkInfo,
    MapCreateOptions,
    MapInfo,
    ProgramInfo,
    TestRunOptions,
    libbpf,
    open_pinned,
    possible_cpus,
    refusal,
)

BPF_ANY: Final = 0
BPF_NOEXIST: Final = 1
BPF_EXIST: Final = 2
PERCPU_TYPES: Final = frozenset({5, 6, 10})  # enum bpf_map_type: percpu hash, percpu array, LRU percpu hash
BATCH: Final = 4096
NAME_LENGTH: Final = 15
"""Characters that the kernel keeps of a name."""
RUN_TIME: Final = 0  # enum bpf_stats_type
U8Array = npt.NDArray[np.uint8]


class MapType(IntEnum):
    """enum bpf_map_type, as far as maps are made from here."""

    ARRAY = 2
    LPM_TRIE = 11


class Map:
    """One BPF map, by file descriptor. Keys and values are bytes; per-CPU values are those of all CPUs in a row."""

    def __init__(self, fd: int, *, owns_fd: bool = True) -> None:
        self.fd = fd
        self._owns_fd = owns_fd
        info = MapInfo()
        length = ctypes.c_uint32(ctypes.sizeof(info))
        result = libbpf().lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(length))
        if result != 0:
            raise refusal("describe a map", result)
        self.name = bytes(info.name).decode()
        """As the kernel keeps it: at most 15 characters."""
        self.type = int(info.type)
        self.key_size = int(info.key_size)
        self.max_entries = int(info.max_entries)
        self.declared_value_size = int(info.value_size)
        self.value_size = self.declared_value_size
        """Bytes of a value as user space sees it."""
        if self.type in PERCPU_TYPES:
            self.value_size = (self.declared_value_size + 7) // 8 * 8 * possible_cpus()

    @classmethod
    def pinned(cls, path: Path) -> Self:
        """Open a pinned map.

        Raises: BpfError; its errno is ENOENT when nothing is pinned there.
        """
        return cls(open_pinned(path))

    @classmethod
    def create(cls, kind: MapType, name: str, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> Self:
        """Make a map that lives as long as somebody holds it; the kernel keeps NAME_LENGTH of its name."""
        options = MapCreateOptions(sz=ctypes.sizeof(MapCreateOptions), map_flags=flags)
        fd = libbpf().lib.bpf_map_create(
            int(kind), name[:NAME_LENGTH].encode(), key_size, value_size, max_entries, ctypes.byref(options)
        )
        if fd < 0:
            raise refusal(f"create map {name}", fd)
        return cls(fd)

    def pin(self, path: Path) -> None:
        """Give the map a name on the BPF file system."""
        result = libbpf().lib.bpf_obj_pin(self.fd, os.fsencode(path))
        if result != 0:
            raise refusal(f"pin {path}", result)

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        value = ctypes.create_string_buffer(self.value_size)
        result = libbpf().lib.bpf_map_lookup_elem(self.fd, self._key(key), value)
        if result == -errno.ENOENT:
            return None
        if result != 0:
            raise refusal(f"read map {self.name}", result)
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Set `key` to `value`."""
        if len(value) != self.value_size:
            raise ValueError(f"map {self.name} has values of {self.value_size} bytes, got {len(value)}")
        result = libbpf().lib.bpf_map_update_elem(self.fd, self._key(key), value, flags)
        if result != 0:
            raise refusal(f"write map {self.name}", result)

    def update_many(self, keys: U8Array, values: U8Array) -> None:
        """Set keys, shape (n, key_size), to values, shape (n, value_size), in one call."""
        if not len(keys):
            return
        keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
        if keys.shape != (len(keys), self.key_size) or values.shape != (len(keys), self.value_size):
            raise ValueError(f"map {self.name} has keys of {self.key_size} and values of {self.value_size} bytes")
        count = ctypes.c_uint32(len(keys))
        result = libbpf().lib.bpf_map_update_batch(
            self.fd,
            keys.ctypes.data_as(ctypes.c_void_p),
            values.ctypes.data_as(ctypes.c_void_p),
            ctypes.byref(count),
            None,
        )
        if result != 0:
            raise refusal(f"write map {self.name}", result)

    def set_fd(self, index: int, fd: int) -> None:
        """Put a program or perf event into an array of them."""
        self.update(index.to_bytes(4, "little"), fd.to_bytes(4, "little"))

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False when it was not there."""
        result = libbpf().lib.bpf_map_delete_elem(self.fd, self._key(key))
        if result == -errno.ENOENT:
            return False
        if result != 0:
            raise refusal(f"delete from map {self.name}", result)
        return True

    def dump(self) -> tuple[U8Array, U8Array]:
        """All keys and values, shapes (n, key_size) and (n, value_size). Not a snapshot: the kernel goes on writing."""
        parts = list(self._batches())
        if not parts:
            return np.empty((0, self.key_size), np.uint8), np.empty((0, self.value_size), np.uint8)
        keys, values = (np.concatenate(column) for column in zip(*parts, strict=True))
        return keys, values

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All entries of a small map."""
        keys, values = self.dump()
        for key, value in zip(keys, values, strict=True):
            yield key.tobytes(), value.tobytes()

    def all_keys(self) -> list[bytes]:
        """All keys of a small map, also of one whose values cannot be read (maps of maps)."""
        found: list[bytes] = []
        following = ctypes.create_string_buffer(self.key_size)
        while libbpf().lib.bpf_map_get_next_key(self.fd, found[-1] if found else None, following) == 0:
            found.append(following.raw)
        return found

    def delete_many(self, keys: U8Array) -> int:
        """Remove keys, shape (n, key_size); returns how many were there."""
        removed = 0
        left = np.ascontiguousarray(keys)
        while len(left):
            count = ctypes.c_uint32(len(left))
            pointer = left.ctypes.data_as(ctypes.c_void_p)
            result = libbpf().lib.bpf_map_delete_batch(self.fd, pointer, ctypes.byref(count), None)
            done = int(count.value)
            removed += done
            if result == 0:
                break
            if result != -errno.ENOENT:
                raise refusal(f"delete from map {self.name}", result)
            left = left[done + 1 :]  # the key after the last removed one had gone already
        return removed

    def count(self) -> int:
        """How many entries there are; of a map that changes meanwhile, about."""
        return sum(len(keys) for keys, _ in self._batches())

    def _batches(self) -> Iterator[tuple[U8Array, U8Array]]:
        lib = libbpf().lib
        capacity = min(BATCH, max(1, self.max_entries))
        # The kernel's cursor is a bucket number or a key: as large as the key, and at least 4 bytes.
        cursors = [ctypes.create_string_buffer(max(4, self.key_size)) for _ in range(2)]
        first = True
        while True:
            keys = np.empty((capacity, self.key_size), np.uint8)
            values = np.empty((capacity, self.value_size), np.uint8)
            count = ctypes.c_uint32(capacity)
            result = lib.bpf_map_lookup_batch(
                self.fd,
                None if first else cursors[0],
                cursors[1],
                keys.ctypes.data_as(ctypes.c_void_p),
                values.ctypes.data_as(ctypes.c_void_p),
                ctypes.byref(count),
                None,
            )
            if result == -errno.ENOSPC:  # one bucket holds more than the batch does
                capacity *= 2
                continue
            if result not in (0, -errno.ENOENT):
                raise refusal(f"read map {self.name}", result)
            if count.value:
                yield keys[: count.value], values[: count.value]
            if result == -errno.ENOENT:  # that was the last batch
                return
            cursors.reverse()
            first = False

    def _key(self, key: bytes) -> bytes:
        if len(key) != self.key_size:
            raise ValueError(f"map {self.name} has keys of {self.key_size} bytes, got {len(key)}")
        return key

    def close(self) -> None:
        """Close the descriptor; the map lives on while it is pinned or used."""
        if self._owns_fd and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(frozen=True, slots=True)
class RunResult:
    """What one bpf_prog_test_run did."""

    result: int
    """Return code of the (last run of the) program, TC_ACT_*."""
    duration_ns: int
    """Mean of all repeats."""
    packet: bytes
    """As the program left it."""


class Program:
    """One loaded program, by file descriptor."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd

    @classmethod
    def pinned(cls, path: Path) -> Self:
        """Open a pinned program."""
        return cls(path.name, open_pinned(path))

    @classmethod
    def of_id(cls, number: int) -> Self | None:
        """Open a program by the kernel's number for it, with the name that the kernel has kept; None: it is gone."""
        fd = int(libbpf().lib.bpf_prog_get_fd_by_id(number))
        if fd == -errno.ENOENT:
            return None
        if fd < 0:
            raise refusal(f"open program {number}", fd)
        program = cls("", fd)
        program.name = bytes(program._info().name).decode()
        return program

    def test_run(self, packet: bytes, repeat: int = 1, ifindex: int = 0, mark: int = 0) -> RunResult:
        """Run a tc program on a packet that goes nowhere (BPF_PROG_TEST_RUN); `ifindex` is in the caller's netns."""
        context = bytearray(192)  # struct __sk_buff; only a few fields may be set
        context[8:12] = mark.to_bytes(4, "little")
        context[40:44] = ifindex.to_bytes(4, "little")
        data_in = ctypes.create_string_buffer(packet, len(packet))
        context_in = ctypes.create_string_buffer(bytes(context), len(context))
        data_out = ctypes.create_string_buffer(len(packet) + 256)
        options = TestRunOptions(
            sz=ctypes.sizeof(TestRunOptions),
            data_in=ctypes.addressof(data_in),
            data_out=ctypes.addressof(data_out),
            data_size_in=len(packet),
            data_size_out=len(data_out),
            ctx_in=ctypes.addressof(context_in),
            ctx_size_in=len(context),
            repeat=repeat,
        )
        result = libbpf().lib.bpf_prog_test_run_opts(self.fd, ctypes.byref(options))
        if result != 0:
            raise refusal(f"run program {self.name}", result)
        return RunResult(int(options.retval), int(options.duration), data_out.raw[: options.data_size_out])

    def run_time(self) -> tuple[int, int]:
        """How often it ran while run times were measured (measure_run_time), and for how many nanoseconds in all."""
        info = self._info()
        return int(info.run_cnt), int(info.run_time_ns)

    def _info(self) -> ProgramInfo:
        info = ProgramInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        result = libbpf().lib.bpf_obj_get_info_by_fd(self.fd, ctypes.byref(info), ctypes.byref(size))
        if result != 0:
            raise refusal(f"ask about program {self.name}", result)
        return info

    def close(self) -> None:
        """Close the descriptor; the program lives on while it is pinned or attached."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class CgroupLink:
    """A program on a cgroup, for as long as somebody holds the link: a descriptor, or a pin."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def create(cls, program: Program, cgroup: int, kind: int) -> Self:
        """Put a program on a cgroup, given as a descriptor of its folder; `kind` is of enum bpf_attach_type."""
        fd = int(libbpf().lib.bpf_link_create(program.fd, cgroup, kind, None))
        if fd < 0:
            raise refusal(f"attach {program.name} to a cgroup", fd)
        return cls(fd)

    @classmethod
    def pinned(cls, path: Path) -> Self:
        """Open a pinned link."""
        return cls(open_pinned(path))

    def cgroup_id(self) -> int:
        """Which cgroup; 0 when it has been removed."""
        info = CgroupLinkInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        result = libbpf().lib.bpf_obj_get_info_by_fd(self.fd, ctypes.byref(info), ctypes.byref(size))
        if result != 0:
            raise refusal("ask about a link to a cgroup", result)
        return int(info.cgroup_id)

    def replace(self, program: Program) -> None:
        """Put another program in the place of the present one, in one step."""
        result = libbpf().lib.bpf_link_update(self.fd, program.fd, None)
        if result != 0:
            raise refusal(f"attach {program.name} to a cgroup", result)

    def pin(self, path: Path) -> None:
        """Give the link a name on the BPF file system: it outlives the process."""
        result = libbpf().lib.bpf_obj_pin(self.fd, os.fsencode(path))
        if result != 0:
            raise refusal(f"pin {path}", result)

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def measure_run_time() -> int:
    """Let the kernel measure how long every program runs, until the descriptor that this returns is closed.

    Costs each run of each program on the machine two readings of the clock (some 20 to 50 ns).
    """
    fd = int(libbpf().lib.bpf_enable_stats(RUN_TIME))
    if fd < 0:
        raise refusal("measure run times", fd)
    return fd
