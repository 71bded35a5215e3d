"""Programs and maps of one node: loaded, pinned, put on devices.

In:        the folder of the built objects, the folder of the node's pins, sizes of maps.
Out:       what stands pinned is what the objects say: programs of an earlier build go, maps stay.
Elsewhere: loader.py talks to libbpf; devices.py to the kernel's traffic control; datapath.py decides what goes where.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Final

from bpf import maps
from bpf.facts import MapSizes
from bpf.handles import Map, Program
from bpf.libbpf import BpfError
from bpf.loader import load_object

OBJECTS: Final = Path(__file__).parent / "build"
PROGRAM_FILES: Final = {
    "from_container": "tc_from_container.bpf.o",
    "container_translated": "tc_from_container.bpf.o",
    "to_container": "tc_to_container.bpf.o",
    "endpoint_ingress": "tail_endpoint_ingress.bpf.o",
    "endpoint_egress": "tc_from_container.bpf.o",
    "service": "tail_service.bpf.o",
    "reverse": "tail_service.bpf.o",
    "too_big": "tail_errors.bpf.o",
    "outside_error": "tail_errors.bpf.o",
    "denied": "tail_errors.bpf.o",
    "host_arrival": "tail_host_policy.bpf.o",
    "host_departure": "tail_host_policy.bpf.o",
    "from_overlay": "tc_from_overlay.bpf.o",
    "to_overlay": "tc_to_overlay.bpf.o",
    "from_host": "tc_from_host.bpf.o",
    "host_translated": "tc_from_host.bpf.o",
    "host_ingress": "tc_to_host.bpf.o",
    "from_netdev": "tc_from_netdev.bpf.o",
    "netdev_translated": "tc_from_netdev.bpf.o",
    "to_netdev": "tc_to_netdev.bpf.o",
}
CALLS: Final = {
    maps.CALL_SERVICE: "service",
    maps.CALL_CONTAINER_TRANSLATED: "container_translated",
    maps.CALL_HOST_TRANSLATED: "host_translated",
    maps.CALL_NETDEV_TRANSLATED: "netdev_translated",
    maps.CALL_REVERSE: "reverse",
    maps.CALL_HOST_ARRIVAL: "host_arrival",
    maps.CALL_HOST_DEPARTURE: "host_departure",
}
"""Programs that others continue in (include/calls.h)."""
ERROR_CALLS: Final = {
    maps.CALL_TOO_BIG: "too_big",
    maps.CALL_OUTSIDE_ERROR: "outside_error",
    maps.CALL_DENIED: "denied",
}
"""The same, about what cannot be sent on."""
MAP_NAMES: Final = (
    maps.EVENTS,
    maps.EVENT_STATS,
    maps.INSERTS,
    maps.METRICS,
    maps.CONFIG,
    maps.ENDPOINTS,
    maps.INTERFACES,
    maps.CALL_POLICY,
    maps.EGRESSCALL_POLICY,
    maps.POLICIES,
    maps.IPCACHE,
    maps.FRAGMENTS,
    maps.CALLS,
    maps.ERROR_CALLS,
    maps.NAT4,
    maps.NAT6,
    maps.NOT_MASQUERADED,
    maps.ANNOUNCED,
    maps.AUTH,
    maps.AUTH_WANTED,
    maps.AUTH_MISSED,
    *maps.CONNTRACK,
    *maps.SERVICES,
)


class NodePrograms:
    """The programs and maps of one node, by name. Nothing is open until they are."""

    def __init__(self, pin_dir: Path, objects: Path, sizes: MapSizes) -> None:
        self._pin_dir = pin_dir
        self._objects = objects
        self._sizes = sizes
        self.maps: dict[str, Map] = {}
        self.programs: dict[str, Program] = {}

    def load(self) -> None:
        """Load and pin what is not pinned and current; open it all, and tell the programs where they continue."""
        # bpffs refuses dots in names.
        program_dir = self._pin_dir / f"programs-{self._build_id()}"
        if not self._is_complete(program_dir):
            self._load_objects(program_dir)
        for stale in self._pin_dir.glob("programs-*"):
            if stale != program_dir:
                shutil.rmtree(stale)
        self.close()
        self.programs = {name: Program.pinned(program_dir / name) for name in PROGRAM_FILES}
        self.maps = {name: Map.pinned(self._pin_dir / name) for name in MAP_NAMES}
        for index, name in CALLS.items():
            self.maps[maps.CALLS].set_fd(index, self.programs[name].fd)
        for index, name in ERROR_CALLS.items():
            self.maps[maps.ERROR_CALLS].set_fd(index, self.programs[name].fd)

    def look(self) -> None:
        """Open the pinned maps only. Raises: BpfError when there are none."""
        self.close()
        self.maps = {name: Map.pinned(self._pin_dir / name) for name in MAP_NAMES}

    def close(self) -> None:
        """Close file descriptors; what is pinned stays."""
        for program in self.programs.values():
            program.close()
        for table in self.maps.values():
            table.close()
        self.programs, self.maps = {}, {}

    def _build_id(self) -> str:
        """Changes with the programs, so that an upgrade is loaded and a restart is not."""
        digest = hashlib.sha256()
        for file in sorted(set(PROGRAM_FILES.values())):
            path = self._objects / file
            if not path.exists():
                raise BpfError(f"{path} is missing: run `make -C bpf`")
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def _is_complete(self, program_dir: Path) -> bool:
        pins = [program_dir / name for name in PROGRAM_FILES] + [self._pin_dir / name for name in MAP_NAMES]
        return all(pin.exists() for pin in pins)

    def _load_objects(self, program_dir: Path) -> None:
        # Left half done by a crash, or bound to maps that are gone.
        shutil.rmtree(program_dir, ignore_errors=True)
        sizes = {
            maps.CT4_TCP: self._sizes.conntrack_tcp,
            maps.CT6_TCP: self._sizes.conntrack_tcp,
            maps.CT4_ANY: self._sizes.conntrack_any,
            maps.CT6_ANY: self._sizes.conntrack_any,
            maps.NAT4: self._sizes.nat,
            maps.NAT6: self._sizes.nat,
            maps.LB4_AFFINITY: self._sizes.affinity,
            maps.LB6_AFFINITY: self._sizes.affinity,
            maps.IPCACHE: self._sizes.ipcache,
            maps.FRAGMENTS: self._sizes.fragments,
        }
        for file in dict.fromkeys(PROGRAM_FILES.values()):
            load_object(self._objects / file, self._pin_dir, program_dir, sizes).close()
