"""Everything that a table may look at, read once.

In:        the resources; the place, for what agents and the lab write into files; the time.
Out:       a View: questions about pods, services, deployments and nodes, answered without another look.
Elsewhere: kinds.py has the tables, derived.py makes resources that nobody stores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from cli.mesh.place import Place
from mesh.cluster import Cluster
from mesh.names import workload
from mesh.resources.base import TIME_FORMAT, Resource
from mesh.resources.deployments import Deployment
from mesh.resources.pods import Pod

NONE: Final = "<none>"
UNKNOWN: Final = "<unknown>"


class View:
    """The cluster at one moment."""

    def __init__(self, resources: Sequence[Resource], place: Place, clock: Callable[[], float] = time.time) -> None:
        self.resources = tuple(resources)
        self.place = place
        self.now_s = clock()

    @cached_property
    def cluster(self) -> Cluster:
        """The resources by key."""
        return Cluster(self.resources)

    def pods_of(self, deployment: Deployment) -> list[Pod]:
        """The pods that a deployment has made."""
        return self._pods_by_owner.get((deployment.namespace, deployment.name), [])

    @cached_property
    def _pods_by_owner(self) -> dict[tuple[str, str], list[Pod]]:
        found: dict[tuple[str, str], list[Pod]] = {}
        for pod in self.cluster.pods():
            kind, name = workload(pod)
            if kind == "Deployment":
                found.setdefault((pod.namespace, name), []).append(pod)
        return found

    @cached_property
    def restarts(self) -> dict[tuple[str, str], int]:
        """Of pods of a lab, by namespace and name."""
        pods = self.place.lab_state().get("pods", ())
        return {(pod["namespace"], pod["name"]): pod["restarts"] for pod in pods}

    @cached_property
    def agents(self) -> dict[str, dict[str, Any]]:
        """agent.json of the nodes whose agent has written one here."""
        files = {one.name: self.place.node_file(one.name, "agent.json") for one in self.cluster.nodes()}
        return {name: content for name, content in files.items() if content.get("node") == name}

    @cached_property
    def states(self) -> dict[str, dict[str, Any]]:
        """state.json of those nodes."""
        return {name: self.place.node_file(name, "state.json") for name in self.agents}

    def age(self, resource: Resource) -> str:
        """How long there has been a resource."""
        return self.since(resource.metadata.creation_timestamp)

    def since(self, timestamp: str | None) -> str:
        """How long ago a timestamp was."""
        if not timestamp:
            return UNKNOWN
        try:
            then = datetime.strptime(timestamp, TIME_FORMAT).replace(tzinfo=UTC)
        except ValueError:
            return UNKNOWN
        return duration(self.now_s - then.timestamp())


def duration(seconds: float) -> str:
    """A span as kubectl writes ages: the longer, the rougher. Source: apimachinery, util/duration."""
    s = max(int(seconds), 0)
    minute, hour, day = 60, 3600, 86400
    if s < 2 * minute:
        return f"{s}s"
    if s < 10 * minute:
        return _two(s // minute, "m", s % minute, "s")
    if s < 3 * hour:
        return f"{s // minute}m"
    if s < 8 * hour:
        return _two(s // hour, "h", s // minute % 60, "m")
    if s < 2 * day:
        return f"{s // hour}h"
    if s < 8 * day:
        return _two(s // day, "d", s // hour % 24, "h")
    if s < 2 * 365 * day:
        return f"{s // day}d"
    return _two(s // (365 * day), "y", s // day % 365, "d") if s < 8 * 365 * day else f"{s // (365 * day)}y"


def _two(many: int, unit: str, few: int, smaller: str) -> str:
    return f"{many}{unit}{few}{smaller}" if few else f"{many}{unit}"


def field(resource: Resource, *path: str | int) -> Any:
    """What stands at a path of the resource as it is written in YAML; None when there is nothing."""
    found: Any = resource.dump()
    for part in path:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            return None
    return found


def listed(words: Sequence[object]) -> str:
    """Words with commas, or <none>."""
    return ",".join(map(str, words)) or NONE


def as_labels(labels: dict[str, str]) -> str:
    """`a=b,c=d`, sorted, or <none>."""
    return listed([f"{key}={value}" for key, value in sorted(labels.items())])
