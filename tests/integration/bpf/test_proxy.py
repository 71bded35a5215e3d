"""Redirection to proxies: real transparent servers in the node's namespace, policies that name their ports."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from bpf.policies import EndpointPolicy, PolicyEntry
from tests.support.kernel_events import KernelEvent
from tests.support.policynet import connects
from tests.support.proxies import EGRESS, INGRESS, TcpProxy, family_of, udp_proxy
from tests.support.testnet import Cluster, Pod
from tests.support.traffic import exchange, open_socket

pytestmark = pytest.mark.kernel

TCP, UDP = 6, 17
PROXY = 10001
OTHER_PROXY = 10002
FORWARD = ["SYN", "ACK", "ACK, PSH", "ACK, FIN", "ACK"]
CLIENT, SERVER, FAR = 33333, 44444, 55555


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


def enforce(cluster: Cluster, pod: Pod, policy: EndpointPolicy) -> None:
    node = next(node for node in cluster.net.nodes if pod in node.pods)
    node.datapath.set_policy(pod.endpoint.endpoint_id, policy)


def points(events: list[KernelEvent], src: str, port: int = 0) -> list[str]:
    """Where packets from an address (and port) were seen."""
    return [event.what for event in events if event.src == src and (not port or source_port(event) == port)]


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
    assert upstream[0] == own and upstream[1] != client[1]

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
    assert answers and {event.dst_id for event in answers} == {0}
    assert {event.src_identity for event in answers} == {SERVER if where == "same node" else FAR}
    assert not [event for event in events if event.what.startswith("drop")]
