"""`flowscope mesh apply`.

In:        manifests; the resource store.
Out:       changes of the store, all or none; an outcome line for each resource; warnings on stderr.
Elsewhere: inputs.py reads and checks; doubts.py warns; delete.py takes away again; controllers and agents do the
           rest as soon as the store has changed.

People and programs wait for this command, so what only some manifests need is imported when they need it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from cli.command import Call
from cli.mesh.doubts import warnings_about
from cli.mesh.inputs import Check, files_among, read_documents
from cli.mesh.naming import full_name
from cli.mesh.place import Place, find_place, opened
from cli.mesh.refused import Refused, refused
from cli.mesh.settling import await_agents
from mesh.resources.base import Key
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
    known = store.find(readable=True)
    documents = read_documents(paths, known, namespace, checks, None if dry_run else store.accepted)
    resources = [one.resource for one in documents]
    outcomes = merge(known, resources)[1] if dry_run else store.apply(resources)
    for resource, outcome in zip(resources, outcomes, strict=True):
        print(f"{full_name(resource)} {outcome}" + (" (dry run)" if dry_run else ""))
    for warning in (*warnings_about(documents, known), *store.unreadable.values()):
        print(f"Warning: {warning}", file=sys.stderr)
    return {one.key for one in resources}
