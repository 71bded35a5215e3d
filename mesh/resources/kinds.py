"""All kinds by their names.

In:        the kinds of this room and of the others, each with its KINDS.
Out:       `known_kinds`, by which documents are recognised.
Elsewhere: cli/mesh/kinds.py says how kinds are shown, and what else they are called.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import Final

from mesh.auth import documents as auth
from mesh.envoyconfig import documents as envoyconfig
from mesh.gateway import documents as gateway
from mesh.ingress import documents as ingress
from mesh.ingress import secrets
from mesh.policy.documents import kinds as policy
from mesh.resources.base import Kind
from mesh.resources.cluster import CiliumIdentity, Namespace, Node
from mesh.resources.deployments import Deployment
from mesh.resources.pods import Pod
from mesh.resources.services import Service
from mesh.services import kinds as services

KINDS: Final[dict[str, Kind]] = {
    "Namespace": Kind(Namespace, ("v1",), False),
    "Node": Kind(Node, ("v1",), False),
    "Pod": Kind(Pod, ("v1",), True),
    "Deployment": Kind(Deployment, ("apps/v1",), True),
    "Service": Kind(Service, ("v1",), True),
    "CiliumIdentity": Kind(CiliumIdentity, ("cilium.io/v2",), False),
}


@cache
def known_kinds() -> dict[str, Kind]:
    """All kinds: those above, and those of the rooms, which are built of the models above."""
    return {
        **KINDS,
        **services.KINDS,
        **policy.KINDS,
        **envoyconfig.KINDS,
        **secrets.KINDS,
        **ingress.KINDS,
        **gateway.KINDS,
        **auth.KINDS,
    }


def unknown_kind(name: str) -> str:
    """What to say about a kind that there is not."""
    known = known_kinds()
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"{name[:80]!r} is not known; {hint}"
