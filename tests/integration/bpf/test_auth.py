"""Records of authentication in the kernel: what passes, until when, and what is asked for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_network

import numpy as np
import pytest

from bpf import maps
from bpf.auth import now_ns
from bpf.datapath import Datapath, IpcacheEntry
from bpf.facts import AuthPair
from bpf.handles import Map
from bpf.policies import EndpointPolicy, PolicyEntry
from tests.support.testnet import Cluster, ping
from tests.support.traffic import open_socket

pytestmark = pytest.mark.kernel

MINUTE_NS = 60 * 10**9
CLIENT, SERVER, FAR = 33333, 44444, 55555
PAIR = AuthPair(SERVER, CLIENT, 0, 1)
DENIED_S = 0.2


def required(auth: int = 0x81, *, egress: bool = False) -> EndpointPolicy:
    """Everybody may, once they have proved who they are."""
    return EndpointPolicy((PolicyEntry(egress, 0, auth=auth),), enforced_ingress=not egress, enforced_egress=egress)


@pytest.fixture
def datapath(cluster: Cluster) -> Iterator[Datapath]:
    """Of the near node, where the server wants proofs; without records and questions."""
    found = cluster.near.datapath
    found.set_policy(cluster.server.endpoint.endpoint_id, required())
    yield found
    for pod in cluster.near.pods:
        found.set_policy(pod.endpoint.endpoint_id, EndpointPolicy())
    table = found.auth()
    table.revoke(table.records())
    table.answer(table.wanted())
    found.configure(auth_renew_s=0)
    cluster.net.share_ipcache()


def asks(cluster: Cluster, **where: float) -> bool:
    """Whether the client gets an answer of the server."""
    return ping(cluster.client.netns, cluster.server.ipv4, **where)


def test_without_a_record_packets_are_dropped_and_the_agent_is_asked_once(cluster: Cluster, datapath: Datapath) -> None:
    assert not asks(cluster, timeout_s=DENIED_S)
    assert not asks(cluster, timeout_s=DENIED_S)
    drops = [event for event in cluster.log.collect() if event.what == "drop 189"]
    assert [one.ext_error for one in drops] == [1, 1]
    assert datapath.auth().wanted() == [PAIR]
    assert datapath.auth().missed() == 0
    datapath.auth().answer([PAIR])
    assert datapath.auth().wanted() == []


def test_a_record_lets_packets_pass_until_it_is_over(cluster: Cluster, datapath: Datapath) -> None:
    datapath.auth().allow(PAIR, now_ns() + MINUTE_NS)
    assert asks(cluster)
    verdicts = [event for event in cluster.log.collect() if event.what == "verdict"]
    assert [(one.verdict, one.ext_error) for one in verdicts] == [(0, 1)]
    assert datapath.auth().wanted() == []
    datapath.auth().allow(PAIR, now_ns() - 1)
    assert not asks(cluster, timeout_s=DENIED_S)
    assert datapath.auth().wanted() == [PAIR]
    assert list(datapath.auth().records()) == [PAIR]


def test_before_its_end_a_record_that_is_used_is_asked_for_again(cluster: Cluster, datapath: Datapath) -> None:
    datapath.configure(auth_renew_s=100)
    datapath.auth().allow(PAIR, now_ns() + MINUTE_NS)
    assert asks(cluster)
    assert datapath.auth().wanted() == [PAIR]


@pytest.mark.parametrize(
    "other", [AuthPair(SERVER, CLIENT, 1, 1), AuthPair(CLIENT, SERVER, 0, 1), PAIR._replace(kind=2)]
)
def test_a_record_of_another_pair_says_nothing(cluster: Cluster, datapath: Datapath, other: AuthPair) -> None:
    datapath.auth().allow(other, now_ns() + MINUTE_NS)
    assert not asks(cluster, timeout_s=DENIED_S)


@pytest.mark.parametrize("version", [4, 6])
def test_a_record_is_about_the_other_one_s_node(cluster: Cluster, datapath: Datapath, version: int) -> None:
    far, server = cluster.far, cluster.server
    source, target = (far.ipv4, server.ipv4) if version == 4 else (far.ipv6, server.ipv6)
    entry = IpcacheEntry(identity=FAR, tunnel_endpoint=cluster.away.address, node_id=7)
    datapath.set_ipcache(ip_network(source), entry)
    assert datapath.ipcache()[ip_network(source)] == entry
    here, there = AuthPair(SERVER, FAR, 0, 1), AuthPair(SERVER, FAR, 7, 1)
    datapath.auth().allow(here, now_ns() + MINUTE_NS)
    assert not ping(far.netns, target, timeout_s=DENIED_S)
    assert datapath.auth().wanted() == [there]
    datapath.auth().allow(there, now_ns() + MINUTE_NS)
    assert ping(far.netns, target)


def test_who_sends_may_have_to_know_its_peer(cluster: Cluster, datapath: Datapath) -> None:
    datapath.set_policy(cluster.server.endpoint.endpoint_id, EndpointPolicy())
    datapath.set_policy(cluster.client.endpoint.endpoint_id, required(egress=True))
    assert not asks(cluster, timeout_s=DENIED_S)
    pair = AuthPair(CLIENT, SERVER, 0, 1)
    assert datapath.auth().wanted() == [pair]
    datapath.auth().allow(pair, now_ns() + MINUTE_NS)
    assert asks(cluster)


ICMP, ECHO = 1, 8


@pytest.mark.parametrize(("any_auth", "passes"), [(0, False), (0x80, True)])
def test_an_entry_that_names_nothing_leaves_it_to_the_other_one(
    cluster: Cluster, datapath: Datapath, any_auth: int, passes: bool
) -> None:
    # Both fit; the one about any peer decides, because it is more precise about the protocol.
    entries = (PolicyEntry(False, 0, ICMP, ECHO, 16, auth=any_auth), PolicyEntry(False, CLIENT, auth=0x81))
    datapath.set_policy(cluster.server.endpoint.endpoint_id, EndpointPolicy(entries, enforced_ingress=True))
    assert asks(cluster, timeout_s=1.0 if passes else DENIED_S) is passes
    [verdict] = [event for event in cluster.log.collect() if event.what == "verdict"]
    assert verdict.ext_error == (0 if passes else 1), "the type that was wanted"
    assert verdict.match == 3, "L4-Only, either way"


def test_what_always_fails_is_never_asked_for(cluster: Cluster, datapath: Datapath) -> None:
    datapath.set_policy(cluster.server.endpoint.endpoint_id, required(0x82))
    datapath.auth().allow(PAIR, now_ns() + MINUTE_NS)
    datapath.auth().allow(PAIR._replace(kind=2), now_ns() + MINUTE_NS)
    assert not asks(cluster, timeout_s=DENIED_S)
    assert [event.ext_error for event in cluster.log.collect() if event.what == "drop 189"] == [2]
    assert datapath.auth().wanted() == []


def test_a_connection_ends_with_its_record(cluster: Cluster, datapath: Datapath) -> None:
    datapath.auth().allow(PAIR, now_ns() + MINUTE_NS)
    with (
        open_socket(cluster.server.netns, socket.SOCK_STREAM, "0.0.0.0", 8080) as listening,
        open_socket(cluster.client.netns, socket.SOCK_STREAM, "0.0.0.0", 0) as client,
    ):
        client.connect((cluster.server.ipv4, 8080))
        server, _ = listening.accept()
        with server:
            client.sendall(b"a")
            assert server.recv(1) == b"a"
            datapath.auth().revoke([PAIR])
            cluster.log.collect()
            cluster.log.clear()
            client.sendall(b"b")
            assert cluster.log.wait_for(lambda events: any(one.what == "drop 189" for one in events))
            datapath.auth().allow(PAIR, now_ns() + MINUTE_NS)
            assert server.recv(1) == b"b", "sent again by TCP"


def test_questions_that_find_no_room_are_counted(cluster: Cluster, datapath: Datapath) -> None:
    table = Map.pinned(datapath.pin_dir / maps.AUTH_WANTED)
    keys = np.zeros(table.max_entries, maps.AUTH_KEY)
    keys["local_identity"] = 1 + np.arange(table.max_entries)
    values = np.zeros((table.max_entries, 8), np.uint8)
    table.update_many(keys.view(np.uint8).reshape(-1, maps.AUTH_KEY.itemsize), values)
    table.close()
    before = datapath.auth().missed()
    assert not asks(cluster, timeout_s=DENIED_S)
    assert datapath.auth().missed() == before + 1
    assert PAIR not in datapath.auth().wanted()


def test_records_outlive_whoever_wrote_them(cluster: Cluster, datapath: Datapath) -> None:
    expires_ns = now_ns() + MINUTE_NS
    datapath.auth().allow(PAIR, expires_ns)
    with Datapath(cluster.near.netns, netns=cluster.near.netns, bpffs=cluster.net.bpffs) as again:
        again.ensure_loaded()
        assert again.auth().records() == {PAIR: expires_ns}
    assert asks(cluster)
