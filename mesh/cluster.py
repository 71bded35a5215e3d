"""All resources of the cluster, as those who decide look at them.

In:        what the resource store holds.
Out:       resources by kind and by key; what was put and removed since, as an Update.
Elsewhere: controller.py, services/ and the like decide with it; store.py applies the Update.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesh.resources.base import Key, Resource
from mesh.resources.cluster import CiliumIdentity, Namespace, Node
from mesh.resources.deployments import Deployment
from mesh.resources.pods import Pod, told_to_go
from mesh.resources.services import Service
from mesh.store import Update


class Cluster:
    """All resources by key, with what was changed in this round."""

    def __init__(self, resources: Iterable[Resource], now: str | None = None) -> None:
        """`now` is written where a pod is told to go; None: pods go at once."""
        self._now = now
        self.resources = {one.key: one for one in resources}
        self._before = dict(self.resources)

    def nodes(self) -> list[Node]:
        return [one for one in self.resources.values() if isinstance(one, Node)]

    def pods(self) -> list[Pod]:
        return [one for one in self.resources.values() if isinstance(one, Pod)]

    def services(self) -> list[Service]:
        return [one for one in self.resources.values() if isinstance(one, Service)]

    def deployments(self) -> list[Deployment]:
        return [one for one in self.resources.values() if isinstance(one, Deployment)]

    def identities(self) -> list[CiliumIdentity]:
        return [one for one in self.resources.values() if isinstance(one, CiliumIdentity)]

    def namespace(self, name: str) -> Namespace | None:
        found = self.resources.get(Key("Namespace", "", name))
        return found if isinstance(found, Namespace) else None

    def put(self, resource: Resource) -> None:
        self.resources[resource.key] = resource

    def remove(self, key: Key) -> None:
        """Delete a resource; a pod that runs stays until its connections are finished."""
        found = self.resources.pop(key, None)
        staying = told_to_go(found, self._now) if found is not None and self._now is not None else None
        if staying is not None:
            self.put(staying)

    def update(self) -> Update:
        """What differs from the beginning."""
        return Update(
            tuple(one for key, one in self.resources.items() if self._before.get(key) != one),
            tuple(key for key in self._before if key not in self.resources),
        )
