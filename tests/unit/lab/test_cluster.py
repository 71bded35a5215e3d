"""kind-config.yaml becomes nodes."""

from __future__ import annotations

import pytest

from lab.cluster import read_kind_config
from lab.options import DEMO, KIND_CONFIG, SYSTEM, LabOptions
from lab.supervisor import read_inputs
from mesh.cluster import Cluster
from mesh.resources.mistakes import InvalidResource
from tests.support.cluster import settled

ARTICLE = """
apiVersion: kind.x-k8s.io/v1alpha4
kind: Cluster
nodes:
- role: control-plane
- role: worker
- role: worker
- role: worker
networking:
  disableDefaultCNI: true
"""


def test_the_article_s_cluster_has_kind_s_names_and_addresses() -> None:
    nodes = read_kind_config(ARTICLE).nodes
    assert [node.name for node in nodes] == ["kind-control-plane", "kind-worker", "kind-worker2", "kind-worker3"]
    assert [node.ips[0] for node in nodes] == ["172.18.0.2", "172.18.0.3", "172.18.0.4", "172.18.0.5"]
    assert nodes[3].spec.pod_cidrs == ("10.244.3.0/24", "fd00:10:244:3::/64")
    assert [bool(node.spec.taints) for node in nodes] == [True, False, False, False]


def test_a_configuration_without_nodes_is_one_node_that_takes_pods() -> None:
    (node,) = read_kind_config("apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\nname: solo").nodes
    assert (node.name, node.spec.taints) == ("solo-control-plane", ())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("role: worker", "role: waiter", "nodes[1].role: must be 'control-plane' or 'worker', got 'waiter'"),
        ("nodes:", "nods:", "unknown field 'nods'"),
        ("v1alpha4", "v1alpha9", "apiVersion: must be 'kind.x-k8s.io/v1alpha4', got"),
        ("- role: control-plane\n", "", "one node must have role control-plane"),
        ("disableDefaultCNI: true", "podSubnet: 10.0.0.0/8", "networking.podSubnet: the lab has 10.244.0.0/16"),
        ("kind: Cluster", "kind: [", "not valid YAML"),
    ],
)
def test_a_mistake_is_named_by_its_path(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidResource) as error:
        read_kind_config(ARTICLE.replace(old, new, 1))
    assert message in str(error.value)


def test_the_demo_places_its_pods_as_the_connectivity_test_does() -> None:
    cluster, resources = read_inputs(LabOptions(run_dir="/nowhere"))
    pods = Cluster(settled([*cluster.nodes, *resources])).pods()
    where = {pod.metadata.labels.get("name", "dns"): pod.spec.node_name for pod in pods}
    assert where["client2"] == where["client"] == where["echo-same-node"]
    assert where["echo-other-node"] != where["client2"]
    servers = {pod.spec.node_name for pod in pods if pod.metadata.labels.get("k8s-app") == "kube-dns"}
    assert len(servers) == 2
    assert where["client2"] not in servers


def test_the_demo_s_files_are_there() -> None:
    assert all(path.is_file() for path in (KIND_CONFIG, *SYSTEM, *DEMO))


def test_options_reach_the_supervisor_as_they_are() -> None:
    options = LabOptions(run_dir="/x", manifests=("a.yaml", "b.yaml"), aggregation="none")
    assert LabOptions.from_json(options.to_json()) == options
