"""Services as tables: numbers stay, nothing gets lost, tables spread evenly."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf import maps
from bpf.maglev import MAGLEV_SIZE, maglev_table
from bpf.nat import stale_entries
from bpf.service_maps import ServiceMaps
from bpf.service_tables import compile_services, decompile, numbers_in
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend


@st.composite
def service_frontends(draw: st.DrawFn) -> ServiceFrontend:
    version6 = draw(st.booleans())

    def address(last: int) -> IPv4Address | IPv6Address:
        return IPv6Address(f"fd00::{last:x}") if version6 else IPv4Address(f"10.0.0.{last}")

    backends = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(8080, 8082)), max_size=5, unique=True))
    l7_port = draw(st.sampled_from([0, 10001]))
    return ServiceFrontend(
        frontend=Frontend(
            address=address(draw(st.integers(100, 103))),
            port=draw(st.integers(80, 82)),
            protocol=draw(st.sampled_from([6, 17])),
            internal=draw(st.booleans()),
        ),
        backends=tuple(Backend(address=address(last), port=port, terminating=last == 5) for last, port in backends),
        kind=draw(st.sampled_from(FrontendKind)),
        affinity_s=0 if l7_port else draw(st.sampled_from([0, 10800])),
        local_only=draw(st.booleans()),
        maglev=not l7_port and draw(st.booleans()),
        source_ranges=(ip_network("fd01::/64" if version6 else "10.1.0.0/16"),) if draw(st.booleans()) else (),
        l7_port=l7_port,
    )


services_lists = st.lists(service_frontends(), max_size=8, unique_by=lambda service: service.frontend)


def comparable(service: ServiceFrontend) -> tuple[object, ...]:
    """Backends in the order in which they stand in the map."""
    backends = tuple(sorted(service.backends, key=lambda backend: backend.terminating))
    return (service.frontend, backends, service.kind, service.affinity_s, service.local_only, service.maglev,
            service.source_ranges, service.l7_port)  # fmt: skip


@given(services_lists, services_lists)
def test_tables_say_the_services_and_numbers_stay(before: list[ServiceFrontend], after: list[ServiceFrontend]) -> None:
    first, _ = compile_services(before, numbers_in(_nothing()))
    used = numbers_in(first)
    second, tables = compile_services(after, used)
    found = {comparable(service) for service in decompile(second)}
    assert found == {comparable(service) for service in after}
    now = numbers_in(second)
    for what, number in now.backends.items():
        assert used.backends.get(what, number) == number
        assert what in used.backends or number not in used.backends.values(), "a number means one thing"
    for frontend, index in now.indices.items():
        assert used.indices.get(frontend, index) == index
        assert frontend in used.indices or index not in used.indices.values()
    assert len(set(now.indices.values())) == len(now.indices)
    assert tables.keys() <= set(now.indices.values())


def _nothing() -> dict[str, dict[bytes, bytes]]:
    names = (maps.LB4_SERVICES, maps.LB6_SERVICES)
    return {name: dict[bytes, bytes]() for name in (*maps.SERVICES, *(f"{name} frontends" for name in names))}


@given(st.integers(1, 40))
def test_maglev_spreads_evenly(count: int) -> None:
    table = maglev_table({f"10.0.0.{number} 80": number for number in range(1, count + 1)})
    shares = Counter(table.tolist())
    assert len(table) == MAGLEV_SIZE
    assert shares.keys() == set(range(1, count + 1))
    assert max(shares.values()) <= 1.1 * MAGLEV_SIZE / count + 2


def test_maglev_moves_little_when_a_backend_goes() -> None:
    backends = {f"10.0.0.{number} 80": number for number in range(1, 11)}
    before = maglev_table(backends)
    after = maglev_table({name: number for name, number in backends.items() if number != 4})
    moved = np.count_nonzero((before != after) & (before != 4))
    assert moved < 0.1 * MAGLEV_SIZE
    with pytest.raises(ValueError, match="at least one"):
        maglev_table({})


def test_impossible_services_are_refused() -> None:
    frontend = Frontend(address=IPv4Address("10.96.0.1"), port=80, protocol=6)
    wrong = Backend(address=IPv6Address("fd00::1"), port=80)
    with pytest.raises(ValueError, match="another IP version"):
        ServiceMaps({}).sync([ServiceFrontend(frontend=frontend, backends=(wrong,), kind=FrontendKind.CLUSTER_IP)])


def test_translations_go_with_their_connection() -> None:
    keys, values = np.zeros(4, maps.NAT_KEY), np.zeros(4, maps.NAT_ENTRY)
    pod, world, node = (maps.address_bytes(IPv4Address(text)) for text in ("10.244.1.5", "198.51.100.9", "172.18.0.1"))
    for at in (0, 2):  # a pair that has a connection, and one that has none
        keys[at]["saddr"], keys[at]["daddr"], keys[at]["sport"], keys[at]["dport"] = pod, world, 40000 + at, 443
        keys[at + 1]["saddr"], keys[at + 1]["daddr"], keys[at + 1]["sport"] = world, node, 443
        keys[at + 1]["dport"], keys[at + 1]["direction"] = 2000 + at, maps.NAT_IN
        values[at]["address"], values[at]["port"] = node, 2000 + at
        values[at + 1]["address"], values[at + 1]["port"] = pod, 40000 + at
    keys["protocol"] = 6
    connection = np.zeros(1, maps.CT4_KEY)
    connection["daddr"], connection["saddr"] = world[:4], pod[:4]
    connection["dport"], connection["sport"], connection["protocol"] = 443, 40000, 6
    raw = keys.view(np.uint8).reshape(4, -1), values.view(np.uint8).reshape(4, -1)
    assert np.array_equal(stale_entries(*raw, {connection.tobytes()}, 4, 1000), raw[0][2:])
    assert not len(stale_entries(*raw, set(), 4, 30)), "young entries stay"
