"""Connections of which a full map has forgotten one half: what the server says next, and whether they go on."""

from __future__ import annotations

import fcntl
import socket
import termios
from collections.abc import Iterator

import numpy as np
import pytest

from bpf import maps
from bpf.handles import Map
from bpf.services import FrontendKind
from tests.support.exchanges import VERSIONS, service_at
from tests.support.outside import ANY, NODE, join
from tests.support.testnet import Cluster
from tests.support.traffic import open_socket
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

CLUSTER_IP = {"ipv4": "10.96.0.80", "ipv6": "fd00:10:96::50"}
CLIENTS_HALF, SERVERS_HALF = 0, 1
"""As flags of a key say: who opened it, seen from the endpoint (enum ct_flags)."""


@pytest.fixture(scope="module")
def joined(shared_cluster: Cluster) -> Cluster:
    return join(shared_cluster)


@pytest.fixture
def asked(joined: Cluster, cluster: Cluster, version: str, who: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's and a server's end of a connection to a service; whatever comes next is said by the server."""
    netns = {"outside": cluster.net.name, "node": cluster.near.netns}[who]
    address, port, kind = {
        "outside": (NODE[version], 30080, FrontendKind.NODE_PORT),
        "node": (CLUSTER_IP[version], 80, FrontendKind.CLUSTER_IP),
    }[who]
    datapath = cluster.near.datapath
    datapath.sync_services([service_at(address, version, cluster.server, kind=kind, port=port)])
    with (
        open_socket(cluster.server.netns, socket.SOCK_STREAM, ANY[version], 8080) as listener,
        open_socket(netns, socket.SOCK_STREAM, ANY[version]) as client,
    ):
        for sock in (listener, client):
            sock.settimeout(20)
        client.connect((address, port))
        server, _ = listener.accept()
        with server:
            server.settimeout(20)
            server.sendall(b"hello")
            assert client.recv(100) == b"hello"
            # An acknowledgement that is still under way would be a word of the client.
            eventually(lambda: not unacknowledged(server), 20.0)
            cluster.log.clear()
            yield client, server
    datapath.sync_services([])


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that were sent, of which the peer has not said that they came."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), "little")


def forget(cluster: Cluster, version: str, half: int) -> int:
    """As a full map does; returns how many entries."""
    name, layout = (maps.CT4_TCP, maps.CT4_KEY) if version == "ipv4" else (maps.CT6_TCP, maps.CT6_KEY)
    table = Map.pinned(cluster.near.datapath.pin_dir / name)
    keys = [key for key, _ in table.items() if np.frombuffer(key, layout)[0]["flags"] == half]
    for key in keys:
        table.delete(key)
    table.close()
    return len(keys)


@VERSIONS
@pytest.mark.parametrize("who", ["outside", "node"])
def test_server_speaks_on_when_its_own_half_is_forgotten(
    cluster: Cluster, asked: tuple[socket.socket, socket.socket], version: str, who: str
) -> None:
    client, server = asked
    assert forget(cluster, version, SERVERS_HALF)
    for word in (b"news", b"more"):
        server.sendall(word)
        assert client.recv(100) == word
    client.sendall(b"thanks")
    assert server.recv(100) == b"thanks"
    server.sendall(b"bye")
    assert client.recv(100) == b"bye"
    assert not [event for event in cluster.log.collect() if event.type == 1], who


@VERSIONS
@pytest.mark.parametrize("who", ["outside", "node"])
def test_what_the_server_says_is_told_as_lost_until_the_client_speaks(
    cluster: Cluster, asked: tuple[socket.socket, socket.socket], version: str, who: str
) -> None:
    """The client's half knows by which address the client knows the server."""
    client, server = asked
    assert forget(cluster, version, CLIENTS_HALF)
    server.sendall(b"news")
    events = cluster.log.wait_for(lambda events: any(event.type == 1 for event in events))
    lost = [event for event in events if event.type == 1]
    assert {(event.what, event.source) for event in lost} == {("drop 167", 2044)}, who
    client.sendall(b"anything?")
    assert server.recv(100) == b"anything?"
    assert client.recv(100) == b"news", "said again by the server's stack"
