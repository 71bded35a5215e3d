"""A policy asked from Python says what the kernel's map and the proxies' views say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bpf.policies import EndpointPolicy, PolicyEntry
from mesh.policy.judging import Whole
from mesh.policy.peers import Identity
from mesh.policy.rules import TCP, UDP, HttpMatch
from mesh.policy.view import Allowed, ProxyPort
from tests.support.policy_reference import ALLOWED, Flow, look_up

GET = HttpMatch(method="GET")


def entries_of(number: int) -> st.SearchStrategy[list[PolicyEntry]]:
    """Of one identity, no two of which have the same key."""
    blocks = st.sampled_from([(0, 0, 0), (TCP, 0, 0), (UDP, 0, 0), (TCP, 80, 16), (TCP, 8080, 16), (TCP, 8064, 10)])
    one = st.tuples(blocks, st.sampled_from([1, 5, 9]), st.booleans())
    return st.lists(one, max_size=4, unique_by=lambda each: each[0]).map(
        lambda found: [PolicyEntry(True, number, *block, strength, deny) for block, strength, deny in found]
    )


@given(st.tuples(entries_of(0), entries_of(256), entries_of(257)), st.sampled_from([1, 79, 80, 81, 8064, 8080, 8127]))
def test_ports_and_peers_are_judged_as_the_kernel_judges(found: tuple[list[PolicyEntry], ...], port: int) -> None:
    policy = EndpointPolicy(tuple(sorted(entry for each in found for entry in each)), False, True)
    whole = Whole(policy)
    for number in (256, 257, 300):
        passes = look_up(policy, Flow(True, Identity(number, ()), TCP, port)).verdict == ALLOWED
        assert whole.answer(True, number, port) == (None if passes else ())


def test_what_is_not_enforced_passes() -> None:
    assert Whole().answer(True, 256, 80) is None
    assert Whole(EndpointPolicy((), False, True)).answer(False, 256, 80) is None
    assert Whole(EndpointPolicy((), False, True, audit=True)).answer(True, 256, 80) is None


def test_rules_of_proxies_are_those_of_the_peer_and_of_anybody() -> None:
    entries = (
        PolicyEntry(True, 0, TCP, 80, 16, proxy_port=10000),
        PolicyEntry(True, 256, TCP, 80, 16, proxy_port=10000),
    )
    allowed = (Allowed(None, (GET,)), Allowed(frozenset({256}), (HttpMatch(path="/a"),)))
    whole = Whole(EndpointPolicy(entries, False, True), (ProxyPort(True, TCP, 80, 80, "http", allowed),))
    assert whole.answer(True, 256, 80) == (GET, HttpMatch(path="/a"))
    assert whole.answer(True, 300, 80) == (GET,)
    assert whole.answer(True, 300, 81) == ()


def test_a_rule_that_denies_is_told_from_one_that_allows_others() -> None:
    denied = Whole(
        EndpointPolicy((PolicyEntry(True, 0, deny=False), PolicyEntry(True, 8, precedence=9, deny=True)), False, True)
    )
    assert denied.is_denied(True, 8)
    assert not denied.is_denied(True, 9)
    assert not Whole(EndpointPolicy((PolicyEntry(True, 9),), False, True)).is_denied(True, 8)


def test_pieces_cover_every_port_once() -> None:
    entries = (PolicyEntry(False, 0, TCP, 80, 16), PolicyEntry(False, 0, TCP, 8064, 10), PolicyEntry(False, 5))
    pieces = list(Whole(EndpointPolicy(entries, True)).pieces(False))
    assert pieces == [(1, 79), (80, 80), (81, 8063), (8064, 8127), (8128, 65535)]
