"""ICMP errors through real packets: a path's MTU and an unreachable host reach whoever sent, about what it sent."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from tests.support.outside import ANY, BEYOND, NARROW_MTU, NODE, NOWHERE, add_beyond, join, path_mtu, share_ipcache
from tests.support.testnet import Cluster, Pod
from tests.support.traffic import background, open_socket

pytestmark = pytest.mark.kernel

VERSIONS = pytest.mark.parametrize("version", ["ipv4", "ipv6"])
MUCH = 100_000
TUNNEL_MTU = 1450
CLUSTER_IP = {"ipv4": "10.96.0.80", "ipv6": "fd00:10:96::50"}
DISCOVER = {"ipv4": (socket.IPPROTO_IP, 10), "ipv6": (socket.IPPROTO_IPV6, 23)}
"""Of a socket: never fragment (IP_MTU_DISCOVER, IPV6_MTU_DISCOVER), 2."""


@pytest.fixture(scope="module")
def beyond(shared_cluster: Cluster) -> str:
    """A namespace behind a narrow way."""
    return add_beyond(join(shared_cluster))


@pytest.fixture(autouse=True)
def clean(beyond: str, cluster: Cluster) -> Iterator[None]:
    yield
    for node in (cluster.near, cluster.away):
        node.datapath.sync_services([])


def push(sender: str, receiver: str, version: str, address: str, port: int, served_at: int = 0) -> int:
    """Send much from one namespace to another, all of which must arrive; the MTU that the sender has learned."""
    listener = open_socket(receiver, socket.SOCK_STREAM, ANY[version], served_at or port)

    def serve() -> int:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            return sum(map(len, iter(lambda: connection.recv(65536), b"")))

    with listener, background(serve) as received, open_socket(sender, socket.SOCK_STREAM, ANY[version]) as sock:
        sock.connect((address, port))
        sock.settimeout(10)
        sock.sendall(b"x" * MUCH)
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        mtu = path_mtu(sock)
    assert received == [MUCH]
    return mtu


@VERSIONS
def test_pod_learns_from_a_router_outside_how_much_fits(cluster: Cluster, beyond: str, version: str) -> None:
    assert push(cluster.client.netns, beyond, version, BEYOND[version], 8443) == NARROW_MTU
    assert not [event for event in cluster.log.collect() if event.type == 1]


@VERSIONS
def test_unreachable_host_is_told_to_the_pod_that_asked_for_an_echo(cluster: Cluster, version: str) -> None:
    """The router quotes the node's address and an id of the node's; the pod reads its own."""
    pod, four = cluster.client, version == "ipv4"
    identifier = 0x4242
    head = struct.pack(
        "!BBHHH", 8 if four else 128, 0, 0 if not four else 0xFFFF & ~(0x800 + identifier), identifier, 0
    )
    protocol = socket.IPPROTO_ICMP if four else socket.IPPROTO_ICMPV6
    with open_socket(pod.netns, socket.SOCK_RAW, ANY[version], protocol=protocol) as sock:
        sock.sendto(head, (NOWHERE[version], 0))
        while (answer := sock.recv(2000)[20 if four else 0 :])[0] not in (3, 1):
            pass
    quoted = answer[8:]
    source, quoted_head = (quoted[12:16], quoted[20:]) if four else (quoted[8:24], quoted[40:])
    assert ip_address(source) == ip_address(getattr(pod, version))
    assert struct.unpack("!H", quoted_head[4:6]) == (identifier,)
    assert not [event for event in cluster.log.collect() if event.type == 1]


@VERSIONS
@pytest.mark.parametrize("where", ["server", "far"])
def test_backend_learns_how_much_of_its_answer_fits(cluster: Cluster, beyond: str, version: str, where: str) -> None:
    """The router quotes the service's address, and for a pod of another node nothing that this pod knows."""
    backend: Pod = getattr(cluster, where)
    entry = ServiceFrontend(
        frontend=Frontend(address=ip_address(NODE[version]), port=30080, protocol=6),
        backends=(Backend(address=ip_address(getattr(backend, version)), port=8080),),
        kind=FrontendKind.NODE_PORT,
    )
    cluster.near.datapath.sync_services([entry])
    listener = open_socket(backend.netns, socket.SOCK_STREAM, ANY[version], 8080)

    def serve() -> int:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            connection.sendall(b"x" * MUCH)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
            return path_mtu(connection)

    with listener, background(serve) as mtu, open_socket(beyond, socket.SOCK_STREAM, ANY[version]) as sock:
        sock.connect((NODE[version], 30080))
        sock.settimeout(10)
        assert sum(map(len, iter(lambda: sock.recv(65536), b""))) == MUCH
        sock.close()
    assert mtu == [NARROW_MTU]
    assert not [event for event in cluster.log.collect() + cluster.away_log.collect() if event.type == 1]


@pytest.fixture(scope="module")
def wide(beyond: str, shared_cluster: Cluster) -> tuple[Pod, Pod]:
    """Pods whose devices do not know of the tunnel, on both nodes; and nodes that do."""
    for node in (shared_cluster.near, shared_cluster.away):
        node.datapath.configure(tunnel_mtu=TUNNEL_MTU)
    pods = shared_cluster.near.add_pod(31, 3100, mtu=1500), shared_cluster.away.add_pod(32, 3200, mtu=1500)
    share_ipcache(shared_cluster.net)
    return pods


@VERSIONS
def test_pod_learns_how_much_fits_into_the_tunnel(cluster: Cluster, wide: tuple[Pod, Pod], version: str) -> None:
    near, away = wide
    assert push(near.netns, away.netns, version, getattr(away, version), 8080) == TUNNEL_MTU
    drops = [event for event in cluster.log.collect() if event.type == 1]
    assert {(event.what, event.source, event.src_identity, event.dst_identity) for event in drops} == {
        ("drop 136", 31, 3100, 3200)
    }


@VERSIONS
def test_client_of_a_service_learns_it_too(cluster: Cluster, beyond: str, wide: tuple[Pod, Pod], version: str) -> None:
    """Of the service, by whose address it knows the pod: a pod, a process of the node, and a client outside."""
    near, away = wide
    cluster.near.datapath.sync_services(
        ServiceFrontend(
            frontend=Frontend(address=ip_address(address), port=80, protocol=6),
            backends=(Backend(address=ip_address(getattr(away, version)), port=8080),),
            kind=FrontendKind.NODE_PORT,
        )
        for address in (NODE[version], CLUSTER_IP[version])
    )
    assert push(near.netns, away.netns, version, CLUSTER_IP[version], 80, 8080) == TUNNEL_MTU
    assert push(cluster.near.netns, away.netns, version, CLUSTER_IP[version], 80, 8080) == TUNNEL_MTU
    assert push(cluster.net.name, away.netns, version, NODE[version], 80, 8080) == TUNNEL_MTU
    drops = [event for event in cluster.log.collect() if event.type == 1]
    assert {event.what for event in drops} == {"drop 136"}


def wait_for_error(client: socket.socket, datagram: bytes) -> int:
    """Send until the socket has heard that it must not."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            client.send(datagram)
        except OSError as error:
            return error.errno or 0
        time.sleep(0.01)
    raise TimeoutError


@VERSIONS
def test_datagram_that_may_not_be_cut_is_refused_and_another_is_cut(
    cluster: Cluster, wide: tuple[Pod, Pod], version: str
) -> None:
    near, away = wide
    size = 1500 - (48 if version == "ipv6" else 28)
    with (
        open_socket(away.netns, socket.SOCK_DGRAM, ANY[version], 5353) as server,
        open_socket(near.netns, socket.SOCK_DGRAM, ANY[version]) as client,
    ):
        client.connect((getattr(away, version), 5353))
        if version == "ipv4":
            client.setsockopt(*DISCOVER[version], 0)
            client.send(b"x" * size)
            assert len(server.recv(2000)) == size
        client.setsockopt(*DISCOVER[version], 2)
        assert wait_for_error(client, b"x" * size) == errno.EMSGSIZE
        assert path_mtu(client) == TUNNEL_MTU
        client.send(b"x" * (size - 50))
        assert len(server.recv(2000)) == size - 50
