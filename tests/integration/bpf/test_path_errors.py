"""ICMP errors through real packets: a path's MTU and an unreachable host reach whoever sent, about what it sent."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from tests.support.outside import ANY, BEYOND, NARROW_MTU, NODE, NOWHERE, add_beyond, join, path_mtu
from tests.support.testnet import Cluster, Pod
from tests.support.traffic import background, open_socket

pytestmark = pytest.mark.kernel

VERSIONS = pytest.mark.parametrize("version", ["ipv4", "ipv6"])
MUCH = 100_000
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
    head = struct.pack("!BBHHH", 8 if four else 128, 0, 0 if not four else 0xFFFF & ~(0x800 + identifier), identifier, 0)
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
