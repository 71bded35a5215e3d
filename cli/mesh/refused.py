"""Policies that some agent could not put into force.

In:        agents' reports; state.json, for names of pods.
Out:       one line for each kind of pods: which documents, where, what is wrong, what helps.
Elsewhere: mesh/policy/node.py refuses; apply.py asks when the agents have done their round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from typing import Final

from cli.mesh.place import Place
from mesh.resources.base import Key

TOLD: Final = 3
"""Endpoints that are named; of the others only the number is told."""


@dataclass(frozen=True, slots=True)
class Refused:
    """On one node, for pods that are alike."""

    documents: frozenset[Key]
    """All that select the pods."""
    text: str

    def concerns(self, keys: Set[Key]) -> bool:
        """Whether one of these documents is behind it."""
        return not self.documents.isdisjoint(keys)


def refused(place: Place, nodes: Iterable[str]) -> Iterator[Refused]:
    """What agents have refused, as far as their files are on this machine."""
    for node in nodes:
        policy = place.node_file(node, "agent.json").get("parts", {}).get("policy", {})
        found = policy.get("refusals", ())
        pods = _pods(place, node) if found else {}
        for one in found:
            documents = [Key(*each) for each in one["documents"]]
            endpoints = [f"{number} ({pods[number]})" if number in pods else str(number) for number in one["endpoints"]]
            more = f" and {len(endpoints) - TOLD} more" if len(endpoints) > TOLD else ""
            where = f"endpoint {', '.join(endpoints[:TOLD])}{more} of node {node}"
            text = f"{', '.join(map(str, documents))}: not in force at {where}: {one['complaint']}"
            yield Refused(frozenset(documents), text)


def _pods(place: Place, node: str) -> dict[int, str]:
    endpoints = place.node_file(node, "state.json").get("local_endpoints", ())
    return {one["id"]: f"{one['namespace']}/{one['pod']}" for one in endpoints if one.get("pod")}
