"""What a test is.

In:        nothing; these are the words.
Out:       Test, Case, Action.
Elsewhere: tests.py fills them in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass

from connectivity.cluster import ClusterView, Party, Target
from connectivity.verdicts import OK, Expectation
from connectivity.witness import Checked, Witness

Scenario = Callable[[ClusterView], Iterable[tuple[Party, Target]]]
Rule = Callable[[Party, Target], Expectation]
Check = Callable[[Witness], AsyncIterator[Checked]]


def always(expectation: Expectation) -> Rule:
    """The same for everybody."""
    return lambda _client, _target: expectation


def works(_client: Party, _target: Target) -> Expectation:
    """Everybody is answered."""
    return OK


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario under a test's policies."""

    scenario: Scenario
    rule: Rule = works

    @property
    def name(self) -> str:
        """As Cilium's test calls it: pod-to-pod, client-to-client, ..."""
        return self.scenario.__name__.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Action:
    """One request and what must come of it."""

    case: str
    client: Party
    target: Target
    expectation: Expectation

    def __str__(self) -> str:
        return f"{self.case}: {self.client.name} ({self.client.ipv4}) -> {self.target.name}"


@dataclass(frozen=True, slots=True)
class Test:
    """Policies, and what must work and must not while they hold."""

    name: str
    cases: tuple[Case, ...] = ()
    manifests: tuple[str, ...] = ()
    """Files in ../policies, without .yaml."""
    checks: tuple[Check, ...] = ()
    """What else is looked at."""

    def actions(self, cluster: ClusterView) -> Iterator[Action]:
        """All requests of the test."""
        for case in self.cases:
            for client, target in case.scenario(cluster):
                yield Action(case.name, client, target, case.rule(client, target))
