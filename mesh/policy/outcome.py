"""What policies of a node come to, and what cannot be had of them.

In:        nothing; these are the values that node.py makes.
Out:       Outcome, for mesh/main.py; Refusal, for whoever has to mend a policy.
Elsewhere: node.py decides; cli/mesh/refused.py tells whoever applied the policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bpf.policies import EndpointPolicy
from mesh.policy.documents.fields import Network
from mesh.policy.judging import Whole
from mesh.policy.peers import Identity
from mesh.policy.view import ProxyView
from mesh.resources.base import Key


@dataclass(frozen=True, slots=True)
class Refusal:
    """A policy that cannot be made."""

    documents: tuple[Key, ...]
    """All that select the endpoints."""
    identity: int
    endpoints: tuple[int, ...]
    """Their ids."""
    reason: str
    """What is wrong, and what helps."""
    keeps_old: bool
    """Whether an earlier policy stays; otherwise nothing passes."""

    def __str__(self) -> str:
        many = "s" if len(self.endpoints) > 1 else ""
        return (
            f"{', '.join(map(str, self.documents))}: endpoint{many} {', '.join(map(str, self.endpoints))}"
            f" (identity {self.identity}): {self.complaint}"
        )

    @property
    def complaint(self) -> str:
        """What is wrong, what helps, and what holds meanwhile."""
        return f"{self.reason}; {'the old policy stays' if self.keeps_old else 'nothing passes'}"

    def plain(self) -> dict[str, Any]:
        """For the agent's report."""
        return {
            "documents": [list(key) for key in self.documents],
            "endpoints": list(self.endpoints),
            "complaint": self.complaint,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a node has to know. Policies first, then the ipcache: a number means something before packets have it."""

    policies: Mapping[int, EndpointPolicy]
    """By endpoint id, for every endpoint."""
    views: Mapping[int, ProxyView]
    """By endpoint id, for every endpoint: what proxies have to know."""
    ipcache: Mapping[Network, int]
    """Prefixes that have identities of their own, unless somebody in the cluster has the address."""
    identities: Sequence[Identity]
    """Those of the prefixes, for whoever shows names."""
    names: Mapping[Network, tuple[str, ...]]
    """What the toFQDNs selectors were taken to stand for."""
    nodes: Mapping[str, int]
    """Identities of other nodes that are told apart, by the address of the node."""
    ingress: Whole = field(default_factory=Whole)
    """Of the node's load balancers, that is of the reserved identity; no kernel needs it."""
    problems: Sequence[Refusal] = ()
    """Endpoints that do not get what their policies say, and why."""
