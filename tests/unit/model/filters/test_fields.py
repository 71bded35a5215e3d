"""Single fields of model/filters, where a table says more than a property."""

from __future__ import annotations

import ipaddress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.filters import compile_filters
from model.filters.addresses import IntervalTest, WideIntervalTest, merged
from model.filters.l7 import url_path
from model.row import L4, Bit, Reply, empty_rows
from model.tables import Tables
from proto.flow import flow_pb2
from tests.support.filter_strategies import filter_of


def holds(flow: flow_pb2.Flow, **fields: object) -> bool:
    return compile_filters([filter_of(**fields)]).matches(flow)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("cart", {"default/cart-1"}),
        ("shop/cart", {"shop/cart-2"}),
        ("shop/", {"shop/cart-2", "shop/web"}),
        ("/cart", {"default/cart-1", "shop/cart-2", "/cart"}),
        ("/", {"default/cart-1", "shop/cart-2", "shop/web", "/cart"}),
        ("shop/cart-2/x", {"shop/cart-2"}),
    ],
)
def test_pods_are_found_by_namespace_and_the_start_of_the_name(entry: str, found: set[str]) -> None:
    for name in ("default/cart-1", "shop/cart-2", "shop/web", "/cart", "/"):
        namespace, pod = name.split("/")
        flow = flow_pb2.Flow(source=flow_pb2.Endpoint(namespace=namespace, pod_name=pod))
        assert holds(flow, source_pod=[entry]) == (name in found)


LABELLED = [
    "k8s:app=web",
    "k8s:tier",
    "container:zone=b",
    "k8s:zone=a",
    "reserved:world",
    "cidr:203.0.113.0/24",
    "k8s:n=7",
]


@pytest.mark.parametrize(
    ("selector", "holds_for_it", "holds_for_none"),
    [
        ("app", True, False),
        ("app=web", True, False),
        ("app == web , tier", True, False),
        ("k8s:app=web", True, False),
        ("container:app=web", False, False),
        ("k8s.app=web", False, False),
        ("app!=web", False, True),
        ("!app", False, True),
        ("!other", True, True),
        ("app in (db,web)", True, False),
        ("app notin (db)", True, True),
        ("tier in ()", True, False),
        ("tier=", True, False),
        ("zone=b", True, False),
        ("zone=a", False, False),
        ("k8s:zone=a", True, False),
        ("n>6", True, False),
        ("n<7", False, False),
        ("app>1", False, False),
        ("world", True, False),
        ("reserved:world,!reserved:host", True, False),
        ("cidr:203.1.0.0/16", False, False),
        ("cidr:203.0.0.0/8", True, False),
        ("cidr:203.0.113.0/25", False, False),
        ("!cidr:203.0.113.0/24", False, True),
        ("", True, True),
    ],
)
def test_selectors_know_sources_and_networks(selector: str, holds_for_it: bool, holds_for_none: bool) -> None:
    flow = flow_pb2.Flow(source=flow_pb2.Endpoint(labels=LABELLED))
    assert holds(flow, source_label=[selector]) == holds_for_it
    assert holds(flow_pb2.Flow(), source_label=[selector]) == holds_for_none


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("example.org", "example.org", True),
        (" Example.ORG. ", "example.org", True),
        ("example.org", "www.example.org", False),
        ("*.example.org", "www.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*", "a_b", False),
        ("a_b*", "a_bc", True),
        ("cdn.example", "CDN.example", False),
        ("a.c", "abc", False),
        ("example.org", "example.org\n", False),
    ],
)
def test_dns_names_match_as_a_whole(pattern: str, name: str, found: bool) -> None:
    assert holds(flow_pb2.Flow(destination_names=["_", name]), destination_fqdn=[pattern]) == found


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("worker-*", "worker-1", True),
        ("worker-*", "east/worker-1", True),
        ("default/worker-1", "worker-1", True),
        ("east/", "east/worker-1", True),
        ("/worker-1", "west/worker-1", True),
        ("east/*", "west/worker-1", False),
        ("/", "east/Worker", False),
        ("WORKER-1", "worker-1", True),
        ("/", "", False),
    ],
)
def test_node_names_have_a_cluster(pattern: str, name: str, found: bool) -> None:
    assert holds(flow_pb2.Flow(node_name=name), node_name=[pattern]) == found


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/a/b?x=/y", "/a/b"),
        ("/a#b?c", "/a#b"),
        ("http://host:80/a%20b", "/a b"),
        ("http://u:p@host/a", "/a"),
        ("http://[fe80::1%25eth0]:80/a", "/a"),
        ("http://host", ""),
        ("http://host?x", ""),
        ("//host/a", "//host/a"),
        ("mailto:someone", ""),
        ("*", "*"),
        ("/%ff", "\ufffd"),
        ("/%zz", None),
        ("a/b", None),
        ("", None),
        (":80/a", None),
        ("http://ho st/a", None),
        ("http://host:x/a", None),
        ("http://[::1/a", None),
        ("/a\nb", None),
        ("http://a@b@c/x", "/x"),
    ],
)
def test_paths_are_cut_out_of_urls_as_by_go(url: str, path: str | None) -> None:
    assert url_path(url) == (path if path != "\ufffd" else "/\ufffd")


@pytest.mark.parametrize(
    ("entry", "codes"),
    [("404", {404}), ("4+", {400, 404, 499, 4}), ("40+", {400, 404}), ("200", {200})],
)
def test_status_codes_are_whole_or_start_the_same(entry: str, codes: set[int]) -> None:
    for code in (0, 200, 400, 404, 499, 500):
        flow = flow_pb2.Flow(l7=flow_pb2.Layer7(http=flow_pb2.HTTP(code=code)))
        assert holds(flow, http_status_code=[entry]) == (code in codes)


def test_an_address_is_compared_by_its_text() -> None:
    tables, rows = Tables(), empty_rows(1)
    rows["ip_version"], rows["src_ip_hi"], rows["src_ip_lo"] = 2, 0xFD20 << 48, 1
    for text, found in (("fd20::1", True), ("FD20::1", False), ("fd20:0:0::1", False), ("fd20::2", False)):
        assert compile_filters([filter_of(source_ip=[text])]).mask(rows, tables).tolist() == [found]


def test_an_unknown_address_of_another_server_is_in_no_network() -> None:
    tables, rows = Tables(), empty_rows(2)
    rows["ip_version"] = 1
    rows["bits"] = [0, Bit.FOREIGN]
    for everything in ("0.0.0.0/0", "0.0.0.0"):
        assert compile_filters([filter_of(source_ip=[everything])]).mask(rows, tables).tolist() == [True, False]


def test_ports_may_be_ranges_where_that_is_asked_for() -> None:
    rows = empty_rows(6)
    rows["l4"] = [L4.TCP, L4.UDP, L4.SCTP, L4.TCP, L4.TCP, L4.ICMPV4]
    rows["dport"] = [8000, 8050, 8100, 7999, 8101, 8050]
    predicate = compile_filters([filter_of(destination_port=["8000-8100", "1"])], port_ranges=True)
    assert predicate.mask(rows, Tables()).tolist() == [True, True, True, False, False, False]


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 30)), max_size=12),
    st.lists(st.integers(0, 350), min_size=1, max_size=20),
    st.sampled_from([0, 2**32, 2**64 - 150, 2**127]),
)
def test_many_networks_are_found_like_few(spans: list[tuple[int, int]], numbers: list[int], base: int) -> None:
    intervals = merged([(base + first, base + first + length) for first, length in spans])
    wanted = [any(first <= base + number <= last for first, last in intervals) for number in numbers]
    high = np.array([(base + number) >> 64 for number in numbers], np.uint64)
    low = np.array([(base + number) & (2**64 - 1) for number in numbers], np.uint64)
    assert WideIntervalTest(intervals).test(high, low).tolist() == wanted
    if base < 2**64 - 400:
        assert IntervalTest(intervals).test(low).tolist() == wanted


@given(st.lists(st.tuples(st.ip_addresses(v=4), st.integers(0, 32)), max_size=8), st.ip_addresses())
def test_a_network_contains_what_python_says(
    networks: list[tuple[ipaddress.IPv4Address, int]], address: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    prefixes = [f"{first}/{bits}" for first, bits in networks]
    wanted = any(address in ipaddress.ip_network(prefix, strict=False) for prefix in prefixes)
    if prefixes:
        assert holds(flow_pb2.Flow(IP=flow_pb2.IP(source=str(address))), source_ip=prefixes) == wanted


def test_a_dropped_flow_counts_as_no_reply_where_that_is_not_known() -> None:
    rows = empty_rows(6)
    rows["is_reply"] = [Reply.ABSENT, Reply.ABSENT, Reply.FALSE, Reply.FALSE, Reply.TRUE, Reply.TRUE]
    rows["verdict"] = [1, 2, 1, 2, 1, 2]
    for wanted, found in (
        ([False], [0, 1, 1, 1, 0, 0]),
        ([True], [0, 0, 0, 0, 1, 1]),
        ([True, False], [0, 1, 1, 1, 1, 1]),
    ):
        assert compile_filters([filter_of(reply=wanted)]).mask(rows, Tables()).tolist() == found


def test_only_dropped_flows_have_a_drop_reason() -> None:
    rows = empty_rows(3)
    rows["verdict"], rows["drop_reason"] = [2, 3, 2], [133, 133, 181]
    predicate = compile_filters([filter_of(drop_reason_desc=["POLICY_DENIED"])])
    assert predicate.mask(rows, Tables()).tolist() == [True, False, False]


def test_an_ipv4_address_in_an_ipv6_packet_is_found_as_what_it_is_shown_as() -> None:
    rows = empty_rows(3)
    rows["ip_version"] = [1, 2, 2]
    rows["src_ip_lo"] = [0x0A000001, 0xFFFF_0A00_0001, 0x0A000001]
    for entry, found in (
        ("10.0.0.1", [1, 1, 0]),
        ("10.0.0.0/8", [1, 1, 0]),
        ("::/0", [0, 0, 1]),
        ("::a00:1", [0, 0, 1]),
    ):
        assert compile_filters([filter_of(source_ip=[entry])]).mask(rows, Tables()).tolist() == found
