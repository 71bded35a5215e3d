"""`flowscope mesh apply`.

In:        manifests; the resource store.
Out:       changes of the store, all or none; an outcome line for each resource; warnings on stderr.
Elsewhere: inputs.py reads and checks; delete.py takes away again; controllers and agents do the rest as soon as the
           store has changed.

People and programs wait for this command, so what only some manifests need is imported when they need it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from cli.command import Call
from cli.mesh.inputs import Check, Document, files_among, read_documents
from cli.mesh.naming import full_name
from cli.mesh.place import Place, find_place, opened
from cli.mesh.refused import Refused, refused
from cli.mesh.settling import await_agents
from mesh.resources.base import Key, Resource
from mesh.resources.pods import Pod
from mesh.resources.services import Service
from mesh.store import SqliteStore, merge
from service.failure import Failure, Failures

MOST_TOLD: Final = 10
"""Refusals that are told one by one."""
POLICY_KINDS: Final = ("NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")


def run_apply(call: Call) -> int:
    """`mesh apply -f FILE`."""
    namespace = call.text("namespace") if call.given("namespace") else None
    place = find_place(call)
    with opened(place, writes=True) as store:
        before = set(_refused(place, store)) if call.on("wait") else set()
        keys = apply(store, files_of(call, call.on("recursive")), namespace=namespace, dry_run=call.on("dry-run"))
        if call.on("wait"):
            await_agents(place, store, call.number("timeout") / 1e9)
            # What was refused before may be so because of what was applied again, or has nothing to do with it.
            if wrong := [one for one in _refused(place, store) if one.concerns(keys) or one not in before]:
                more = [f"and {len(wrong) - MOST_TOLD} more; see `flowscope mesh status`"][: len(wrong) > MOST_TOLD]
                raise Failures(*(one.text for one in wrong[:MOST_TOLD]), *more)
    return 0


def _refused(place: Place, store: SqliteStore) -> Iterable[Refused]:
    return refused(place, [one.name for one in store.find("Node")])


def files_of(call: Call, recursive: bool = False) -> list[str]:
    """What stands behind -f. Raises: Failure when nothing does."""
    if call.words:
        raise Failure(f"manifests are named with -f FILE, so {call.words[0][:80]!r} means nothing here")
    if not call.items("filename"):
        raise Failure("name a manifest with -f FILE, a folder with -f FOLDER, or -f - for standard input")
    return files_among(call.items("filename"), recursive)


def apply(
    store: SqliteStore,
    paths: Iterable[str],
    *,
    namespace: str | None = None,
    dry_run: bool = False,
    checks: Sequence[Check] = (),
) -> set[Key]:
    """Check all manifests, give them to the store, say what became of each; returns their keys.

    Raises: Failure; nothing changed then.
    """
    known = store.find()
    documents = read_documents(paths, known, namespace, checks)
    resources = [one.resource for one in documents]
    outcomes = merge(known, resources)[1] if dry_run else store.apply(resources)
    for resource, outcome in zip(resources, outcomes, strict=True):
        print(f"{full_name(resource)} {outcome}" + (" (dry run)" if dry_run else ""))
    for warning in warnings_about(documents, known):
        print(f"Warning: {warning}", file=sys.stderr)
    return {one.key for one in resources}


def warnings_about(documents: Sequence[Document], known: Sequence[Resource]) -> list[str]:
    """What is allowed and yet probably a mistake: whoever selects nothing, whoever is written twice."""
    resources = {one.resource.key: one.resource for one in documents}
    where = {one.resource.key: one.where for one in documents}
    found = []
    if len(resources) < len(documents):
        twice = [one for one in documents if resources[one.resource.key] is not one.resource]
        found += [f"{one.where}: {one.resource.key} is written again later, and that counts" for one in twice]
    policies = [one for one in resources.values() if one.kind in POLICY_KINDS]
    services = [one for one in resources.values() if isinstance(one, Service) and one.spec.selector]
    if not policies and not services:
        return found
    after = _settled({**{one.key: one for one in known}, **resources}.values())
    if policies:
        # Brings what agents compile policies with, a third of all that `apply` could load.
        from mesh.policy.documents.kinds import policies_among
        from mesh.policy.node import idle_selectors

        written = policies_among(policies)
        found += [f"{where[one.key]}: {text}" for one in written for text in idle_selectors([one], after)]
    pods = [one for one in after if isinstance(one, Pod)]
    for service in services:
        wanted = service.spec.selector.items()
        if not any(pod.namespace == service.namespace and wanted <= pod.metadata.labels.items() for pod in pods):
            found.append(f"{where[service.key]}: {service.key}: spec.selector selects no pod")
    return found


def _settled(resources: Iterable[Resource]) -> list[Resource]:
    """The resources together with the pods and identities that controllers will make of them."""
    from mesh.controller import reconcile

    found = {one.key: one for one in resources}
    try:
        update = reconcile(list(found.values()))
    except Failure:
        # Addresses have run out: that is for whoever really hands them out to say.
        return list(found.values())
    found |= {one.key: one for one in update.put}
    return [one for key, one in found.items() if key not in update.delete]
