"""Addresses and names of nodes, as Peer services and people write them."""

from __future__ import annotations

import pytest

from relay.peers import Peer, listed_peer, peer_target
from rpc.target import Target
from service.failure import Failure


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("10.0.0.1:4244", Target("tcp", "10.0.0.1", 4244)),
        ("10.0.0.1", Target("tcp", "10.0.0.1", 4244)),
        ("10.0.0.1:http", Target("tcp", "10.0.0.1", 4244)),
        ("10.0.0.1:99999", Target("tcp", "10.0.0.1", 4244)),
        ("[fd00::1]:5000", Target("tcp", "fd00::1", 5000)),
        ("fd00::1", Target("tcp", "fd00::1", 4244)),
        ("node-1.example:5000", Target("tcp", "node-1.example", 5000)),
        ("unix:///run/x.sock", Target("unix", path="/run/x.sock")),
        ("/run/x.sock", Target("unix", path="/run/x.sock")),
        ("", None),
        ("a b", None),
        ("http://x", None),
    ],
)
def test_the_address_of_a_node_is_read(address: str, target: Target | None) -> None:
    assert peer_target(address) == target


@pytest.mark.parametrize(
    ("text", "tls", "peer"),
    [
        ("worker=10.0.0.1", False, Peer("worker", "10.0.0.1:4244")),
        ("worker=unix:///run/x.sock", True, Peer("worker", "unix:///run/x.sock")),
        ("unix:///run/x.sock", False, Peer("unix:///run/x.sock", "unix:///run/x.sock")),
        ("eu/w.1=10.0.0.1:1", True, Peer("eu/w.1", "10.0.0.1:1", True, "w-1.eu.hubble-grpc.cilium.io")),
        ("w=10.0.0.1:1", True, Peer("w", "10.0.0.1:1", True, "w.home.hubble-grpc.cilium.io")),
        ("node.example:4244", True, Peer("node.example:4244", "node.example:4244", True, "node.example")),
    ],
)
def test_a_listed_node_is_read(text: str, tls: bool, peer: Peer) -> None:
    assert listed_peer(text, tls, "home") == peer


@pytest.mark.parametrize("text", ["", "worker=", "=10.0.0.1", "worker=a b"])
def test_a_listed_node_that_leads_nowhere_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="is not NAME=ADDRESS"):
        listed_peer(text, False)
