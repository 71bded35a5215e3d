"""All kinds by their names.

In:        nothing; a table.
Out:       `known_kinds`, by which documents are recognised.
Elsewhere: the modules named here have the models; cli/mesh/kinds.py says how kinds are shown, and what else they are
           called.

A model is imported when the first document of its kind is read: most commands and clusters need few of them.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mesh.resources.base import Resource


@dataclass(frozen=True)
class Kind:
    """How a kind is recognised."""

    source: str
    """`module:class` of the model."""
    api_versions: tuple[str, ...]
    """The first one is what we call it."""
    namespaced: bool = True

    @cached_property
    def model(self) -> type[Resource]:
        """What checks its documents."""
        module, _, name = self.source.partition(":")
        found: type[Resource] = getattr(importlib.import_module(module), name)
        return found


_GATEWAY: Final = "gateway.networking.k8s.io"
_CILIUM: Final = ("cilium.io/v2", "cilium.io/v2alpha1")

KINDS: Final[dict[str, Kind]] = {
    "Namespace": Kind("mesh.resources.cluster:Namespace", ("v1",), False),
    "Node": Kind("mesh.resources.cluster:Node", ("v1",), False),
    "Pod": Kind("mesh.resources.pods:Pod", ("v1",)),
    "Deployment": Kind("mesh.resources.deployments:Deployment", ("apps/v1",)),
    "Service": Kind("mesh.resources.services:Service", ("v1",)),
    "CiliumIdentity": Kind("mesh.resources.cluster:CiliumIdentity", ("cilium.io/v2",), False),
    "EndpointSlice": Kind("mesh.services.kinds:EndpointSlice", ("discovery.k8s.io/v1",)),
    "Endpoints": Kind("mesh.services.kinds:Endpoints", ("v1",)),
    "ConfigMap": Kind("mesh.services.kinds:ConfigMap", ("v1",)),
    "CiliumLoadBalancerIPPool": Kind("mesh.services.kinds:CiliumLoadBalancerIPPool", _CILIUM, False),
    "CiliumL2AnnouncementPolicy": Kind("mesh.services.kinds:CiliumL2AnnouncementPolicy", _CILIUM[::-1], False),
    "Lease": Kind("mesh.services.kinds:Lease", ("coordination.k8s.io/v1",)),
    "CiliumNetworkPolicy": Kind("mesh.policy.documents.cilium:CiliumNetworkPolicy", ("cilium.io/v2",)),
    "CiliumClusterwideNetworkPolicy": Kind(
        "mesh.policy.documents.cilium:CiliumClusterwideNetworkPolicy", ("cilium.io/v2",), False
    ),
    "CiliumCIDRGroup": Kind("mesh.policy.documents.cilium:CiliumCIDRGroup", _CILIUM, False),
    "NetworkPolicy": Kind("mesh.policy.documents.kubernetes:NetworkPolicy", ("networking.k8s.io/v1",)),
    "CiliumEnvoyConfig": Kind("mesh.envoyconfig.documents:CiliumEnvoyConfig", _CILIUM),
    "CiliumClusterwideEnvoyConfig": Kind("mesh.envoyconfig.documents:CiliumClusterwideEnvoyConfig", _CILIUM, False),
    "Secret": Kind("mesh.ingress.secrets:Secret", ("v1",)),
    "Ingress": Kind("mesh.ingress.documents:Ingress", ("networking.k8s.io/v1",)),
    "IngressClass": Kind("mesh.ingress.documents:IngressClass", ("networking.k8s.io/v1",), False),
    "GatewayClass": Kind("mesh.gateway.documents:GatewayClass", (f"{_GATEWAY}/v1", f"{_GATEWAY}/v1beta1"), False),
    "Gateway": Kind("mesh.gateway.documents:Gateway", (f"{_GATEWAY}/v1", f"{_GATEWAY}/v1beta1")),
    "HTTPRoute": Kind("mesh.gateway.documents:HTTPRoute", (f"{_GATEWAY}/v1", f"{_GATEWAY}/v1beta1")),
    "GRPCRoute": Kind("mesh.gateway.documents:GRPCRoute", (f"{_GATEWAY}/v1", f"{_GATEWAY}/v1alpha2")),
    "ReferenceGrant": Kind("mesh.gateway.documents:ReferenceGrant", (f"{_GATEWAY}/v1beta1", f"{_GATEWAY}/v1")),
    "CertificateSigningRequest": Kind(
        "mesh.auth.documents:CertificateSigningRequest", ("certificates.k8s.io/v1",), False
    ),
    "ClusterTrustBundle": Kind(
        "mesh.auth.documents:ClusterTrustBundle",
        ("certificates.k8s.io/v1beta1", "certificates.k8s.io/v1alpha1"),
        False,
    ),
}


def known_kinds() -> dict[str, Kind]:
    """All kinds, by name."""
    return KINDS


def unknown_kind(name: str) -> str:
    """What to say about a kind that there is not."""
    known = known_kinds()
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"{name[:80]!r} is not known; {hint}"
