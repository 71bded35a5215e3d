"""The programs on real devices: what arrives, and which events say so."""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from pathlib import Path

import pytest

from bpf.datapath import Aggregation, Datapath
from bpf.maps import DROP_FILES
from observer.perf import PerfReader
from tests.support.kernel_events import KernelEvent
from tests.support.testnet import SMALL_MAPS, Cluster, inside, ip, ping
from tests.support.traffic import (
    background,
    ethernet,
    exchange,
    ipv4_packet,
    open_socket,
    send_packet,
    udp_datagram,
)

pytestmark = pytest.mark.kernel

BPF = Path(__file__).parents[3] / "bpf"
FORWARD = ["SYN", "ACK", "ACK, PSH", "ACK, FIN", "ACK"]
IP_RECVTTL = 12  # not in the socket module of Python 3.11
BACKWARD = ["SYN, ACK", "ACK, PSH", "ACK, FIN"]


def forward(events: list[KernelEvent], what: str, src: str) -> list[KernelEvent]:
    return [event for event in events if event.what == what and event.src == src]


def ipv4_only(events: list[KernelEvent]) -> list[KernelEvent]:
    return [event for event in events if not event.is_ipv6]


def flags(events: list[KernelEvent]) -> list[str]:
    return [event.tcp_flags for event in events]


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_tcp_exchange_on_one_node_shows_syn_ack_psh_fin_and_the_last_ack(cluster: Cluster, version: str) -> None:
    client, server = getattr(cluster.client, version), getattr(cluster.server, version)
    assert len(exchange(cluster.client.netns, cluster.server.netns, server, 8080)) == 64
    events = cluster.log.wait_for(lambda seen: len(forward(seen, "to-endpoint", client)) >= 5)
    there, back = forward(events, "to-endpoint", client), forward(events, "to-endpoint", server)
    assert flags(there) == FORWARD
    assert flags(back) == BACKWARD
    assert [event.reason for event in there] == ["new"] + ["established"] * 4
    assert {event.reason for event in back} == {"reply"}
    assert {event.what for event in events} == {"to-endpoint"}
    assert not cluster.away_log.collect()


def test_to_endpoint_names_both_identities_the_endpoint_and_its_veth(cluster: Cluster) -> None:
    exchange(cluster.client.netns, cluster.server.netns, cluster.server.ipv4, 8080)
    event = cluster.log.wait_for(bool)[0]
    assert (event.src_identity, event.dst_identity) == (33333, 44444)
    assert (event.source, event.dst_id) == (2044, 2044)
    assert inside(cluster.near.netns, lambda: socket.if_indextoname(event.ifindex)) == "lxc2044"
    assert event.orig_ip == bytes(16), "the source was not translated"
    assert event.packet[0:6].hex(":") == cluster.server.endpoint.pod_mac, "as it enters the pod"
    assert abs(event.time_ns - time.time_ns()) < 5_000_000_000


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_tcp_exchange_across_nodes_shows_each_packet_at_both_ends(cluster: Cluster, version: str) -> None:
    client, far = getattr(cluster.client, version), getattr(cluster.far, version)
    exchange(cluster.client.netns, cluster.far.netns, far, 8080)
    near = cluster.log.wait_for(lambda seen: len(forward(seen, "to-overlay", client)) >= 5)
    away = cluster.away_log.wait_for(lambda seen: len(forward(seen, "to-endpoint", client)) >= 5)
    out, arrived = forward(near, "to-overlay", client), forward(away, "to-endpoint", client)
    assert flags(out) == flags(arrived) == FORWARD
    assert [event.reason for event in out] == [event.reason for event in arrived] == ["new"] + ["established"] * 4
    assert {(event.source, event.src_identity, event.dst_identity, event.dst_id) for event in out} == {
        (1017, 33333, 55555, 0)
    }
    assert {(event.source, event.src_identity, event.dst_identity, event.dst_id) for event in arrived} == {
        (777, 33333, 55555, 777)
    }, "the identity travelled in the tunnel"
    assert inside(cluster.near.netns, lambda: socket.if_indextoname(out[0].ifindex)) == "cilium_vxlan"
    back = forward(near, "to-endpoint", far)
    assert flags(back) == BACKWARD
    assert {event.reason for event in back} == {"reply"}
    assert all(first.time_ns < second.time_ns for first, second in zip(out, arrived, strict=True))


def test_level_none_shows_every_packet_at_every_point(cluster: Cluster) -> None:
    cluster.near.datapath.configure(aggregation=Aggregation.NONE)
    cluster.away.datapath.configure(aggregation=Aggregation.NONE)
    assert ping(cluster.client.netns, cluster.far.ipv4)
    # The nodes' devices report multicast groups of their own now and then.
    near = ipv4_only(cluster.log.wait_for(lambda seen: len(ipv4_only(seen)) >= 6))
    away = ipv4_only(cluster.away_log.wait_for(lambda seen: len(ipv4_only(seen)) >= 6))
    points = ["from-endpoint", "to-overlay", "to-network", "from-network", "from-overlay", "to-endpoint"]
    assert [event.what for event in near] == points
    assert [event.what for event in away] == [*points[3:], *points[:3]]
    first = near[0]
    assert (first.source, first.src_identity, first.dst_identity) == (1017, 33333, 0)
    assert (first.reason, first.ifindex) == ("unknown", 0)
    outer = near[2]
    assert outer.flags & 4, "a vxlan packet, outer headers first"
    assert (outer.protocol, outer.src_identity) == (17, 33333)
    assert near[3].flags & 4


def test_level_low_leaves_out_where_packets_come_from(cluster: Cluster) -> None:
    cluster.near.datapath.configure(aggregation=Aggregation.LOW)
    exchange(cluster.client.netns, cluster.server.netns, cluster.server.ipv4, 8080)
    events = cluster.log.wait_for(lambda seen: len(seen) >= 10)
    assert {event.what for event in events} == {"to-endpoint"}
    assert len(forward(events, "to-endpoint", cluster.client.ipv4)) > len(FORWARD), "bare ACKs too"


def test_quiet_connection_is_reported_again_after_the_interval(cluster: Cluster) -> None:
    cluster.near.datapath.configure(monitor_interval_s=1)
    server = open_socket(cluster.server.netns, socket.SOCK_DGRAM, port=9000)
    try:
        with server, open_socket(cluster.client.netns, socket.SOCK_DGRAM) as client:
            for pause_s in (0, 0, 2.1, 0):
                time.sleep(pause_s)
                client.sendto(b"x", (cluster.server.ipv4, 9000))
                server.recv(10)
            events = cluster.log.wait_for(lambda seen: len(seen) >= 2)
    finally:
        cluster.near.datapath.configure(monitor_interval_s=5)
    assert [event.reason for event in events] == ["new", "established"]


def test_dns_is_always_reported_and_whole(cluster: Cluster) -> None:
    server = open_socket(cluster.far.netns, socket.SOCK_DGRAM, port=53)
    with server, open_socket(cluster.client.netns, socket.SOCK_DGRAM) as client:
        for _ in range(3):
            client.sendto(b"q" * 600, (cluster.far.ipv4, 53))
            _, peer = server.recvfrom(1000)
            server.sendto(b"a" * 900, peer)
            client.recv(1000)
    near = cluster.log.wait_for(lambda seen: len(seen) >= 6)
    away = cluster.away_log.wait_for(lambda seen: len(seen) >= 6)
    assert [event.what for event in near] == ["to-overlay", "to-endpoint"] * 3
    assert [event.reason for event in away[0::2]] == ["new", "established", "established"]
    assert {event.reason for event in away[1::2]} == {"reply"}
    assert [len(event.packet) for event in near[:2]] == [642, 942]


def test_ordinary_packets_are_captured_to_128_bytes(cluster: Cluster) -> None:
    server = open_socket(cluster.server.netns, socket.SOCK_DGRAM, port=9001)
    with server, open_socket(cluster.client.netns, socket.SOCK_DGRAM) as client:
        client.sendto(b"x" * 600, (cluster.server.ipv4, 9001))
    event = cluster.log.wait_for(bool)[0]
    assert (len(event.packet), event.len_orig) == (128, 642)


def test_pod_talks_to_its_node_and_the_node_to_pods(cluster: Cluster) -> None:
    assert ping(cluster.client.netns, str(cluster.near.address))
    assert ping(cluster.near.netns, cluster.server.ipv4)
    assert ping(cluster.near.netns, cluster.server.ipv6)
    events = cluster.log.wait_for(lambda seen: len(seen) >= 6)
    to_host, answer, from_node = events[0], events[1], events[2]
    assert (to_host.what, to_host.src_identity, to_host.dst_identity) == ("to-host", 33333, 1)
    assert (answer.what, answer.src_identity, answer.reason) == ("to-endpoint", 1, "reply")
    assert (from_node.what, from_node.src_identity, from_node.dst_id) == ("to-endpoint", 1, 2044)


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_node_talks_to_pods_of_other_nodes_as_remote_node(cluster: Cluster, version: str) -> None:
    assert ping(cluster.near.netns, getattr(cluster.far, version))
    near = cluster.log.wait_for(bool)
    away = cluster.away_log.wait_for(lambda seen: len(seen) >= 2)
    assert (near[0].what, near[0].src_identity, near[0].reason) == ("to-overlay", 1, "unknown")
    assert (away[0].what, away[0].src_identity) == ("to-endpoint", 6)
    assert (away[1].what, away[1].dst_identity, away[1].reason) == ("to-overlay", 6, "reply")


def test_world_gets_what_is_neither_pod_nor_node(cluster: Cluster) -> None:
    assert not ping(cluster.client.netns, "172.18.77.9", timeout_s=0.2)
    event = cluster.log.wait_for(bool)[0]
    assert (event.what, event.dst_identity, event.source, event.ifindex) == ("to-stack", 2, 1017, 0)


def test_outside_reaches_a_pod_by_a_route_to_its_node(cluster: Cluster) -> None:
    outside = cluster.net.name
    ip("addr replace 172.18.0.254/16 dev br0", f"route replace {cluster.client.ipv4} via 172.18.0.1", netns=outside)
    assert ping(outside, cluster.client.ipv4)
    events = cluster.log.wait_for(lambda seen: len(seen) >= 2)
    assert [(event.what, event.src_identity, event.dst_identity) for event in events] == [
        ("to-endpoint", 2, 33333),
        ("to-stack", 33333, 2),
    ]
    assert [event.reason for event in events] == ["new", "reply"]


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_packets_that_the_kernel_routes_to_a_veth_take_the_ingress_step(cluster: Cluster, version: str) -> None:
    address = getattr(cluster.server, version)
    source = cluster.near.router if version == "ipv4" else cluster.near.router6
    device = cluster.server.endpoint.ifname
    ip(f"route add {address} dev {device} src {source}", netns=cluster.near.netns)
    if version == "ipv6":  # the veth has no link-local address to ask from
        ip(f"neigh add {address} dev {device} lladdr {cluster.server.endpoint.pod_mac}", netns=cluster.near.netns)
    try:
        assert ping(cluster.near.netns, address)
    finally:
        ip(f"route del {address} dev {device}", netns=cluster.near.netns)
    event = cluster.log.wait_for(bool)[0]
    assert (event.what, event.src_identity, event.dst_id) == ("to-endpoint", 1, 2044)


def test_forged_source_is_dropped_and_the_event_names_the_line(cluster: Cluster) -> None:
    forged = ipv4_packet(cluster.far.ipv4, cluster.server.ipv4, udp_datagram(1, 2))
    send_packet(cluster.client.netns, "eth0", ethernet(forged))
    [event] = cluster.log.wait_for(bool)
    assert (event.what, event.source, event.src_identity, event.dst_id) == ("drop 132", 1017, 33333, 0)
    source = (BPF / DROP_FILES[event.file]).read_text().splitlines()
    assert "DROP_INVALID_SOURCE_IP" in source[event.line - 1]
    counters = cluster.near.datapath.packet_counters()
    assert any((each.reason, each.direction, each.line) == (132, 2, event.line) for each in counters)


def test_frame_that_ends_inside_its_ip_header_is_dropped(cluster: Cluster) -> None:
    send_packet(cluster.client.netns, "eth0", ethernet(bytes([0x45, 0, 0, 10]) + bytes(6)))
    assert [event.what for event in cluster.log.wait_for(bool)] == ["drop 134"]


def test_pod_cannot_make_tunnel_packets_itself(cluster: Cluster) -> None:
    with open_socket(cluster.client.netns, socket.SOCK_DGRAM) as client:
        client.sendto(b"\x08" + bytes(20), (str(cluster.away.address), 8472))
    assert [event.what for event in cluster.log.wait_for(bool)] == ["drop 170"]


def test_nobody_may_call_itself_host_in_the_tunnel(cluster: Cluster) -> None:
    inner = ethernet(ipv4_packet(cluster.client.ipv4, cluster.far.ipv4, udp_datagram(1, 2)))
    vni_host = struct.pack("!II", 0x08000000, 1 << 8)
    with open_socket(cluster.near.netns, socket.SOCK_DGRAM) as sock:
        sock.sendto(vni_host + inner, (str(cluster.away.address), 8472))
    [event] = cluster.away_log.wait_for(bool)
    assert (event.what, event.src_identity) == ("drop 171", 1)


def test_pod_that_is_gone_is_stale_on_its_node(cluster: Cluster) -> None:
    gone = cluster.away.add_pod(888, 60000)
    cluster.net.share_ipcache()
    assert ping(cluster.client.netns, gone.ipv4)
    cluster.away.datapath.detach_endpoint(888)
    cluster.away_log.clear()
    assert not ping(cluster.client.netns, gone.ipv4, timeout_s=0.2)
    drops = [event for event in cluster.away_log.wait_for(bool) if event.type == 1]
    assert [event.what for event in drops] == ["drop 151"]
    assert drops[0].dst == gone.ipv4
    assert not ping(gone.netns, cluster.client.ipv4, timeout_s=0.2), "nor can it send any more"
    assert 888 not in cluster.away.datapath.endpoints()


def test_hop_counts_down_once_per_delivery_and_ends_at_one(cluster: Cluster) -> None:
    with open_socket(cluster.server.netns, socket.SOCK_DGRAM, port=9002) as server:
        server.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        with open_socket(cluster.client.netns, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (cluster.server.ipv4, 9002))
            _, [(_, _, ttl)], _, _ = server.recvmsg(10, 100)
            assert struct.unpack("i", ttl) == (63,)
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            client.sendto(b"x", (cluster.server.ipv4, 9002))
    assert [event.what for event in cluster.log.wait_for(lambda seen: len(seen) >= 2)] == ["to-endpoint", "drop 196"]


@pytest.mark.parametrize("target", ["server", "far"])
def test_fragments_find_their_way_without_ports(cluster: Cluster, target: str) -> None:
    pod = getattr(cluster, target)
    data = bytes(range(256)) * 24
    for version, any_address in (("ipv4", "0.0.0.0"), ("ipv6", "::")):
        server = open_socket(pod.netns, socket.SOCK_DGRAM, any_address, 9003)
        with server, open_socket(cluster.client.netns, socket.SOCK_DGRAM, any_address) as client:
            client.sendto(data, (getattr(pod, version), 9003))
            assert server.recv(10000) == data
    assert not [event for event in cluster.log.collect() if event.type == 1]


def test_icmp_error_is_related_to_the_connection_it_is_about(cluster: Cluster) -> None:
    for version, any_address, protocol in (("ipv4", "0.0.0.0", 1), ("ipv6", "::", 58)):
        cluster.log.clear()
        with open_socket(cluster.client.netns, socket.SOCK_DGRAM, any_address) as client:
            client.connect((getattr(cluster.far, version), 9))
            client.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                client.recv(10)
        events = cluster.log.wait_for(lambda seen: len(seen) >= 2)
        assert [(event.what, event.reason) for event in events] == [("to-overlay", "new"), ("to-endpoint", "related")]
        assert events[1].protocol == protocol


@pytest.mark.parametrize("target", ["server", "far"])
def test_bulk_transfer_arrives_unchanged(cluster: Cluster, target: str) -> None:
    pod = getattr(cluster, target)
    data = hashlib.sha256(b"seed").digest() * 200_000
    listener = open_socket(pod.netns, socket.SOCK_STREAM, port=9004)

    def receive() -> str:
        connection, _ = listener.accept()
        digest = hashlib.sha256()
        with connection:
            while chunk := connection.recv(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    with listener, background(receive) as received, open_socket(cluster.client.netns, socket.SOCK_STREAM) as client:
        client.connect((pod.ipv4, 9004))
        client.sendall(data)
        client.close()
    assert received == [hashlib.sha256(data).hexdigest()]
    assert not [event for event in cluster.log.collect() + cluster.away_log.collect() if event.type == 1]


def test_restart_of_the_agent_is_invisible_to_connections(cluster: Cluster) -> None:
    listener = open_socket(cluster.far.netns, socket.SOCK_STREAM, port=9005)
    with listener, open_socket(cluster.client.netns, socket.SOCK_STREAM) as client:
        client.connect((cluster.far.ipv4, 9005))
        server, _ = listener.accept()
        with (
            server,
            Datapath(cluster.near.netns, netns=cluster.near.netns, bpffs=cluster.net.bpffs, sizes=SMALL_MAPS) as again,
        ):
            before = set(cluster.near.datapath.pin_dir.glob("programs-*"))
            again.ensure_loaded()
            assert set(again.pin_dir.glob("programs-*")) == before, "nothing was loaded twice"
            assert again.endpoints()[1017] == cluster.client.endpoint
            for endpoint in again.endpoints().values():
                again.attach_endpoint(endpoint)
            again.attach_overlay("cilium_vxlan")
            cluster.log.clear()
            client.sendall(b"still there?")
            assert server.recv(100) == b"still there?"
        event = cluster.log.wait_for(bool)[0]
        assert (event.what, event.reason) == ("to-overlay", "established")


def test_new_build_takes_over_with_the_old_connections(cluster: Cluster, objects: Path, tmp_path: Path) -> None:
    upgrade = tmp_path / "objects"
    upgrade.mkdir()
    for file in objects.glob("*.bpf.o"):
        (upgrade / file.name).write_bytes(file.read_bytes() + b"\0")
    listener = open_socket(cluster.server.netns, socket.SOCK_STREAM, port=9006)
    with listener, open_socket(cluster.client.netns, socket.SOCK_STREAM) as client:
        client.connect((cluster.server.ipv4, 9006))
        server, _ = listener.accept()
        old = set(cluster.near.datapath.pin_dir.glob("programs-*"))
        with (
            server,
            Datapath(cluster.near.netns, netns=cluster.near.netns, bpffs=cluster.net.bpffs, objects=upgrade) as newer,
        ):
            newer.ensure_loaded()
            assert len(old | set(newer.pin_dir.glob("programs-*"))) == 2
            for endpoint in newer.endpoints().values():
                newer.attach_endpoint(endpoint)
            cluster.log.clear()
            client.sendall(b"hello")
            assert server.recv(100) == b"hello"
    assert cluster.log.wait_for(bool)[0].reason == "established"


def test_without_a_reader_packets_flow_and_events_are_counted(cluster: Cluster) -> None:
    before = cluster.away.datapath.event_counters()
    cluster.away_log.reader.close()
    try:
        assert ping(cluster.client.netns, cluster.far.ipv4)
        after = cluster.away.datapath.event_counters()
    finally:
        cluster.away_log.reader = PerfReader(cluster.away.datapath.pin_dir, 256)
    assert after.no_reader - before.no_reader == 2
    assert after.emitted == before.emitted
    assert ping(cluster.client.netns, cluster.far.ipv4)
    assert cluster.away_log.wait_for(bool), "a new reader goes on at once"


def test_garbage_collection_removes_what_has_expired(cluster: Cluster) -> None:
    assert ping(cluster.client.netns, cluster.server.ipv4)
    assert cluster.near.datapath.collect_garbage() >= 0
    cluster.log.clear()
    exchange(cluster.client.netns, cluster.server.netns, cluster.server.ipv4, 8080)
    assert cluster.log.wait_for(bool)[0].reason == "new"
