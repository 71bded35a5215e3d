"""What resources are called in lines that people and scripts read.

In:        a resource.
Out:       `ingress.networking.k8s.io/web`, as kubectl says it.
Elsewhere: kinds.py has the other names of kinds, and tables.
"""

from __future__ import annotations

from mesh.resources.base import Resource


def full_name(resource: Resource) -> str:
    """Kind, group and name."""
    return f"{prefix_of(resource.kind, resource.api_version)}/{resource.name}"


def prefix_of(kind: str, api_version: str) -> str:
    """`deployment.apps`: what stands before the name of a resource where kinds are mixed."""
    group = api_version.rpartition("/")[0]
    return kind.lower() + (f".{group}" if group else "")
