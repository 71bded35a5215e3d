"""`flowscope mesh delete`.

In:        manifests, names; the resource store.
Out:       resources taken out of the store, all or none; a line for each of them.
Elsewhere: inputs.py reads manifests; controllers, agents and whoever runs pods do the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cli.command import Call
from cli.mesh.inputs import files_among, read_keys
from cli.mesh.naming import full_name
from cli.mesh.place import Place, find_place, opened
from cli.mesh.settling import await_agents, await_end
from mesh.namespaces import DEFAULT_NAMESPACES
from mesh.resources.base import Key, Resource
from mesh.resources.kinds import known_kinds
from mesh.resources.pods import Pod
from mesh.store import SqliteStore
from service.failure import Failure, Failures


def run_delete(call: Call) -> int:
    """`mesh delete -f FILE`, `delete KIND NAME...`, `delete KIND -l SELECTOR`, `delete KIND --all`."""
    namespace = call.text("namespace") if call.given("namespace") else None
    place = find_place(call)
    with opened(place) as store:
        known = {one.key: one for one in store.find(readable=True)}
        there = dict.fromkeys([*known, *store.unreadable])
        if call.items("filename"):
            wanted = read_keys(files_among(call.items("filename"), call.on("recursive")), namespace)
        else:
            wanted = _named(call, list(known.values()), namespace)
        doomed = [key for key in dict.fromkeys(wanted) if key in there]
        for key in doomed:
            if key.kind == "Namespace" and key.name in DEFAULT_NAMESPACES:
                raise Failure(f"namespace {key.name} cannot be deleted: the cluster needs it")
        spaces = {key.name for key in doomed if key.kind == "Namespace"}
        ending = list(dict.fromkeys([*doomed, *(key for key in there if key.namespace in spaces)]))
        if not call.on("dry-run"):
            store.delete(ending)
        for key in doomed:
            name = full_name(known[key]) if key in known else f"{key.kind.lower()}/{key.name}"
            said = f"{name} deleted" + (" (dry run)" if call.on("dry-run") else "")
            print(said, flush=True)
        if call.on("wait") and not call.on("dry-run"):
            _await_end(call, place, store, [known[key] for key in ending if key in known])
    missing = [key for key in dict.fromkeys(wanted) if key not in there]
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
    from cli.mesh.kinds import targets_of
    from cli.mesh.selector import parse_selector

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
