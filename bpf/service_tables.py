"""Services as tables: what each map has to hold, and what the maps hold as services.

In:        services; the numbers (backend ids, service indices) that the present tables use.
Out:       keys and values of the service maps, in which numbers keep their meaning; and services from such tables.
Elsewhere: service_maps.py reads and writes the maps; services.py has the values; maglev.py computes tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final, NamedTuple

import numpy as np

from bpf import maps
from bpf.facts import Address, Prefix
from bpf.services import MAX_AFFINITY_S, Backend, Frontend, FrontendKind, ServiceFrontend, ServicesTooLarge

MAX_INDEX: Final = 65535

Table = dict[bytes, bytes]
Tables = dict[str, Table]
"""Contents of maps by name; frontends and slots of one map are two tables (`FRONTENDS`)."""

MaglevSet = frozenset[tuple[str, int]]
"""Names and ids of the backends in a Maglev table."""

FRONTENDS: Final = " frontends"
"""Follows the map's name in `Tables`: entries of slot 0, which make the others reachable."""

TABLE_ORDER: Final = (
    maps.LB4_BACKENDS,
    maps.LB6_BACKENDS,
    maps.LB4_REVERSE_NAT,
    maps.LB6_REVERSE_NAT,
    maps.AFFINITY_MATCH,
    maps.LB4_SOURCE_RANGE,
    maps.LB6_SOURCE_RANGE,
    maps.LB4_SERVICES,
    maps.LB6_SERVICES,
    maps.LB4_SERVICES + FRONTENDS,
    maps.LB6_SERVICES + FRONTENDS,
)
"""In which tables are written; they are cleaned in the opposite order."""


class Numbers(NamedTuple):
    """Ids in use: they stay with what they were given to."""

    backends: dict[tuple[Address, int], int]
    indices: dict[Frontend, int]


def compile_services(services: list[ServiceFrontend], used: Numbers) -> tuple[Tables, dict[int, MaglevSet]]:
    """Tables that say this, keeping the numbers in use; and what stands in each Maglev table, by index."""
    tables: Tables = {name: {} for name in TABLE_ORDER}
    maglev: dict[int, MaglevSet] = {}
    ids = _give_numbers(
        used.backends, ((backend.address, backend.port) for each in services for backend in each.backends)
    )
    indices = _give_numbers(used.indices, (each.frontend for each in services))
    if indices and max(indices.values()) > MAX_INDEX:
        indices = _squeeze(indices, used.indices)
    two_scopes = {_external(each.frontend) for each in services if each.frontend.internal}
    ended: dict[tuple[Address, int], bool] = {}
    for each in services:
        for backend in each.backends:
            ended[backend.address, backend.port] = backend.terminating and ended.get(
                (backend.address, backend.port), True
            )
    for (address, port), terminating in ended.items():
        name = maps.LB4_BACKENDS if address.version == 4 else maps.LB6_BACKENDS
        tables[name][ids[address, port].to_bytes(4, "little")] = _backend(address, port, terminating)
    for each in services:
        index, address = indices[each.frontend], each.frontend.address
        # Those for new connections first; the others stand behind them, for whoever reads the maps.
        backends = sorted(dict.fromkeys(each.backends), key=lambda backend: backend.terminating)
        numbers = [ids[backend.address, backend.port] for backend in backends]
        active = sum(not backend.terminating for backend in backends) or len(backends)
        _add_slots(tables, each, numbers, active, index, each.frontend in two_scopes)
        reverse = maps.LB4_REVERSE_NAT if address.version == 4 else maps.LB6_REVERSE_NAT
        tables[reverse][index_key(index)] = address.packed + each.frontend.port.to_bytes(2, "big")
        if each.affinity_s:
            for number in numbers[:active]:
                match = np.zeros(1, maps.AFFINITY_MATCH_KEY)
                match["backend_id"], match["rev_nat_index_be"] = number, index
                tables[maps.AFFINITY_MATCH][match.tobytes()] = b"\1"
        for prefix in each.source_ranges:
            if prefix.version == address.version:
                ranges = maps.LB4_SOURCE_RANGE if address.version == 4 else maps.LB6_SOURCE_RANGE
                tables[ranges][_source_range(index, prefix)] = b"\1"
        if each.maglev and active:
            chosen = zip(backends[:active], numbers, strict=False)
            maglev[index] = frozenset((f"{one.address} {one.port}", number) for one, number in chosen)
    return tables, maglev


def _add_slots(
    tables: Tables, service: ServiceFrontend, numbers: list[int], active: int, index: int, two_scopes: bool
) -> None:
    frontend = service.frontend
    name = maps.LB4_SERVICES if frontend.address.version == 4 else maps.LB6_SERVICES
    value = np.zeros(1, maps.LB_SERVICE)
    for slot, number in enumerate(numbers, 1):
        value["target"], value["rev_nat_index_be"] = number, index
        tables[name][_service_key(frontend, slot)] = value.tobytes()
    flags = service.kind.value
    flags |= maps.SERVICE_EXTERNAL_LOCAL if service.local_only else 0
    flags |= maps.SERVICE_AFFINITY if service.affinity_s else 0
    flags |= maps.SERVICE_SOURCE_RANGES if service.source_ranges else 0
    value["count"], value["quarantined"] = active, len(numbers) - active
    value["rev_nat_index_be"], value["flags"] = index, flags
    value["flags2"] = maps.SERVICE2_TWO_SCOPES if two_scopes else 0
    if service.l7_port:
        value["flags2"] |= maps.SERVICE2_L7
        value["target"] = int.from_bytes(service.l7_port.to_bytes(2, "big"), "little")
    else:
        algorithm = maps.ALGORITHM_MAGLEV if service.maglev else maps.ALGORITHM_RANDOM
        value["target"] = service.affinity_s | algorithm << maps.ALGORITHM_SHIFT
    tables[name + FRONTENDS][_service_key(frontend, 0)] = value.tobytes()
    if service.kind not in (FrontendKind.NODE_PORT, FrontendKind.EXTERNAL_IP):
        # Nobody else has the address: what is sent to its other ports ends here.
        whole = Frontend(address=frontend.address, port=0, protocol=0)
        tables[name + FRONTENDS][_service_key(whole, 0)] = bytes(maps.LB_SERVICE.itemsize)


def _external(frontend: Frontend) -> Frontend:
    return Frontend(address=frontend.address, port=frontend.port, protocol=frontend.protocol)


def _give_numbers(used: Mapping[Any, int], wanted: Iterable[Any]) -> dict[Any, int]:
    """A number for each: what it had, or one above all that are used, so that no number soon means something else."""
    following = max(used.values(), default=0) + 1
    numbers: dict[Any, int] = {}
    for one in wanted:
        if one not in numbers:
            number = used.get(one)
            if number is None:
                number, following = following, following + 1
            numbers[one] = number
    return numbers


def _squeeze(numbers: dict[Frontend, int], used: Mapping[Frontend, int]) -> dict[Frontend, int]:
    """Indices above the last possible one get the lowest that are free."""
    taken = {number for number in numbers.values() if number <= MAX_INDEX} | set(used.values())
    free = (number for number in range(1, MAX_INDEX + 1) if number not in taken)
    result = {}
    for frontend, number in numbers.items():
        chosen = number if number <= MAX_INDEX else next(free, None)
        if chosen is None:
            raise ServicesTooLarge(f"{len(numbers)} service addresses are more than the {MAX_INDEX} possible")
        result[frontend] = chosen
    return result


def index_key(index: int) -> bytes:
    """A service index as maps have it."""
    return index.to_bytes(2, "big")


def _service_key(frontend: Frontend, slot: int) -> bytes:
    key = np.zeros(1, maps.LB4_KEY if frontend.address.version == 4 else maps.LB6_KEY)
    key["address"] = np.frombuffer(frontend.address.packed, np.uint8)
    key["dport"], key["slot"], key["protocol"], key["scope"] = frontend.port, slot, frontend.protocol, frontend.internal
    return key.tobytes()


def _backend(address: Address, port: int, terminating: bool) -> bytes:
    value = np.zeros(1, maps.LB4_BACKEND if address.version == 4 else maps.LB6_BACKEND)
    value["address"] = np.frombuffer(address.packed, np.uint8)
    value["port"], value["state"] = port, terminating
    return value.tobytes()


def _source_range(index: int, prefix: Prefix) -> bytes:
    key = np.zeros(1, maps.SOURCE_RANGE_KEY)
    key["prefix_length"] = maps.SOURCE_RANGE_STATIC_BITS + prefix.prefixlen
    key["rev_nat_index_be"] = index
    key["address"] = maps.address_bytes(prefix.network_address)
    return key.tobytes()


# ---- from tables to services ----


def frontends(tables: Tables) -> dict[Frontend, Any]:
    """Values of slot 0 by frontend; entries for whole addresses are left out."""
    found = {}
    for name, dtype in ((maps.LB4_SERVICES, maps.LB4_KEY), (maps.LB6_SERVICES, maps.LB6_KEY)):
        for raw, value in tables[name + FRONTENDS].items():
            key = np.frombuffer(raw, dtype)[0]
            if key["dport"]:
                found[_frontend(key)] = np.frombuffer(value, maps.LB_SERVICE)[0]
    return found


def _frontend(key: Any) -> Frontend:
    raw = key["address"].tobytes()
    return Frontend(
        address=IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw),
        port=int(key["dport"]),
        protocol=int(key["protocol"]),
        internal=bool(key["scope"]),
    )


def _backends(tables: Tables) -> dict[int, Backend]:
    found = {}
    for name, dtype in ((maps.LB4_BACKENDS, maps.LB4_BACKEND), (maps.LB6_BACKENDS, maps.LB6_BACKEND)):
        for number, value in tables[name].items():
            one = np.frombuffer(value, dtype)[0]
            raw = one["address"].tobytes()
            found[int.from_bytes(number, "little")] = Backend(
                address=IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw),
                port=int(one["port"]),
                terminating=bool(one["state"]),
            )
    return found


def numbers_in(tables: Tables) -> Numbers:
    """Which numbers the tables use."""
    return Numbers(
        {(backend.address, backend.port): number for number, backend in _backends(tables).items()},
        {frontend: int(value["rev_nat_index_be"]) for frontend, value in frontends(tables).items()},
    )


def decompile(tables: Tables) -> list[ServiceFrontend]:
    """The services that tables say."""
    backends = _backends(tables)
    ranges = defaultdict(list)
    for name in (maps.LB4_SOURCE_RANGE, maps.LB6_SOURCE_RANGE):
        for raw in tables[name]:
            key = np.frombuffer(raw, maps.SOURCE_RANGE_KEY)[0]
            family = maps.FAMILY_IPV4 if name == maps.LB4_SOURCE_RANGE else maps.FAMILY_IPV6
            length = int(key["prefix_length"]) - maps.SOURCE_RANGE_STATIC_BITS
            ranges[int(key["rev_nat_index_be"])].append(ip_network((maps.address_from(key["address"], family), length)))
    services = []
    for frontend, value in frontends(tables).items():
        name = maps.LB4_SERVICES if frontend.address.version == 4 else maps.LB6_SERVICES
        slots = (_service_key(frontend, slot) for slot in range(1, int(value["count"] + value["quarantined"]) + 1))
        numbers = [
            int(np.frombuffer(tables[name][key], maps.LB_SERVICE)[0]["target"]) for key in slots if key in tables[name]
        ]
        flags, target, l7 = int(value["flags"]), int(value["target"]), bool(value["flags2"] & maps.SERVICE2_L7)
        services.append(
            ServiceFrontend(
                frontend=frontend,
                backends=tuple(backends[number] for number in numbers if number in backends),
                kind=FrontendKind(flags & _KIND_FLAGS),
                affinity_s=0 if l7 else target & MAX_AFFINITY_S,
                local_only=bool(flags & maps.SERVICE_EXTERNAL_LOCAL),
                maglev=not l7 and target >> maps.ALGORITHM_SHIFT == maps.ALGORITHM_MAGLEV,
                source_ranges=tuple(sorted(ranges[int(value["rev_nat_index_be"])], key=lambda prefix: prefix.exploded)),
                l7_port=int.from_bytes((target & 0xFFFF).to_bytes(2, "little"), "big") if l7 else 0,
            )
        )
    return services


_KIND_FLAGS: Final = (
    maps.SERVICE_NODE_PORT | maps.SERVICE_LOAD_BALANCER | maps.SERVICE_EXTERNAL_IP | maps.SERVICE_ROUTABLE
)
