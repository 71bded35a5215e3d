"""Namespaces that there are.

In:        resources that somebody wants to apply, those that exist.
Out:       those whose namespace is missing.
Elsewhere: `flowscope mesh apply` refuses them; the lab's supervisor makes the namespaces of every cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mesh.resources.base import Resource

DEFAULT_NAMESPACES: Final = ("default", "kube-node-lease", "kube-public", "kube-system")
"""Every cluster has them."""


def missing_namespaces(resources: Sequence[Resource], existing: Sequence[Resource]) -> list[Resource]:
    """Resources whose namespace neither exists nor is among them: Kubernetes refuses those."""
    known = {*DEFAULT_NAMESPACES, *(one.name for one in (*existing, *resources) if one.kind == "Namespace")}
    return [one for one in resources if one.namespace and one.namespace not in known]
