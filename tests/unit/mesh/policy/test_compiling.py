"""Compiled maps mean what the rules mean."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bpf.policies import EndpointPolicy, decode, encode
from mesh.policy.compiling import Compiler, Settings, Subject, blocks, correlation
from mesh.policy.local import labels_of
from mesh.policy.peers import (
    CidrPeer,
    EntityPeer,
    Identity,
    LabelPeer,
    NodePeer,
    SelectorCache,
    Term,
    reserved_identities,
)
from mesh.policy.ports import ProxyPorts
from mesh.policy.rules import ALL_PORTS, TCP, UDP, Entry, Ports, Rule
from mesh.policy.view import PolicyConflict
from tests.support.policy_reference import ALLOWED, DENIED, REDIRECTED, REFUSED, Flow, judge, look_up

NAMESPACE = "k8s:io.kubernetes.pod.namespace"
CLUSTER = "k8s:io.cilium.k8s.policy.cluster=default"


def pod(number: int, app: str, namespace: str) -> Identity:
    return Identity(number, (f"k8s:app={app}", f"{NAMESPACE}={namespace}", CLUSTER))


def outside(number: int, prefix: str) -> Identity:
    network = ip_network(prefix)
    return Identity(number, labels_of(network), network)


PODS = [pod(256, "web", "one"), pod(257, "db", "one"), pod(258, "web", "two")]
PREFIXES = [
    outside(0x01000001, "10.0.0.0/8"),
    outside(0x01000002, "10.1.0.0/16"),
    outside(0x01000003, "10.1.2.3/32"),
    outside(0x01000004, "2001:db8::/32"),
]
NODES = [
    Identity(0x02000001, ("node:tier=web", "reserved:remote-node")),
    Identity(0x02000002, ("node:tier=db", "reserved:remote-node")),
]
IDENTITIES = {one.number: one for one in (*PODS, *PREFIXES, *NODES, *reserved_identities().values())}
ME = PODS[0]
HOST = Identity(1, ("k8s:app=web", "reserved:host"))
"""The node, as rules about nodes see it."""

label_peers = st.builds(
    LabelPeer,
    st.lists(
        st.sampled_from(
            [
                Term("any:app", "In", frozenset({"web"})),
                Term("k8s:app", "NotIn", frozenset({"db"})),
                Term(NAMESPACE, "In", frozenset({"one"})),
                Term(NAMESPACE, "Exists"),
                Term("any:nothing", "DoesNotExist"),
                Term("reserved:host", "Exists"),
            ]
        ),
        max_size=2,
    ).map(tuple),
)
cidr_peers = st.sampled_from(
    [
        CidrPeer(ip_network("10.0.0.0/8")),
        CidrPeer(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),)),
        CidrPeer(ip_network("10.1.2.3/32")),
        CidrPeer(ip_network("0.0.0.0/0"), (ip_network("10.0.0.0/8"),)),
    ]
)
node_peers = st.sampled_from(["web", "db", "none"]).map(
    lambda tier: NodePeer((Term("any:tier", "In", frozenset({tier})), Term("reserved:remote-node", "Exists")))
)
entity_peers = st.sampled_from(["world", "world-ipv4", "cluster", "host", "remote-node"]).map(EntityPeer)
peers = st.none() | st.lists(label_peers | cidr_peers | node_peers | entity_peers, max_size=2).map(tuple)
numbers = st.integers(0, 40) | st.integers(0, 65535)


@st.composite
def port_ranges(draw: st.DrawFn) -> Ports:
    first, last = sorted((draw(numbers), draw(numbers)))
    parser = draw(st.sampled_from(["", "", "http"]))
    protocol = TCP if parser else draw(st.sampled_from([TCP, UDP, 132]))
    return Ports(protocol, first, last, "", parser, 101 if parser else 0)


ports = st.just(ALL_PORTS) | st.sampled_from([Ports(TCP), Ports(UDP)]) | port_ranges()


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    deny = draw(st.booleans())
    wanted = draw(st.lists(ports, min_size=1, max_size=3))
    # Denials and wildcards have no proxy.
    clean = [Ports(one.protocol, one.first, one.last) if deny else one for one in wanted]
    return Entry(draw(st.booleans()), deny, draw(peers), tuple(clean))


rules = st.lists(
    st.builds(
        Rule,
        subject=label_peers,
        entries=st.lists(entries(), max_size=4).map(tuple),
        deny_ingress_by_default=st.booleans(),
        deny_egress_by_default=st.booleans(),
        of_nodes=st.booleans(),
    ),
    max_size=5,
)


@st.composite
def flows(draw: st.DrawFn) -> Flow:
    return Flow(
        draw(st.booleans()),
        draw(st.sampled_from(list(IDENTITIES.values()))),
        draw(st.sampled_from([TCP, UDP, 132, 1])),
        draw(numbers),
    )


def compile_for(me: Identity, wanted: list[Rule], how: Settings | None = None) -> EndpointPolicy:
    cache = SelectorCache()
    cache.replace(IDENTITIES)
    mine = [rule for rule in wanted if rule.of_nodes is (me is HOST) and rule.subject.selects(me)]
    return Compiler(how or Settings(), cache.numbers, {}, ProxyPorts()).compile(Subject(me.number), mine).policy


@settings(max_examples=400)
@given(
    st.sampled_from([ME, HOST]),
    rules,
    st.lists(flows(), min_size=1, max_size=20),
    st.sampled_from(["default", "always", "never"]),
)
def test_looking_the_map_up_gives_what_the_rules_say(
    me: Identity, wanted: list[Rule], asked: list[Flow], mode: str
) -> None:
    policy = compile_for(me, wanted, Settings(mode=mode))
    for flow in asked:
        assert look_up(policy, flow).verdict == judge(wanted, me, flow, mode), flow


@settings(max_examples=100)
@given(rules, st.booleans())
def test_a_policy_comes_back_from_its_bytes(wanted: list[Rule], audit: bool) -> None:
    policy = compile_for(ME, wanted, Settings(audit=audit))
    if policy.enforced:
        assert decode(*encode(policy)) == policy


@given(numbers, numbers)
def test_blocks_cover_a_range_exactly_and_are_few(one: int, other: int) -> None:
    first, last = sorted((one, other))
    found = blocks(TCP, first, last)
    at = first
    for _, port, bits in found:
        size = 1 << (16 - bits)
        assert (port, port % size) == (at, 0)
        at += size
    assert at == last + 1
    assert len(found) <= 30


def test_the_upper_ports_are_six_blocks() -> None:
    assert len(blocks(TCP, 1024, 65535)) == 6


WEB = LabelPeer((Term("any:app", "In", frozenset({"web"})),))
DB = LabelPeer((Term("any:app", "In", frozenset({"db"})),))


def rule(*said: Entry, **defaults: bool) -> Rule:
    return Rule(
        WEB,
        said,
        defaults.get("ingress", any(not entry.egress for entry in said)),
        defaults.get("egress", any(entry.egress for entry in said)),
        labels=("k8s:io.cilium.k8s.policy.name=p",),
    )


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (Entry(True, peers=(DB,), ports=(Ports(TCP, 80, 80),)), 2),
        (Entry(True, peers=(DB,), ports=(Ports(TCP, 80, 90),)), 2),
        (Entry(True, peers=(DB,), ports=(Ports(TCP),)), 5),
        (Entry(True, peers=(DB,)), 1),
        (Entry(True, peers=None, ports=(Ports(TCP, 80, 80),)), 3),
        (Entry(True, peers=None, ports=(Ports(TCP),)), 6),
        (Entry(True, peers=None), 4),
    ],
)
def test_match_type_tells_what_the_rule_named(said: Entry, match: int) -> None:
    answer = look_up(compile_for(ME, [rule(said)]), Flow(True, PODS[1], TCP, 80))
    assert (answer.verdict, answer.match) == (ALLOWED, match)


def test_a_redirect_survives_a_plain_allow_of_all_ports_beside_it() -> None:
    http = Entry(True, peers=(DB,), ports=(Ports(TCP, 80, 80, "", "http", 101),))
    policy = compile_for(ME, [rule(http), rule(Entry(True, peers=(DB,)))])
    assert look_up(policy, Flow(True, PODS[1], TCP, 80)).verdict == REDIRECTED
    assert look_up(policy, Flow(True, PODS[1], TCP, 81)).verdict == ALLOWED


def test_default_deny_can_be_declined_and_one_other_rule_is_enough_to_want_it() -> None:
    open_rule = rule(Entry(False, peers=(DB,)), ingress=False)
    flow = Flow(False, PODS[2], TCP, 80)
    assert look_up(compile_for(ME, [open_rule]), flow).verdict == ALLOWED
    assert look_up(compile_for(ME, [open_rule, rule(Entry(False))]), flow).verdict == REFUSED


def test_what_is_denied_stays_denied_where_default_deny_is_declined() -> None:
    policy = compile_for(ME, [rule(Entry(False, deny=True, peers=(DB,)), ingress=False)])
    assert look_up(policy, Flow(False, PODS[1], TCP, 80)).verdict == DENIED
    assert look_up(policy, Flow(False, PODS[2], TCP, 80)).verdict == ALLOWED


def test_two_kinds_of_l7_rules_on_one_port_do_not_go_together() -> None:
    http, dns = (Entry(True, peers=(DB,), ports=(Ports(TCP, 53, 53, "", kind, 101),)) for kind in ("http", "dns"))
    with pytest.raises(PolicyConflict, match="port 53 has http rules and dns rules"):
        compile_for(ME, [rule(http, dns)])


def test_the_observer_learns_which_rules_stand_behind_each_port_of_a_small_range() -> None:
    cache = SelectorCache()
    cache.replace(IDENTITIES)
    said = rule(Entry(False, peers=(DB,), ports=(Ports(TCP, 80, 82),)))
    compiled = Compiler(Settings(), cache.numbers, {}, ProxyPorts()).compile(Subject(ME.number), [said])
    listed = correlation(compiled, 7)
    assert [(one["identity"], one["proto"], one["port"]) for one in listed] == [
        (257, 6, 80),
        (257, 6, 81),
        (257, 6, 82),
    ]
    assert listed[0]["rules"] == [["k8s:io.cilium.k8s.policy.name=p"]]
    assert {one["revision"] for one in listed} == {7}


def web(auth: int, ports: Ports = ALL_PORTS, *, anybody: bool = False, deny: bool = False) -> Rule:
    """Peers of the app web, or all, may come in."""
    peers = None if anybody else (LabelPeer((Term("any:app", "In", frozenset({"web"})),)),)
    return Rule(LabelPeer(), (Entry(False, deny, peers, (ports,), auth),), True, False)


HTTP = Ports(TCP, 80, 80)
NAMED, REQUIRED, FAILING, OFF = 0x80, 1, 2, 0


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([web(NAMED | REQUIRED)], REQUIRED),
        ([web(0), web(NAMED | REQUIRED)], REQUIRED),
        ([web(NAMED | OFF), web(NAMED | REQUIRED)], REQUIRED),
        ([web(NAMED | REQUIRED), web(NAMED | FAILING)], FAILING),
        # Said of all ports, and nothing of it where one port is meant.
        ([web(0, HTTP), web(NAMED | REQUIRED)], REQUIRED),
        ([web(0, HTTP), web(NAMED | REQUIRED), web(NAMED | FAILING, anybody=True)], FAILING),
        ([web(0, HTTP), web(NAMED | FAILING, Ports(TCP, 64, 127)), web(NAMED | REQUIRED)], FAILING),
        ([web(0, HTTP), web(NAMED | FAILING, Ports(UDP, 80, 80)), web(0)], OFF),
        # Said of anybody.
        ([web(0), web(NAMED | REQUIRED, anybody=True)], REQUIRED),
        ([web(0, HTTP), web(NAMED | REQUIRED, HTTP, anybody=True)], REQUIRED),
        ([web(NAMED | REQUIRED), web(0, HTTP, anybody=True)], REQUIRED),
        ([web(NAMED | REQUIRED), web(NAMED | OFF, HTTP, anybody=True)], OFF),
        # By name is stronger than what is inherited.
        ([web(NAMED | OFF, HTTP), web(NAMED | REQUIRED)], OFF),
        ([web(NAMED | OFF), web(NAMED | REQUIRED, anybody=True)], OFF),
    ],
)
def test_authentication_is_what_is_said_by_name_else_by_something_wider(said: list[Rule], wanted: int) -> None:
    for order in (said, said[::-1]):
        assert look_up(compile_for(ME, order), Flow(False, PODS[2], TCP, 80)).auth == wanted


def test_the_node_has_nothing_to_prove_to_its_pods() -> None:
    anybody = compile_for(ME, [web(NAMED | REQUIRED, anybody=True)])
    assert look_up(anybody, Flow(False, IDENTITIES[1], TCP, 80)).auth == OFF
    policy = compile_for(ME, [web(NAMED | REQUIRED), web(0, HTTP)])
    assert [one.auth for one in policy.entries if one.identity == 1] == [NAMED]
    assert all(one.auth & ~NAMED == REQUIRED for one in policy.entries if one.identity != 1)
