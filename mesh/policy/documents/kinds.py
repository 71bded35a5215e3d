"""What counts as a policy.

In:        the kinds of this folder.
Out:       `policies_among`.
Elsewhere: cilium.py and kubernetes.py have their fields.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesh.policy.documents.cilium import CiliumClusterwideNetworkPolicy, CiliumNetworkPolicy
from mesh.policy.documents.kubernetes import NetworkPolicy
from mesh.resources.base import Resource

PolicyDocument = CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy | NetworkPolicy


def policies_among(resources: Sequence[Resource]) -> list[PolicyDocument]:
    """The policies among resources of all kinds."""
    return [
        one
        for one in resources
        if isinstance(one, CiliumNetworkPolicy | CiliumClusterwideNetworkPolicy | NetworkPolicy)
    ]
