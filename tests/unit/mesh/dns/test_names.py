"""Lifetimes of addresses, against a list of everything that was ever told."""

from __future__ import annotations

import json
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.names import MAX_NAMES, Address, Limits, Names

ONE, TWO, THREE = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))


def nobody(_: int, __: Address) -> bool:
    return False


def test_an_address_is_known_until_its_answer_has_expired_and_somebody_looks() -> None:
    names = Names()
    assert names.learn(7, "a.", [ONE, TWO], 30, 100.0) == {ONE, TWO}
    assert names.learn(7, "a.", [ONE], 60, 110.0) == set()
    assert names.expire(130.0, nobody) == {TWO}
    assert names.of_endpoint(7) == {ONE: ("a.",)}
    assert names.expire(170.0, nobody) == {ONE}
    assert names.addresses() == []


def test_a_shorter_answer_does_not_shorten_a_longer_one() -> None:
    names = Names()
    names.learn(7, "a.", [ONE], 600, 0.0)
    names.learn(7, "a.", [ONE], 1, 1.0)
    assert names.expire(500.0, nobody) == set()


def test_a_minimum_lengthens_lifetimes() -> None:
    names = Names(Limits(min_ttl_s=3600))
    names.learn(7, "a.", [ONE], 0, 0.0)
    assert names.expire(3599.0, nobody) == set()
    assert names.expire(3600.0, nobody) == {ONE}


def test_an_address_in_use_outlives_its_answer_and_then_some_grace() -> None:
    names = Names(Limits(grace_s=10.0))
    names.learn(7, "a.", [ONE], 1, 0.0)
    assert names.expire(5.0, lambda endpoint, address: (endpoint, address) == (7, ONE)) == set()
    assert names.of_address(ONE) == ("a.",)
    assert names.expire(14.0, nobody) == set()
    assert names.expire(15.0, nobody) == {ONE}


def test_what_is_told_again_while_only_in_use_is_known_as_before() -> None:
    names = Names()
    names.learn(7, "a.", [ONE], 1, 0.0)
    names.expire(5.0, lambda *_: True)
    assert names.learn(7, "a.", [ONE], 10, 6.0) == set()
    assert names.expire(20.0, nobody) == {ONE}
    assert names.of_address(ONE) == ()


def test_of_too_many_addresses_those_go_that_expire_first() -> None:
    names = Names(Limits(max_addresses=2))
    names.learn(7, "a.", [ONE], 10, 0.0)
    names.learn(7, "a.", [TWO], 30, 0.0)
    assert names.learn(7, "a.", [THREE], 20, 0.0) == {ONE, THREE}
    assert names.forgotten == 1


def test_of_too_many_names_the_oldest_goes() -> None:
    names = Names()
    for number in range(MAX_NAMES + 1):
        names.learn(7, f"{number}.", [ONE], 10, 0.0)
    assert len(names.of_address(ONE)) == MAX_NAMES
    assert "0." not in names.of_address(ONE)


def test_of_too_many_that_are_only_in_use_some_go() -> None:
    names = Names(Limits(max_deferred=1))
    names.learn(7, "a.", [ONE, TWO], 1, 0.0)
    assert len(names.expire(5.0, lambda *_: True)) == 1


def test_an_endpoint_that_is_gone_is_forgotten() -> None:
    names = Names()
    names.learn(7, "a.", [ONE], 10, 0.0)
    names.learn(8, "a.", [ONE], 10, 0.0)
    assert names.keep_endpoints([8]) == set()
    assert names.keep_endpoints([]) == {ONE}


@pytest.mark.parametrize("told", [{"x": {}}, {"7": {"names": 3, "in_use": []}}, {"7": []}, {"7": {"names": {"a.": 1}}}])
def test_another_file_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not what was written"):
        Names().restore(told, 0.0)


Step = tuple[int, str, list[Address], int, float]
STEP = st.tuples(
    st.integers(1, 3),
    st.sampled_from(["a.", "b."]),
    st.lists(st.sampled_from([ONE, TWO, THREE]), max_size=3),
    st.integers(0, 50),
    st.floats(0, 30),
)


@given(st.lists(STEP, max_size=20), st.floats(0, 60))
def test_the_same_is_known_as_if_everything_were_remembered(
    steps: list[tuple[int, str, list[Address], int, float]], rest_s: float
) -> None:
    names, told, now_s = Names(), dict[tuple[int, str, Address], float](), 0.0
    known: dict[Address, set[str]] = {}

    def of_all() -> dict[Address, set[str]]:
        found: dict[Address, set[str]] = {}
        for _, name, address in told:
            found.setdefault(address, set()).add(name)
        return found

    for endpoint, name, addresses, ttl_s, pause_s in steps:
        now_s += pause_s
        changed = names.learn(endpoint, name, addresses, ttl_s, now_s)
        for address in addresses:
            key = endpoint, name, address
            told[key] = max(told.get(key, 0.0), now_s + ttl_s)
        before, known = known, of_all()
        assert changed == {one for one in known if known[one] != before.get(one)}
    # A restart changes nothing.
    again = Names()
    again.restore(json.loads(json.dumps(names.dump())), now_s)
    now_s += rest_s
    told = {key: expires_s for key, expires_s in told.items() if expires_s > now_s}
    for one in (names, again):
        one.expire(now_s, nobody)
        assert {address: set(one.of_address(address)) for address in one.addresses()} == of_all()
