"""What an agent says about itself: agent.json.

In:        each round's outcome; parts of the agent, which describe themselves whenever they are asked.
Out:       agent.json in the node's folder, replaced as often as something changes, and now and then as a sign of life.
Elsewhere: main.py owns the report; `flowscope mesh status` shows it; whoever waits for a pod reads `pods`.

    {"node": ..., "version": "0.1.0", "revision": 17, "pods": [uid, ...], "pid": 4711, "started_s": ...,
     "written_s": ..., "parts": {"policy": {"state": "ok", "message": "12 policies"}, "envoy": {...}, ...}}

A part's description has a `state`, one of STATES, a `message` for people (one line), and whatever else it likes to
tell. It is asked often: looking has to be cheap.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from mesh.files import write_atomically
from service.version import package_version

STATES: Final = ("ok", "warning", "failure", "disabled")
ALIVE_S: Final = 10.0
"""The file is never older while the agent lives and its loop turns."""

Part = Callable[[], Mapping[str, Any]]


class AgentReport:
    """Owns agent.json."""

    def __init__(self, file: Path, node: str, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._facts: dict[str, Any] = {
            "node": node,
            "version": package_version(),
            "pid": os.getpid(),
            "started_s": int(clock()),
        }
        self._parts: dict[str, Part] = {}
        self._written: dict[str, Any] = {}
        self._written_s = 0.0

    def add(self, name: str, part: Part) -> None:
        """Ask `part` from now on, too."""
        self._parts[name] = part

    def round(self, revision: int, pods: list[str]) -> None:
        """A round is done: the kernel does what the store said at `revision`; these pods (uids) are reachable."""
        self._facts |= {"revision": revision, "pods": pods}
        self.refresh()

    def refresh(self) -> None:
        """Write what is new, if there is something. Nothing is written before the first round: that is what it tells.

        Raises: Failure when it cannot be written.
        """
        if "revision" not in self._facts:
            return
        content = self._facts | {"parts": {name: dict(part()) for name, part in self._parts.items()}}
        now_s = self._clock()
        if content == self._written and now_s - self._written_s < ALIVE_S / 2:
            return
        write_atomically(self._file, content | {"written_s": round(now_s, 1)})
        self._written, self._written_s = content, now_s
