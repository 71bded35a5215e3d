"""Which node a pod goes to.

In:        a pod, the nodes, the pods that have a place.
Out:       a node, always the same one for the same question.
Elsewhere: controller.py asks for each pod without a place.

What Kubernetes' scheduler requires is required here: node selector and affinity, taints, pod affinity and
anti-affinity by node. Its preferences are not read; among the nodes that will do, pods of one owner are spread first,
then pods at large, then the name decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesh.resources.cluster import Node, Taint
from mesh.resources.pods import Pod, PodAffinityTerm
from mesh.resources.selectors import LabelSelector, Requirement


def choose_node(pod: Pod, nodes: Sequence[Node], pods: Sequence[Pod]) -> Node | None:
    """The node for `pod`, or None while no node will do."""
    if pod.spec.node_name:
        return next((node for node in nodes if node.name == pod.spec.node_name), None)
    fitting = [node for node in nodes if fits(pod, node, nodes, pods)]
    owners = {owner.name for owner in pod.metadata.owner_references}

    def load(node: Node) -> tuple[int, int, str]:
        here = [one for one in pods if one.spec.node_name == node.name]
        siblings = sum(any(owner.name in owners for owner in one.metadata.owner_references) for one in here)
        return siblings, len(here), node.name

    return min(fitting, key=load, default=None)


def fits(pod: Pod, node: Node, nodes: Sequence[Node], pods: Sequence[Pod]) -> bool:
    """Whether everything that the pod requires holds on this node."""
    labels = node.metadata.labels
    affinity = pod.spec.affinity
    wanted = affinity.node_affinity.required
    return (
        all(labels.get(key) == value for key, value in pod.spec.node_selector.items())
        and all(_tolerates(pod, taint) for taint in node.spec.taints)
        and (wanted is None or any(_selects(term.match_expressions, node) for term in wanted.node_selector_terms))
        and all(_near(term, pod, node, nodes, pods) for term in affinity.pod_affinity.required)
        and not any(_near(term, pod, node, nodes, pods) for term in affinity.pod_anti_affinity.required)
        and not any(_repels(other, pod, node, nodes) for other in pods)
    )


def _selects(expressions: tuple[Requirement, ...], node: Node) -> bool:
    # A term without expressions selects nothing (Kubernetes API, NodeSelectorTerm).
    return bool(expressions) and LabelSelector(match_expressions=expressions).matches(node.metadata.labels)


def _tolerates(pod: Pod, taint: Taint) -> bool:
    if taint.effect == "PreferNoSchedule":
        return True
    return any(
        (not one.key or one.key == taint.key)
        and (one.operator == "Exists" or one.value == taint.value)
        and one.effect in ("", taint.effect)
        for one in pod.spec.tolerations
    )


def _near(term: PodAffinityTerm, pod: Pod, node: Node, nodes: Sequence[Node], pods: Sequence[Pod]) -> bool:
    """Whether a pod that the term selects runs in the same part of the topology as `node`."""
    place = node.metadata.labels.get(term.topology_key)
    if place is None:
        return False
    there = {one.name for one in nodes if one.metadata.labels.get(term.topology_key) == place}
    namespaces = term.namespaces or (pod.namespace,)
    return any(
        other.spec.node_name in there
        and other.namespace in namespaces
        and other.key != pod.key
        and term.label_selector.matches(other.metadata.labels)
        for other in pods
    )


def _repels(other: Pod, pod: Pod, node: Node, nodes: Sequence[Node]) -> bool:
    """Whether a pod that is there already refuses the company of `pod` on `node`."""
    home = next((one for one in nodes if one.name == other.spec.node_name), None)
    if home is None or other.key == pod.key:
        return False
    return any(
        (place := node.metadata.labels.get(term.topology_key)) is not None
        and place == home.metadata.labels.get(term.topology_key)
        and pod.namespace in (term.namespaces or (other.namespace,))
        and term.label_selector.matches(pod.metadata.labels)
        for term in other.spec.affinity.pod_anti_affinity.required
    )
