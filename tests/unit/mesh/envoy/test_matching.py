"""Trees of matchers are as large as what policies say, not as endpoints are many; other changes leave them alone."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network

import orjson
import re2
from hypothesis import given
from hypothesis import strategies as st

from mesh.envoy.matching import Changes, NodeView, joined, only_text, relevant, tree
from mesh.policy.documents.fields import Network
from mesh.policy.rules import TCP, HttpMatch
from mesh.policy.view import Allowed, ProxyPort, ProxyView

PODS = 500
APPS = 50
RULES = 1000
FIRST = ip_address("10.244.0.1")
CLUSTER = {ip_network(FIRST + at): 1000 + at % APPS for at in range(PODS)}


def view_of(app: int, peers: frozenset[int] | None) -> ProxyView:
    """20 of the rules, 5 for each of 4 ports."""
    return tuple(
        ProxyPort(
            False, TCP, port, port, "http",
            tuple(Allowed(peers or frozenset({1000 + (app + at) % APPS}), (HttpMatch(path=f"/{app}/{port}/{at}/.*"),))
                  for at in range(RULES // APPS // 4)),
        )
        for port in range(8000, 8004)
    )  # fmt: skip


def size(views: list[ProxyView]) -> int:
    endpoints = {ip_address(int(FIRST) + at): views[at % APPS] for at in range(PODS)}
    return len(orjson.dumps(tree(NodeView(endpoints, CLUSTER), "http", False, Changes())))


def test_a_thousand_rules_for_five_hundred_endpoints_are_two_megabytes() -> None:
    assert size([view_of(app, None) for app in range(APPS)]) < 2 * 2**20


def test_peers_that_are_the_whole_cluster_cost_no_more() -> None:
    everybody = frozenset(CLUSTER.values())
    assert size([view_of(app, everybody) for app in range(APPS)]) < 2 * 2**20


def test_who_is_no_peer_and_lives_beside_all_peers_changes_nothing() -> None:
    view = NodeView({FIRST: view_of(0, frozenset({1000}))}, CLUSTER)
    more = NodeView(view.endpoints, CLUSTER | {ip_network("192.0.2.1/32"): 77})
    assert relevant(view, False) == relevant(more, False) != NodeView()
    assert relevant(view, True) == NodeView()


def test_who_lives_inside_of_a_peers_prefix_counts() -> None:
    wide = {ip_network("192.0.2.0/24"): 1000}
    inside = wide | {ip_network("192.0.2.1/32"): 77}
    endpoints = {FIRST: view_of(0, frozenset({1000}))}
    assert relevant(NodeView(endpoints, wide), False) != relevant(NodeView(endpoints, inside), False)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=6))
def test_a_text_is_compared_as_it_is(text: str) -> None:
    found = only_text(re2.escape(text))
    assert found == text or "\0" in text


@given(st.text(st.sampled_from("aZ0_-/\\.+*?()|[]{}^$ \n"), max_size=6), st.text("aZ0_-/\\. \n", max_size=6))
def test_a_pattern_that_stands_for_a_text_matches_it_and_nothing_else(pattern: str, other: str) -> None:
    only = only_text(pattern)
    if only is not None:
        expression = re2.compile(pattern)
        assert expression.fullmatch(only)
        assert other == only or not expression.fullmatch(other)


def test_patterns_of_policies_are_texts_or_stay_what_they_are() -> None:
    told = {
        one: only_text(one) for one in ("/", "GET", "/foo/bar-1", r"/a\.html", "/a.html", "/a/.*", "GET|PUT", r"\d")
    }
    assert [one for one, text in told.items() if text is None] == ["/a.html", "/a/.*", "GET|PUT", r"\d"]
    assert told[r"/a\.html"] == "/a.html"


networks = st.builds(
    lambda length, host: ip_network((int(IPv4Address("10.0.0.0")) + (host >> (32 - length) << (32 - length)), length)),
    st.sampled_from([24, 28, 30, 31, 32, 32, 32, 32]),
    st.integers(0, 63),
)


def longest(prefixes: dict[Network, int], address: IPv4Address) -> int | None:
    found = [one for one in prefixes if address in one]
    return prefixes[max(found, key=lambda one: one.prefixlen)] if found else None


@given(st.dictionaries(networks, st.integers(0, 2), max_size=40))
def test_prefixes_taken_together_leave_every_address_to_whom_it_belongs(prefixes: dict[Network, int]) -> None:
    widest = {4: 1 + max((one.prefixlen for one in prefixes if one.prefixlen < 32), default=0), 6: 0}
    fewer = {
        one: number
        for number in range(3)
        for one in joined([each for each, owner in prefixes.items() if owner == number], widest)
    }
    assert len(fewer) <= len(prefixes)
    for last in range(64):
        address = IPv4Address("10.0.0.0") + last
        assert longest(fewer, address) == longest(prefixes, address)
