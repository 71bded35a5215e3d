"""Policies about nodes themselves (`nodeSelector`), and about who other nodes are: YAML in, real packets out."""

from __future__ import annotations

import socket
from collections.abc import Iterable

import pytest

from mesh.identities import HOST, REMOTE_NODE
from mesh.knowledge import HOST_ENDPOINT_ID
from tests.support.policynet import OUTSIDE, PolicyNet, client_socket, try_tcp
from tests.support.testnet import Node, ping
from tests.support.traffic import open_socket

pytestmark = pytest.mark.kernel

NONE, L3_ONLY, L3_L4, L4_ONLY, ALL, L3_PROTO, PROTO_ONLY = range(7)
DENIED, DENY = -133, -181
OPEN_PORT, CLOSED_PORT = 80, 81
FIRST_NODE_IDENTITY = 0x02000001


def policy(spec: str, name: str = "host", nodes: str = "{matchLabels: {role: main}}") -> str:
    """A policy about nodes; `spec` is one list or several, in flow style."""
    return (
        f"apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {{name: {name}}}\n"
        f"spec: {{nodeSelector: {nodes}, {spec}}}\n"
    )


def about_pods(spec: str, subject: str = "{matchLabels: {app: s}}") -> str:
    return (
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: pods, namespace: ns}\n"
        f"spec: {{endpointSelector: {subject}, {spec}}}\n"
    )


def ports(*numbers: int, protocol: str = "TCP") -> str:
    listed = ", ".join(f"{{port: '{number}', protocol: {protocol}}}" for number in numbers)
    return f"toPorts: [{{ports: [{listed}]}}]"


def decided(mesh: PolicyNet, node: Node | None = None) -> list[tuple[str, int, int, int]]:
    """Direction, verdict, match type and identity of the other side, of what nodes' own policies decided; each once."""
    found = [
        (
            "egress" if event.egress else "ingress",
            event.verdict,
            event.match,
            event.dst_identity if event.egress else event.src_identity,
        )
        for event in mesh.verdicts(node)
        if event.source == HOST_ENDPOINT_ID
    ]
    return list(dict.fromkeys(found))


def reach_host(mesh: PolicyNet, client: str, port: int, *, router: bool = False) -> bool:
    """Whether a process of the first node can be reached from a namespace, at its address or its router's."""
    return try_tcp(client, mesh.near.netns, str(mesh.near.router if router else mesh.near.address), port)


def everybody(mesh: PolicyNet) -> Iterable[tuple[str, str, bool]]:
    """Who asks the first node: name, namespace, and whether by the router's address."""
    return [
        ("pod", mesh["s"].pod.netns, False),
        ("pod of another node", mesh["far"].pod.netns, False),
        ("node", mesh.away.netns, False),
        ("world", mesh.net.name, False),
    ]


def test_without_a_policy_about_it_everybody_reaches_a_node_and_nothing_is_told(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}]", nodes="{matchLabels: {role: worker}}"), mode="always")
    for who, netns, router in everybody(mesh):
        if "pod" not in who:
            assert reach_host(mesh, netns, OPEN_PORT, router=router), who
    assert decided(mesh) == []


@pytest.mark.parametrize(
    ("peer", "allowed", "match"),
    [
        ("", "pod, pod of another node, node, world", L4_ONLY),
        ("fromEntities: [cluster], ", "pod, pod of another node, node", L3_L4),
        ("fromEntities: [remote-node], ", "node", L3_L4),
        ("fromEntities: [world], ", "world", L3_L4),
        ("fromEndpoints: [{matchLabels: {app: s}}], ", "pod", L3_L4),
        ("fromEndpoints: [{matchLabels: {app: far}}], ", "pod of another node", L3_L4),
        (f"fromCIDR: [{OUTSIDE}/32], ", "world", L3_L4),
        ("fromCIDR: [172.18.0.0/16], ", "world", L3_L4),
        ("fromNodes: [{matchLabels: {role: worker}}], ", "node", L3_L4),
        ("fromNodes: [{matchLabels: {role: other}}], ", "", L3_L4),
    ],
)
def test_ingress_of_a_node_is_what_its_policy_says(mesh: PolicyNet, peer: str, allowed: str, match: int) -> None:
    mesh.apply(policy(f"ingress: [{{{peer}{ports(OPEN_PORT)}}}]"))
    for who, netns, router in everybody(mesh):
        mesh.forget()
        wanted = who in allowed.split(", ")
        assert reach_host(mesh, netns, OPEN_PORT, router=router) is wanted, who
        [(direction, verdict, how, _)] = decided(mesh)
        assert (direction, verdict, how) == ("ingress", 0 if wanted else DENIED, match if wanted else NONE), who
    mesh.forget()
    assert not reach_host(mesh, mesh.away.netns, CLOSED_PORT)


def test_what_a_node_asks_for_is_answered_though_nobody_may_come_in(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}]"))
    near = mesh.near.netns
    assert try_tcp(near, mesh["s"].pod.netns, mesh["s"].ip, OPEN_PORT)
    assert try_tcp(near, mesh["far"].pod.netns, mesh["far"].ip, OPEN_PORT)
    assert try_tcp(near, mesh.away.netns, str(mesh.away.address), OPEN_PORT)
    assert try_tcp(near, mesh.net.name, OUTSIDE, OPEN_PORT)
    assert ping(near, mesh["far"].ip)
    assert ping(near, OUTSIDE)
    assert decided(mesh) == []


def test_a_connection_that_runs_when_a_policy_comes_goes_on(mesh: PolicyNet) -> None:
    """The node reads and has nothing to say: only its earlier packets tell that it asked."""
    with (
        open_socket(mesh.net.name, socket.SOCK_STREAM, "0.0.0.0", OPEN_PORT) as listener,
        client_socket(mesh.near.netns, "0.0.0.0") as sock,
    ):
        sock.connect((OUTSIDE, OPEN_PORT))
        connection, _ = listener.accept()
        with connection:
            mesh.apply(policy("ingress: [{}]"))
            connection.sendall(b"still here")
            assert sock.recv(100) == b"still here"


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("toEntities: [cluster]", "pod, pod of another node, node"),
        ("toEntities: [world]", "world"),
        ("toEntities: [remote-node]", "node"),
        ("toNodes: [{}]", "node"),
        ("toEndpoints: [{matchLabels: {app: far}}]", "pod of another node"),
        (f"toCIDR: [{OUTSIDE}/32]", "world"),
    ],
)
def test_egress_of_a_node_is_what_its_policy_says(mesh: PolicyNet, peer: str, allowed: str) -> None:
    mesh.apply(policy(f"egress: [{{{peer}, {ports(OPEN_PORT)}}}]"))
    asked = {
        "pod": (mesh["s"].pod.netns, mesh["s"].ip),
        "pod of another node": (mesh["far"].pod.netns, mesh["far"].ip),
        "node": (mesh.away.netns, str(mesh.away.address)),
        "world": (mesh.net.name, OUTSIDE),
    }
    for who, (netns, address) in asked.items():
        mesh.forget()
        wanted = who in allowed.split(", ")
        assert try_tcp(mesh.near.netns, netns, address, OPEN_PORT) is wanted, who
        [(direction, verdict, how, _)] = decided(mesh)
        assert (direction, verdict, how) == ("egress", 0 if wanted else DENIED, L3_L4 if wanted else NONE), who
        assert not try_tcp(mesh.near.netns, netns, address, CLOSED_PORT), who


def test_a_node_without_egress_still_answers(mesh: PolicyNet) -> None:
    mesh.apply(policy("egress: [{}]"))
    for who, netns, router in everybody(mesh):
        assert reach_host(mesh, netns, OPEN_PORT, router=router), who


def test_pods_are_not_touched_by_the_policy_of_their_node(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}], egress: [{}]", nodes="{}"))
    assert mesh.try_tcp("s", "p", OPEN_PORT)
    assert mesh.try_tcp("s", "far", OPEN_PORT)
    assert mesh.try_tcp("far", "s", OPEN_PORT)
    assert try_tcp(mesh["s"].pod.netns, mesh.net.name, OUTSIDE, OPEN_PORT)
    assert try_tcp(mesh.net.name, mesh["s"].pod.netns, mesh["s"].ip, OPEN_PORT)
    assert try_tcp(mesh["s"].pod.netns, mesh["far"].pod.netns, mesh["far"].pod.ipv6, OPEN_PORT)
    assert decided(mesh) == decided(mesh, mesh.away) == []


def test_selecting_all_pods_selects_no_node(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}]").replace("nodeSelector: {matchLabels: {role: main}}", "endpointSelector: {}"))
    assert reach_host(mesh, mesh.away.netns, OPEN_PORT)
    assert not mesh.try_tcp("p", "s", OPEN_PORT)


def test_a_denial_is_stronger_and_drops_say_why_and_where(mesh: PolicyNet) -> None:
    mesh.apply(policy(f"ingress: [{{fromEntities: [all]}}], ingressDeny: [{{fromEntities: [world], {ports(22)}}}]"))
    assert reach_host(mesh, mesh.net.name, OPEN_PORT)
    assert reach_host(mesh, mesh.away.netns, 22)
    mesh.forget()
    assert not reach_host(mesh, mesh.net.name, 22)
    events = mesh.logs[mesh.near.number].collect()
    assert {(one.what, one.verdict, one.match) for one in events if one.what == "verdict"} == {("verdict", DENY, L3_L4)}
    drop = next(one for one in events if one.what.startswith("drop"))
    assert (drop.what, drop.source, drop.src_identity, drop.dst_identity) == ("drop 181", HOST_ENDPOINT_ID, 2, HOST)


def test_echoes_are_judged_by_their_type(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{fromEntities: [remote-node], icmps: [{fields: [{type: EchoRequest}]}]}]"))
    assert ping(mesh.away.netns, str(mesh.near.address))
    assert not ping(mesh.net.name, str(mesh.near.address), 0.25)


def test_audited_packets_pass_and_say_so(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}]"), audit=True)
    assert reach_host(mesh, mesh.net.name, OPEN_PORT)
    [event] = [one for one in mesh.verdicts() if one.source == HOST_ENDPOINT_ID]
    assert (event.verdict, event.audited, event.match) == (0, True, NONE)


def test_declining_default_deny_leaves_a_node_open(mesh: PolicyNet) -> None:
    mesh.apply(policy(f"enableDefaultDeny: {{ingress: false}}, ingressDeny: [{{fromEntities: [world], {ports(22)}}}]"))
    assert reach_host(mesh, mesh.net.name, OPEN_PORT)
    assert not reach_host(mesh, mesh.net.name, 22)


def test_mode_never_is_for_nodes_too(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}]"), mode="never")
    assert reach_host(mesh, mesh.net.name, OPEN_PORT)


def test_a_pod_asks_its_own_node_and_gets_the_answer(mesh: PolicyNet) -> None:
    mesh.apply(
        policy(f"ingress: [{{fromEndpoints: [{{matchLabels: {{app: s}}}}], {ports(OPEN_PORT)}}}], egress: [{{}}]"),
        about_pods("egress: [{toEntities: [host]}]"),
    )
    assert reach_host(mesh, mesh["s"].pod.netns, OPEN_PORT)
    assert reach_host(mesh, mesh["s"].pod.netns, OPEN_PORT, router=True)
    assert not reach_host(mesh, mesh["p"].pod.netns, OPEN_PORT)


def test_ipv6_of_a_node_is_judged_like_ipv4_and_neighbours_find_each_other(mesh: PolicyNet) -> None:
    mesh.apply(policy(f"ingress: [{{fromEntities: [remote-node], {ports(OPEN_PORT)}}}]"))
    near, away = mesh.near, mesh.away
    assert try_tcp(away.netns, near.netns, str(near.router6), OPEN_PORT)
    assert not try_tcp(mesh["far"].pod.netns, near.netns, str(near.router6), OPEN_PORT)
    assert not try_tcp(mesh["s"].pod.netns, near.netns, str(near.router6), OPEN_PORT)


def test_a_node_reached_over_the_tunnel_is_the_same_node(mesh: PolicyNet) -> None:
    """Its router's address is reached through the tunnel, whose packets say no more than that some node sent them."""
    mesh.apply(policy(f"ingress: [{{fromNodes: [{{matchLabels: {{name: node2}}}}], {ports(OPEN_PORT)}}}]"))
    assert reach_host(mesh, mesh.away.netns, OPEN_PORT, router=True)
    assert decided(mesh) == [("ingress", 0, L3_L4, FIRST_NODE_IDENTITY)]


def test_pods_tell_nodes_apart_once_a_policy_asks_for_it(mesh: PolicyNet) -> None:
    away, server = mesh.away.netns, mesh["s"]
    mesh.apply(about_pods("ingress: [{fromEntities: [remote-node]}]"))
    assert try_tcp(away, server.pod.netns, server.ip, OPEN_PORT)
    assert [one.src_identity for one in mesh.verdicts()] == [REMOTE_NODE]

    mesh.apply(about_pods("ingress: [{fromNodes: [{matchLabels: {role: worker}}]}, {fromEntities: [remote-node]}]"))
    assert try_tcp(away, server.pod.netns, server.ip, OPEN_PORT)
    assert [one.src_identity for one in mesh.verdicts()] == [FIRST_NODE_IDENTITY]

    mesh.apply(about_pods("ingress: [{fromNodes: [{matchLabels: {role: other}}]}]"))
    assert not try_tcp(away, server.pod.netns, server.ip, OPEN_PORT)

    mesh.apply(about_pods(f"egress: [{{toNodes: [{{matchLabels: {{role: worker}}}}], {ports(OPEN_PORT)}}}]"))
    assert try_tcp(server.pod.netns, away, str(mesh.away.address), OPEN_PORT)
    assert not try_tcp(server.pod.netns, away, str(mesh.away.address), CLOSED_PORT)
    assert not try_tcp(server.pod.netns, mesh.near.netns, str(mesh.near.address), OPEN_PORT)


def test_prefixes_select_nodes_only_where_they_are_meant_to(mesh: PolicyNet) -> None:
    """By their addresses, whichever of these a packet has; never pods, nor the node itself."""
    away, server, address = mesh.away.netns, mesh["s"], mesh.away.address
    rules = about_pods(f"ingress: [{{fromCIDR: [{address}/32]}}], egress: [{{toCIDR: [{address}/32]}}]")
    mesh.apply(rules)
    assert not try_tcp(server.pod.netns, away, str(address), OPEN_PORT)

    mesh.apply(rules, prefixes_select_nodes=True)
    assert try_tcp(server.pod.netns, away, str(address), OPEN_PORT)
    assert try_tcp(away, server.pod.netns, server.ip, OPEN_PORT)
    assert {(one.src_identity, one.verdict) for one in mesh.verdicts() if not one.egress} == {(FIRST_NODE_IDENTITY, 0)}

    hole = f"fromCIDRSet: [{{cidr: 0.0.0.0/0, except: [{address}/32]}}]"
    mesh.apply(about_pods(f"ingress: [{{{hole}}}]"), prefixes_select_nodes=True)
    assert not try_tcp(away, server.pod.netns, server.ip, OPEN_PORT)

    everywhere = about_pods("egress: [{toCIDR: [0.0.0.0/0]}]")
    mesh.apply(everywhere, prefixes_select_nodes=True)
    assert not try_tcp(server.pod.netns, mesh["far"].pod.netns, mesh["far"].ip, OPEN_PORT)
    assert not try_tcp(server.pod.netns, mesh.near.netns, str(mesh.near.address), OPEN_PORT)


def test_a_protocol_without_connections_is_judged_packet_by_packet(mesh: PolicyNet) -> None:
    """VRRP has neither ports nor replies."""
    vrrp = 112
    mesh.apply(policy("ingress: [{fromEntities: [remote-node], toPorts: [{ports: [{protocol: VRRP}]}]}]"))
    with (
        open_socket(mesh.near.netns, socket.SOCK_RAW, protocol=vrrp) as receiver,
        open_socket(mesh.away.netns, socket.SOCK_RAW, protocol=vrrp) as good,
        open_socket(mesh.net.name, socket.SOCK_RAW, protocol=vrrp) as bad,
    ):
        bad.sendto(b"from outside", (str(mesh.near.address), 0))
        good.sendto(b"from a node", (str(mesh.near.address), 0))
        assert receiver.recv(100).endswith(b"from a node")
    assert {verdict for _, verdict, _, _ in decided(mesh)} == {0, DENIED}
