"""libbpf through ctypes: load programs, pin them, read and write maps.

In:        objects built by bpf/Makefile, a folder on a BPF file system to pin into.
Out:       Program and Map objects, which hold file descriptors.
Elsewhere: devices.py puts programs on network devices; maps.py knows what keys and values mean.

Every failure is a BpfError whose text is one line: what was tried, why the kernel refused, what helps.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

BPF_FS_MAGIC: Final = 0xCAFE4A11
DEFAULT_BPFFS: Final = Path("/sys/fs/bpf")
MINIMUM_KERNEL: Final = (5, 14)
"""bpf_redirect_peer with scrubbed packets, bpf_ktime_get_coarse_ns, batch reads of every map type used."""

BPF_ANY: Final = 0
BPF_NOEXIST: Final = 1
BPF_EXIST: Final = 2

PERCPU_TYPES: Final = frozenset({5, 6, 10})  # enum bpf_map_type: percpu hash, percpu array, LRU percpu hash
BATCH: Final = 4096
RUN_TIME: Final = 0  # enum bpf_stats_type

U8Array = npt.NDArray[np.uint8]


class MapType(IntEnum):
    """enum bpf_map_type, as far as maps are made from here."""

    ARRAY = 2
    LPM_TRIE = 11


class BpfError(RuntimeError):
    """The kernel or libbpf refused; the text is one line that names the thing and the remedy."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.errno = number
        """From the failed call; 0 when there was none."""


class _OpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts of libbpf 1.x, up to the fields used; sz tells libbpf how much is there."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
    )


class _MapCreateOptions(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.x, up to the fields used."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )


class _TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts of libbpf 1.x."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


class _MapInfo(ctypes.Structure):
    """Start of struct bpf_map_info (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


class _CgroupLinkInfo(ctypes.Structure):
    """struct bpf_link_info of a link to a cgroup."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("cgroup_id", ctypes.c_uint64),
        ("attach_type", ctypes.c_uint32),
    )


class _ProgramInfo(ctypes.Structure):
    """Start of struct bpf_prog_info, up to what is read of it."""

    _fields_ = (
        ("front", ctypes.c_uint8 * 192),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
    )


_PRINT_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class _Libbpf:
    """The shared library, with argument types for what is called, and the last lines it printed."""

    def __init__(self) -> None:
        try:
            self.lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError:
            raise BpfError("libbpf.so.1 is not installed: apt-get install libbpf1 (or run `make setup`)") from None
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.lines: list[str] = []
        self._declare()
        # Kept in an attribute: the library holds the pointer for good.
        self._callback = _PRINT_CALLBACK(self._print)
        self.lib.libbpf_set_print(self._callback)

    def _declare(self) -> None:
        pointer, text, number, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32
        u64 = ctypes.c_uint64
        signatures: dict[str, tuple[Any, ...]] = {
            "libbpf_num_possible_cpus": (number,),
            "bpf_object__open_file": (pointer, text, pointer),
            "bpf_object__load": (number, pointer),
            "bpf_object__close": (None, pointer),
            "bpf_object__next_map": (pointer, pointer, pointer),
            "bpf_object__next_program": (pointer, pointer, pointer),
            "bpf_map__name": (text, pointer),
            "bpf_map__fd": (number, pointer),
            "bpf_map__set_max_entries": (number, pointer, size),
            "bpf_program__name": (text, pointer),
            "bpf_program__fd": (number, pointer),
            "bpf_program__pin": (number, pointer, text),
            "bpf_link_create": (number, number, number, number, pointer),
            "bpf_link_update": (number, number, number, pointer),
            "bpf_obj_get": (number, text),
            "bpf_obj_pin": (number, number, text),
            "bpf_map_create": (number, number, text, size, size, size, pointer),
            "bpf_obj_get_info_by_fd": (number, number, pointer, pointer),
            "bpf_map_lookup_elem": (number, number, pointer, pointer),
            "bpf_map_update_elem": (number, number, pointer, pointer, u64),
            "bpf_map_delete_elem": (number, number, pointer),
            "bpf_map_get_next_key": (number, number, pointer, pointer),
            "bpf_map_lookup_batch": (number, number, pointer, pointer, pointer, pointer, pointer, pointer),
            "bpf_map_update_batch": (number, number, pointer, pointer, pointer, pointer),
            "bpf_map_delete_batch": (number, number, pointer, pointer, pointer),
            "bpf_prog_test_run_opts": (number, number, pointer),
            "bpf_enable_stats": (number, number),
        }
        for name, (result, *arguments) in signatures.items():
            function = getattr(self.lib, name)
            function.restype = result
            function.argtypes = arguments
        # A va_list travels as a pointer on amd64 and arm64, so vsnprintf takes it as it came.
        self.libc.vsnprintf.argtypes = (text, ctypes.c_size_t, text, pointer)

    def _print(self, level: int, form: bytes, arguments: int) -> int:
        if level > 0:  # keep warnings only; LIBBPF_WARN is 0
            return 0
        line = ctypes.create_string_buffer(65536)
        self.libc.vsnprintf(line, len(line), form, arguments)
        self.lines.extend(line.value.decode(errors="replace").splitlines())
        del self.lines[:-200]
        return 0

    def explain(self) -> str:
        """The line of libbpf's own output, or of the verifier's, that says most."""
        lines, self.lines = self.lines, []
        verifier = _between(lines, "-- BEGIN PROG LOAD LOG --", "-- END PROG LOAD LOG --")
        told = [line for line in verifier if line and not line.startswith(("processed ", "libbpf:"))]
        if told:
            return "verifier: " + " | ".join(line.strip() for line in told[-2:])
        # The first line is the cause; the ones after it are what followed from it.
        return lines[0].removeprefix("libbpf: ").strip() if lines else ""


def _between(lines: list[str], begin: str, end: str) -> list[str]:
    starts = [index for index, line in enumerate(lines) if begin in line]
    if not starts:
        return []
    rest = lines[starts[-1] + 1 :]
    ends = [index for index, line in enumerate(rest) if end in line]
    return rest[: ends[0]] if ends else rest


@cache
def _libbpf() -> _Libbpf:
    return _Libbpf()


def possible_cpus() -> int:
    """Number of CPUs the kernel may ever have: slots of per-CPU maps and of the perf event array."""
    return int(_libbpf().lib.libbpf_num_possible_cpus())


def _error(what: str, number: int, detail: str = "") -> BpfError:
    """A BpfError with the remedy that fits the error number."""
    number = abs(number)
    remedies = {
        errno.EPERM: "needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        errno.EACCES: "the verifier refused it",
        errno.ENOENT: "not there: has the agent of this node been started?",
        errno.E2BIG: "the map is full",
        errno.ENOSPC: "the map is full",
        errno.ENOMEM: "no memory: choose smaller map sizes",
        errno.ENOSYS: "this kernel has no eBPF (CONFIG_BPF_SYSCALL)",
    }
    reason = remedies.get(number, os.strerror(number))
    if number == errno.EACCES and not detail.startswith("verifier"):
        reason = "permission denied"
    if detail:
        reason = f"{reason} ({detail})"
    return BpfError(f"{what}: {reason}", number)


def require_kernel() -> None:
    """Raise BpfError when the kernel is too old, with its version."""
    release = platform.release()
    parts = release.split("-")[0].split(".")
    version = tuple(int(part) for part in parts[:2] if part.isdigit())
    if version < MINIMUM_KERNEL:
        wanted = ".".join(map(str, MINIMUM_KERNEL))
        raise BpfError(f"kernel {release} is too old for the datapath: it needs {wanted} or newer")


def is_bpffs(path: Path) -> bool:
    """Is `path` on a mounted BPF file system?"""
    buffer = ctypes.create_string_buffer(256)
    if _libbpf().libc.statfs(os.fsencode(path), buffer) != 0:
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
    libc = _libbpf().libc
    if libc.mount(b"bpf", os.fsencode(path), b"bpf", ctypes.c_ulong(0), b"mode=0700") != 0:
        number = ctypes.get_errno()
        raise BpfError(
            f"no BPF file system at {path} and none could be mounted ({os.strerror(number)}): "
            f"run `mount -t bpf bpf {path}` as root",
            number,
        )


class Map:
    """One BPF map, by file descriptor. Keys and values are bytes; per-CPU values are those of all CPUs in a row."""

    def __init__(self, fd: int, *, owns_fd: bool = True) -> None:
        self.fd = fd
        self._owns_fd = owns_fd
        info = _MapInfo()
        length = ctypes.c_uint32(ctypes.sizeof(info))
        result = _libbpf().lib.bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(length))
        if result != 0:
            raise _error("describe a map", result)
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
        return cls(_open_pinned(path))

    @classmethod
    def create(cls, kind: MapType, name: str, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> Self:
        """Make a map that lives as long as somebody holds it; the kernel keeps 15 characters of its name."""
        options = _MapCreateOptions(sz=ctypes.sizeof(_MapCreateOptions), map_flags=flags)
        fd = _libbpf().lib.bpf_map_create(
            int(kind), name[:15].encode(), key_size, value_size, max_entries, ctypes.byref(options)
        )
        if fd < 0:
            raise _error(f"create map {name}", fd)
        return cls(fd)

    def pin(self, path: Path) -> None:
        """Give the map a name on the BPF file system."""
        result = _libbpf().lib.bpf_obj_pin(self.fd, os.fsencode(path))
        if result != 0:
            raise _error(f"pin {path}", result)

    def lookup(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        value = ctypes.create_string_buffer(self.value_size)
        result = _libbpf().lib.bpf_map_lookup_elem(self.fd, self._key(key), value)
        if result == -errno.ENOENT:
            return None
        if result != 0:
            raise _error(f"read map {self.name}", result)
        return value.raw

    def update(self, key: bytes, value: bytes, flags: int = BPF_ANY) -> None:
        """Set `key` to `value`."""
        if len(value) != self.value_size:
            raise ValueError(f"map {self.name} has values of {self.value_size} bytes, got {len(value)}")
        result = _libbpf().lib.bpf_map_update_elem(self.fd, self._key(key), value, flags)
        if result != 0:
            raise _error(f"write map {self.name}", result)

    def update_many(self, keys: U8Array, values: U8Array) -> None:
        """Set keys, shape (n, key_size), to values, shape (n, value_size), in one call."""
        if not len(keys):
            return
        keys, values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
        if keys.shape != (len(keys), self.key_size) or values.shape != (len(keys), self.value_size):
            raise ValueError(f"map {self.name} has keys of {self.key_size} and values of {self.value_size} bytes")
        count = ctypes.c_uint32(len(keys))
        result = _libbpf().lib.bpf_map_update_batch(
            self.fd,
            keys.ctypes.data_as(ctypes.c_void_p),
            values.ctypes.data_as(ctypes.c_void_p),
            ctypes.byref(count),
            None,
        )
        if result != 0:
            raise _error(f"write map {self.name}", result)

    def set_fd(self, index: int, fd: int) -> None:
        """Put a program or perf event into an array of them."""
        self.update(index.to_bytes(4, "little"), fd.to_bytes(4, "little"))

    def delete(self, key: bytes) -> bool:
        """Remove `key`; False when it was not there."""
        result = _libbpf().lib.bpf_map_delete_elem(self.fd, self._key(key))
        if result == -errno.ENOENT:
            return False
        if result != 0:
            raise _error(f"delete from map {self.name}", result)
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
        while _libbpf().lib.bpf_map_get_next_key(self.fd, found[-1] if found else None, following) == 0:
            found.append(following.raw)
        return found

    def delete_many(self, keys: U8Array) -> int:
        """Remove keys, shape (n, key_size); returns how many were there."""
        removed = 0
        left = np.ascontiguousarray(keys)
        while len(left):
            count = ctypes.c_uint32(len(left))
            pointer = left.ctypes.data_as(ctypes.c_void_p)
            result = _libbpf().lib.bpf_map_delete_batch(self.fd, pointer, ctypes.byref(count), None)
            done = int(count.value)
            removed += done
            if result == 0:
                break
            if result != -errno.ENOENT:
                raise _error(f"delete from map {self.name}", result)
            left = left[done + 1 :]  # the key after the last removed one had gone already
        return removed

    def count(self) -> int:
        """How many entries there are; of a map that changes meanwhile, about."""
        return sum(len(keys) for keys, _ in self._batches())

    def _batches(self) -> Iterator[tuple[U8Array, U8Array]]:
        lib = _libbpf().lib
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
                raise _error(f"read map {self.name}", result)
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
        return cls(path.name, _open_pinned(path))

    def test_run(self, packet: bytes, repeat: int = 1, ifindex: int = 0, mark: int = 0) -> RunResult:
        """Run a tc program on a packet that goes nowhere (BPF_PROG_TEST_RUN); `ifindex` is in the caller's netns."""
        context = bytearray(192)  # struct __sk_buff; only a few fields may be set
        context[8:12] = mark.to_bytes(4, "little")
        context[40:44] = ifindex.to_bytes(4, "little")
        data_in = ctypes.create_string_buffer(packet, len(packet))
        context_in = ctypes.create_string_buffer(bytes(context), len(context))
        data_out = ctypes.create_string_buffer(len(packet) + 256)
        options = _TestRunOptions(
            sz=ctypes.sizeof(_TestRunOptions),
            data_in=ctypes.addressof(data_in),
            data_out=ctypes.addressof(data_out),
            data_size_in=len(packet),
            data_size_out=len(data_out),
            ctx_in=ctypes.addressof(context_in),
            ctx_size_in=len(context),
            repeat=repeat,
        )
        result = _libbpf().lib.bpf_prog_test_run_opts(self.fd, ctypes.byref(options))
        if result != 0:
            raise _error(f"run program {self.name}", result)
        return RunResult(int(options.retval), int(options.duration), data_out.raw[: options.data_size_out])

    def run_time(self) -> tuple[int, int]:
        """How often it ran while run times were measured (measure_run_time), and for how many nanoseconds in all."""
        info = _ProgramInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        result = _libbpf().lib.bpf_obj_get_info_by_fd(self.fd, ctypes.byref(info), ctypes.byref(size))
        if result != 0:
            raise _error(f"ask about program {self.name}", result)
        return int(info.run_cnt), int(info.run_time_ns)

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
        fd = int(_libbpf().lib.bpf_link_create(program.fd, cgroup, kind, None))
        if fd < 0:
            raise _error(f"attach {program.name} to a cgroup", fd)
        return cls(fd)

    @classmethod
    def pinned(cls, path: Path) -> Self:
        """Open a pinned link."""
        return cls(_open_pinned(path))

    def cgroup_id(self) -> int:
        """Which cgroup; 0 when it has been removed."""
        info = _CgroupLinkInfo()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        result = _libbpf().lib.bpf_obj_get_info_by_fd(self.fd, ctypes.byref(info), ctypes.byref(size))
        if result != 0:
            raise _error("ask about a link to a cgroup", result)
        return int(info.cgroup_id)

    def replace(self, program: Program) -> None:
        """Put another program in the place of the present one, in one step."""
        result = _libbpf().lib.bpf_link_update(self.fd, program.fd, None)
        if result != 0:
            raise _error(f"attach {program.name} to a cgroup", result)

    def pin(self, path: Path) -> None:
        """Give the link a name on the BPF file system: it outlives the process."""
        result = _libbpf().lib.bpf_obj_pin(self.fd, os.fsencode(path))
        if result != 0:
            raise _error(f"pin {path}", result)

    def close(self) -> None:
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def measure_run_time() -> int:
    """Let the kernel measure how long every program runs, until the descriptor that this returns is closed.

    Costs each run of each program on the machine two readings of the clock (some 20 to 50 ns).
    """
    fd = int(_libbpf().lib.bpf_enable_stats(RUN_TIME))
    if fd < 0:
        raise _error("measure run times", fd)
    return fd


def _open_pinned(path: Path) -> int:
    fd = int(_libbpf().lib.bpf_obj_get(os.fsencode(path)))
    if fd < 0:
        raise _error(f"open {path}", fd)
    return fd


@dataclass(slots=True)
class Loaded:
    """Programs and maps of one object file, with descriptors of their own."""

    programs: dict[str, Program] = field(default_factory=dict)
    maps: dict[str, Map] = field(default_factory=dict)

    def close(self) -> None:
        """Close all descriptors."""
        for program in self.programs.values():
            program.close()
        for bpf_map in self.maps.values():
            bpf_map.close()


def load_object(
    path: Path, map_dir: Path, program_dir: Path | None = None, sizes: Mapping[str, int] | None = None
) -> Loaded:
    """Load one object; maps pinned in `map_dir` are used again, others are made and pinned there.

    `sizes` are entries by map name, for maps that are made now: a map that exists keeps its size, because with it
    live the connections it holds. Programs are pinned by name in `program_dir`.
    """
    library = _libbpf()
    lib = library.lib
    library.lines.clear()
    if not path.exists():
        raise BpfError(f"{path} is missing: run `make -C bpf`")
    map_dir.mkdir(parents=True, exist_ok=True)
    options = _OpenOptions(sz=ctypes.sizeof(_OpenOptions), pin_root_path=os.fsencode(map_dir))
    handle = lib.bpf_object__open_file(os.fsencode(path), ctypes.byref(options))
    if not handle:
        raise _error(f"open {path.name}", ctypes.get_errno(), library.explain())
    try:
        for map_handle in _walk(lib.bpf_object__next_map, handle):
            _set_size(lib, map_handle, map_dir, sizes or {})
        result = lib.bpf_object__load(handle)
        if result != 0:
            raise _load_error(path, map_dir, result, library.explain())
        loaded = Loaded()
        for map_handle in _walk(lib.bpf_object__next_map, handle):
            name = lib.bpf_map__name(map_handle).decode()
            loaded.maps[name] = Map(os.dup(lib.bpf_map__fd(map_handle)))
        for program_handle in _walk(lib.bpf_object__next_program, handle):
            name = lib.bpf_program__name(program_handle).decode()
            loaded.programs[name] = Program(name, os.dup(lib.bpf_program__fd(program_handle)))
            if program_dir is not None:
                _pin_program(lib, program_handle, program_dir / name)
        return loaded
    finally:
        lib.bpf_object__close(handle)


def _walk(step: Callable[[int, int | None], int | None], handle: int) -> Iterator[int]:
    at = step(handle, None)
    while at:
        yield at
        at = step(handle, at)


def _set_size(lib: Any, map_handle: int, map_dir: Path, sizes: Mapping[str, int]) -> None:
    name = lib.bpf_map__name(map_handle).decode()
    entries = sizes.get(name)
    if (map_dir / name).exists():
        existing = Map.pinned(map_dir / name)
        entries = existing.max_entries
        existing.close()
    if entries is not None:
        lib.bpf_map__set_max_entries(map_handle, entries)


def _load_error(path: Path, map_dir: Path, number: int, detail: str) -> BpfError:
    if "reuse pinned map" in detail or "parameter mismatch" in detail:
        return BpfError(
            f"load {path.name}: maps pinned in {map_dir} have another layout, from another version: "
            "stop the agent, unload that node's datapath (`flowscope lab down` for a lab) and start again",
            abs(number),
        )
    return _error(f"load {path.name}", number, detail)


def _pin_program(lib: Any, handle: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    result = lib.bpf_program__pin(handle, os.fsencode(path))
    if result != 0:
        raise _error(f"pin {path}", result)
