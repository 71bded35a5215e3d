"""Waiting until every node does what the store says, and until what was deleted is gone.

In:        the resource store, and what each agent says it has done (agent.json).
Out:       a return when it is so, a Failure naming what is not.
Elsewhere: mesh/main.py writes agent.json when a round is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from cli.mesh.place import Place
from mesh.resources.base import Resource
from mesh.resources.cluster import Node
from mesh.store import Store
from service.failure import Failure

POLL_S: Final = 0.05
CALM_S: Final = 0.2
"""Controllers follow a change with changes of their own; when none came for so long, there are no more."""


def await_end(store: Store, doomed: Sequence[Resource], timeout_s: float) -> None:
    """Wait until none of these is in the store. One of the same name that came after it counts as another.

    Raises: Failure.
    """
    deadline = time.monotonic() + timeout_s
    left = list(doomed)
    while left := [one for one in left if _is_there(store, one)]:
        if time.monotonic() > deadline:
            names = ", ".join(str(one.key) for one in left)
            raise Failure(
                f"{names}: not gone after {timeout_s:g} s; see `flowscope mesh describe`, or do not wait: --wait=false"
            )
        time.sleep(POLL_S)


def _is_there(store: Store, one: Resource) -> bool:
    found = store.get(one.key)
    return found is not None and found.metadata.uid == one.metadata.uid


def await_agents(place: Place, store: Store, timeout_s: float) -> None:
    """Wait for all agents whose files are on this machine. Raises: Failure."""
    nodes = [one.name for one in store.find("Node") if isinstance(one, Node)]
    here = [name for name in nodes if place.node_file(name, "agent.json").get("node") == name]
    if not here:
        raise Failure("no agent writes its state on this machine, so nobody can be waited for; leave out --wait")
    deadline = time.monotonic() + timeout_s
    revision, since = -1, time.monotonic()
    while True:
        newest = store.changes(max(revision, 0)).revision
        if newest != revision:
            revision, since = newest, time.monotonic()
        behind = [name for name in here if int(place.node_file(name, "agent.json").get("revision", -1)) < revision]
        if not behind and time.monotonic() - since > CALM_S:
            return
        if time.monotonic() > deadline:
            who = f"agent of {', '.join(behind)} has" if behind else "controllers have"
            raise Failure(f"{who} not finished after {timeout_s:g} s; see `flowscope mesh status`")
        time.sleep(POLL_S)
