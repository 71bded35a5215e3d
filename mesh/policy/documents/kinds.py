"""All kinds of policies by name.

In:        the kinds of this folder.
Out:       KINDS, which mesh/resources/kinds.py takes in; `policies_among`.
Elsewhere: cilium.py and kubernetes.py have their fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mesh.policy.documents.cilium import CiliumCIDRGroup, CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy
from mesh.policy.documents.kubernetes import NetworkPolicy
from mesh.resources.base import Kind, Resource

KINDS: Final[dict[str, Kind]] = {
    "CiliumNetworkPolicy": Kind(CiliumNetworkPolicy, ("cilium.io/v2",), True),
    "CiliumClusterwideNetworkPolicy": Kind(CiliumClusterwideNetworkPolicy, ("cilium.io/v2",), False),
    "CiliumCIDRGroup": Kind(CiliumCIDRGroup, ("cilium.io/v2", "cilium.io/v2alpha1"), False),
    "NetworkPolicy": Kind(NetworkPolicy, ("networking.k8s.io/v1",), True),
}
PolicyDocument = CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy | NetworkPolicy


def policies_among(resources: Sequence[Resource]) -> list[PolicyDocument]:
    """The policies among resources of all kinds."""
    return [
        one
        for one in resources
        if isinstance(one, CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy | NetworkPolicy)
    ]
