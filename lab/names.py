"""Names of the lab's network namespaces.

All begin with `fs-`, so that `ip netns` shows at a glance what belongs to a lab.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "fs-"
OUTSIDE: Final = f"{PREFIX}outside"
"""The world outside the cluster."""


def node_netns(node: str) -> str:
    """Namespace of a node."""
    return f"{PREFIX}{node}"


def pod_netns(namespace: str, name: str) -> str:
    """Namespace of a pod; `_` cannot be part of either name."""
    return f"{PREFIX}{namespace}_{name}"
