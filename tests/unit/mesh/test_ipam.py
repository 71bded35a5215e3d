"""Addresses of nodes, pods and services."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.ipam import (
    CLUSTER_CIDRS,
    SERVICE_CIDRS,
    free_pod_addresses,
    free_service_addresses,
    ingress_addresses,
    pod_cidrs,
    router_addresses,
)
from service.failure import Failure
from tests.support.cluster import node


def test_node_n_has_n_in_its_ranges() -> None:
    assert pod_cidrs(3) == ("10.244.3.0/24", "fd00:10:244:3::/64")
    assert router_addresses(node(3)) == ("10.244.3.1", "fd00:10:244:3::1")
    assert ingress_addresses(node(3)) == ("10.244.3.254", "fd00:10:244:3::fe")


def test_ranges_of_all_nodes_lie_in_the_cluster_s_and_apart() -> None:
    for family in (0, 1):
        ranges = {ip_network(pod_cidrs(number)[family]) for number in range(256)}
        assert len(ranges) == 256
        assert {str(one.supernet(new_prefix=CLUSTER_CIDRS[family].prefixlen)) for one in ranges} == {
            str(CLUSTER_CIDRS[family])
        }
    with pytest.raises(Failure, match="at most 256 nodes"):
        pod_cidrs(256)


def test_a_pod_has_the_same_number_in_both_families() -> None:
    assert free_pod_addresses(node(1), {"10.244.1.2", "fd00:10:244:1::3"}) == ("10.244.1.4", "fd00:10:244:1::4")


@settings(max_examples=50)
@given(st.sets(st.integers(0, 255), max_size=200))
def test_no_address_is_given_twice_nor_to_router_proxy_or_broadcast(taken: set[int]) -> None:
    used = {f"10.244.0.{number}" for number in taken}
    v4, v6 = free_pod_addresses(node(0), used)
    assert v4 not in used
    assert v4 not in ("10.244.0.0", "10.244.0.1", "10.244.0.254", "10.244.0.255")
    assert ip_address(v6) in ip_network("fd00:10:244::/64")


def test_a_service_keeps_its_address_and_makes_way_for_others() -> None:
    first = free_service_addresses("shop/web", (4,), set())
    assert free_service_addresses("shop/web", (4,), set()) == first
    second = free_service_addresses("shop/web", (4, 6), set(first))
    assert second[0] != first[0]
    assert ip_address(second[0]) in SERVICE_CIDRS[0]
    assert ip_address(second[1]) in SERVICE_CIDRS[1]
