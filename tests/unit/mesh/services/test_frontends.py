"""Frontends of one node: which addresses, which backends."""

from __future__ import annotations

from typing import Any

from bpf.services import FrontendKind, ServiceFrontend
from mesh.backends import Directory
from mesh.resources.base import Resource, changed
from mesh.resources.manifests import parse_manifest, parse_manifests
from mesh.resources.pods import Pod
from mesh.resources.services import Service
from mesh.services.frontends import frontends
from tests.support.cluster import node, pod, settled

HERE = node(0)


def service(name: str = "web", **spec: Any) -> Resource:
    base = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], "clusterIP": "10.96.0.5"}
    annotations = spec.pop("annotations", {})
    metadata = {"name": name, "namespace": "default", "annotations": annotations}
    status = {"loadBalancer": {"ingress": [{"ip": one} for one in spec.pop("ips", ())]}}
    return parse_manifest(
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {**base, **spec}, "status": status}
    )


def web(name: str, where: str, leaving: bool = False) -> Pod:
    made = pod(name, "default", app="web")
    made = changed(made, spec=changed(made.spec, node_name=where))
    told = "2026-01-01T00:00:00Z" if leaving else None
    return changed(made, metadata=changed(made.metadata, deletion_timestamp=told))


def found(*resources: Resource, algorithm: str = "random") -> dict[str, ServiceFrontend]:
    """By address and port; `/in` behind it for the inner side."""
    state = settled([HERE, node(1), web("a", "kind-worker0"), web("b", "kind-worker1"), *resources])
    services = [one for one in state if isinstance(one, Service)]
    entries, problems = frontends(services, Directory(state), HERE, algorithm, {("default", "proxied", 80): 10001})
    assert not problems
    return {
        f"{each.frontend.address}:{each.frontend.port}{'/in' * each.frontend.internal}": each
        for each in (one.entry for one in entries)
    }


def backends(entry: ServiceFrontend) -> list[str]:
    return [f"{one.address}:{one.port}{'!' * one.terminating}" for one in entry.backends]


BOTH = ["10.244.0.2:8080", "10.244.1.2:8080"]


def test_a_cluster_address_leads_to_all_pods() -> None:
    (entry,) = found(service()).values()
    assert (backends(entry), entry.kind) == (BOTH, FrontendKind.CLUSTER_IP)


def test_a_cluster_address_is_open_to_clients_outside_where_that_is_wanted() -> None:
    state = settled([HERE, web("a", "kind-worker0"), service(internalTrafficPolicy="Local")])
    services = [one for one in state if isinstance(one, Service)]
    entries, _ = frontends(services, Directory(state), HERE, cluster_kind=FrontendKind.OPEN_CLUSTER_IP)
    assert [(one.entry.kind, one.entry.local_only) for one in entries] == [(FrontendKind.OPEN_CLUSTER_IP, True)]


def test_node_ports_are_at_loopback_addresses_where_sockets_are_led() -> None:
    ports = [{"port": 80, "targetPort": 8080, "nodePort": 30080}]
    state = settled([HERE, web("a", "kind-worker0"), service(type="NodePort", ports=ports)])
    services = [one for one in state if isinstance(one, Service)]
    plain, led = (
        {str(one.entry.frontend.address) for one in frontends(services, Directory(state), HERE, loopback=loopback)[0]}
        for loopback in (False, True)
    )
    assert led - plain == {"127.0.0.1"}


def test_a_balancer_is_reached_by_all_its_addresses_and_at_every_address_of_the_node() -> None:
    entries = found(
        service(
            type="LoadBalancer",
            ports=[{"port": 80, "targetPort": 8080, "nodePort": 30080}],
            externalIPs=["192.0.2.9"],
            ips=["172.18.255.200"],
            loadBalancerSourceRanges=["192.0.2.0/24", "2001:db8::/32"],
        )
    )
    assert {name: entry.kind.name for name, entry in entries.items()} == {
        "10.96.0.5:80": "CLUSTER_IP",
        "192.0.2.9:80": "EXTERNAL_IP",
        "172.18.255.200:80": "LOAD_BALANCER",
        "172.18.0.2:30080": "NODE_PORT",
    }
    assert [str(one) for one in entries["172.18.255.200:80"].source_ranges] == ["192.0.2.0/24"]
    assert not entries["172.18.0.2:30080"].source_ranges


def test_a_service_of_two_families_is_reached_by_both_and_leads_to_the_same_family() -> None:
    node_port = [{"port": 80, "targetPort": 8080, "nodePort": 30080}]
    entries = found(service(type="NodePort", ports=node_port, ipFamilyPolicy="PreferDualStack"))
    both = {"fd00:10:244::2:8080", "fd00:10:244:1::2:8080"}
    assert set(backends(entries["fc00:f853:ccd:e793::2:30080"])) == both
    assert sum(entry.kind is FrontendKind.CLUSTER_IP for entry in entries.values()) == 2


def test_a_local_policy_leaves_outside_the_pods_of_the_node_and_inside_all() -> None:
    node_port = [{"port": 80, "targetPort": 8080, "nodePort": 30080}]
    entries = found(service(type="NodePort", ports=node_port, externalTrafficPolicy="Local"))
    outside, inside = entries["172.18.0.2:30080"], entries["172.18.0.2:30080/in"]
    assert (backends(outside), outside.local_only) == (BOTH[:1], True)
    assert (backends(inside), inside.local_only) == (BOTH, False)
    assert backends(entries["10.96.0.5:80"]) == BOTH
    assert "10.96.0.5:80/in" not in entries


def test_node_ports_of_other_nodes_are_translated_at_the_source() -> None:
    def there(**spec: Any) -> ServiceFrontend:
        ports = [{"port": 80, "targetPort": 8080, "nodePort": 30080}]
        state = settled(
            [
                *(HERE, node(1), web("a", "kind-worker0"), web("b", "kind-worker1")),
                service(type="NodePort", ports=ports, **spec),
            ]
        )
        services = [one for one in state if isinstance(one, Service)]
        entries, _ = frontends(services, Directory(state), HERE, others=[node(1)])
        return next(one.entry for one in entries if str(one.entry.frontend.address) == "172.18.0.3")

    assert backends(there()) == BOTH
    assert backends(there(externalTrafficPolicy="Local")) == BOTH[1:]


def test_an_internal_local_policy_keeps_clients_inside_on_their_node() -> None:
    entry = found(service(internalTrafficPolicy="Local"))["10.96.0.5:80"]
    assert (backends(entry), entry.local_only) == (BOTH[:1], True)


def test_a_pod_that_is_told_to_go_is_still_known() -> None:
    (entry,) = found(service(), web("c", "kind-worker1", leaving=True)).values()
    assert backends(entry) == [*BOTH, "10.244.1.3:8080!"]


def test_affinity_algorithm_and_proxy_are_said() -> None:
    (entry,) = found(service(sessionAffinity="ClientIP")).values()
    assert (entry.affinity_s, entry.maglev, entry.l7_port) == (10800, False, 0)
    config = {"clientIP": {"timeoutSeconds": 7}}
    (entry,) = found(service(sessionAffinity="ClientIP", sessionAffinityConfig=config)).values()
    assert entry.affinity_s == 7
    (entry,) = found(service(annotations={"service.cilium.io/lb-algorithm": "maglev"})).values()
    assert entry.maglev
    (entry,) = found(service(), algorithm="maglev").values()
    assert entry.maglev
    (entry,) = found(service("proxied")).values()
    assert entry.l7_port == 10001


def test_endpoints_that_are_no_pods_count_for_services_without_selector() -> None:
    written = parse_manifests("""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, labels: {kubernetes.io/service-name: far}}
addressType: IPv4
ports: [{name: http, port: 9000}]
endpoints:
- {addresses: [192.0.2.1], nodeName: kind-worker0}
- {addresses: [192.0.2.2], conditions: {ready: false}}
- {addresses: [192.0.2.3], conditions: {ready: false, serving: true, terminating: true}}
---
apiVersion: v1
kind: Endpoints
metadata: {name: far}
subsets: [{addresses: [{ip: 192.0.2.4}], notReadyAddresses: [{ip: 192.0.2.5}], ports: [{name: http, port: 9000}]}]
""")
    (entry,) = found(service("far", selector={}, ports=[{"name": "http", "port": 80}]), *written).values()
    assert backends(entry) == ["192.0.2.1:9000", "192.0.2.3:9000!", "192.0.2.4:9000"]


def test_services_without_address_of_their_own_have_no_frontends() -> None:
    assert not found(service(clusterIP="None"))


def test_of_two_services_with_one_address_the_first_has_it() -> None:
    both = [service("a", externalIPs=["192.0.2.9"]), service("b", clusterIP="10.96.0.6", externalIPs=["192.0.2.9"])]
    services = [one for one in settled([HERE, *both]) if isinstance(one, Service)]
    entries, problems = frontends(services, Directory([]), HERE)
    assert [one.service.name for one in entries if str(one.entry.frontend.address) == "192.0.2.9"] == ["a"]
    assert problems == ["Service default/b: 192.0.2.9 port 80 TCP is taken by Service default/a; it stays with that"]
