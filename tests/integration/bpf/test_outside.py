"""The world and the cluster: services asked for from outside and by nodes, pods that leave with the node's address."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest

from bpf.services import FrontendKind, ServiceFrontend
from tests.support.exchanges import VERSIONS, ask, service_at
from tests.support.outside import ANY, NODE, OUTSIDE, WORLD, join
from tests.support.testnet import Cluster, Pod, ip, ping, sysctl
from tests.support.traffic import background, ipv4_packet, open_socket

pytestmark = pytest.mark.kernel

VIP = {"ipv4": "172.18.200.1", "ipv6": "2001:db8:18::200"}
CLUSTER_IP = {"ipv4": "10.96.0.80", "ipv6": "fd00:10:96::50"}


@pytest.fixture(scope="module")
def joined(shared_cluster: Cluster) -> Cluster:
    return join(shared_cluster)


@pytest.fixture(autouse=True)
def clean(joined: Cluster, cluster: Cluster) -> Iterator[None]:
    yield
    for node in (cluster.near, cluster.away):
        node.datapath.sync_services([])
        node.datapath.set_announced([])


def service(
    version: str,
    *pods: Pod,
    address: str = "",
    kind: FrontendKind = FrontendKind.NODE_PORT,
    port: int = 30080,
    **more: Any,
) -> ServiceFrontend:
    return service_at(address or NODE[version], version, *pods, kind=kind, port=port, **more)


def refused(cluster: Cluster, version: str, address: str, port: int) -> list[str]:
    """What a datagram and a SYN from outside are dropped for on the first node."""
    with open_socket(cluster.net.name, socket.SOCK_STREAM, ANY[version]) as sock:
        sock.setblocking(False)
        sock.connect_ex((address, port))
        events = cluster.log.wait_for(lambda events: any(event.type == 1 for event in events))
    return [event.what for event in events if event.type == 1][:1]


@contextmanager
def route_to_near(cluster: Cluster, address: str) -> Iterator[None]:
    node = NODE["ipv6" if ":" in address else "ipv4"]
    ip(f"route add {address} via {node}", netns=cluster.net.name)
    yield
    ip(f"route del {address} via {node}", netns=cluster.net.name)


@VERSIONS
def test_client_outside_reaches_a_pod_of_the_node_it_asks(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.sync_services([service(version, cluster.server)])
    assert ask(cluster.net.name, cluster.server, version, NODE[version], 30080) == (NODE[version], OUTSIDE[version])
    events = cluster.log.wait_for(lambda events: len(events) >= 8)
    there = [event for event in events if event.what == "to-endpoint"]
    back = [event for event in events if event.what == "to-network"]
    assert {(event.src_identity, event.dst_identity) for event in there} == {(2, 44444)}
    assert [event.reason for event in there] == ["new", *["established"] * 4]
    assert {(event.reason, event.source, event.src_identity, event.src) for event in back} == {
        ("reply", 2044, 44444, NODE[version])
    }, "translated back on the way out"
    assert {event.orig_ip for event in back} == {ip_address(getattr(cluster.server, version)).packed.ljust(16, b"\0")}
    assert not [event for event in events if event.type == 1]


@VERSIONS
def test_client_outside_reaches_a_pod_of_another_node_as_the_world(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.sync_services([service(version, cluster.far)])
    assert ask(cluster.net.name, cluster.far, version, NODE[version], 30080) == (NODE[version], NODE[version])
    near = cluster.log.wait_for(lambda events: len(events) >= 5)
    away = cluster.away_log.wait_for(lambda events: len(events) >= 5)
    there = [event for event in near if event.what == "to-overlay"]
    assert [event.reason for event in there] == ["new", *["established"] * 4]
    assert {(event.what, event.reason) for event in near if event not in there} == {("to-network", "reply")}
    arrived = [event for event in away if event.what == "to-endpoint"]
    assert {event.src_identity for event in arrived} == {2}, "not the node's identity"
    assert not [event for event in near + away if event.type == 1]


@VERSIONS
def test_node_reaches_services_by_their_cluster_address(cluster: Cluster, version: str) -> None:
    router = {"ipv4": str(cluster.near.router), "ipv6": str(cluster.near.router6)}[version]
    for pod in (cluster.server, cluster.far):
        cluster.near.datapath.sync_services(
            [service(version, pod, address=CLUSTER_IP[version], kind=FrontendKind.CLUSTER_IP, port=80)]
        )
        assert ask(cluster.near.netns, pod, version, CLUSTER_IP[version], 80) == (CLUSTER_IP[version], router)
    assert not [event for event in cluster.log.collect() if event.type == 1]


@VERSIONS
def test_pod_leaves_with_the_nodes_address_and_hears_the_answer(cluster: Cluster, version: str) -> None:
    server = open_socket(cluster.net.name, socket.SOCK_STREAM, ANY[version], 8443)

    def serve() -> str:
        connection, peer = server.accept()
        with connection:
            connection.sendall(connection.recv(100))
        return str(peer[0])

    with server, background(serve) as peers:
        sock = open_socket(cluster.client.netns, socket.SOCK_STREAM, ANY[version])
        with sock:
            sock.connect((WORLD[version], 8443))
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
    assert peers == [NODE[version]]
    assert ping(cluster.client.netns, WORLD[version])
    with (
        open_socket(cluster.net.name, socket.SOCK_DGRAM, WORLD[version], 5353) as udp,
        open_socket(cluster.client.netns, socket.SOCK_DGRAM, ANY[version]) as client,
    ):
        for size in (10, 4000):
            client.sendto(b"x" * size, (WORLD[version], 5353))
            data, peer = udp.recvfrom(5000)
            assert (len(data), peer[0]) == (size, NODE[version])
            udp.sendto(data, peer)
            assert len(client.recv(5000)) == size
    assert not [event for event in cluster.log.collect() if event.type == 1]


@VERSIONS
def test_who_may_not_come_from_outside_is_told_apart(cluster: Cluster, version: str) -> None:
    datapath = cluster.near.datapath
    here = ip_network(WORLD[version])
    load_balancer = {"address": VIP[version], "kind": FrontendKind.LOAD_BALANCER, "port": 80}
    datapath.sync_services(
        [
            service(version, cluster.server, address=CLUSTER_IP[version], kind=FrontendKind.CLUSTER_IP, port=80),
            service(version, cluster.server, source_ranges=(here,), **load_balancer),  # type: ignore[arg-type]
            service(version, port=30081),
        ]
    )
    with route_to_near(cluster, CLUSTER_IP[version]), route_to_near(cluster, VIP[version]):
        for address, port, reason in (
            (CLUSTER_IP[version], 80, 174),
            (VIP[version], 80, 177),
            (VIP[version], 81, 158),
            (NODE[version], 30081, 158),
        ):
            cluster.log.clear()
            assert refused(cluster, version, address, port) == [f"drop {reason}"]


@VERSIONS
def test_cluster_address_that_is_open_serves_clients_outside(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.sync_services(
        [
            service(version, pod, address=CLUSTER_IP[version], kind=FrontendKind.OPEN_CLUSTER_IP, port=port)
            for port, pod in ((80, cluster.server), (81, cluster.far))
        ]
    )
    with route_to_near(cluster, CLUSTER_IP[version]):
        for port, pod, seen in ((80, cluster.server, OUTSIDE), (81, cluster.far, NODE)):
            answer = ask(cluster.net.name, pod, version, CLUSTER_IP[version], port)
            assert answer == (CLUSTER_IP[version], seen[version])
        cluster.log.clear()
        assert refused(cluster, version, CLUSTER_IP[version], 82) == ["drop 158"]


@VERSIONS
def test_announced_address_is_found_on_the_link(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.set_announced([ip_address(VIP[version])])
    cluster.near.datapath.sync_services(
        [
            service(
                version, cluster.server, cluster.server, address=VIP[version], kind=FrontendKind.LOAD_BALANCER, port=80,
                maglev=True,
            )
        ]
    )  # fmt: skip
    assert ask(cluster.net.name, cluster.server, version, VIP[version], 80) == (VIP[version], OUTSIDE[version])


def test_pods_without_an_address_to_leave_with_keep_their_own(cluster: Cluster) -> None:
    node = cluster.near
    node.datapath.set_masquerade(None, None, [])
    try:
        assert not ping(cluster.client.netns, WORLD["ipv4"], timeout_s=0.2)
    finally:
        node.datapath.set_masquerade(IPv4Address(NODE["ipv4"]), IPv6Address(NODE["ipv6"]), [])
    assert not [event for event in cluster.log.collect() if event.type == 1]


@VERSIONS
def test_icmp_errors_find_whoever_they_are_about(cluster: Cluster, version: str) -> None:
    """Of a service's pods here and elsewhere, for a client outside; and of the world, for a pod."""
    there = [(cluster.client.netns, WORLD[version], 9)]
    for pod in (cluster.server, cluster.far):
        port = 30000 + pod.endpoint.endpoint_id
        there.append((cluster.net.name, NODE[version], port))
    cluster.near.datapath.sync_services(
        [
            service(version, pod, port=30000 + pod.endpoint.endpoint_id, protocol=17)
            for pod in (cluster.server, cluster.far)
        ]
    )
    for netns, address, port in there:
        with open_socket(netns, socket.SOCK_DGRAM, ANY[version]) as client:
            client.connect((address, port))
            client.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                client.recv(10)


def dropped(cluster: Cluster) -> list[str]:
    """The first drop on the first node."""
    events = cluster.log.wait_for(lambda events: any(event.type == 1 for event in events))
    return [event.what for event in events if event.type == 1][:1]


@VERSIONS
def test_answer_to_a_client_that_the_node_knows_no_way_to_is_dropped(cluster: Cluster, version: str) -> None:
    cluster.near.datapath.sync_services([service(version, cluster.server)])
    back = f"default via {OUTSIDE[version]}"
    ip(f"route del {back}", netns=cluster.near.netns)
    try:
        with (
            open_socket(cluster.server.netns, socket.SOCK_STREAM, ANY[version], 8080),
            open_socket(cluster.net.name, socket.SOCK_STREAM, WORLD[version]) as sock,
        ):
            sock.setblocking(False)
            sock.connect_ex((NODE[version], 30080))
            assert dropped(cluster) == ["drop 169"]
            told = {event.ext_error for event in cluster.log.events if event.what == "drop 169"}
            assert told == {4}, "BPF_FIB_LKUP_RET_NOT_FWDED"
    finally:
        ip(f"route add {back}", netns=cluster.near.netns)


@contextmanager
def without_a_way(cluster: Cluster, version: str, how: str) -> Iterator[None]:
    """The first node cannot send anything to the world: no route leads there, or a route of kind `how` forbids it."""
    netns = cluster.near.netns
    default = f"default via {OUTSIDE[version]}"
    undo = f"route add {default}" if not how else f"route del {how} {WORLD[version]}"
    sysctl(netns, ipv4__icmp_ratelimit=0, ipv6__icmp__ratelimit=0)
    ip(f"route del {default}" if not how else f"route add {how} {WORLD[version]}", netns=netns)
    try:
        yield
    finally:
        ip(undo, netns=netns)


def connect_error(cluster: Cluster, version: str) -> int:
    """The number of the error that a pod gets which wants to speak to the world."""
    with open_socket(cluster.client.netns, socket.SOCK_STREAM, ANY[version]) as sock:
        try:
            sock.connect((WORLD[version], 8443))
        except OSError as error:
            return error.errno or 0
    return 0


@VERSIONS
@pytest.mark.parametrize(
    ("how", "ext_error"),
    [("", 4), ("unreachable", 2), ("prohibit", 3)],
)
def test_pods_packet_without_a_way_is_a_drop_and_the_pod_hears(
    cluster: Cluster, version: str, how: str, ext_error: int
) -> None:
    with without_a_way(cluster, version, how):
        assert connect_error(cluster, version) in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES)
    drops = [event for event in cluster.log.collect() if event.type == 1]
    assert {(drop.what, drop.ext_error, drop.source) for drop in drops} == {("drop 169", ext_error, 1017)}
    assert not [event for event in cluster.log.events if event.what == "to-stack"], "it went nowhere"


@VERSIONS
def test_each_packet_into_a_black_hole_is_told_until_there_is_a_way(cluster: Cluster, version: str) -> None:
    with (
        open_socket(cluster.client.netns, socket.SOCK_DGRAM, ANY[version]) as client,
        open_socket(cluster.net.name, socket.SOCK_DGRAM, WORLD[version], 5353) as world,
    ):
        with without_a_way(cluster, version, "blackhole"):
            for _ in range(3):
                client.sendto(b"x", (WORLD[version], 5353))
            events = cluster.log.wait_for(lambda events: len([one for one in events if one.type == 1]) == 3)
        assert {(one.what, one.ext_error) for one in events} == {("drop 169", 1)}
        cluster.log.clear()
        client.sendto(b"y", (WORLD[version], 5353))
        assert world.recv(10) == b"y"
    events = cluster.log.wait_for(lambda events: bool(events))
    assert {event.what for event in events} <= {"to-stack", "to-network"}


def test_address_of_the_node_that_nobody_has_told_is_no_drop(cluster: Cluster) -> None:
    other = "172.18.77.1"
    ip(f"addr add {other}/16 dev eth0", netns=cluster.near.netns)
    try:
        assert ping(cluster.client.netns, other)
    finally:
        ip(f"addr del {other}/16 dev eth0", netns=cluster.near.netns)
    assert not [event for event in cluster.log.collect() if event.type == 1]


@VERSIONS
def test_client_is_not_sent_to_another_node_without_an_address_to_speak_with(cluster: Cluster, version: str) -> None:
    node = cluster.near
    node.datapath.sync_services([service(version, cluster.far)])
    node.datapath.set_masquerade(None, None, [])
    try:
        assert refused(cluster, version, NODE[version], 30080) == ["drop 167"]
    finally:
        node.datapath.set_masquerade(IPv4Address(NODE["ipv4"]), IPv6Address(NODE["ipv6"]), [])


def sctp_checksum(packet: bytes) -> int:
    """RFC 9260, appendix A, bit by bit."""
    register = 0xFFFFFFFF
    for byte in packet[:8] + bytes(4) + packet[12:]:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def sctp(sport: int, dport: int, size: int) -> bytes:
    packet = struct.pack("!HHII", sport, dport, 7, 0) + bytes(range(256)) * 6
    packet = packet[: 12 + size]
    return packet[:8] + sctp_checksum(packet).to_bytes(4, "little") + packet[12:]


def receive(sock: socket.socket) -> tuple[tuple[int, int], str]:
    """Ports and sender of an SCTP packet whose checksum must be right."""
    packet, peer = sock.recvfrom(3000)
    if sock.family == socket.AF_INET:
        packet = packet[20:]
    assert int.from_bytes(packet[8:12], "little") == sctp_checksum(packet)
    return (int.from_bytes(packet[:2], "big"), int.from_bytes(packet[2:4], "big")), str(peer[0])


@VERSIONS
@pytest.mark.parametrize("where", ["server", "far"])
def test_sctp_gets_another_port_and_the_checksum_of_it(cluster: Cluster, version: str, where: str) -> None:
    backend: Pod = getattr(cluster, where)
    cluster.near.datapath.sync_services([service(version, backend, protocol=132)])
    with (
        open_socket(cluster.net.name, socket.SOCK_RAW, OUTSIDE[version], protocol=132) as client,
        open_socket(backend.netns, socket.SOCK_RAW, ANY[version], protocol=132) as server,
    ):
        for size in (8, 21, 1300):
            client.sendto(sctp(5000, 30080, size), (NODE[version], 0))
            (asker, asked), peer = receive(server)
            assert asked == 8080
            server.sendto(sctp(asked, asker, size), (peer, 0))
            assert receive(client) == ((30080, 5000), NODE[version])
    assert not [event for event in cluster.log.collect() if event.type == 1]


@VERSIONS
def test_pods_sctp_leaves_with_the_nodes_address(cluster: Cluster, version: str) -> None:
    with (
        open_socket(cluster.client.netns, socket.SOCK_RAW, ANY[version], protocol=132) as client,
        open_socket(cluster.net.name, socket.SOCK_RAW, WORLD[version], protocol=132) as server,
    ):
        client.sendto(sctp(40000, 3868, 100), (WORLD[version], 0))
        (asker, asked), peer = receive(server)
        assert (asked, peer) == (3868, NODE[version])
        server.sendto(sctp(asked, asker, 100), (peer, 0))
        assert receive(client) == ((3868, 40000), WORLD[version])


def test_sctp_in_fragments_is_dropped(cluster: Cluster) -> None:
    """Its checksum covers what comes in other packets."""
    cluster.near.datapath.sync_services([service("ipv4", cluster.server, protocol=132)])
    packet = ipv4_packet(OUTSIDE["ipv4"], NODE["ipv4"], sctp(5000, 30080, 12), 132, fragment=0x2000)
    with open_socket(cluster.net.name, socket.SOCK_RAW, protocol=socket.IPPROTO_RAW) as sock:
        sock.sendto(packet, (NODE["ipv4"], 0))
    assert dropped(cluster) == ["drop 154"]


def test_garbage_goes_and_what_is_used_stays(cluster: Cluster) -> None:
    with open_socket(cluster.client.netns, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (WORLD["ipv4"], 9))
    assert cluster.near.datapath.collect_garbage() >= 0
    assert ping(cluster.client.netns, WORLD["ipv4"])
