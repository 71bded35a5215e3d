"""Small clusters for tests of mesh/ and lab/, made of plain values."""

from __future__ import annotations

from mesh.controller import reconcile
from mesh.ipam import pod_cidrs
from mesh.resources.base import Resource, changed
from mesh.resources.cluster import Node
from mesh.resources.manifests import parse_manifest, parse_manifests
from mesh.resources.pods import Pod


def node(number: int, name: str = "", /, **labels: str) -> Node:
    """Node `number`, called kind-worker<number> unless told otherwise."""
    name = name or f"kind-worker{number}"
    found = parse_manifest(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
            "spec": {"podCIDRs": list(pod_cidrs(number))},
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": f"172.18.0.{number + 2}"},
                    {"type": "InternalIP", "address": f"fc00:f853:ccd:e793::{number + 2}"},
                ]
            },
        }
    )
    assert isinstance(found, Node)
    return found


def pod(name: str, namespace: str = "default", /, **labels: str) -> Pod:
    """A pod that nobody has placed yet."""
    found = parse_manifest(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels, "uid": f"uid-{namespace}-{name}"},
            "spec": {"containers": [{"name": "main", "image": "pause"}]},
        }
    )
    assert isinstance(found, Pod)
    return found


def ready(one: Pod) -> Pod:
    """The pod as it is once it serves."""
    return changed(one, status=changed(one.status, ready=True, phase="Running"))


def settled(resources: list[Resource] | str, all_ready: bool = True) -> list[Resource]:
    """What the store holds when the controller has nothing more to do; a text is YAML."""
    state = {one.key: one for one in (parse_manifests(resources) if isinstance(resources, str) else resources)}
    for _ in range(10):
        update = reconcile(list(state.values()))
        if not update:
            found = list(state.values())
            return [ready(one) if isinstance(one, Pod) and all_ready else one for one in found]
        state |= {one.key: one for one in update.put}
        for key in update.delete:
            del state[key]
    raise AssertionError("the controller does not come to rest")
