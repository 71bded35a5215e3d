"""Load object files: programs and maps into the kernel, pinned by name.

In:        objects built by bpf/Makefile, a folder on a BPF file system to pin into.
Out:       Program and Map objects, which hold file descriptors.
Elsewhere: devices.py puts programs on network devices; handles.py is what can be done with the objects.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bpf.handles import Map, Program
from bpf.libbpf import BpfError, OpenOptions, libbpf, refusal

MINIMUM_KERNEL: Final = (5, 14)
"""bpf_redirect_peer with scrubbed packets, bpf_ktime_get_coarse_ns, batch reads of every map type used."""


def require_kernel() -> None:
    """Raise BpfError when the kernel is too old, with its version."""
    release = platform.release()
    parts = release.split("-")[0].split(".")
    version = tuple(int(part) for part in parts[:2] if part.isdigit())
    if version < MINIMUM_KERNEL:
        wanted = ".".join(map(str, MINIMUM_KERNEL))
        raise BpfError(f"kernel {release} is too old for the datapath: it needs {wanted} or newer")


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
    library = libbpf()
    lib = library.lib
    library.lines.clear()
    if not path.exists():
        raise BpfError(f"{path} is missing: run `make -C bpf`")
    map_dir.mkdir(parents=True, exist_ok=True)
    options = OpenOptions(sz=ctypes.sizeof(OpenOptions), pin_root_path=os.fsencode(map_dir))
    handle = lib.bpf_object__open_file(os.fsencode(path), ctypes.byref(options))
    if not handle:
        raise refusal(f"open {path.name}", ctypes.get_errno(), library.explain())
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
    return refusal(f"load {path.name}", number, detail)


def _pin_program(lib: Any, handle: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    result = lib.bpf_program__pin(handle, os.fsencode(path))
    if result != 0:
        raise refusal(f"pin {path}", result)
