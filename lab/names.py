"""Names of the lab's network namespaces.

All begin with `fs-` and the cluster's name, so that `ip netns` shows at a glance what belongs to which lab.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "fs-"


def outside_netns(cluster: str) -> str:
    """Namespace of the world outside; no node is called so, because nodes are called after their role."""
    return f"{PREFIX}{cluster}-outside"


def node_netns(node: str) -> str:
    """Namespace of a node; its name begins with the cluster's, as kind names nodes."""
    return f"{PREFIX}{node}"


def pod_netns(cluster: str, namespace: str, name: str) -> str:
    """Namespace of a pod; `_` cannot be part of any of the names."""
    return f"{PREFIX}{cluster}_{namespace}_{name}"
