"""Which CiliumEnvoyConfigs a node's Envoy gets: those that Envoy takes.

In:        the cluster's resources, which may have come into the store past `flowscope mesh apply`.
Out:       the same with what Envoy refuses left out, or as it was before; what Envoy says against each.
Elsewhere: validation.py asks Envoy; node.py hands over what is admitted; mesh/report.py tells the rest.

Envoy takes a file of resources as a whole, so a single bad one would keep it from all that come with it. What it has
taken is remembered over a restart of the agent: it is not asked again, and it stays in effect while a later version of
the same resource is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from mesh.envoyconfig import validation
from mesh.envoyconfig.documents import EnvoyConfig, EnvoyConfigSpec
from mesh.envoyconfig.translate import selects
from mesh.files import write_atomically
from mesh.resources.base import Key, Resource
from mesh.resources.cluster import Node
from mesh.resources.manifests import parse_manifest
from mesh.resources.mistakes import InvalidResource
from service.failure import Failure

Ask = Callable[[Sequence[EnvoyConfig]], Mapping[Key, str]]

log: Final = structlog.get_logger(component="envoyconfig")


class Admission:
    """Of one node."""

    def __init__(self, file: Path, node: Node, ask: Ask = validation.complaints_about) -> None:
        """file: where what was taken is remembered."""
        self._file = file
        self._node = node
        self._ask = ask
        self._taken: dict[Key, EnvoyConfig] = {one.key: one for one in _remembered(file)}
        self._refused: dict[Key, tuple[EnvoyConfigSpec, str]] = {}

    async def judge(self, resources: Iterable[Resource]) -> None:
        """Have Envoy look at every resource that it has not seen like this."""
        present = [one for one in resources if isinstance(one, EnvoyConfig) and selects(one, self._node)]
        unseen = [one for one in present if not self._has_seen(one)]
        before = dict(self._taken)
        keys = {one.key for one in present}
        self._taken = {key: one for key, one in self._taken.items() if key in keys}
        self._refused = {key: one for key, one in self._refused.items() if key in keys}
        if unseen:
            try:
                complaints = await asyncio.to_thread(self._ask, unseen)
            except Failure as failure:
                # The Envoy that runs will have its say.
                log.warning("resources are not checked beforehand", reason=str(failure))
                complaints = {}
            for one in unseen:
                if text := complaints.get(one.key):
                    self._refused[one.key] = one.spec, text
                else:
                    self._refused.pop(one.key, None)
                    self._taken[one.key] = one
        if self._taken != before:
            write_atomically(self._file, {str(key): one.dump() for key, one in sorted(self._taken.items())})

    def admitted(self, resources: Iterable[Resource]) -> list[Resource]:
        """What Envoy is to have, of all resources."""
        found = []
        for one in resources:
            if one.key not in self._refused:
                found.append(one)
            elif (old := self._taken.get(one.key)) is not None:
                found.append(old)
        return found

    @property
    def problems(self) -> dict[Key, str]:
        """What Envoy says against resources, and what holds meanwhile."""
        return {
            key: f"{text}; " + ("what it said before stays" if key in self._taken else "nothing of it is in effect")
            for key, (_, text) in self._refused.items()
        }

    def _has_seen(self, one: EnvoyConfig) -> bool:
        refused = self._refused.get(one.key)
        if refused is not None:
            return refused[0] == one.spec
        taken = self._taken.get(one.key)
        return taken is not None and taken.spec == one.spec


def _remembered(file: Path) -> list[EnvoyConfig]:
    try:
        found = [parse_manifest(one, str(file)) for one in json.loads(file.read_text()).values()]
    except (OSError, ValueError, AttributeError, InvalidResource):
        return []
    return [one for one in found if isinstance(one, EnvoyConfig)]
