"""Addresses as people and Peer services write them."""

from __future__ import annotations

import pytest

from rpc.target import Target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("localhost:4245", Target("tcp", "localhost", 4245)),
        ("10.0.0.1:4244", Target("tcp", "10.0.0.1", 4244)),
        ("[fd00::1]:4244", Target("tcp", "fd00::1", 4244)),
        (":4244", Target("tcp", "", 4244)),
        ("unix:///run/x.sock", Target("unix", path="/run/x.sock")),
        ("unix:/run/x.sock", Target("unix", path="/run/x.sock")),
        ("unix://x.sock", Target("unix", path="x.sock")),
        ("/run/x.sock", Target("unix", path="/run/x.sock")),
        ("tls://relay.example:443", Target("tcp", "relay.example", 443, tls=True)),
        ("dns:///relay.example:443", Target("tcp", "relay.example", 443)),
        ("passthrough:///relay.example:443", Target("tcp", "relay.example", 443)),
        ("dns:relay.example:443", Target("tcp", "relay.example", 443)),
        ("ipv4:10.0.0.1:80", Target("tcp", "10.0.0.1", 80)),
    ],
)
def test_an_address_is_read(text: str, target: Target) -> None:
    assert Target.parse(text) == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.0.0.1", Target("tcp", "10.0.0.1", 4244)),
        ("fd00::1", Target("tcp", "fd00::1", 4244)),
        ("[fd00::1]", Target("tcp", "fd00::1", 4244)),
        ("node:1", Target("tcp", "node", 1)),
    ],
)
def test_a_missing_port_is_filled_in(text: str, target: Target) -> None:
    assert Target.parse(text, 4244) == target


@pytest.mark.parametrize("text", ["", "localhost", "fd00::1", "host:port", "host:70000", "a b:1", "unix://", "host:٣"])
def test_a_broken_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        Target.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["localhost:4245", "[fd00::1]:4244", "unix:///run/x.sock"])
def test_an_address_prints_as_it_was_written(text: str) -> None:
    assert str(Target.parse(text)) == text
