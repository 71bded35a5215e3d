"""What follows from users' resources: pods, places, addresses, identities."""

from __future__ import annotations

import pytest

from mesh.cluster import Cluster
from mesh.controller import reconcile
from mesh.names import workload
from mesh.namespaces import missing_namespaces
from mesh.resources.base import Resource, changed
from mesh.resources.deployments import Deployment
from mesh.resources.manifests import parse_manifests
from mesh.resources.pods import Pod, PodNetwork
from mesh.resources.services import Service
from service.failure import Failure
from tests.support.cluster import node, pod, settled

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: pause}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""


def web(extra: str = "") -> list[Resource]:
    return [node(0), node(1), *parse_manifests(WEB + extra)]


def test_a_deployment_gets_its_pods_spread_over_the_nodes() -> None:
    cluster = Cluster(settled(web()))
    assert len(cluster.pods()) == 3
    assert {one.spec.node_name for one in cluster.pods()} == {"kind-worker0", "kind-worker1"}
    assert all(workload(one) == ("Deployment", "web") for one in cluster.pods())


def test_the_same_manifests_give_the_same_names_places_and_addresses() -> None:
    def facts(resources: list[Resource]) -> list[tuple[str, str, tuple[str, ...]]]:
        return [(one.name, one.spec.node_name, one.ips) for one in Cluster(resources).pods()]

    assert facts(settled(web())) == facts(settled(web()))


def test_a_settled_cluster_stays_as_it_is() -> None:
    assert not reconcile(settled(web()))


def test_scaling_down_keeps_the_pods_that_stay() -> None:
    resources = settled(web())
    before = [one.name for one in Cluster(resources).pods()]
    scaled = [
        changed(one, spec=changed(one.spec, replicas=1)) if isinstance(one, Deployment) else one for one in resources
    ]
    after = [one.name for one in Cluster(settled(scaled)).pods()]
    assert len(after) == 1
    assert set(after) < set(before)


def test_a_deleted_pod_is_replaced_under_a_new_name() -> None:
    resources = settled(web())
    gone = next(one for one in resources if isinstance(one, Pod))
    names = {one.name for one in Cluster(settled([one for one in resources if one is not gone])).pods()}
    assert len(names) == 3
    assert gone.name not in names


def test_a_changed_template_replaces_all_pods() -> None:
    resources = settled(web())
    old = {one.name for one in Cluster(resources).pods()}
    changed_text = WEB.replace("image: pause", "image: other")
    new_deployment = parse_manifests(changed_text)[0]
    new = {one.name for one in Cluster(settled([*resources[:2], new_deployment, *resources[3:]])).pods()}
    assert len(new) == 3
    assert not old & new


def test_pods_of_a_deleted_deployment_go() -> None:
    resources = [one for one in settled(web()) if not isinstance(one, Deployment)]
    assert not Cluster(settled(resources)).pods()


def test_pods_of_one_kind_share_an_identity_and_others_do_not() -> None:
    cluster = Cluster(settled([*web(), pod("alone", "shop", app="alone")]))
    assert sorted(one.name for one in cluster.identities()) == ["256", "257"]


def test_services_get_an_address_unless_they_want_none() -> None:
    extra = """
---
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: shop}
spec: {clusterIP: None, selector: {app: web}}
---
apiVersion: v1
kind: Service
metadata: {name: fixed, namespace: shop}
spec: {clusterIP: 10.96.0.10, ports: [{port: 53}]}
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: shop}
spec: {ipFamilyPolicy: RequireDualStack, ports: [{port: 53}]}
"""
    services = {one.name: one for one in settled(web(extra)) if isinstance(one, Service)}
    assert services["bare"].spec.cluster_ips == ()
    assert services["fixed"].spec.cluster_ips == ("10.96.0.10",)
    assert services["web"].spec.cluster_ip.startswith("10.96.")
    assert [":" in one for one in services["both"].spec.cluster_ips] == [False, True]


def test_a_pod_waits_while_no_node_will_do() -> None:
    lonely = changed(pod("a"), spec=changed(pod("a").spec, node_selector={"disk": "ssd"}))
    assert Cluster(settled([node(0), lonely])).pods()[0].ips == ()
    assert Cluster(settled([node(0), node(1, disk="ssd"), lonely])).pods()[0].spec.node_name == "kind-worker1"


def test_a_pod_on_the_node_s_network_has_the_node_s_addresses() -> None:
    host = changed(pod("a"), spec=changed(pod("a").spec, host_network=True))
    assert Cluster(settled([node(0), host])).pods()[0].ips == ("172.18.0.2", "fc00:f853:ccd:e793::2")


def test_a_full_node_says_so() -> None:
    crowd = [changed(pod(f"p{number}"), spec=changed(pod("x").spec, node_name="kind-worker0")) for number in range(254)]
    with pytest.raises(Failure, match=r"no address is free for another pod on node kind-worker0 \(10\.244\.0\.0/24\)"):
        settled([node(0), *crowd])


def test_resources_in_unknown_namespaces_are_found() -> None:
    resources = parse_manifests(WEB)
    assert missing_namespaces(resources, []) == resources
    space = parse_manifests("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}")
    assert missing_namespaces(resources, space) == []
    assert missing_namespaces([*space, *resources], []) == []


def test_a_pod_that_runs_is_replaced_at_once_and_told_to_go() -> None:
    wire = PodNetwork(interface="lxc1", mac="02:00:00:00:00:01", host_mac="02:00:00:00:00:02")
    state = [
        changed(one, status=changed(one.status, network=wire)) if isinstance(one, Pod) else one
        for one in settled(web())
    ]
    scaled = [changed(one, spec=changed(one.spec, replicas=1)) if isinstance(one, Deployment) else one for one in state]
    update = reconcile(scaled, now="2026-01-01T00:00:00Z")
    leaving = [one for one in update.put if isinstance(one, Pod)]
    assert len(leaving) == 2
    assert {one.metadata.deletion_timestamp for one in leaving} == {"2026-01-01T00:00:00Z"}
    assert not update.delete
    after = {one.key: one for one in scaled} | {one.key: one for one in leaving}
    assert not reconcile([*after.values()], now="2026-01-01T00:00:01Z"), "once is enough"
    grown = [
        changed(one, spec=changed(one.spec, replicas=2)) if isinstance(one, Deployment) else one
        for one in after.values()
    ]
    fresh = [one for one in reconcile(grown, now="2026-01-01T00:00:02Z").put if isinstance(one, Pod)]
    assert len(fresh) == 1, "who was told to go does not count any more"
    assert not fresh[0].is_leaving
    taken = {address for one in after.values() if isinstance(one, Pod) for address in one.ips}
    assert taken.isdisjoint(fresh[0].ips), "but keeps its address"
