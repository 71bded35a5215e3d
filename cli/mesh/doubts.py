"""Warnings about manifests that are allowed and yet probably not what was meant.

In:        what was applied, and what is in the store beside it.
Out:       lines for people, each with the file and the document.
Elsewhere: apply.py prints them; what cannot be is refused by inputs.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from cli.mesh.inputs import Document
from mesh.resources.base import Condition, Key, Resource
from mesh.resources.pods import Pod
from mesh.resources.services import Service
from service.failure import Failure

POLICY_KINDS: Final = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
_POOL: Final = "CiliumLoadBalancerIPPool"


def warnings_about(documents: Sequence[Document], known: Sequence[Resource]) -> list[str]:
    """Whoever is written twice, whoever selects nothing, pools that overlap, balancers that get no address."""
    resources = {one.resource.key: one.resource for one in documents}
    found = []
    if len(resources) < len(documents):
        twice = [one for one in documents if resources[one.resource.key] is not one.resource]
        found += [f"{one.where}: {one.resource.key} is written again later, and that counts" for one in twice]
    doubtful = [one for one in resources.values() if one.kind in (*POLICY_KINDS, _POOL) or isinstance(one, Service)]
    if not doubtful:
        return found
    after = _settled({**{one.key: one for one in known}, **resources}.values())
    where = {one.resource.key: one.where for one in documents}
    return found + [
        f"{where[key]}: {text}"
        for key, text in (*_idle_policies(doubtful, after), *_services(doubtful, after), *_pools(doubtful, after))
    ]


def _idle_policies(doubtful: Sequence[Resource], after: Mapping[Key, Resource]) -> Iterator[tuple[Key, str]]:
    policies = [one for one in doubtful if one.kind in POLICY_KINDS]
    if not policies:
        return
    # Brings what agents compile policies with, a third of all that `apply` could load.
    from mesh.policy.documents.kinds import policies_among
    from mesh.policy.node import idle_selectors

    everything = list(after.values())
    for one in policies_among(policies):
        yield from ((one.key, text) for text in idle_selectors([one], everything))


def _services(doubtful: Sequence[Resource], after: Mapping[Key, Resource]) -> Iterator[tuple[Key, str]]:
    pods = [one for one in after.values() if isinstance(one, Pod)]
    for one in doubtful:
        if not isinstance(one, Service):
            continue
        wanted = one.spec.selector.items()
        if wanted and not any(one.namespace == pod.namespace and wanted <= pod.metadata.labels.items() for pod in pods):
            yield one.key, f"{one.key}: spec.selector selects no pod"
        settled = after.get(one.key)
        if isinstance(settled, Service) and (reason := pending(settled)):
            yield one.key, f"{one.key}: gets no load balancer address: {reason}"


def pending(service: Service) -> str:
    """Why a load balancer has no address, or not all that it asks for; empty when it has, or nobody has tried."""
    from mesh.services.balancers import SATISFIED

    if service.spec.type != "LoadBalancer":
        return ""
    return _said(service.status.conditions, SATISFIED, "False")


def _pools(doubtful: Sequence[Resource], after: Mapping[Key, Resource]) -> Iterator[tuple[Key, str]]:
    keys = [one.key for one in doubtful if one.kind == _POOL]
    if not keys:
        return
    from mesh.services.kinds import CiliumLoadBalancerIPPool
    from mesh.services.pools import CONFLICT

    for key in keys:
        pool = after.get(key)
        if isinstance(pool, CiliumLoadBalancerIPPool) and (reason := _said(pool.status.conditions, CONFLICT, "True")):
            yield key, f"{key}: gives out no address: {reason}"


def _said(conditions: Iterable[Condition], kind: str, status: str) -> str:
    """The message of a condition that has this status; else nothing."""
    return next((one.message for one in conditions if one.type == kind and one.status == status), "")


def _settled(resources: Iterable[Resource]) -> dict[Key, Resource]:
    """The resources together with what controllers will make of them."""
    from mesh.controller import reconcile

    found = {one.key: one for one in resources}
    try:
        update = reconcile(list(found.values()))
    except Failure:
        # Addresses have run out: that is for whoever really hands them out to say.
        return found
    found |= {one.key: one for one in update.put}
    return {key: one for key, one in found.items() if key not in update.delete}
