"""Which node a pod goes to."""

from __future__ import annotations

from typing import Any

from mesh.resources.base import changed
from mesh.resources.cluster import Node
from mesh.resources.manifests import parse_manifest
from mesh.resources.pods import Pod
from mesh.schedule import choose_node
from tests.support.cluster import node, pod

NODES = [node(0), node(1), node(2)]
HOST = "kubernetes.io/hostname"


def asking(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Pod:
    found = parse_manifest(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {"containers": [{"name": "main", "image": "pause"}], **spec},
        }
    )
    assert isinstance(found, Pod)
    return found


def on(where: str, one: Pod) -> Pod:
    return changed(one, spec=changed(one.spec, node_name=where))


def name_of(found: Node | None) -> str | None:
    return found.name if found else None


def near(kind: str, **labels: str) -> dict[str, Any]:
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": HOST}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def test_the_emptiest_node_is_taken_and_the_name_breaks_ties() -> None:
    assert name_of(choose_node(pod("a"), NODES, [])) == "kind-worker0"
    assert name_of(choose_node(pod("b"), NODES, [on("kind-worker0", pod("a"))])) == "kind-worker1"


def test_a_named_node_is_obeyed_and_an_unknown_one_waited_for() -> None:
    assert name_of(choose_node(on("kind-worker2", pod("a")), NODES, [])) == "kind-worker2"
    assert choose_node(on("elsewhere", pod("a")), NODES, []) is None


def test_affinity_brings_pods_together_and_anti_affinity_apart() -> None:
    client = on("kind-worker1", pod("client", name="client"))
    assert (
        name_of(choose_node(asking("a", affinity=near("podAffinity", name="client")), NODES, [client]))
        == client.spec.node_name
    )
    apart = asking("b", affinity=near("podAntiAffinity", name="client"))
    assert name_of(choose_node(apart, [NODES[1], NODES[2]], [client])) == "kind-worker2"
    assert choose_node(apart, [NODES[1]], [client]) is None


def test_a_pod_that_wants_company_waits_for_it() -> None:
    assert choose_node(asking("a", affinity=near("podAffinity", name="client")), NODES, []) is None


def test_anti_affinity_also_keeps_later_pods_away() -> None:
    shy = on("kind-worker0", asking("shy", affinity=near("podAntiAffinity", name="client")))
    assert name_of(choose_node(asking("client", {"name": "client"}), NODES, [shy])) == "kind-worker1"


def test_taints_keep_pods_away_that_do_not_tolerate_them() -> None:
    taint = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    tainted = parse_manifest({**NODES[0].dump(), "spec": {**NODES[0].dump()["spec"], "taints": [taint]}})
    assert isinstance(tainted, Node)
    assert choose_node(pod("a"), [tainted], []) is None
    tolerant = asking("a", tolerations=[{"key": taint["key"], "effect": "NoSchedule", "operator": "Exists"}])
    assert name_of(choose_node(tolerant, [tainted], [])) == "kind-worker0"
    assert choose_node(asking("a", tolerations=[{"key": "other", "operator": "Exists"}]), [tainted], []) is None


def test_node_affinity_selects_by_label() -> None:
    fast = node(3, disk="ssd")
    terms = [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    wish = asking("a", affinity={"nodeAffinity": required})
    assert name_of(choose_node(wish, [*NODES, fast], [])) == fast.name
    assert choose_node(wish, NODES, []) is None
