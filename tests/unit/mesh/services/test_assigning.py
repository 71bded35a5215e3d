"""Cluster addresses, node ports and the service of the Kubernetes API."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import ipam
from mesh.controller import reconcile
from mesh.resources.base import Key, Resource, changed
from mesh.resources.manifests import parse_manifests
from mesh.resources.services import NODE_PORTS, Service
from mesh.services.admission import refusals
from mesh.services.kinds import EndpointSlice
from mesh.store import adopt
from tests.support.cluster import node, settled


def service(name: str, spec: str = "ports: [{port: 80}]", type: str = "NodePort") -> Service:
    text = f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{type: {type}, {spec}}}"
    (found,) = parse_manifests(text)
    assert isinstance(found, Service)
    return found


def of(resources: list[Resource], name: str) -> Service:
    return next(one for one in resources if isinstance(one, Service) and one.name == name)


def ports(resources: list[Resource], name: str) -> list[int]:
    return [port.node_port for port in of(resources, name).spec.ports]


def test_node_ports_follow_from_names_and_stay() -> None:
    once = settled([service("a"), service("b")])
    assert ports(settled([service("b"), service("a")]), "a") == ports(once, "a")
    assert NODE_PORTS[0] <= ports(once, "a")[0] <= NODE_PORTS[1]
    assert not reconcile(once)


def test_a_port_that_is_asked_for_is_given_and_kept_free_for_who_asked() -> None:
    (wanted,) = ports(settled([service("b")]), "b")
    both = settled([service("a", f"ports: [{{port: 80, nodePort: {wanted}}}]"), service("b")])
    assert ports(both, "a") == [wanted]
    assert ports(both, "b") != [wanted]


def test_tcp_and_udp_of_a_port_get_the_same_number() -> None:
    two = "ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]"
    first, second = ports(settled([service("dns", two)]), "dns")
    assert first == second


def test_only_who_wants_node_ports_gets_them() -> None:
    assert ports(settled([service("a", type="ClusterIP")]), "a") == [0]
    without = "ports: [{port: 80}], allocateLoadBalancerNodePorts: false"
    assert ports(settled([service("a", without, "LoadBalancer")]), "a") == [0]
    assert ports(settled([service("a", type="LoadBalancer")]), "a") != [0]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 3), st.sampled_from(["TCP", "UDP"])), max_size=8))
def test_no_two_services_get_the_same_port_or_address(wanted: list[tuple[str, int, str]]) -> None:
    services = {
        name: service(name, f"ports: [{{port: {port}, protocol: {protocol}}}], ipFamilyPolicy: PreferDualStack")
        for name, port, protocol in wanted
    }
    found = [one for one in settled([*services.values()]) if isinstance(one, Service)]
    taken = [(port.node_port, port.protocol) for one in found for port in one.spec.ports]
    assert len(set(taken)) == len(taken) == len(services)
    addresses = [address for one in found for address in one.spec.cluster_ips]
    assert len(set(addresses)) == len(addresses) == 2 * len(services)


def test_when_node_ports_run_out_the_service_says_so_and_gets_one_later() -> None:
    every = ", ".join(f"{{name: p{n}, port: {n}, nodePort: {n}}}" for n in range(NODE_PORTS[0], NODE_PORTS[1] + 1))
    full = settled([service("a", f"ports: [{every}]"), service("b")])
    assert ports(full, "b") == [0]
    (condition,) = of(full, "b").status.conditions
    assert (condition.status, condition.reason) == ("False", "out_of_ports")
    after = settled([of(full, "b")])
    assert ports(after, "b") != [0]
    assert not of(after, "b").status.conditions


def test_a_service_of_two_families_has_an_address_of_each_in_its_order() -> None:
    both = of(settled([service("a", "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]")]), "a")
    assert [ip_address(one).version for one in both.spec.cluster_ips] == [6, 4]
    assert both.spec.cluster_ip == both.spec.cluster_ips[0]


def test_a_second_family_comes_without_a_change_of_the_first() -> None:
    (old,) = settled([service("a")])
    (new,) = settled([adopt(old, service("a", "ports: [{port: 80}], ipFamilyPolicy: PreferDualStack"))])
    assert isinstance(old, Service)
    assert isinstance(new, Service)
    assert new.spec.cluster_ips[0] == old.spec.cluster_ip
    assert len(new.spec.cluster_ips) == 2


def test_applying_a_service_again_changes_nothing() -> None:
    text = service("a", "ports: [{port: 80}], ipFamilyPolicy: PreferDualStack", "LoadBalancer")
    (old,) = settled([text])
    assert adopt(old, text) == old


def test_a_service_that_becomes_internal_gives_its_ports_back() -> None:
    (old,) = settled([service("a")])
    assert ports(settled([adopt(old, service("a", type="ClusterIP"))]), "a") == [0]


def test_headless_and_external_services_have_no_addresses() -> None:
    assert of(settled([service("a", "clusterIP: None", "ClusterIP")]), "a").spec.cluster_ips == ()
    assert of(settled([service("a", "externalName: example.com", "ExternalName")]), "a").spec.cluster_ip == ""


def test_the_api_of_kubernetes_is_a_service_where_there_is_a_control_plane() -> None:
    control = node(0, "kind-control-plane", **{"node-role.kubernetes.io/control-plane": ""})
    state = settled([control, node(1)])
    assert of(state, "kubernetes").spec.cluster_ips == ("10.96.0.1",)
    endpoints = next(one for one in state if isinstance(one, EndpointSlice))
    assert endpoints.endpoints[0].addresses == ("172.18.0.2",)
    assert not reconcile(state)
    moved = changed(control, status=node(5).status)
    later = settled([moved if one.key == Key("Node", "", control.name) else one for one in state])
    assert next(one for one in later if isinstance(one, EndpointSlice)).endpoints[0].addresses == ("172.18.0.7",)
    assert not [one for one in settled([node(0)]) if isinstance(one, Service)]


def test_what_another_service_has_is_refused_with_the_path() -> None:
    there = [service("a", "clusterIP: 10.96.9.9, externalIPs: [192.0.2.1], ports: [{port: 80, nodePort: 30001}]")]
    wanted = [service("b", "clusterIP: 10.96.9.9, externalIPs: [192.0.2.1], ports: [{port: 80, nodePort: 30001}]")]
    assert refusals(wanted, there) == [
        "Service shop/b: spec.ports[0].nodePort: 30001 TCP is taken by Service shop/a",
        "Service shop/b: spec.clusterIP: 10.96.9.9 is taken by Service shop/a",
        "Service shop/b: spec.externalIPs[0]: 192.0.2.1 port 80 TCP is taken by Service shop/a",
    ]
    assert not refusals(there, there), "its own are not taken from it"
    assert refusals([*there, *wanted], []), "two of one file count, too"


def test_addresses_that_cannot_be_are_refused() -> None:
    (problem,) = refusals([service("a", "clusterIP: 10.1.2.3")], [])
    assert (
        problem == f"Service shop/a: spec.clusterIP: 10.1.2.3 is outside of the services' range {ipam.SERVICE_CIDRS[0]}"
    )
    (problem,) = refusals([service("a", "externalIPs: [127.0.0.1]")], [])
    assert "spec.externalIPs[0]: 127.0.0.1 cannot be the address of a service" in problem
