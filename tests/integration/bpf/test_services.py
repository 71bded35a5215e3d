"""Services through real packets: a client finds a backend, and hears from the address it asked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from bpf.services import FrontendKind, ServiceFrontend
from tests.support import exchanges
from tests.support.exchanges import VERSIONS, service_at
from tests.support.kernel_events import KernelEvent
from tests.support.outside import ANY
from tests.support.testnet import Cluster, Pod, ping
from tests.support.traffic import open_socket

pytestmark = pytest.mark.kernel

VIP = {"ipv4": "10.96.0.80", "ipv6": "fd00:10:96::50"}
UDP, SCTP = 17, 132


def service(version: str, *pods: Pod, port: int = 80, **more: Any) -> ServiceFrontend:
    """A ClusterIP service of `version` in front of pods."""
    return service_at(VIP[version], version, *pods, kind=FrontendKind.CLUSTER_IP, port=port, **more)


@pytest.fixture(autouse=True)
def no_services(cluster: Cluster) -> Iterator[None]:
    yield
    for node in (cluster.near, cluster.away):
        node.datapath.sync_services([])


def ask(client: Pod, server: Pod, version: str, target: int = 8080, port: int = 80) -> tuple[str, str]:
    """One TCP exchange through the service; whom the client thinks it talks to, and whom the server."""
    return exchanges.ask(client.netns, server, version, VIP[version], port, target)


def drops(events: list[KernelEvent]) -> list[KernelEvent]:
    return [event for event in events if event.type == 1]


@VERSIONS
@pytest.mark.parametrize("where", ["server", "far"])
def test_pod_reaches_a_backend_by_the_address_of_its_service(cluster: Cluster, version: str, where: str) -> None:
    backend: Pod = getattr(cluster, where)
    cluster.near.datapath.sync_services([service(version, backend)])
    told, seen = ask(cluster.client, backend, version)
    assert (told, seen) == (VIP[version], getattr(cluster.client, version))
    address, client = getattr(backend, version), getattr(cluster.client, version)
    events = cluster.log.wait_for(lambda events: len(events) >= 8)
    there = [event for event in events if event.src == client]
    back = [event for event in events if event.what == "to-endpoint" and event.dst == client]
    assert {event.what for event in there} == {"to-endpoint" if where == "server" else "to-overlay"}
    assert [event.tcp_flags for event in there] == ["SYN", "ACK", "ACK, PSH", "ACK, FIN", "ACK"]
    assert [event.reason for event in there] == ["new", *["established"] * 4]
    assert {event.dst for event in there} == {address}, "the translation comes first"
    assert [event.tcp_flags for event in back] == ["SYN, ACK", "ACK, PSH", "ACK, FIN"]
    assert {(event.reason, event.src) for event in back} == {("reply", VIP[version])}
    assert {event.orig_ip for event in back} == {ip_address(address).packed.ljust(16, b"\0")}
    assert not drops(events)


@VERSIONS
@pytest.mark.parametrize("where", ["server", "far"])
def test_datagrams_and_their_answers_are_translated(cluster: Cluster, version: str, where: str) -> None:
    backend: Pod = getattr(cluster, where)
    cluster.near.datapath.sync_services([service(version, backend, port=5353, target=9053, protocol=UDP)])
    server = open_socket(backend.netns, socket.SOCK_DGRAM, ANY[version], 9053)
    with server, open_socket(cluster.client.netns, socket.SOCK_DGRAM, ANY[version]) as client:
        for size in (10, 1000, 6000):  # the last in fragments
            client.sendto(b"q" * size, (VIP[version], 5353))
            question, peer = server.recvfrom(10000)
            assert len(question) == size
            server.sendto(b"a" * size, peer)
            answer, source = client.recvfrom(10000)
            assert (len(answer), source[:2]) == (size, (VIP[version], 5353))
    assert not drops(cluster.log.collect())


@VERSIONS
def test_pod_that_picks_itself_talks_to_itself(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.sync_services([service(version, cluster.client)])
    told, seen = ask(cluster.client, cluster.client, version)
    assert (told, seen) == (VIP[version], {"ipv4": "169.254.42.1", "ipv6": "fd00:169:254:42::1"}[version])


@VERSIONS
def test_service_without_backends_and_ports_it_does_not_have_are_dropped(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.sync_services([service(version, port=80)])
    with open_socket(cluster.client.netns, socket.SOCK_DGRAM, ANY[version]) as client:
        client.sendto(b"x", (VIP[version], 81))
    with open_socket(cluster.client.netns, socket.SOCK_STREAM, ANY[version]) as sock:
        sock.setblocking(False)
        sock.connect_ex((VIP[version], 80))
        events = cluster.log.wait_for(lambda events: len(drops(events)) >= 2)
    assert [(event.what, event.source, event.dst) for event in drops(events)[:2]] == [
        ("drop 158", 1017, VIP[version])
    ] * 2
    assert {event.what for event in events} == {"drop 158"}


def open_through(client: Pod, servers: dict[str, socket.socket], version: str = "ipv4") -> tuple[socket.socket, str]:
    """A connection through the service, and the name of the server that got it."""
    sock = open_socket(client.netns, socket.SOCK_STREAM, ANY[version])
    sock.connect((VIP[version], 80))
    for name, listener in servers.items():
        listener.settimeout(0.2)
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        connection.close()
        return sock, name
    raise AssertionError("nobody got the connection")


def test_connection_stays_with_its_backend_while_it_terminates_and_new_ones_go_elsewhere(cluster: Cluster) -> None:
    datapath = cluster.near.datapath
    datapath.sync_services([service("ipv4", cluster.server)])
    old = open_socket(cluster.server.netns, socket.SOCK_STREAM, port=8080)
    new = open_socket(cluster.far.netns, socket.SOCK_STREAM, port=8080)
    with old, new, open_socket(cluster.client.netns, socket.SOCK_STREAM) as sock:
        sock.connect((VIP["ipv4"], 80))
        connection, _ = old.accept()
        with connection:
            datapath.sync_services([service("ipv4", cluster.server, cluster.far, terminating=(cluster.server,))])
            sock.sendall(b"still there?")
            assert connection.recv(100) == b"still there?"
            for _ in range(5):
                later, name = open_through(cluster.client, {"new": new, "old": old})
                later.close()
                assert name == "new"
            connection.sendall(b"yes")
            assert sock.recv(100) == b"yes"


def test_datagrams_move_on_when_their_backend_is_gone(cluster: Cluster) -> None:
    datapath = cluster.near.datapath
    datapath.sync_services([service("ipv4", cluster.server, protocol=UDP)])
    first = open_socket(cluster.server.netns, socket.SOCK_DGRAM, port=8080)
    second = open_socket(cluster.far.netns, socket.SOCK_DGRAM, port=8080)
    with first, second, open_socket(cluster.client.netns, socket.SOCK_DGRAM) as client:
        client.sendto(b"1", (VIP["ipv4"], 80))
        assert first.recv(10) == b"1"
        datapath.sync_services([service("ipv4", cluster.far, protocol=UDP)])
        client.sendto(b"2", (VIP["ipv4"], 80))
        data, peer = second.recvfrom(10)
        second.sendto(data, peer)
        assert client.recvfrom(10) == (b"2", (VIP["ipv4"], 80))


def test_affinity_keeps_a_client_at_its_backend(cluster: Cluster) -> None:
    cluster.near.datapath.sync_services([service("ipv4", cluster.server, cluster.far, affinity_s=100)])
    servers = {
        "server": open_socket(cluster.server.netns, socket.SOCK_STREAM, port=8080),
        "far": open_socket(cluster.far.netns, socket.SOCK_STREAM, port=8080),
    }
    names = set()
    for _ in range(8):
        sock, name = open_through(cluster.client, servers)
        sock.close()
        names.add(name)
    for listener in servers.values():
        listener.close()
    assert len(names) == 1


def test_without_affinity_connections_spread(cluster: Cluster) -> None:
    cluster.near.datapath.sync_services([service("ipv4", cluster.server, cluster.far)])
    names = set()
    with (
        open_socket(cluster.server.netns, socket.SOCK_DGRAM, port=9080) as one,
        open_socket(cluster.far.netns, socket.SOCK_DGRAM, port=9080) as two,
    ):
        cluster.near.datapath.sync_services([service("ipv4", cluster.server, cluster.far, protocol=UDP, target=9080)])
        for _ in range(24):
            with open_socket(cluster.client.netns, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", (VIP["ipv4"], 80))
        for name, sock in (("one", one), ("two", two)):
            sock.settimeout(0.2)
            try:
                sock.recv(10)
                names.add(name)
            except TimeoutError:
                continue
    assert names == {"one", "two"}


@VERSIONS
def test_icmp_error_about_a_translated_connection_names_the_service(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.sync_services([service(version, cluster.far, protocol=UDP, target=9)])
    with open_socket(cluster.client.netns, socket.SOCK_DGRAM, ANY[version]) as client:
        client.connect((VIP[version], 80))
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)
    events = cluster.log.wait_for(lambda events: len(events) >= 2)
    assert [(event.what, event.reason) for event in events] == [("to-overlay", "new"), ("to-endpoint", "related")]


def test_services_and_their_numbers_are_read_back(cluster: Cluster) -> None:
    datapath = cluster.near.datapath
    wanted = [
        service("ipv4", cluster.server, cluster.far, terminating=(cluster.far,), affinity_s=30),
        service("ipv6", cluster.far, port=81, maglev=True),
        service("ipv4", port=82, l7_port=10001, local_only=True),
    ]
    datapath.sync_services(wanted)
    assert sorted(datapath.services(), key=str) == sorted(wanted, key=str)
    assert ping(cluster.client.netns, cluster.server.ipv4)
