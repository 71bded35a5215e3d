"""libbpf through ctypes: the library, the structures its calls take, and what its errors mean.

In:        libbpf.so.1.
Out:       `libbpf()`, whose `lib` is called by the modules beside this one; BpfError.
Elsewhere: handles.py has maps, programs and links; loader.py loads objects.

Every failure is a BpfError whose text is one line: what was tried, why the kernel refused, what helps.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path
from typing import Any


class BpfError(RuntimeError):
    """The kernel or libbpf refused; the text is one line that names the thing and the remedy."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.errno = number
        """From the failed call; 0 when there was none."""


class OpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts of libbpf 1.x, up to the fields used; sz tells libbpf how much is there."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
    )


class MapCreateOptions(ctypes.Structure):
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


class AttachOptions(ctypes.Structure):
    """struct bpf_prog_attach_opts of libbpf 1.x, up to the fields used."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("flags", ctypes.c_uint32),
        ("replace_prog_fd", ctypes.c_int),
    )


class TestRunOptions(ctypes.Structure):
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


class MapInfo(ctypes.Structure):
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


class CgroupLinkInfo(ctypes.Structure):
    """struct bpf_link_info of a link to a cgroup."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("cgroup_id", ctypes.c_uint64),
        ("attach_type", ctypes.c_uint32),
    )


class ProgramInfo(ctypes.Structure):
    """Start of struct bpf_prog_info, up to what is read of it."""

    _fields_ = (
        ("front", ctypes.c_uint8 * 64),
        ("name", ctypes.c_char * 16),
        ("middle", ctypes.c_uint8 * 112),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
    )


_PRINT_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class Libbpf:
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
            "bpf_prog_attach_opts": (number, number, number, number, pointer),
            "bpf_prog_detach2": (number, number, number, number),
            "bpf_prog_query": (number, number, number, size, pointer, pointer, pointer),
            "bpf_prog_get_fd_by_id": (number, size),
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
def libbpf() -> Libbpf:
    return Libbpf()


def possible_cpus() -> int:
    """Number of CPUs the kernel may ever have: slots of per-CPU maps and of the perf event array."""
    return int(libbpf().lib.libbpf_num_possible_cpus())


def refusal(what: str, number: int, detail: str = "") -> BpfError:
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


def open_pinned(path: Path) -> int:
    fd = int(libbpf().lib.bpf_obj_get(os.fsencode(path)))
    if fd < 0:
        raise refusal(f"open {path}", fd)
    return fd
