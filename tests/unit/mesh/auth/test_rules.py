"""Which pairs policies ask for, and numbers of nodes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from bpf.facts import AuthPair, Endpoint, IpcacheEntry, Prefix
from bpf.policies import EndpointPolicy, PolicyEntry
from mesh.auth.rules import NodeIds, asked_by


def endpoint(number: int, identity: int) -> Endpoint:
    return Endpoint(endpoint_id=number, identity=identity, ifname="", pod_mac="", host_mac="")


def pair(local: int, remote: int, kind: int = 1) -> AuthPair:
    return AuthPair(local, remote, 0, kind)


def test_policies_say_which_pairs_are_asked_for() -> None:
    named = EndpointPolicy((PolicyEntry(False, 301, auth=0x81), PolicyEntry(False, 302)), enforced_ingress=True)
    anybody = EndpointPolicy((PolicyEntry(False, 0, auth=1),), enforced_ingress=True)
    failing = EndpointPolicy((PolicyEntry(False, 301, auth=0x82),), enforced_ingress=True)
    ends = {1: endpoint(1, 300), 2: endpoint(2, 310), 3: endpoint(3, 320), 4: endpoint(4, 300)}
    asked = asked_by(ends, {1: named, 2: anybody, 3: failing})
    assert pair(300, 301) in asked
    assert pair(300, 302) not in asked
    assert pair(310, 999) in asked
    assert pair(320, 301) not in asked
    assert pair(320, 301, kind=2) not in asked, "nobody can do that"
    assert not asked_by(ends, {3: failing})


def entries(*nodes: str) -> dict[Prefix, IpcacheEntry]:
    own: dict[Prefix, IpcacheEntry] = {ip_network("10.0.0.1"): IpcacheEntry(identity=300)}
    return own | {
        ip_network(f"10.0.{number}.1"): IpcacheEntry(identity=301, tunnel_endpoint=ip_address(node))
        for number, node in enumerate(nodes, 1)
    }


def test_nodes_keep_their_numbers_and_none_is_given_again_at_once() -> None:
    ids = NodeIds()
    first = ids.mark(entries("192.0.2.2", "192.0.2.3"))
    assert [one.node_id for one in first.values()] == [0, 1, 2]
    again = NodeIds()
    again.restore(first)
    assert again.mark(entries("192.0.2.3", "192.0.2.2")) != first
    assert again.address(1) == ip_address("192.0.2.2")
    later = again.mark(entries("192.0.2.3", "192.0.2.4"))
    assert [one.node_id for one in later.values()] == [0, 2, 3]
    assert again.address(1) is None
    assert [one.node_id for one in again.mark(entries("192.0.2.3", "192.0.2.5")).values()] == [0, 2, 4]
    assert again.address(0) is None
