"""Redirection to proxies: real transparent servers in the node's namespace, policies that name their ports."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network
from threading import Thread

import pytest

from bpf.datapath import Aggregation, IpcacheEntry
from bpf.policies import EndpointPolicy, PolicyEntry
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from tests.support.kernel_events import KernelEvent
from tests.support.policynet import connects
from tests.support.proxies import EGRESS, INGRESS, L7LB, TcpProxy, family_of, transparent_socket, udp_proxy
from tests.support.testnet import Cluster, Pod, inside, ip
from tests.support.traffic import exchange, open_socket

pytestmark = pytest.mark.kernel

TCP, UDP = 6, 17
PROXY = 10001
OTHER_PROXY = 10002
FORWARD = ["SYN", "ACK", "ACK, PSH", "ACK, FIN", "ACK"]
CLIENT, SERVER, FAR = 33333, 44444, 55555
SERVICE = {"ipv4": "10.96.0.50", "ipv6": "fd00:10:96::50"}
SERVICE_PORT = 80


def redirecting(*, egress: bool, protocol: int = TCP, port: int = 8080, proxy: int = PROXY) -> EndpointPolicy:
    """All may pass, and one port only through the proxy."""
    entries = (
        PolicyEntry(egress, 0),
        PolicyEntry(egress, 0, protocol, port, 16, precedence=2, proxy_port=proxy),
    )
    return EndpointPolicy(entries, enforced_ingress=not egress, enforced_egress=egress)


@pytest.fixture(autouse=True)
def no_policies(cluster: Cluster) -> Iterator[None]:
    yield
    for node in (cluster.near, cluster.away):
        for number in node.datapath.policies():
            node.datapath.set_policy(number, EndpointPolicy())
        node.datapath.sync_services([])


def enforce(cluster: Cluster, pod: Pod, policy: EndpointPolicy) -> None:
    node = next(node for node in cluster.net.nodes if pod in node.pods)
    node.datapath.set_policy(pod.endpoint.endpoint_id, policy)


def ask(client: Pod, address: str, port: int, server: Pod, server_port: int) -> bytes:
    return exchange(client.netns, server.netns, address, port, size=200_000, served_at=server_port)


def source_port(event: KernelEvent) -> int:
    return int.from_bytes(event.l4[:2], "big")


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["same node", "other node"])
def test_egress_policy_sends_a_connection_through_the_proxy(cluster: Cluster, version: str, where: str) -> None:
    server = cluster.server if where == "same node" else cluster.far
    address, own = getattr(server, version), getattr(cluster.client, version)
    enforce(cluster, cluster.client, redirecting(egress=True))
    with TcpProxy(cluster.near.netns, PROXY, EGRESS, family_of(address)) as proxy:
        answer = exchange(cluster.client.netns, server.netns, address, 8080, size=200_000)
    assert answer == b"y" * 200_000
    [(client, target)] = proxy.served
    assert (client[0], target) == (own, (address, 8080)), "the proxy sees both ends as the client does"
    [upstream] = proxy.upstream
    assert upstream[0] == own
    assert upstream[1] != client[1]

    events = cluster.log.collect()
    first_half = [event for event in events if event.src == own and source_port(event) == client[1]]
    assert [event.what for event in first_half] == ["verdict"] + ["to-proxy"] * 5
    verdict, *traces = first_half
    assert (verdict.verdict, verdict.egress) == (PROXY, True)
    assert [event.tcp_flags for event in traces] == FORWARD
    assert [event.reason for event in traces] == ["new"] + ["established"] * 4
    for event in traces:
        assert (event.src_identity, event.dst_identity, event.dst_id) == (CLIENT, 0, PROXY)
        assert (event.source, event.ifindex) == (cluster.client.endpoint.endpoint_id, 0)
    # What the client hears comes from the proxy, with the server's address.
    back = [event for event in events if event.dst == own and event.what == "to-endpoint"]
    assert {(event.reason, event.src_identity) for event in back} == {
        ("reply", SERVER if where == "same node" else FAR)
    }
    second_half = [event for event in events if event.src == own and source_port(event) == upstream[1]]
    if where == "same node":
        assert {event.what for event in second_half} == {"to-endpoint"}
        assert [event.tcp_flags for event in second_half][:1] == ["SYN"]
    else:
        assert {event.what for event in second_half} == {"to-overlay"}
        away = [event for event in cluster.away_log.collect() if event.src == own]
        assert {(event.what, event.src_identity) for event in away} == {("to-endpoint", CLIENT)}
        second_half = away
    assert {event.src_identity for event in second_half} == {CLIENT}
    answers = [event for event in events if event.what == "to-proxy" and event.reason == "reply"]
    assert answers
    assert {event.dst_id for event in answers} == {0}
    assert {event.src_identity for event in answers} == {SERVER if where == "same node" else FAR}
    assert not [event for event in events if event.what.startswith("drop")]


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["same node", "other node"])
def test_ingress_policy_sends_a_connection_through_the_server_s_proxy(
    cluster: Cluster, version: str, where: str
) -> None:
    server = cluster.server if where == "same node" else cluster.far
    node = cluster.near if where == "same node" else cluster.away
    log = cluster.log if where == "same node" else cluster.away_log
    address, own = getattr(server, version), getattr(cluster.client, version)
    identity = SERVER if where == "same node" else FAR
    enforce(cluster, server, redirecting(egress=False))
    with TcpProxy(node.netns, PROXY, INGRESS, family_of(address)) as proxy:
        answer = exchange(cluster.client.netns, server.netns, address, 8080, size=200_000)
    assert answer == b"y" * 200_000
    [(client, target)] = proxy.served
    assert (client[0], target) == (own, (address, 8080))
    [upstream] = proxy.upstream

    events = log.collect()
    first_half = [event for event in events if event.src == own and source_port(event) == client[1]]
    assert [event.what for event in first_half] == ["verdict"] + ["to-proxy"] * 5
    verdict, *traces = first_half
    assert (verdict.verdict, verdict.egress) == (PROXY, False)
    assert [event.tcp_flags for event in traces] == FORWARD
    for event in traces:
        assert (event.src_identity, event.dst_identity, event.dst_id) == (CLIENT, identity, PROXY)
        assert event.source == server.endpoint.endpoint_id
    # Judged once: what the proxy sends meets no policy again.
    second_half = [event for event in events if event.src == own and source_port(event) == upstream[1]]
    assert {event.what for event in second_half} == {"to-endpoint"}
    assert {event.src_identity for event in second_half} == {CLIENT}
    answers = [event for event in events if event.src == address and event.what == "to-proxy"]
    assert answers
    assert {(event.reason, event.dst_id, event.src_identity) for event in answers} == {("reply", 0, identity)}
    heard = [event for event in cluster.log.collect() if event.dst == own and event.what == "to-endpoint"]
    assert {(event.reason, event.src_identity) for event in heard} == {("reply", identity)}
    assert not [event for event in events if event.what.startswith("drop")]


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["same node", "other node"])
def test_a_connection_may_pass_two_proxies(cluster: Cluster, version: str, where: str) -> None:
    server = cluster.server if where == "same node" else cluster.far
    node = cluster.near if where == "same node" else cluster.away
    address = getattr(server, version)
    enforce(cluster, cluster.client, redirecting(egress=True))
    enforce(cluster, server, redirecting(egress=False, proxy=OTHER_PROXY))
    with (
        TcpProxy(cluster.near.netns, PROXY, EGRESS, family_of(address)) as first,
        TcpProxy(node.netns, OTHER_PROXY, INGRESS, family_of(address)) as second,
    ):
        answer = exchange(cluster.client.netns, server.netns, address, 8080, size=200_000)
    assert answer == b"y" * 200_000
    assert [target for _, target in first.served] == [(address, 8080)]
    assert second.served == [(first.upstream[0], (address, 8080))]
    verdicts = [(event.egress, event.verdict) for event in cluster.log.collect() if event.what == "verdict"]
    verdicts += [(event.egress, event.verdict) for event in cluster.away_log.collect() if event.what == "verdict"]
    assert verdicts == [(True, PROXY), (False, OTHER_PROXY)]


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_the_node_too_meets_the_proxy_of_a_pod(cluster: Cluster, version: str) -> None:
    address = getattr(cluster.server, version)
    enforce(cluster, cluster.server, redirecting(egress=False))
    with TcpProxy(cluster.near.netns, PROXY, INGRESS, family_of(address)) as proxy:
        assert exchange(cluster.near.netns, cluster.server.netns, address, 8080) == b"y" * 64
    assert len(proxy.served) == 1
    traces = [event for event in cluster.log.collect() if event.what == "to-proxy" and event.dst_id == PROXY]
    # The answers go by loopback, unseen; so nobody knows that both sides have closed when the last ACK comes.
    assert [event.tcp_flags for event in traces] == FORWARD[:4]
    assert {event.src_identity for event in traces} == {1}


def test_a_pod_reaches_its_node_through_the_proxy(cluster: Cluster) -> None:
    address = str(cluster.near.address)
    enforce(cluster, cluster.client, redirecting(egress=True))
    with TcpProxy(cluster.near.netns, PROXY) as proxy:
        assert exchange(cluster.client.netns, cluster.near.netns, address, 8080) == b"y" * 64
    assert [target for _, target in proxy.served] == [(address, 8080)]
    assert proxy.upstream[0][0] == cluster.client.ipv4


@pytest.mark.parametrize("keep_source", [True, False])
@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["same node", "other node"])
def test_datagrams_reach_the_proxy_with_their_destination(
    cluster: Cluster, version: str, where: str, keep_source: bool
) -> None:
    server = cluster.server if where == "same node" else cluster.far
    address, own = getattr(server, version), getattr(cluster.client, version)
    enforce(cluster, cluster.client, redirecting(egress=True, protocol=UDP, port=53))
    backend = open_socket(server.netns, socket.SOCK_DGRAM, address, 53)
    with (
        udp_proxy(cluster.near.netns, PROXY, family_of(address), keep_source=keep_source, identity=CLIENT) as served,
        backend,
        open_socket(cluster.client.netns, socket.SOCK_DGRAM, own) as client,
    ):
        sources = []
        for question in (b"A", b"AAAA"):
            client.sendto(question, (address, 53))
            data, peer = backend.recvfrom(100)
            sources.append(peer[0])
            backend.sendto(data * 2, peer)
            answer, sender = client.recvfrom(100)
            assert (answer, sender[:2]) == (question * 2, (address, 53))
        port = client.getsockname()[1]
    assert served == [((own, port), (address, 53))] * 2
    assert [source == own for source in sources] == [keep_source] * 2

    events = cluster.log.collect()
    asked = [event for event in events if event.src == own and source_port(event) == port]
    assert [(event.what, event.reason) for event in asked] == [
        ("verdict", ""),
        ("to-proxy", "new"),
        ("to-proxy", "established"),
    ]
    arrived = cluster.log if where == "same node" else cluster.away_log
    upstream = [event for event in arrived.collect() if event.what == "to-endpoint" and event.dst == address]
    assert {event.src_identity for event in upstream} == {CLIENT}
    assert not [event for event in events if event.what.startswith("drop")]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_without_a_listener_nothing_passes(cluster: Cluster, protocol: int) -> None:
    enforce(cluster, cluster.client, redirecting(egress=True, protocol=protocol))
    kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
    with open_socket(cluster.server.netns, kind, port=8080) as server, open_socket(cluster.client.netns, kind) as sock:
        sock.setblocking(False)
        sock.connect_ex((cluster.server.ipv4, 8080))
        if protocol == UDP:
            sock.send(b"x")
        events = cluster.log.wait_for(lambda seen: len(seen) >= 2)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(1) if protocol == UDP else server.accept()
    assert [event.what for event in events[:2]] == ["verdict", "drop 180"]
    assert events[1].source == cluster.client.endpoint.endpoint_id


def test_a_listener_that_is_no_proxy_s_gets_nothing(cluster: Cluster) -> None:
    """The node's own server at the same port, reached by address: only the proxy's port counts."""
    enforce(cluster, cluster.client, redirecting(egress=True))
    with open_socket(cluster.near.netns, socket.SOCK_STREAM, port=8080):
        assert not connects(cluster.client.netns, str(cluster.near.address), 8080)
        assert not connects(cluster.client.netns, cluster.server.ipv4, 8080)
    assert {"drop 180"} <= {event.what for event in cluster.log.collect()}


def test_a_proxy_that_dies_takes_its_connections_along_and_comes_back(cluster: Cluster) -> None:
    enforce(cluster, cluster.client, redirecting(egress=True))
    proxy = TcpProxy(cluster.near.netns, PROXY)
    with open_socket(cluster.server.netns, socket.SOCK_STREAM, port=8080) as server, proxy:
        with open_socket(cluster.client.netns, socket.SOCK_STREAM) as client:
            client.connect((cluster.server.ipv4, 8080))
            connection, _ = server.accept()
            client.sendall(b"x")
            assert connection.recv(1) == b"x"
            proxy.die()
            assert client.recv(1) == b"", "closed by the proxy's kernel"
            connection.close()
        assert not connects(cluster.client.netns, cluster.server.ipv4, 8080)
        assert "drop 180" in {event.what for event in cluster.log.collect()}
        proxy.start()
        assert connects(cluster.client.netns, cluster.server.ipv4, 8080)


def test_a_policy_that_begins_to_redirect_cuts_what_nobody_judged(cluster: Cluster) -> None:
    with (
        open_socket(cluster.server.netns, socket.SOCK_STREAM, port=8080) as server,
        open_socket(cluster.client.netns, socket.SOCK_STREAM) as client,
        TcpProxy(cluster.near.netns, PROXY) as proxy,
    ):
        client.connect((cluster.server.ipv4, 8080))
        connection, _ = server.accept()
        with connection:
            client.sendall(b"x")
            assert connection.recv(1) == b"x"
            enforce(cluster, cluster.client, redirecting(egress=True))
            client.sendall(b"y")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            connection.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.recv(1)
            # Closed with one packet: nobody is there to answer, and later tests should not see it try again.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert not proxy.served


def test_a_policy_that_ends_a_redirection_lets_new_connections_go_straight(cluster: Cluster) -> None:
    enforce(cluster, cluster.client, redirecting(egress=True))
    with TcpProxy(cluster.near.netns, PROXY) as proxy:
        exchange(cluster.client.netns, cluster.server.netns, cluster.server.ipv4, 8080)
        enforce(cluster, cluster.client, EndpointPolicy())
        exchange(cluster.client.netns, cluster.server.netns, cluster.server.ipv4, 8080)
    assert len(proxy.served) == 1


def balance(cluster: Cluster, *, judged: bool = False) -> None:
    """Give a service to the load balancer at PROXY; the client's policy may have another proxy judge its backends."""
    cluster.near.datapath.sync_services(
        ServiceFrontend(
            frontend=Frontend(address=ip_address(address), port=SERVICE_PORT, protocol=TCP),
            backends=(),
            kind=FrontendKind.LOAD_BALANCER,
            l7_port=PROXY,
        )
        for address in SERVICE.values()
    )
    entries = [PolicyEntry(True, 0)]
    if judged:
        entries.append(PolicyEntry(True, 0, TCP, 8080, 16, precedence=2, proxy_port=OTHER_PROXY))
    enforce(cluster, cluster.client, EndpointPolicy(tuple(entries), enforced_egress=True))


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["same node", "other node"])
def test_a_load_balancer_speaks_for_the_pod_under_the_pod_s_policy(cluster: Cluster, version: str, where: str) -> None:
    server = cluster.server if where == "same node" else cluster.far
    address, own = getattr(server, version), getattr(cluster.client, version)
    balance(cluster)
    service = SERVICE[version]
    with TcpProxy(
        cluster.near.netns, PROXY, EGRESS, family_of(address), upstream_mark=L7LB, backend=(address, 8080)
    ) as proxy:
        assert ask(cluster.client, service, SERVICE_PORT, server, 8080) == b"y" * 200_000
    assert [target for _, target in proxy.served] == [(service, SERVICE_PORT)]
    [upstream] = proxy.upstream
    assert upstream[0] == own

    events = cluster.log.collect()
    first_half = [event for event in events if event.src == own and source_port(event) == proxy.served[0][0][1]]
    assert [event.what for event in first_half] == ["verdict"] + ["to-proxy"] * 5
    assert (first_half[0].verdict, first_half[0].match) == (PROXY, 0), "no policy had a say"
    assert [event.tcp_flags for event in first_half[1:]] == FORWARD
    assert {(event.dst, event.dst_id, event.dst_identity) for event in first_half[1:]} == {(service, PROXY, 0)}
    second_half = [event for event in events if event.src == own and source_port(event) == upstream[1]]
    verdict, *traces = second_half
    assert (verdict.what, verdict.egress, verdict.verdict) == ("verdict", True, 0)
    assert {event.what for event in traces} == {"to-endpoint" if where == "same node" else "to-overlay"}
    assert [event.tcp_flags for event in traces][:3] == FORWARD[:3]
    assert {event.src_identity for event in traces} == {CLIENT}
    assert [event.reason for event in traces] == ["new"] + ["established"] * (len(traces) - 1)
    assert not [event for event in events if event.what.startswith("drop")]


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["same node", "other node"])
def test_what_a_load_balancer_sends_may_be_for_another_proxy_to_judge(
    cluster: Cluster, version: str, where: str
) -> None:
    server = cluster.server if where == "same node" else cluster.far
    address, own = getattr(server, version), getattr(cluster.client, version)
    balance(cluster, judged=True)
    family = family_of(address)
    with (
        TcpProxy(cluster.near.netns, PROXY, EGRESS, family, upstream_mark=L7LB, backend=(address, 8080)) as balancer,
        TcpProxy(cluster.near.netns, OTHER_PROXY, EGRESS, family) as judge,
    ):
        assert ask(cluster.client, SERVICE[version], SERVICE_PORT, server, 8080) == b"y" * 200_000
    assert judge.served == [(balancer.upstream[0], (address, 8080))]
    assert judge.upstream[0][0] == own

    events = cluster.log.collect()
    port = balancer.upstream[0][1]
    second_leg = [event for event in events if event.src == own and source_port(event) == port]
    assert [event.what for event in second_leg][:4] == ["verdict", "to-proxy", "to-proxy", "to-proxy"]
    assert {event.dst_id for event in second_leg if event.what == "to-proxy"} == {OTHER_PROXY}
    assert {(event.src_identity, event.dst) for event in second_leg if event.what == "to-proxy"} == {(CLIENT, address)}
    assert not [event for event in events if event.what.startswith("drop")]


def test_a_load_balancer_may_not_do_what_the_pod_may_not(cluster: Cluster) -> None:
    balance(cluster)
    enforce(cluster, cluster.client, EndpointPolicy(enforced_egress=True))
    with (
        open_socket(cluster.server.netns, socket.SOCK_STREAM, port=8080),
        TcpProxy(cluster.near.netns, PROXY, upstream_mark=L7LB, backend=(cluster.server.ipv4, 8080)),
    ):
        assert connects(cluster.client.netns, SERVICE["ipv4"], SERVICE_PORT), "to the load balancer, that is"
        events = cluster.log.wait_for(lambda seen: any(event.what == "drop 133" for event in seen))
    [denied, *_] = [event for event in events if event.what == "drop 133"]
    assert (denied.source, denied.dst, denied.src_identity) == (1017, cluster.server.ipv4, CLIENT)


@pytest.mark.parametrize("mark", [EGRESS, L7LB])
def test_a_proxy_keeps_the_pod_s_address_even_outside_the_cluster(cluster: Cluster, mark: int) -> None:
    outside, address = cluster.net.name, "172.18.0.254"
    ip(f"addr replace {address}/16 dev br0", f"route replace {cluster.client.ipv4} via 172.18.0.1", netns=outside)
    balance(cluster)
    with TcpProxy(cluster.near.netns, PROXY, upstream_mark=mark, backend=(address, 8080)) as proxy:
        answer = exchange(cluster.client.netns, outside, SERVICE["ipv4"], SERVICE_PORT, served_at=8080)
    assert answer == b"y" * 64
    assert proxy.upstream[0][0] == cluster.client.ipv4
    events = cluster.log.collect()
    answers = [event for event in events if event.src == address and event.what == "to-proxy"]
    assert {(event.reason, event.dst_id) for event in answers} == {("reply", 0)}
    if mark == L7LB:
        asked = [event for event in events if event.dst == address]
        assert [event.what for event in asked][:2] == ["verdict", "to-stack"], "by the pod's policy"


def test_from_proxy_is_seen_at_level_none(cluster: Cluster) -> None:
    cluster.near.datapath.configure(aggregation=Aggregation.NONE)
    enforce(cluster, cluster.client, redirecting(egress=True))
    with TcpProxy(cluster.near.netns, PROXY) as proxy:
        exchange(cluster.client.netns, cluster.far.netns, cluster.far.ipv4, 8080)
    events = cluster.log.collect()
    own = cluster.client.ipv4
    opening = [event.what for event in events if event.tcp_flags == "SYN" and event.protocol == TCP]
    assert opening == ["from-endpoint", "verdict", "to-proxy", "from-proxy", "to-overlay"]
    from_proxy = [event for event in events if event.what == "from-proxy"]
    assert {(event.src_identity, event.src) for event in from_proxy} == {(CLIENT, own), (FAR, cluster.far.ipv4)}
    assert proxy.served


def test_a_client_outside_asks_the_load_balancer_and_backends_see_the_ingress_address(cluster: Cluster) -> None:
    outside, ingress, node = cluster.net.name, "10.244.1.254", cluster.near
    ip("addr replace 172.18.0.254/16 dev br0", f"route replace {SERVICE['ipv4']} via 172.18.0.1", netns=outside)
    ip(f"addr add {ingress}/32 dev cilium_host", netns=node.netns)
    node.datapath.set_host_addresses([node.address, node.router, node.router6, ip_address(ingress)])
    node.datapath.set_ipcache(ip_address(ingress), IpcacheEntry(identity=8))
    cluster.away.datapath.set_ipcache(ip_address(ingress), IpcacheEntry(identity=8, tunnel_endpoint=node.address))
    balance(cluster)
    try:
        for server in (cluster.server, cluster.far):
            cluster.log.clear()
            cluster.away_log.clear()
            with TcpProxy(node.netns, PROXY, source=ingress, backend=(server.ipv4, 8080)) as proxy:
                answer = exchange(outside, server.netns, SERVICE["ipv4"], SERVICE_PORT, served_at=8080)
            assert answer == b"y" * 64
            assert proxy.served[0][1] == (SERVICE["ipv4"], SERVICE_PORT)
            asked = [event for event in cluster.log.collect() if event.src == "172.18.0.254" and event.what != "drop"]
            assert [event.what for event in asked] == ["to-proxy"] * 5
            assert [event.tcp_flags for event in asked] == FORWARD
            assert {(event.src_identity, event.dst_id) for event in asked} == {(2, PROXY)}
            log = cluster.log if server is cluster.server else cluster.away_log
            arrived = [event for event in log.collect() if event.what == "to-endpoint" and event.dst == server.ipv4]
            assert {(event.src, event.src_identity) for event in arrived} == {(ingress, 8)}
            back = [event for event in log.collect() if event.src == server.ipv4 and event.dst == ingress]
            assert {event.dst_identity for event in back} == {8}
    finally:
        ip(f"addr del {ingress}/32 dev cilium_host", netns=node.netns)
        node.datapath.set_host_addresses([node.address, node.router, node.router6])
        for one in (node, cluster.away):
            one.datapath.delete_ipcache(ip_network(ingress))


@pytest.mark.parametrize(("client", "version"), [("pod", "ipv4"), ("pod", "ipv6"), ("outside", "ipv4")])
def test_connections_go_on_when_a_load_balancer_comes_and_when_it_goes(
    cluster: Cluster, client: str, version: str
) -> None:
    outside, service, address = cluster.net.name, SERVICE[version], getattr(cluster.server, version)
    if client == "outside":
        ip("addr replace 172.18.0.254/16 dev br0", f"route replace {service} via 172.18.0.1", netns=outside)
    netns = cluster.client.netns if client == "pod" else outside
    serve_as(cluster, address, 0)
    with echoing(cluster.server.netns, version) as straight, echoing(cluster.near.netns, version, PROXY) as balanced:
        early = open_from(netns, service, 40001)
        assert repeats(early, straight)
        serve_as(cluster, address, PROXY)
        late = open_from(netns, service, 40002)
        assert repeats(late, balanced), "new connections are the load balancer's"
        assert repeats(early, straight), "those that there are keep their backend"
        early.close()
        # What the ports were used for before does not count.
        again = open_from(netns, service, 40001)
        assert repeats(again, balanced)
        serve_as(cluster, address, 0)
        newest = open_from(netns, service, 40003)
        assert repeats(newest, straight), "new connections get a backend"
        assert repeats(late, balanced), "those that there are stay with the load balancer"
        assert repeats(again, balanced)
        for one in (late, again, newest):
            one.close()
    assert not [event for event in cluster.log.collect() if event.what.startswith("drop")]


def serve_as(cluster: Cluster, address: str, l7_port: int) -> None:
    """One service for the server; with a port, a load balancer stands for it."""
    version = "ipv6" if ":" in address else "ipv4"
    frontend = Frontend(address=ip_address(SERVICE[version]), port=SERVICE_PORT, protocol=TCP)
    backends = (Backend(address=ip_address(address), port=8080),)
    kind = FrontendKind.LOAD_BALANCER
    one = ServiceFrontend(frontend=frontend, backends=backends, kind=kind, l7_port=l7_port)
    cluster.near.datapath.sync_services([one])


@contextmanager
def echoing(netns: str, version: str, proxy_port: int = 0) -> Iterator[bytes]:
    """A server that says what it is told and its name, which this returns; as a pod, or as a proxy of the node."""
    name = b" balanced" if proxy_port else b" straight"
    if proxy_port:
        family = socket.AF_INET6 if version == "ipv6" else socket.AF_INET
        loopback = "::1" if version == "ipv6" else "127.0.0.1"
        listener = transparent_socket(netns, family, socket.SOCK_STREAM, EGRESS, (loopback, proxy_port))
        listener.listen()
    else:
        listener = open_socket(netns, socket.SOCK_STREAM, "::" if version == "ipv6" else "0.0.0.0", 8080)

    def echo(connection: socket.socket) -> None:
        # Clients end with a reset, to have their ports again at once.
        with connection, suppress(ConnectionResetError):
            while said := connection.recv(4096):
                connection.sendall(said + name)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            Thread(target=echo, args=(connection,), daemon=True).start()

    listener.settimeout(None)
    thread = Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield name
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def open_from(netns: str, service: str, port: int) -> socket.socket:
    """A connection from a port that may have been used just now."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in service else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.settimeout(5)
        made.bind(("::" if ":" in service else "0.0.0.0", port))
        made.connect((service, SERVICE_PORT))
        return made

    return inside(netns, make)


def repeats(sock: socket.socket, name: bytes) -> bool:
    """Whether a server called `name` answers on this connection."""
    sock.sendall(b"hello")
    heard = b""
    while len(heard) < len(b"hello" + name):
        if not (more := sock.recv(4096)):
            break
        heard += more
    return heard == b"hello" + name
