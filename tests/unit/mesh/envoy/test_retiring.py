"""What goes stays until nothing needs it."""

from __future__ import annotations

from mesh.envoy.process import DRAIN_S
from mesh.envoy.retiring import ACCEPT_S, Extra, Retiring

ALL = Extra(listeners={"l": {"a": 1}}, clusters={"c": {}}, routes={"r": {}}, endpoints={"e": {}}, secrets={"s": {}})


def test_a_listener_goes_first_and_what_its_connections_need_when_they_have_ended() -> None:
    now = 100.0
    retiring = Retiring(lambda: now)
    assert retiring.with_leaving(ALL) == ALL
    retiring.taken = ALL
    assert retiring.with_leaving(Extra()) == ALL
    retiring.taken = Extra()
    now += ACCEPT_S / 2
    assert retiring.with_leaving(Extra()) == ALL
    assert not retiring.is_due
    now += ACCEPT_S / 2
    assert retiring.is_due
    left = retiring.with_leaving(Extra())
    assert (left.listeners, left.clusters, left.routes) == ({}, ALL.clusters, ALL.routes)
    assert not retiring.is_due
    now += DRAIN_S
    assert retiring.is_due
    assert retiring.with_leaving(Extra()) == Extra()
    assert not retiring.is_due


def test_what_comes_back_is_what_is_wanted_now() -> None:
    retiring = Retiring(lambda: 0.0)
    retiring.with_leaving(ALL)
    retiring.taken = ALL
    retiring.with_leaving(Extra())
    retiring.taken = Extra()
    again = Extra(listeners={"l": {"a": 2}})
    assert retiring.with_leaving(again).listeners == again.listeners
    retiring.taken = again
    assert retiring.with_leaving(again).listeners == again.listeners


def test_what_was_refused_does_not_stay() -> None:
    retiring = Retiring(lambda: 0.0)
    retiring.with_leaving(ALL)
    assert retiring.with_leaving(Extra()) == Extra()
