"""Tests one by one: policies, then all actions of the test, each judged twice.

In:        the tests that were chosen, a ClusterView, a Telescope or none.
Out:       outcomes; progress on standard output while it goes on.
Elsewhere: suite/ says what is tested, verdicts.py judges, report.py sums up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from connectivity.actions import attempt
from connectivity.cluster import NAMESPACE, ClusterView
from connectivity.report import Failed, Outcome
from connectivity.suite import Action, Test
from connectivity.telescope import Telescope
from connectivity.verdicts import client_problems, flow_problems
from connectivity.witness import Witness
from mesh.resources.base import Resource
from mesh.resources.manifests import parse_manifests
from mesh.resources.mistakes import InvalidResource
from service.failure import Failure

POLICIES: Final = Path(__file__).parent / "policies"
AT_ONCE: Final = 4
"""Actions of a test that run side by side; most of the time is waiting for answers that must not come."""
FLOWS_S: Final = 5.0
"""Seconds within which flows have to arrive."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs tests on a cluster."""

    cluster: ClusterView
    telescope: Telescope | None
    """None: without looking at flows."""
    say: Say
    """Takes progress, line ends included."""
    witness: Witness
    timeout_s: float

    async def run(self, test: Test) -> Outcome:
        """One test, its policies applied before and removed after."""
        outcome = Outcome(test.name)
        began = time.monotonic()
        try:
            resources = [one for name in test.manifests for one in self.manifest(name)]
            with self.cluster.applied(resources, self.timeout_s):
                await self._act(test, outcome)
                for check in test.checks:
                    async for subject, problems in check(self.witness):
                        self._note(outcome, f"{check.__name__.replace('_', '-')}: {subject}", problems)
        except (Failure, InvalidResource) as error:
            outcome.error = str(error)
        outcome.took_s = time.monotonic() - began
        return outcome

    def manifest(self, name: str) -> list[Resource]:
        """A file of policies/, with the names and addresses of this cluster's outside world."""
        world = self.cluster.world
        text = (POLICIES / f"{name}.yaml").read_text()
        text = text.replace("WORLD_ADDRESS", world.address).replace("WORLD_OTHER_ADDRESS", world.other_address)
        text = text.replace("WORLD_NAME", world.name)
        return parse_manifests(text, f"{name}.yaml", NAMESPACE)

    async def _act(self, test: Test, outcome: Outcome) -> None:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(action: Action) -> None:
            async with room:
                problems = await self._judge(action)
            self._note(outcome, action, problems)

        async with asyncio.TaskGroup() as tasks:
            for action in test.actions(self.cluster):
                tasks.create_task(one(action))

    def _note(self, outcome: Outcome, action: Action | str, problems: list[str]) -> None:
        outcome.actions += 1
        if problems:
            outcome.failed.append(Failed(action, tuple(problems)))
        self.say("F" if problems else ".")

    async def _judge(self, action: Action) -> list[str]:
        made = await attempt(action.client, action.target)
        problems = client_problems(action.expectation, made)
        if self.telescope is None:
            return problems
        # Clocks of the kernel's events and of processes differ a little.
        around = replace(made, started_ns=made.started_ns - 50_000_000)
        return problems + await self.telescope.wait(
            around.started_ns, lambda flows: flow_problems(action.expectation, around, flows), FLOWS_S
        )
