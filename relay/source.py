"""One node's stream within one client's call: how much of it waits, and where it goes on after a break.

In:        what was read of the stream, how far the merge has come.
Out:       whether to read on; what to ask for after a break.
Elsewhere: collect.py reads; forms.py knows what flows look like.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final

from rpc.client import Stream

MOST_MEMORIES: Final = 4
"""Reads that are kept to recognise what a node repeats. After a break in a burst of more, some flows may come twice."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a broken stream goes on."""

    since_ns: int
    """Flows may repeat from here on; they were not all seen, since a node delivers a little out of order."""
    newest_ns: int
    """Nothing newer was seen."""
    seen: frozenset[Hashable]
    """What was seen between the two."""


@dataclass(eq=False, slots=True)
class Source:
    """One node's stream within this call."""

    node: str
    handle: int
    """In the merge."""
    quiet_since_s: float
    path: str = ""
    stream: Stream | None = None
    attaching: asyncio.Task[None] | None = None
    resume: Resume | None = None
    newest_ns: int = 0
    waiting_bytes: int = 0
    waiting_items: int = 0
    waiting: deque[tuple[int, int, int]] = field(default_factory=deque)
    """Per read: the newest time in it, bytes, items. Waits until the merge has passed that time."""
    memories: deque[tuple[int, Any]] = field(default_factory=deque)
    """What was delivered last (and the first time in it), to recognise it after a break."""

    def took(self, newest_ns: int, size: int, items: int) -> None:
        """A read brought `items` in `size` bytes, none newer than `newest_ns`."""
        self.waiting.append((newest_ns, size, items))
        self.waiting_bytes += size
        self.waiting_items += items

    def settle(self, bound_ns: int) -> None:
        """The merge has let out everything up to `bound_ns`."""
        while self.waiting and self.waiting[0][0] <= bound_ns:
            _, size, items = self.waiting.popleft()
            self.waiting_bytes -= size
            self.waiting_items -= items

    def remember(self, first_ns: int, newest_ns: int, memory: Any, disorder_ns: int) -> None:
        """Keep what the node would repeat if it went on from here: what it sent of the last `disorder_ns`."""
        self.newest_ns = max(self.newest_ns, newest_ns)
        self.memories.append((first_ns, memory))
        while len(self.memories) > 1 and (
            self.memories[1][0] < self.newest_ns - disorder_ns or len(self.memories) > MOST_MEMORIES
        ):
            self.memories.popleft()
