"""What the kernel is told about services: addresses that stand for backends.

In:        nothing; these are values.
Out:       the words in which the agent says what each frontend address should lead to.
Elsewhere: service_maps.py writes them into the kernel; mesh/services/ works them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from bpf import maps
from bpf.facts import Address, Prefix
from bpf.libbpf import BpfError

MAX_AFFINITY_S: Final = 0xFFFFFF


class FrontendKind(Enum):
    """What kind of address a frontend has; the value is its flags in the map."""

    CLUSTER_IP = 0
    OPEN_CLUSTER_IP = maps.SERVICE_ROUTABLE
    """A cluster address that clients outside may use, too."""
    NODE_PORT = maps.SERVICE_NODE_PORT | maps.SERVICE_ROUTABLE
    LOAD_BALANCER = maps.SERVICE_LOAD_BALANCER | maps.SERVICE_ROUTABLE
    EXTERNAL_IP = maps.SERVICE_EXTERNAL_IP | maps.SERVICE_ROUTABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Where connections of a service end. Equal backends of several services share one id."""

    address: Address
    port: int
    terminating: bool = False
    """It keeps the connections it has, and gets new ones only when the service has no other backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """An address of a service."""

    address: Address
    port: int
    protocol: int
    """6 TCP, 17 UDP or 132 SCTP."""
    internal: bool = False
    """What clients inside the cluster get, where that differs from what clients outside get."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFrontend:
    """A frontend and where it leads."""

    frontend: Frontend
    backends: tuple[Backend, ...]
    kind: FrontendKind
    affinity_s: int = 0
    """Seconds for which a client keeps its backend; 0: no session affinity."""
    local_only: bool = False
    """Traffic policy Local; `backends` are those of this node only."""
    maglev: bool = False
    """Clients outside get backends by consistent hashing instead of at random."""
    source_ranges: tuple[Prefix, ...] = ()
    """Who may come from outside; empty: everybody."""
    l7_port: int = 0
    """Port of the proxy that chooses the backends; 0: the kernel does."""


class ServicesTooLarge(BpfError):
    """More services or backends than the maps hold; nothing was changed."""


def check(service: ServiceFrontend) -> None:
    """Raises: ValueError for values that no packet can have."""
    frontend = service.frontend
    for port in (frontend.port, *(backend.port for backend in service.backends)):
        if not 1 <= port <= 65535:
            raise ValueError(f"a port is 1 to 65535, got {port} for the service at {frontend.address}")
    if frontend.protocol not in (6, 17, 132):
        raise ValueError(f"a service speaks TCP (6), UDP (17) or SCTP (132), got protocol {frontend.protocol}")
    if not 0 <= service.affinity_s <= MAX_AFFINITY_S:
        raise ValueError(f"session affinity lasts 0 to {MAX_AFFINITY_S} seconds, got {service.affinity_s}")
    for backend in service.backends:
        if backend.address.version != frontend.address.version:
            raise ValueError(f"backend {backend.address} cannot serve {frontend.address}: another IP version")
