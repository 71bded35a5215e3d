"""Which pod is meant, and what its files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.execute import find_pod
from lab.pods import bound_ports, dns_pods, dns_servers, place_files, pod_files
from mesh.cluster import Cluster
from mesh.resources.manifests import parse_manifests
from service.failure import Failure
from tests.support.cluster import node, pod, settled


def entry(name: str, deployment: str = "", namespace: str = "cilium-test") -> dict[str, Any]:
    return {"name": name, "deployment": deployment, "namespace": namespace}


PODS = [
    entry("client-1", "client"),
    entry("client2-1", "client2"),
    entry("client2-2", "client2"),
    entry("echo-other-node-1", "echo-other-node"),
    entry("echo-same-node-1", "echo-same-node"),
    entry("foo-app", "", "default"),
]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("client2-2", "client2-2"),
        ("client", "client-1"),  # the deployment, though client2 begins with it, too
        ("client2", "client2-1"),
        ("deploy/client2", "client2-1"),
        ("deployment/client", "client-1"),
        ("pod/client2-2", "client2-2"),
        ("echo-s", "echo-same-node-1"),
    ],
)
def test_a_pod_is_found_by_name_deployment_or_beginning(asked: str, found: str) -> None:
    assert find_pod(PODS, asked, "cilium-test")["name"] == found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("echo", "'echo' may be any of echo-other-node-1, echo-same-node-1; say which"),
        ("foo", "no pod 'foo' in namespace cilium-test; there is one in default (use -n default)"),
        ("nobody", "no pod 'nobody' in namespace cilium-test; see `flowscope lab status`"),
        ("service/client", "cannot enter a service; name a pod or a deployment"),
        ("pod/clie", "no pod 'clie'"),
    ],
)
def test_what_cannot_be_told_is_said(asked: str, message: str) -> None:
    with pytest.raises(Failure) as error:
        find_pod(PODS, asked, "cilium-test")
    assert message in str(error.value)


def test_a_pod_s_files_are_kubernetes_s() -> None:
    (web,) = Cluster(settled([node(1), pod("web", "shop")])).pods()
    files = pod_files(web, ["10.244.0.2", "10.244.3.2"])
    assert files["resolv.conf"] == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local\n"
        "nameserver 10.244.0.2\nnameserver 10.244.3.2\noptions ndots:5\n"
    )
    assert "10.244.1.2 web\nfd00:10:244:1::2 web\n" in files["hosts"]
    assert files["hostname"] == "web\n"


def test_the_outside_world_knows_nodes_and_asks_nobody() -> None:
    files = place_files("outside", {"kind-worker": "172.18.0.3"}, ())
    assert files["resolv.conf"] == ""
    assert "172.18.0.3 kind-worker\n" in files["hosts"]


def test_pods_ask_the_service_of_the_cluster_s_dns_and_nodes_its_pods() -> None:
    dns = pod("coredns", "kube-system", **{"k8s-app": "kube-dns"})
    service = parse_manifests(
        "{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system},"
        " spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{port: 53}]}}"
    )
    resources = settled([node(0), dns, pod("other", "kube-system"), *service])
    assert dns_servers(Cluster(resources).services()) == ["10.96.0.10"]
    assert dns_pods(resources) == ["10.244.0.2"]


def test_bound_ports_are_read_from_the_kernel_s_tables(tmp_path: Path) -> None:
    header = "  sl  local_address rem_address   st ...\n"
    listening = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000\n"
    connected = "   1: 0100007F:0050 0100007F:D431 01 00000000:00000000\n"
    (tmp_path / "tcp").write_text(header + listening + connected)
    (tmp_path / "udp6").write_text(header + "  0: 00000000000000000000000000000000:0035 " + "0" * 32 + ":0000 07 0\n")
    assert bound_ports(tmp_path) == {("TCP", 8080), ("UDP", 53)}
