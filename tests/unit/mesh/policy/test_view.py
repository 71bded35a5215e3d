"""What proxies are told is what the rules say, port by port and peer by peer."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.policy.compiling import Compiler, Settings, Subject
from mesh.policy.documents.cilium import CiliumNetworkPolicy
from mesh.policy.documents.kinds import PolicyDocument
from mesh.policy.peers import Identity, LabelPeer, SelectorCache, Term, reserved_identities
from mesh.policy.ports import ProxyPorts
from mesh.policy.rules import TCP, UDP, DnsMatch, Entry, HeaderMatch, HttpMatch, L7Match, Ports, Rule, ServerName
from mesh.policy.translate import Context, rules_of
from mesh.policy.view import Allowed, PolicyConflict, ProxyPort, ProxyView, prefixes_by_identity

PODS = [Identity(256 + at, (f"k8s:app={app}",)) for at, app in enumerate(("web", "db", "cache"))]
IDENTITIES = {one.number: one for one in (*PODS, *reserved_identities().values())}
WEB, DB, CACHE = (LabelPeer((Term("k8s:app", "In", frozenset({app})),)) for app in ("web", "db", "cache"))
ALL = LabelPeer(())
GET, POST, HEAD = (HttpMatch(method=method) for method in ("GET", "POST", "HEAD"))

numbers = st.integers(78, 86)


@st.composite
def statements(draw: st.DrawFn) -> Entry:
    first, last = sorted((draw(numbers), draw(numbers)))
    parser = draw(st.sampled_from(["", "http"]))
    l7 = tuple(draw(st.sets(st.sampled_from([GET, POST, HEAD]), max_size=2))) if parser else ()
    plain = st.sampled_from([Ports(), Ports(TCP), Ports(UDP, first, last)])
    ports = Ports(TCP, first, last, parser=parser, l7=l7) if parser or draw(st.booleans()) else draw(plain)
    deny = not parser and draw(st.integers(0, 9)) == 0
    peers = draw(st.none() | st.lists(st.sampled_from([WEB, DB, CACHE]), max_size=2).map(tuple))
    return Entry(draw(st.booleans()), deny, peers, (ports,))


def view_of(*said: Entry, localhost: bool = True) -> ProxyView:
    cache = SelectorCache()
    cache.replace(IDENTITIES)
    rule = Rule(ALL, said, True, True)
    compiler = Compiler(Settings(allow_localhost=localhost), cache.numbers, {}, ProxyPorts())
    return compiler.compile(Subject(256, frozenset({("http", TCP, 8080)})), [rule]).view


def asked(view: ProxyView, egress: bool, port: int, peer: int) -> set[L7Match] | None:
    """What the view lets a peer ask at a TCP port: these, or anything."""
    pieces = [one for one in view if (one.egress, one.protocol) == (egress, TCP) and one.first <= port <= one.last]
    assert len(pieces) <= 1
    found: set[L7Match] = set()
    for piece in pieces:
        for one in piece.allowed:
            if one.peers is None or peer in one.peers:
                if one.matches is None:
                    return None
                found |= set(one.matches)
    return found


def expected(said: list[Entry], egress: bool, port: int, peer: Identity) -> set[L7Match] | None:
    """The same from the rules, one by one."""
    found: set[L7Match] = set()
    if not egress and peer.number == 1:
        return None
    for entry in said:
        mine = entry.peers is None or any(one.selects(peer) for one in entry.peers)
        for ports in entry.ports:
            here = not ports.protocol or (ports.protocol == TCP and ports.first <= port <= ports.last)
            if entry.egress is egress and not entry.deny and mine and here:
                if not ports.l7:
                    return None
                found |= set(ports.l7)
    return found


@settings(max_examples=300)
@given(st.lists(statements(), max_size=6))
def test_the_view_says_of_every_port_and_peer_what_the_rules_say(said: list[Entry]) -> None:
    view = view_of(*said)
    for egress in (False, True):
        judged = {port for one in view if one.egress is egress for port in range(one.first, one.last + 1)}
        assert judged == {
            port
            for entry in said
            if entry.egress is egress and entry.peers != ()
            for ports in entry.ports
            if ports.parser
            for port in range(ports.first, ports.last + 1)
        }
        for port in judged:
            for peer in IDENTITIES.values():
                assert asked(view, egress, port, peer.number) == expected(said, egress, port, peer), (port, peer)


@given(st.lists(statements(), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_rules_means_nothing(said: list[Entry], random: object) -> None:
    view = view_of(*said)
    random.shuffle(said)  # type: ignore[attr-defined]
    assert view_of(*said) == view


def http(*l7: L7Match, peers: tuple[LabelPeer, ...] | None = (DB,), egress: bool = True, port: int = 80) -> Entry:
    return Entry(egress, peers=peers, ports=(Ports(TCP, port, port, "", "http", 101, l7),))


def test_a_plain_allow_of_all_ports_lets_every_request_pass_and_stays_out_of_other_ports() -> None:
    view = view_of(http(GET), Entry(True, peers=(DB,)))
    assert view == (ProxyPort(True, TCP, 80, 80, "http", (Allowed(frozenset({257}), None),)),)


def test_an_l7_rule_for_one_peer_says_nothing_about_another() -> None:
    view = view_of(http(GET), Entry(True, peers=(CACHE,), ports=(Ports(TCP, 80, 80),)))
    assert view[0].allowed == (Allowed(frozenset({258}), None), Allowed(frozenset({257}), (GET,)))


def test_rules_of_one_peer_are_alternatives_and_an_empty_one_is_everything() -> None:
    assert view_of(http(GET), http(POST))[0].allowed == (Allowed(frozenset({257}), (GET, POST)),)
    assert view_of(http(GET), http())[0].allowed == (Allowed(frozenset({257}), None),)


def test_the_node_itself_is_never_refused_by_ingress_rules_unless_told_so() -> None:
    entry = http(GET, egress=False)
    assert Allowed(frozenset({1}), None) in view_of(entry)[0].allowed
    assert view_of(entry, localhost=False)[0].allowed == (Allowed(frozenset({257}), (GET,)),)


def test_a_name_of_a_port_is_the_subjects_own() -> None:
    named = Entry(False, peers=(DB,), ports=(Ports(TCP, 0, 0, "http", "http", 101, (GET,)),))
    assert [(one.first, one.last) for one in view_of(named)] == [(8080, 8080)]


def test_ranges_that_overlap_are_conflicts_when_two_proxies_would_read_them() -> None:
    dns = Entry(True, peers=None, ports=(Ports(TCP, 70, 90, "", "dns", 121, (DnsMatch(pattern="*"),)),))
    with pytest.raises(PolicyConflict, match=r"port 80 has \w+ rules and \w+ rules"):
        view_of(http(GET), dns)


def test_server_names_and_requests_on_one_port_are_two_views_of_it() -> None:
    tls = Entry(True, peers=(CACHE,), ports=(Ports(TCP, 80, 80, "", "tls", 116, (ServerName("a.example"),)),))
    assert [(one.parser, one.allowed[0].peers) for one in view_of(http(GET), tls)] == [
        ("http", frozenset({257})),
        ("tls", frozenset({258})),
    ]


def policy(to_ports: dict[str, object]) -> PolicyDocument:
    return CiliumNetworkPolicy.model_validate(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "p", "namespace": "one"},
            "spec": {"endpointSelector": {}, "egress": [{"toPorts": [to_ports]}]},
        }
    )


def ports_of(to_ports: dict[str, object]) -> tuple[Ports, ...]:
    return rules_of(policy(to_ports), Context())[0].entries[0].ports


def test_http_rules_keep_all_that_was_written() -> None:
    written = {
        "path": "/a.*",
        "method": "GET",
        "host": "h",
        "headers": ["X-One", "X-Two: yes"],
        "headerMatches": [{"name": "X-Three", "value": "3", "mismatch": "REPLACE"}],
    }
    (ports,) = ports_of({"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [written]}})
    headers = (HeaderMatch("x-one"), HeaderMatch("x-two", "yes"), HeaderMatch("x-three", "3", "REPLACE"))
    assert ports.l7 == (HttpMatch("/a.*", "GET", "h", headers),)


@pytest.mark.parametrize("rules", [[], [{}], [{"method": "GET"}, {}]])
def test_an_empty_http_rule_lets_everything_pass(rules: list[dict[str, str]]) -> None:
    (ports,) = ports_of({"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": rules}})
    assert (ports.parser, ports.l7) == ("http", ())


def test_dns_rules_hold_for_both_protocols_that_carry_questions() -> None:
    rules = {"dns": [{"matchName": "One.Example"}, {"matchPattern": "*.example"}]}
    found = ports_of({"ports": [{"port": "53"}], "rules": rules})
    assert [one.protocol for one in found] == [TCP, UDP]
    assert found[0].l7 == (DnsMatch("", "*.example"), DnsMatch("one.example", ""))


def test_server_names_say_which_proxy() -> None:
    (tls,) = ports_of({"ports": [{"port": "443", "protocol": "TCP"}], "serverNames": ["B.example", "a.example"]})
    assert (tls.parser, tls.l7) == ("tls", (ServerName("a.example"), ServerName("b.example")))


def test_identities_are_found_by_the_prefixes_of_the_ipcache() -> None:
    ipcache = [
        {"prefix": prefix, "identity": number} for prefix, number in (("10.0.0.2/32", 256), ("fd00::2/128", 256))
    ]
    found = prefixes_by_identity([*ipcache, {"prefix": "0.0.0.0/0", "identity": 2}])
    assert found == {256: (ip_network("10.0.0.2/32"), ip_network("fd00::2/128")), 2: (ip_network("0.0.0.0/0"),)}
