"""state.json and what the kernel gets, from the same resources."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from mesh.backends import Directory
from mesh.cluster import Cluster
from mesh.endpoints import MAX_ENDPOINT_ID, endpoint_ids, ipcache_entries
from mesh.knowledge import HOST_ENDPOINT_ID, Identities, local_pods, node_state
from mesh.resources.base import Resource, changed
from mesh.resources.manifests import parse_manifests
from mesh.services.frontends import frontends
from tests.support.cluster import node, pod, settled

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: dns}
spec: {clusterIP: 10.96.0.10, ports: [{port: 53, protocol: UDP}]}
"""


def resources() -> list[Resource]:
    web = changed(pod("web", "shop", app="web"), spec=changed(pod("web").spec, node_name="kind-worker0"))
    far = changed(pod("far", "shop", app="far"), spec=changed(pod("far").spec, node_name="kind-worker1"))
    return settled([node(0, zone="a"), node(1), web, far, *parse_manifests(SERVICE)])


def state_of_node_0() -> dict[str, Any]:
    cluster = Cluster(resources())
    here = cluster.nodes()[0]
    services, _ = frontends(cluster.services(), Directory(cluster.resources.values()), here)
    return node_state(cluster, here, {"uid-shop-web": 77}, {1: "lo", 9: "lxc0"}, services=services)


def test_local_endpoints_are_the_node_and_its_pods() -> None:
    state = state_of_node_0()
    host, web = state["local_endpoints"]
    assert (host["id"], host["identity"], host["ipv4"]) == (HOST_ENDPOINT_ID, 1, "172.18.0.2")
    assert (web["id"], web["pod"], web["namespace"], web["ipv4"]) == (77, "web", "shop", "10.244.0.2")
    assert (web["workload_kind"], web["workload_name"]) == ("Pod", "web")
    assert "k8s:app=web" in web["labels"]


def test_a_pod_without_endpoint_id_is_no_endpoint_yet() -> None:
    cluster = Cluster(resources())
    assert len(node_state(cluster, cluster.nodes()[0], {}, {})["local_endpoints"]) == 1


def test_the_ipcache_names_pods_nodes_and_the_world() -> None:
    entries = {one["prefix"]: one for one in state_of_node_0()["ipcache"]}
    assert entries["10.244.1.2"]["pod"] == "far"
    assert entries["10.244.1.2"]["host_ip"] == "172.18.0.3"
    assert entries["172.18.0.2"]["identity"] == 1
    assert entries["10.244.1.1"]["identity"] == 6
    assert entries["0.0.0.0/0"]["identity"] == 2
    assert (entries["10.244.1.254"]["identity"], entries["10.244.1.254"]["host_ip"]) == (8, "172.18.0.3")


def test_services_and_links_are_listed() -> None:
    state = state_of_node_0()
    assert state["services"] == [
        {"ip": "10.96.0.10", "port": 53, "proto": "UDP", "namespace": "default", "name": "dns"}
    ]
    assert state["links"] == {"1": "lo", "9": "lxc0"}
    assert state["node_labels"] == {"kubernetes.io/hostname": "kind-worker0", "zone": "a"}


def test_another_cluster_s_name_stands_before_the_node_s() -> None:
    cluster = Cluster(resources())
    assert node_state(cluster, cluster.nodes()[0], {}, {}, "west")["node_name"] == "west/kind-worker0"


def test_the_kernel_gets_a_tunnel_for_what_lives_elsewhere_and_no_world() -> None:
    cluster = Cluster(resources())
    state = node_state(cluster, cluster.nodes()[0], {}, {})
    entries = ipcache_entries(state["ipcache"], cluster.nodes()[0].ips)
    facts = Identities(cluster, "default")
    here, there = (next(one for one in cluster.pods() if one.name == name) for name in ("web", "far"))
    assert entries[ip_network(here.ips[0])].tunnel_endpoint is None
    assert entries[ip_network(there.ips[0])].tunnel_endpoint == ip_address("172.18.0.3")
    assert entries[ip_network(there.ips[1])].identity == facts.number(there)
    assert ip_network("0.0.0.0/0") not in entries


def test_pods_on_the_node_s_network_are_no_endpoints() -> None:
    host = changed(pod("a"), spec=changed(pod("a").spec, host_network=True))
    cluster = Cluster(settled([node(0), host]))
    assert local_pods(cluster.pods(), "kind-worker0") == []


def test_endpoint_ids_stay_and_never_clash() -> None:
    pods = [changed(one, metadata=changed(one.metadata, uid=f"u{n}")) for n in range(3000) for one in [pod(f"p{n}")]]
    ids = endpoint_ids(pods)
    assert len(set(ids.values())) == 3000
    assert all(HOST_ENDPOINT_ID < number <= MAX_ENDPOINT_ID for number in ids.values())
    assert endpoint_ids(reversed(pods)) == ids
