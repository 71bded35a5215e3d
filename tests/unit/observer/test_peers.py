"""observer/peers.py: what a relay is told of nodes that come, change and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from observer import peers as peers_module
from observer.peers import PeerEntry, Peers, changes_between
from proto.peer import peer_pb2

NAMES = st.sampled_from(["a", "b", "west/c"])
ENTRIES = st.lists(st.builds(PeerEntry, NAMES, st.sampled_from(["", "10.0.0.1:4244", "unix:///x.sock"])), max_size=4)


def applied(known: dict[str, str], changes: list[peer_pb2.ChangeNotification]) -> dict[str, str]:
    for change in changes:
        if change.type == peer_pb2.PEER_DELETED:
            del known[change.name]
        else:
            assert (change.name in known) == (change.type == peer_pb2.PEER_UPDATED)
            known[change.name] = change.address
    return known


@given(st.lists(ENTRIES, max_size=5), st.integers(0, 5))
def test_a_client_that_applies_what_it_is_told_knows_all_nodes(sets: list[list[PeerEntry]], join_at: int) -> None:
    peers = Peers()
    subscriber = None
    for number, entries in enumerate(sets):
        if number == join_at:
            subscriber = peers.subscribe()
        peers.set(entries)
    if subscriber is None:
        subscriber = peers.subscribe()
    expected = {entry.name: entry.address for entry in (sets[-1] if sets else [])}
    assert applied({}, subscriber.take()) == expected


def test_nothing_is_told_when_nothing_changed() -> None:
    entry = PeerEntry("a", "10.0.0.1:4244")
    assert changes_between({"a": entry}, {"a": PeerEntry("a", "10.0.0.1:4244")}) == []


def test_tls_is_present_only_with_a_server_name() -> None:
    plain, secure = changes_between({}, {"a": PeerEntry("a"), "b": PeerEntry("b", "x", "b.default.example")})
    assert not plain.HasField("tls")
    assert secure.tls.server_name == "b.default.example"


def test_a_client_that_does_not_read_overflows() -> None:
    peers = Peers()
    subscriber = peers.subscribe()
    peers.set([PeerEntry(str(number)) for number in range(peers_module.LARGEST_BACKLOG + 1)])
    assert subscriber.overflowed
    peers.unsubscribe(subscriber)
