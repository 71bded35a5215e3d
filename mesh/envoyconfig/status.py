"""Conditions of CiliumEnvoyConfigs: whether all of each takes effect, and what does not.

In:        the cluster's resources.
Out:       the same cluster with `status.conditions` brought up to date.
Elsewhere: translate.py finds the problems; mesh/controller.py calls `reconcile` in each round.
"""

from __future__ import annotations

from mesh.cluster import Cluster
from mesh.envoyconfig.documents import EnvoyConfig, EnvoyConfigStatus
from mesh.envoyconfig.translate import selects, translate
from mesh.envoyconfig.validation import nowhere
from mesh.resources.base import Condition, Key, changed
from mesh.resources.cluster import Node


def reconcile(cluster: Cluster) -> None:
    """Say of every resource whether the nodes that it is for do all of it."""
    configs = [one for one in cluster.resources.values() if isinstance(one, EnvoyConfig)]
    problems: dict[Key, tuple[str, ...]] = {}
    for node in _different(cluster.nodes(), configs):
        problems |= translate(cluster.resources.values(), node, nowhere()).problems
    for one in configs:
        status = EnvoyConfigStatus(conditions=(_condition(problems.get(one.key, ())),))
        if one.status.conditions != status.conditions:
            cluster.put(changed(one, status=status))


def _different(nodes: list[Node], configs: list[EnvoyConfig]) -> list[Node]:
    """One node for each set of resources that some node has; what is a problem on one is one on all like it."""
    found: dict[frozenset[Key], Node] = {}
    for node in nodes:
        found.setdefault(frozenset(one.key for one in configs if selects(one, node)), node)
    return [node for keys, node in found.items() if keys]


def _condition(problems: tuple[str, ...]) -> Condition:
    if problems:
        return Condition(type="Accepted", status="False", reason="PartlyInEffect", message="; ".join(problems))
    return Condition(type="Accepted", status="True", reason="InEffect")
