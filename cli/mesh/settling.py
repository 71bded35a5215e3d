"""Waiting until every node does what the store says.

In:        the resource store, and what each agent says it has done (agent.json).
Out:       a return when all have, a Failure naming those that have not.
Elsewhere: mesh/main.py writes agent.json when a round is over.
"""

from __future__ import annotations

import time
from typing import Final

from cli.mesh.place import Place
from mesh.resources.cluster import Node
from mesh.store import Store
from service.failure import Failure

POLL_S: Final = 0.05
CALM_S: Final = 0.2
"""Controllers follow a change with changes of their own; when none came for so long, there are no more."""


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
