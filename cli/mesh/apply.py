"""`flowscope mesh apply` and `delete`.

In:        manifests, names; the resource store.
Out:       changes of the store, all or none; an outcome line for each resource; warnings on stderr.
Elsewhere: inputs.py reads and checks; controllers and agents do the rest as soon as the store has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from cli.command import Call
from cli.mesh.inputs import Check, Document, files_among, read_documents, read_keys
from cli.mesh.kinds import KnownKind, find_kinds, kinds
from cli.mesh.place import Place, find_place, opened
from cli.mesh.refused import Refused, refused
from cli.mesh.selector import parse_selector
from cli.mesh.settling import await_agents, await_end
from mesh.controller import DEFAULT_NAMESPACES, reconcile
from mesh.policy.documents.kinds import policies_among
from mesh.resources.base import Key, Resource
from mesh.resources.kinds import known_kinds
from mesh.resources.pods import Pod
from mesh.resources.services import Service
from mesh.store import SqliteStore, merge
from service.failure import Failure, Failures

MOST_TOLD: Final = 10
"""Refusals that are told one by one."""


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
    names = kinds()
    for resource, outcome in zip(resources, outcomes, strict=True):
        print(f"{names[resource.kind].prefix}/{resource.name} {outcome}" + (" (dry run)" if dry_run else ""))
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
    policies = policies_among(list(resources.values()))
    services = [one for one in resources.values() if isinstance(one, Service) and one.spec.selector]
    if not policies and not services:
        return found
    after = _settled({**{one.key: one for one in known}, **resources}.values())
    if policies:
        # Brings what agents compile policies with, a third of all that `apply` loads.
        from mesh.policy.node import idle_selectors

        found += [f"{where[one.key]}: {text}" for one in policies for text in idle_selectors([one], after)]
    pods = [one for one in after if isinstance(one, Pod)]
    for service in services:
        wanted = service.spec.selector.items()
        if not any(pod.namespace == service.namespace and wanted <= pod.metadata.labels.items() for pod in pods):
            found.append(f"{where[service.key]}: {service.key}: spec.selector selects no pod")
    return found


def _settled(resources: Iterable[Resource]) -> list[Resource]:
    """The resources together with the pods and identities that controllers will make of them."""
    found = {one.key: one for one in resources}
    try:
        update = reconcile(list(found.values()))
    except Failure:
        # Addresses have run out: that is for whoever really hands them out to say.
        return list(found.values())
    found |= {one.key: one for one in update.put}
    return [one for key, one in found.items() if key not in update.delete]


def run_delete(call: Call) -> int:
    """`mesh delete -f FILE`, `delete KIND NAME...`, `delete KIND -l SELECTOR`, `delete KIND --all`."""
    namespace = call.text("namespace") if call.given("namespace") else None
    place = find_place(call)
    with opened(place) as store:
        known = {one.key: one for one in store.find()}
        if call.items("filename"):
            wanted = read_keys(files_among(call.items("filename"), call.on("recursive")), namespace)
        else:
            wanted = _named(call, list(known.values()), namespace)
        doomed = [key for key in dict.fromkeys(wanted) if key in known]
        for key in doomed:
            if key.kind == "Namespace" and key.name in DEFAULT_NAMESPACES:
                raise Failure(f"namespace {key.name} cannot be deleted: the cluster needs it")
        spaces = {key.name for key in doomed if key.kind == "Namespace"}
        ending = list(dict.fromkeys([*doomed, *(key for key in known if key.namespace in spaces)]))
        if not call.on("dry-run"):
            store.delete(ending)
        names = kinds()
        for key in doomed:
            said = f"{names[key.kind].prefix}/{key.name} deleted" + (" (dry run)" if call.on("dry-run") else "")
            print(said, flush=True)
        if call.on("wait") and not call.on("dry-run"):
            _await_end(call, place, store, [known[key] for key in ending])
    missing = [key for key in dict.fromkeys(wanted) if key not in known]
    if missing and not call.on("ignore-not-found"):
        raise Failures(*(f"there is no {key}" for key in missing))
    if not wanted:
        print("No resources found", file=sys.stderr)
    return 0


def _await_end(call: Call, place: Place, store: SqliteStore, ending: Sequence[Resource]) -> None:
    """Until all is gone, and, when --wait was asked for, until the agents have done their part."""
    grace_s = max((one.spec.termination_grace_period_seconds for one in ending if isinstance(one, Pod)), default=0)
    timeout_s = call.number("timeout") / 1e9 + (0 if call.given("timeout") else grace_s)
    await_end(store, ending, timeout_s)
    if call.given("wait"):
        await_agents(place, store, timeout_s)


def _named(call: Call, known: Sequence[Resource], namespace: str | None) -> list[Key]:
    """The keys that words, --selector and --all mean. Raises: Failure."""
    targets = targets_of(call.words)
    for kind, _ in targets:
        if kind.kind not in known_kinds():
            raise Failure(f"{kind.shown.plural} follow from other resources; delete those")
    keys = []
    for kind, name in targets:
        inside = (namespace or "default") if kind.namespaced else ""
        if name is not None:
            keys.append(Key(kind.kind, inside, name))
        elif call.given("selector") or call.on("all"):
            selector = parse_selector(call.text("selector"))
            keys += [
                one.key
                for one in known
                if one.kind == kind.kind and one.namespace == inside and selector.matches(one.metadata.labels)
            ]
        else:
            raise Failure(f"name {kind.shown.plural}, choose some with -l SELECTOR, or all with --all")
    return keys


def targets_of(words: Sequence[str]) -> list[tuple[KnownKind, str | None]]:
    """What `pods a b`, `pod/a svc/b` or `pods,svc` mean: kinds with names, or with None for any. Raises: Failure."""
    if not words:
        raise Failure("name a kind of resource, as in `flowscope mesh get pods`; see `flowscope mesh api-resources`")
    if "/" in words[0]:
        found: list[tuple[KnownKind, str | None]] = []
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not name:
                raise Failure(f"{word[:80]!r}: write KIND/NAME for each resource, or KIND NAME...")
            found += [(one, name) for one in find_kinds(kind)]
        return found
    if wrong := [word for word in words[1:] if "/" in word]:
        raise Failure(f"{wrong[0][:80]!r}: write KIND/NAME for each resource, or KIND NAME...")
    return [(kind, name) for kind in find_kinds(words[0]) for name in (words[1:] or (None,))]
