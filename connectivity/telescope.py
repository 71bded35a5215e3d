"""The flows of the relay, as they come.

In:        the address of a relay.
Out:       the flows of the last minutes, bounded, with a way to wait for more.
Elsewhere: flowscope/ is the client; verdicts.py looks for what must be there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Final

from flowscope import Client, FlowscopeError
from proto.flow.flow_pb2 import Flow

KEPT: Final = 100_000
"""Flows; an action looks back a few seconds."""


class Telescope:
    """Follows a relay until closed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._flows: deque[Flow] = deque(maxlen=KEPT)
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.failure = ""
        """Why no more flows come; empty while they do."""

    @staticmethod
    async def count(client: Client) -> tuple[int, int]:
        """Flows that the relay has, and room for how many. Raises: FlowscopeError."""
        status = await client.status()
        return status.num_flows, status.max_flows

    def open(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow(), name="telescope")

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def since(self, started_ns: int) -> list[Flow]:
        """Flows that happened from then on."""
        found = []
        for flow in reversed(self._flows):
            # The relay sorts by time, so the first older one ends the search, with a second to spare.
            if flow.time.ToNanoseconds() < started_ns - 1_000_000_000:
                break
            if flow.time.ToNanoseconds() >= started_ns:
                found.append(flow)
        return found[::-1]

    async def wait(self, started_ns: int, problems: Callable[[list[Flow]], list[str]], patience_s: float) -> list[str]:
        """Ask for problems again and again as flows come, until there are none or patience ends."""
        deadline = asyncio.get_running_loop().time() + patience_s
        while True:
            self._more.clear()
            found = problems(self.since(started_ns))
            left = deadline - asyncio.get_running_loop().time()
            if not found or left <= 0 or self.failure:
                return found
            try:
                async with asyncio.timeout(min(left, 0.5)):
                    await self._more.wait()
            except TimeoutError:
                continue

    async def _follow(self) -> None:
        try:
            stream = self._client.flows(follow=True, since=timedelta(seconds=1))
            async with aclosing(stream.flow_lists()) as lists:
                async for flows in lists:
                    self._flows.extend(flows)
                    self._more.set()
        except FlowscopeError as error:
            self.failure = str(error)
            self._more.set()
