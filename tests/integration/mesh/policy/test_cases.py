"""The tricky cases of spec/policy.md, section 12, by number: YAML in, real packets through two nodes.

What a proxy decides (the status of a request, the name in a query) is not here: a redirected packet shows its verdict,
and then is dropped, because nobody listens on proxies' ports yet. Case 11 needs services.
"""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from tests.support.policynet import OUTSIDE, PolicyNet, client_socket, connects, networks, try_tcp
from tests.support.testnet import inside, ping
from tests.support.traffic import ethernet, ipv4_packet, open_socket, send_packet, udp_datagram

pytestmark = pytest.mark.kernel

NONE, L3_ONLY, L3_L4, L4_ONLY, ALL, L3_PROTO, PROTO_ONLY = range(7)
DENIED, DENY = -133, -181
P_SELECTOR = "{matchLabels: {app: p}}"


def policy(spec: str, name: str = "case", subject: str = "{matchLabels: {app: s}}") -> str:
    """A CiliumNetworkPolicy in namespace ns; `spec` is one list or several, in flow style."""
    return (
        f"apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: ns}}\n"
        f"spec: {{endpointSelector: {subject}, {spec}}}\n"
    )


def http(direction: str, path: str = "/", port: int = 8080) -> str:
    side = "toEndpoints" if direction == "egress" else "fromEndpoints"
    return (
        f"{direction}: [{{{side}: [{P_SELECTOR}], toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}], "
        f"rules: {{http: [{{method: GET, path: '{path}'}}]}}}}]}}]"
    )


def decided(mesh: PolicyNet, far: bool = False) -> list[tuple[str, int, int]]:
    """Direction, verdict and match type of what was decided, each once, in order."""
    found = [
        ("egress" if event.egress else "ingress", event.verdict, event.match)
        for event in mesh.verdicts(mesh.away if far else mesh.near)
    ]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("more", ["", "plain rule for the same port", "plain rule for all ports"])
def test_cases_1_to_4_a_port_with_http_rules_is_redirected_whatever_plain_rules_stand_beside(
    mesh: PolicyNet, more: str
) -> None:
    texts = [policy(http("egress"))]
    if more:
        ports = ", toPorts: [{ports: [{port: '8080', protocol: TCP}]}]" if "same" in more else ""
        texts.append(policy(f"egress: [{{toEndpoints: [{P_SELECTOR}]{ports}}}]", name="second"))
    mesh.apply(*texts)
    assert not mesh.try_tcp("s", "p", 8080)
    [(direction, verdict, match)] = decided(mesh)
    assert (direction, match) == ("egress", L3_L4)
    assert verdict >= 10000, "the port of a proxy"
    assert "drop 180" in mesh.whats()

    mesh.forget()
    assert mesh.try_tcp("s", "p", 9090) is ("all ports" in more)
    assert decided(mesh) == [("egress", 0, L3_ONLY) if "all ports" in more else ("egress", DENIED, NONE)]


def test_case_5_a_wide_denial_covers_a_narrow_permission(mesh: PolicyNet) -> None:
    ports = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]"
    mesh.apply(
        policy(
            f"ingress: [{{fromEndpoints: [{P_SELECTOR}], {ports}}}], ingressDeny: [{{fromEndpoints: [{{}}], {ports}}}]"
        )
    )
    assert not mesh.try_tcp("p", "s", 80)
    assert decided(mesh) == [("ingress", DENY, L3_L4)]
    assert "drop 181" in mesh.whats()


def test_case_6_a_prefix_is_also_the_world(mesh: PolicyNet) -> None:
    allow = "egress: [{toCIDR: [10.1.2.3/32]}]"
    mesh.apply(policy(allow))
    outside = mesh.net.name
    assert try_tcp(mesh["s"].pod.netns, outside, "10.1.2.3", 80)
    assert decided(mesh) == [("egress", 0, L3_ONLY)]
    assert not try_tcp(mesh["s"].pod.netns, outside, OUTSIDE, 80)

    mesh.apply(policy(f"{allow}, egressDeny: [{{toEntities: [world]}}]"))
    assert not try_tcp(mesh["s"].pod.netns, outside, "10.1.2.3", 80)
    assert decided(mesh) == [("egress", DENY, L3_ONLY)]


def test_case_7_an_empty_list_of_peers_selects_nobody(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{fromEndpoints: []}]"))
    assert not mesh.try_tcp("p", "s", 80)
    assert decided(mesh) == [("ingress", DENIED, NONE)]


def test_case_8_directions_are_independent(mesh: PolicyNet) -> None:
    mesh.apply(policy(f"egress: [{{toEndpoints: [{P_SELECTOR}]}}]"))
    assert mesh.try_tcp("p", "s", 80)
    assert decided(mesh) == []


def test_case_9_both_sides_decide_and_the_last_word_is_the_server_s(mesh: PolicyNet) -> None:
    far = "{matchLabels: {app: far}}"
    mesh.apply(
        policy(f"egress: [{{toEndpoints: [{far}]}}]"),
        policy("ingress: [{fromEndpoints: [{matchLabels: {app: p}}]}]", name="server", subject=far),
    )
    assert not mesh.try_tcp("s", "far", 80)
    assert decided(mesh) == [("egress", 0, L3_ONLY)]
    assert "to-overlay" in mesh.whats()
    assert decided(mesh, far=True) == [("ingress", DENIED, NONE)]


def test_case_10_replies_pass_where_nothing_may_come_in(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}]"))
    assert mesh.try_tcp("s", "p", 80)
    assert mesh.try_tcp("s", "far", 80)
    assert decided(mesh) == []


def test_case_12_names_that_nobody_learns_open_nothing(mesh: PolicyNet) -> None:
    mesh.apply(
        policy("egress: [{toFQDNs: [{matchName: example.com}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}]")
    )
    assert not try_tcp(mesh["s"].pod.netns, mesh.net.name, OUTSIDE, 443)
    with open_socket(mesh["s"].pod.netns, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"?", (mesh["p"].ip, 53))
    assert decided(mesh) == [("egress", DENIED, NONE)]
    assert {event.dst_port for event in mesh.verdicts()} == {443, 53}


def test_case_12_once_a_name_s_address_is_known_it_opens(mesh: PolicyNet) -> None:
    mesh.apply(
        policy("egress: [{toFQDNs: [{matchName: example.com}], toPorts: [{ports: [{port: '443', protocol: TCP}]}]}]"),
        names={ip_network(f"{OUTSIDE}/32"): ("example.com",)},
    )
    assert try_tcp(mesh["s"].pod.netns, mesh.net.name, OUTSIDE, 443)
    assert decided(mesh) == [("egress", 0, L3_L4)]


def test_case_13_a_name_of_a_pod_s_address_opens_no_pod(mesh: PolicyNet) -> None:
    mesh.apply(
        policy("egress: [{toFQDNs: [{matchPattern: '*.svc.example'}]}]"),
        names={ip_network(f"{mesh['p'].ip}/32"): ("*.svc.example",)},
    )
    assert not mesh.try_tcp("s", "p", 80)
    assert decided(mesh) == [("egress", DENIED, NONE)]


def test_case_14_one_port_is_cut_out_of_a_range(mesh: PolicyNet) -> None:
    mesh.apply(
        policy(
            f"ingress: [{{fromEndpoints: [{P_SELECTOR}], "
            "toPorts: [{ports: [{port: '8000', endPort: 9000, protocol: TCP}]}]}], "
            f"ingressDeny: [{{fromEndpoints: [{P_SELECTOR}], toPorts: [{{ports: [{{port: '8080', protocol: TCP}}]}}]}}]"
        )
    )
    assert not mesh.try_tcp("p", "s", 8080)
    assert decided(mesh) == [("ingress", DENY, L3_L4)]
    for port, passes in ((8081, True), (8000, True), (9000, True), (9001, False), (7999, False)):
        mesh.forget()
        assert mesh.try_tcp("p", "s", port) is passes, port
        assert decided(mesh) == [("ingress", 0, L3_L4) if passes else ("ingress", DENIED, NONE)]


def test_case_15_a_port_s_name_must_mean_one_number_where_it_is_looked_for(mesh: PolicyNet) -> None:
    mesh.apply(policy("egress: [{toPorts: [{ports: [{port: http, protocol: TCP}]}]}]"))
    assert not mesh.try_tcp("s", "p", 80)
    assert decided(mesh) == [("egress", DENIED, NONE)]
    mesh.apply(policy("egress: [{toPorts: [{ports: [{port: web, protocol: TCP}]}]}]"))
    assert mesh.try_tcp("s", "p", 8080)
    assert decided(mesh) == [("egress", 0, L4_ONLY)]
    # On the way in it is the subject's own number that counts.
    mesh.apply(policy("ingress: [{toPorts: [{ports: [{port: own, protocol: TCP}]}]}]"))
    assert mesh.try_tcp("p", "s", 7070)
    assert not mesh.try_tcp("p", "s", 7071)


def test_case_16_declining_default_deny_leaves_http_rules_in_force(mesh: PolicyNet) -> None:
    mesh.apply(policy(f"enableDefaultDeny: {{egress: false}}, {http('egress', port=80)}"))
    assert mesh.try_tcp("s", "p", 443)
    assert decided(mesh) == [("egress", 0, ALL)]
    mesh.forget()
    assert not mesh.try_tcp("s", "p", 80)
    assert [(direction, match) for direction, _, match in decided(mesh)] == [("egress", L3_L4)]


def test_case_17_prefixes_do_not_select_pods(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{fromCIDR: [10.244.0.0/16]}]"))
    assert not mesh.try_tcp("p", "s", 80)
    assert decided(mesh) == [("ingress", DENIED, NONE)]


def test_case_18_who_comes_in_over_another_node_from_outside_is_the_world(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{fromEntities: [cluster]}]"))
    world = 0x0F00 | 2 << 16  # what a node marks the packets with that it forwards for the world
    assert not try_tcp(mesh.away.netns, mesh["s"].pod.netns, mesh["s"].ip, 80, mark=world)
    assert decided(mesh) == [("ingress", DENIED, NONE)]
    event = mesh.verdicts()[0]
    assert (event.src_identity, event.src) == (2, str(mesh.away.router))

    mesh.forget()
    assert try_tcp(mesh.away.netns, mesh["s"].pod.netns, mesh["s"].ip, 80)
    assert decided(mesh) == [("ingress", 0, L3_ONLY)]


def test_case_19_a_node_may_look_after_its_own_pods_only(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}]"))
    assert try_tcp(mesh.near.netns, mesh["s"].pod.netns, mesh["s"].ip, 80)
    assert decided(mesh) == [("ingress", 0, L3_ONLY)]
    mesh.forget()
    assert not try_tcp(mesh.away.netns, mesh["s"].pod.netns, mesh["s"].ip, 80)
    assert [event.src_identity for event in mesh.verdicts()][:1] == [6]


def test_case_20_audited_packets_pass_and_say_so_but_proxies_still_judge(mesh: PolicyNet) -> None:
    mesh.apply(policy(http("ingress", port=80)), audit=True)
    assert mesh.try_tcp("p", "s", 22)
    [event] = mesh.verdicts()
    assert (event.verdict, event.audited, event.match) == (0, True, NONE)
    assert not any(what.startswith("drop") for what in mesh.whats())
    mesh.forget()
    assert not mesh.try_tcp("p", "s", 80)
    assert mesh.verdicts()[0].verdict > 0


def test_case_21_mode_always_closes_pods_that_no_policy_selects_except_for_their_node(mesh: PolicyNet) -> None:
    mesh.apply(mode="always")
    assert not mesh.try_tcp("s", "p", 80)
    assert decided(mesh) == [("egress", DENIED, NONE)]
    assert try_tcp(mesh.near.netns, mesh["s"].pod.netns, mesh["s"].ip, 80)


def test_case_22_mode_never_enforces_nothing(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingressDeny: [{fromEntities: [all]}]"), mode="never")
    assert mesh.try_tcp("p", "s", 80)
    assert decided(mesh) == []


def test_case_23_too_big_reaches_its_sender_through_every_denial(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingressDeny: [{fromEntities: [all]}]"))
    inner = ipv4_packet(mesh["s"].ip, "203.0.113.1", udp_datagram(5000, 5001))
    error = bytes([3, 4, 0, 0, 0, 0, 5, 120]) + inner[:28]
    send_packet(mesh["p"].pod.netns, "eth0", ethernet(ipv4_packet(mesh["p"].ip, mesh["s"].ip, error, protocol=1)))
    events = mesh.logs[mesh.near.number].wait_for(lambda events: bool(events))
    assert [event.what for event in events] == ["to-endpoint"]


def test_case_24_an_echo_is_judged_by_its_type(mesh: PolicyNet) -> None:
    only_80 = f"{{fromEndpoints: [{P_SELECTOR}], toPorts: [{{ports: [{{port: '80', protocol: TCP}}]}}]}}"
    mesh.apply(policy(f"ingress: [{only_80}]"))
    assert not ping(mesh["p"].pod.netns, mesh["s"].ip, timeout_s=0.2)
    event = mesh.verdicts()[0]
    assert (event.verdict, event.dst_port, event.protocol) == (DENIED, 8, 1)
    echo = (
        f"{{fromEndpoints: [{P_SELECTOR}], icmps: [{{fields: [{{type: EchoRequest}}, {{family: IPv6, type: 128}}]}}]}}"
    )
    mesh.apply(policy(f"ingress: [{echo}]"))
    assert ping(mesh["p"].pod.netns, mesh["s"].ip)
    assert ping(mesh["p"].pod.netns, mesh["s"].pod.ipv6)
    assert decided(mesh) == [("ingress", 0, L3_L4)]


def test_case_27_a_service_without_pods_is_its_addresses(mesh: PolicyNet) -> None:
    bare = "apiVersion: v1\nkind: Service\nmetadata: {name: out, namespace: ns}\nspec: {ports: [{port: 80}]}\n"
    pods = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: in, namespace: ns}\n"
        "spec: {ports: [{port: 80}], selector: {app: p}}\n"
    )
    services = {("ns", "out"): tuple(networks(f"{OUTSIDE}/32"))}
    for name, outside, inside_passes in (("out", True, False), ("in", False, True)):
        wanted = f"egress: [{{toServices: [{{k8sService: {{serviceName: {name}, namespace: ns}}}}]}}]"
        mesh.apply(policy(wanted), bare, pods, services=services)
        assert try_tcp(mesh["s"].pod.netns, mesh.net.name, OUTSIDE, 80) is outside
        assert mesh.try_tcp("s", "p", 80) is inside_passes


def test_case_29_all_pods_of_the_cluster_are_neither_host_nor_world(mesh: PolicyNet) -> None:
    mesh.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: all}\n"
        "spec: {endpointSelector: {matchLabels: {app: s}}, ingress: [{fromEndpoints: [{}]}]}\n"
    )
    assert mesh.try_tcp("p", "s", 80)
    assert mesh.try_tcp("other", "s", 80)
    assert not try_tcp(mesh.net.name, mesh["s"].pod.netns, mesh["s"].ip, 80)
    assert not try_tcp(mesh.away.netns, mesh["s"].pod.netns, mesh["s"].ip, 80)


def test_case_30_kubernetes_own_kind_means_anybody_by_an_empty_from(mesh: PolicyNet) -> None:
    text = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: ns}\n"
        "spec: {podSelector: {matchLabels: {app: s}}, ingress: [{from: [], ports: [{port: 80}]}]}\n"
    )
    mesh.apply(text)
    assert try_tcp(mesh.net.name, mesh["s"].pod.netns, mesh["s"].ip, 80)
    assert decided(mesh) == [("ingress", 0, L4_ONLY)]
    assert not mesh.try_tcp("p", "s", 81)


def test_cases_31_and_32_a_change_reaches_connections_that_run(mesh: PolicyNet) -> None:
    server, client = mesh["p"].pod.netns, mesh["s"].pod.netns
    allow = f"egress: [{{toEndpoints: [{P_SELECTOR}]}}]"
    mesh.apply(policy(allow))
    with open_socket(server, socket.SOCK_STREAM, "0.0.0.0", 80) as listener, client_socket(client, "0.0.0.0") as sock:
        sock.connect((mesh["p"].ip, 80))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(0.25)
            mesh.apply()
            sock.sendall(b"policy is gone")
            assert connection.recv(100) == b"policy is gone"
            assert decided(mesh) == []
            mesh.apply(policy(f"{allow}, egressDeny: [{{toEntities: [cluster]}}]"))
            sock.sendall(b"and now it denies")
            with pytest.raises(TimeoutError):
                connection.recv(100)
            assert decided(mesh) == [("egress", DENY, L3_ONLY)]
            mesh.apply()
            connection.settimeout(3)
            assert connection.recv(100) == b"and now it denies"


def test_case_36_default_deny_lets_the_host_in_and_nobody_else(mesh: PolicyNet) -> None:
    mesh.apply(policy("ingress: [{}]"))
    assert not mesh.try_tcp("p", "s", 80)
    assert not mesh.try_tcp("far", "s", 80)
    assert try_tcp(mesh.near.netns, mesh["s"].pod.netns, mesh["s"].ip, 80)


@pytest.mark.parametrize(
    ("peer", "near_pod", "far_pod", "world"),
    [
        ("toEntities: [all]", True, True, True),
        ("toEntities: [world]", False, False, True),
        ("toEntities: [world-ipv4]", False, False, True),
        ("toEntities: [world-ipv6]", False, False, False),
        ("toEntities: [cluster]", True, True, False),
        ("toCIDR: [0.0.0.0/0]", False, False, True),
        ("toCIDRSet: [{cidr: 172.16.0.0/12, except: [172.18.255.0/24]}]", False, False, False),
        ("toCIDRSet: [{cidr: 172.16.0.0/12, except: [172.18.254.0/24]}]", False, False, True),
        ("toEndpoints: [{matchLabels: {'k8s:app': far}}]", False, True, False),
        ("toEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [far]}]}]", True, False, False),
    ],
)
def test_peers_select_pods_nodes_and_the_world(
    mesh: PolicyNet, peer: str, near_pod: bool, far_pod: bool, world: bool
) -> None:
    mesh.apply(policy(f"egress: [{{{peer}}}]"))
    assert mesh.try_tcp("s", "p", 80) is near_pod
    assert mesh.try_tcp("s", "far", 80) is far_pod
    assert try_tcp(mesh["s"].pod.netns, mesh.net.name, OUTSIDE, 80) is world


def test_an_enforced_connection_shows_one_verdict_at_each_end_before_its_trace(mesh: PolicyNet) -> None:
    mesh.apply(
        policy(f"egress: [{{toEndpoints: [{P_SELECTOR}]}}]"),
        policy(
            "ingress: [{fromEndpoints: [{matchLabels: {app: s}}]}]", name="server", subject="{matchLabels: {app: p}}"
        ),
    )
    assert mesh.try_tcp("s", "p", 80)
    assert mesh.whats()[:3] == ["verdict", "verdict", "to-endpoint"]
    first, second = mesh.verdicts()
    assert (first.egress, first.source, first.dst_identity) == (True, mesh["s"].number, mesh["p"].identity)
    assert (second.egress, second.source, second.src_identity) == (False, mesh["p"].number, mesh["s"].identity)
    assert first.tcp_flags == "SYN"
    assert first.cookie


def test_ipv6_is_judged_like_ipv4(mesh: PolicyNet) -> None:
    mesh.apply(policy(f"ingress: [{{fromEndpoints: [{P_SELECTOR}]}}]"))
    server = mesh["s"].pod
    assert try_tcp(mesh["p"].pod.netns, server.netns, server.ipv6, 80)
    assert not try_tcp(mesh["far"].pod.netns, server.netns, server.ipv6, 80)
    assert decided(mesh) == [("ingress", 0, L3_ONLY), ("ingress", DENIED, NONE)]


def test_nothing_listens_but_what_is_allowed_still_gets_its_refusal(mesh: PolicyNet) -> None:
    """A reset is a reply: it passes, so that clients do not wait for a timeout."""
    mesh.apply(policy("ingress: [{fromEntities: [cluster]}]"))

    def refused() -> bool:
        with client_socket(mesh["p"].pod.netns, "0.0.0.0") as sock:
            with pytest.raises(ConnectionRefusedError):
                sock.connect((mesh["s"].ip, 4242))
            return True

    assert inside(mesh["p"].pod.netns, refused)
    assert not connects(mesh["p"].pod.netns, mesh["s"].ip, 4242)
