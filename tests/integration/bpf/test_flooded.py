"""A held connection lives on while others fill every table, and when the tables have forgotten it."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from bpf import maps
from bpf.facts import MapSizes
from bpf.handles import Map
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from tests.support.kernel_events import EventLog
from tests.support.outside import ANY, WORLD, join
from tests.support.testnet import Cluster, Node, network
from tests.support.traffic import background, open_socket

pytestmark = pytest.mark.kernel

VERSIONS = pytest.mark.parametrize("version", ["ipv4", "ipv6"])
VIP = {"ipv4": "10.96.0.80", "ipv6": "fd00:10:96::50"}
SMALL = MapSizes(conntrack_tcp=256, conntrack_any=256, nat=256, affinity=64, ipcache=256, fragments=64)
FLOOD = 400
BACKEND_PORTS = list(range(8080, 8088))
FORGETFUL = {
    "ipv4": (maps.CT4_TCP, maps.CT4_ANY, maps.NAT4),
    "ipv6": (maps.CT6_TCP, maps.CT6_ANY, maps.NAT6),
}


@pytest.fixture(scope="module")
def small(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with small tables."""
    with network(tmp_path_factory.mktemp("small"), SMALL) as net:
        near, away = net.add_node(), net.add_node()
        client, server, far = near.add_pod(17, 333), near.add_pod(44, 444), away.add_pod(77, 555)
        log = EventLog.__new__(EventLog)  # nobody reads events here
        yield join(Cluster(net, near, away, client, server, far, log, log))


@contextmanager
def held(cluster: Cluster, version: str, where: str) -> Iterator[socket.socket]:
    """A connection whose other end gives back what it gets: to the world, or to one of a service's backends."""
    netns, ports, address = {
        "world": (cluster.net.name, [8443], WORLD[version]),
        "far": (cluster.far.netns, BACKEND_PORTS, VIP[version]),
    }[where]

    def serve() -> None:
        asked, _, _ = select.select(listeners, [], [], 30)
        connection, _ = asked[0].accept()
        with connection:
            connection.settimeout(30)
            while data := connection.recv(100):
                connection.sendall(data)

    with ExitStack() as stack:
        listeners = [stack.enter_context(open_socket(netns, socket.SOCK_STREAM, ANY[version], one)) for one in ports]
        stack.enter_context(background(serve))
        sock = stack.enter_context(open_socket(cluster.client.netns, socket.SOCK_STREAM, ANY[version]))
        sock.connect((address, 8443))
        sock.settimeout(30)
        yield sock
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""


def echo(sock: socket.socket) -> None:
    sock.sendall(b"still here?")
    assert sock.recv(100) == b"still here?"


def offer(cluster: Cluster, version: str) -> None:
    """A service whose backends differ in their ports, so that another choice would meet nobody who knows."""
    address = ip_address(getattr(cluster.far, version))
    cluster.near.datapath.sync_services(
        [
            ServiceFrontend(
                frontend=Frontend(address=ip_address(VIP[version]), port=8443, protocol=6),
                backends=tuple(Backend(address=address, port=port) for port in BACKEND_PORTS),
                kind=FrontendKind.CLUSTER_IP,
            )
        ]
    )


def forget(node: Node, version: str) -> int:
    """Empty all tables of connections, as if others had needed the room."""
    gone = 0
    for name in FORGETFUL[version]:
        table = Map.pinned(node.datapath.pin_dir / name)
        gone += table.delete_many(table.dump()[0])
        table.close()
    return gone


@VERSIONS
@pytest.mark.parametrize("where", ["world", "far"])
def test_held_connection_works_on_while_another_pod_fills_the_tables(small: Cluster, version: str, where: str) -> None:
    offer(small, version)
    before = small.near.datapath.evictions()
    with held(small, version, where) as sock, open_socket(small.server.netns, socket.SOCK_DGRAM, ANY[version]) as udp:
        for batch in range(4):
            for number in range(FLOOD):
                udp.sendto(b"x", (WORLD[version], 1 + batch * FLOOD + number))
                syn(small, version, 1 + batch * FLOOD + number)
            echo(sock)
    after = small.near.datapath.evictions()
    for name in FORGETFUL[version]:
        assert after[name] > before[name], name


def syn(cluster: Cluster, version: str, port: int) -> None:
    """One connection more that nobody answers."""
    with open_socket(cluster.server.netns, socket.SOCK_STREAM, ANY[version]) as sock:
        sock.setblocking(False)
        sock.connect_ex((WORLD[version], port))


@VERSIONS
@pytest.mark.parametrize("where", ["world", "far"])
def test_connection_that_every_table_has_forgotten_is_known_again(small: Cluster, version: str, where: str) -> None:
    offer(small, version)
    with held(small, version, where) as sock:
        for _ in range(3):
            echo(sock)
            assert forget(small.near, version) > 2
            forget(small.away, version)
            echo(sock)
