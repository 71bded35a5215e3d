"""Services without backends, and denials: who asks hears so at once, or nothing, as the node is told."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from bpf.policies import EndpointPolicy
from bpf.services import Frontend, FrontendKind, ServiceFrontend
from tests.support.exchanges import service_at
from tests.support.testnet import Cluster, ip, ping
from tests.support.traffic import open_socket

pytestmark = pytest.mark.kernel

VIP = {"ipv4": "10.96.0.80", "ipv6": "fd00:10:96::50"}
ANY = {"ipv4": "0.0.0.0", "ipv6": "::"}
VERSIONS = pytest.mark.parametrize("version", ["ipv4", "ipv6"])
KINDS = {socket.SOCK_STREAM: 6, socket.SOCK_DGRAM: 17}


@pytest.fixture(autouse=True)
def empty_services(cluster: Cluster) -> Iterator[None]:
    """Nobody behind TCP and UDP port 80 of either address, which node, pod and outside know the way to."""
    frontends = [Frontend(address=ip_address(VIP[one]), port=80, protocol=kind) for one in VIP for kind in (6, 17)]
    near = cluster.near
    near.datapath.sync_services(
        ServiceFrontend(frontend=one, backends=(), kind=FrontendKind.LOAD_BALANCER) for one in frontends
    )
    near.datapath.configure(reject=True)
    lines = [
        f"route replace {VIP['ipv4']} dev cilium_host src {near.router}",
        f"route replace {VIP['ipv6']} dev cilium_host src {near.router6}",
        "addr replace 2001:db8:18::1/64 dev eth0 nodad",
    ]
    ip(*lines, netns=near.netns)
    ip(
        "addr replace 172.18.0.254/16 dev br0",
        "addr replace 2001:db8:18::254/64 dev br0 nodad",
        f"route replace {VIP['ipv4']} via 172.18.0.1",
        f"route replace {VIP['ipv6']} via 2001:db8:18::1",
        netns=cluster.net.name,
    )
    yield
    near.datapath.configure(reject=True)
    near.datapath.sync_services([])


def who(cluster: Cluster, client: str) -> str:
    return {"pod": cluster.client.netns, "node": cluster.near.netns, "outside": cluster.net.name}[client]


def ask(sock: socket.socket, address: str) -> bytes:
    sock.connect((address, 80))
    sock.send(b"x" * 500)
    return sock.recv(10)


@VERSIONS
@pytest.mark.parametrize("client", ["pod", "node", "outside"])
@pytest.mark.parametrize("kind", KINDS)
def test_client_is_refused_at_once(cluster: Cluster, version: str, client: str, kind: int) -> None:
    with open_socket(who(cluster, client), kind, ANY[version]) as sock, pytest.raises(ConnectionRefusedError):
        ask(sock, VIP[version])
    events = cluster.log.wait_for(lambda events: any(event.type == 1 for event in events))
    # Not once: what comes back while connect() is still at it, the kernel does not look at; the next SYN's does.
    assert {(event.what, event.dst) for event in events if event.type == 1} == {("drop 158", VIP[version])}


@VERSIONS
def test_client_hears_nothing_when_the_node_is_told_so(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.configure(reject=False)
    with open_socket(cluster.client.netns, socket.SOCK_DGRAM, ANY[version]) as sock:
        sock.connect((VIP[version], 80))
        sock.send(b"x")
        cluster.log.wait_for(lambda events: any(event.what == "drop 158" for event in events))
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(10)


@VERSIONS
def test_echo_to_the_address_of_a_service_is_dropped_and_told(cluster: Cluster, version: str) -> None:
    assert not ping(cluster.client.netns, VIP[version], timeout_s=0.1)
    events = cluster.log.wait_for(lambda events: bool(events))
    assert [(event.what, event.source, event.dst) for event in events] == [("drop 158", 1017, VIP[version])]


@pytest.fixture
def closed_client(cluster: Cluster) -> Iterator[None]:
    """A pod that may send nothing, on a node that says so."""
    datapath, number = cluster.near.datapath, cluster.client.endpoint.endpoint_id
    datapath.set_policy(number, EndpointPolicy((), False, True))
    datapath.configure(tell_denied=True)
    yield
    datapath.configure(tell_denied=False)
    datapath.set_policy(number, EndpointPolicy())


@VERSIONS
@pytest.mark.parametrize("way", ["pod of the node", "pod of another node", "world", "service"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("closed_client")
def test_pod_hears_that_its_policy_denies_what_it_sends(
    cluster: Cluster, version: str, way: str, kind: socket.SocketKind
) -> None:
    service = service_at(
        VIP[version], version, cluster.server, kind=FrontendKind.CLUSTER_IP, port=80, protocol=KINDS[kind]
    )
    cluster.near.datapath.sync_services([service])
    address = {
        "pod of the node": getattr(cluster.server, version),
        "pod of another node": getattr(cluster.far, version),
        "world": {"ipv4": "198.51.100.9", "ipv6": "2001:db8:99::9"}[version],
        "service": VIP[version],
    }[way]
    with open_socket(cluster.client.netns, kind, ANY[version]) as sock:
        sock.settimeout(10)
        with pytest.raises(OSError, match=r"route|denied") as heard:
            ask(sock, address)
    assert heard.value.errno in (errno.EHOSTUNREACH, errno.EACCES)
    events = cluster.log.wait_for(lambda events: any(event.type == 1 for event in events))
    assert {(event.what, event.source) for event in events if event.type == 1} == {("drop 133", 1017)}


@VERSIONS
def test_pod_hears_nothing_of_denials_where_the_node_is_not_told_to(cluster: Cluster, version: str) -> None:
    datapath, number = cluster.near.datapath, cluster.client.endpoint.endpoint_id
    datapath.set_policy(number, EndpointPolicy((), False, True))
    try:
        with open_socket(cluster.client.netns, socket.SOCK_DGRAM, ANY[version]) as sock:
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                ask(sock, getattr(cluster.server, version))
    finally:
        datapath.set_policy(number, EndpointPolicy())
