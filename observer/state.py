"""What the node knows, as the agent wrote it: read, checked, read again when it changes.

In:        the state file (getters form: golden/README.md; every list may be missing).
Out:       NodeState, by a call per change; a broken file changes nothing and is logged once.
Elsewhere: model/knowledge.py turns the facts into look-ups; mesh/ writes the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import structlog

from model.knowledge import Knowledge
from observer.peers import PeerEntry
from observer.watch import FileWatch

log = structlog.get_logger(component="state")


@dataclass(frozen=True, slots=True)
class NodeState:
    """One reading of the state file."""

    text: bytes
    knowledge: Knowledge
    node_name: str = ""
    node_labels: tuple[str, ...] = ()
    """Sorted `key=value`."""
    peers: tuple[PeerEntry, ...] = field(default=())
    """From the optional list `peers`: objects with name, address and server_name."""


class BrokenState(ValueError):
    """The text is not a state. One line, without the file's name."""


def parse_state(text: bytes) -> NodeState:
    """Read the state file's text.

    Raises: BrokenState.
    """
    try:
        state: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BrokenState(f"not valid JSON: {error}") from error
    if not isinstance(state, dict):
        raise BrokenState("not a JSON object")
    try:
        return NodeState(
            text=text,
            knowledge=Knowledge.from_json(state),
            node_name=str(state.get("node_name") or ""),
            node_labels=tuple(sorted(f"{key}={value}" for key, value in (state.get("node_labels") or {}).items())),
            peers=tuple(
                PeerEntry(str(one["name"]), str(one.get("address") or ""), str(one.get("server_name") or ""))
                for one in state.get("peers") or ()
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BrokenState(f"{type(error).__name__}: {error}") from error


class StateFile:
    """Follows one state file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._complaint = ""
        self._again = asyncio.Event()

    def reload(self) -> None:
        """Read the file again soon, although it looks unchanged."""
        self._again.set()

    async def follow(self, changed: Callable[[NodeState], None]) -> None:
        """Hand over each new content, until cancelled."""
        watch = FileWatch(self._path, self._again.set)
        try:
            while True:
                await self._again.wait()
                self._again.clear()
                # Large clusters have megabytes of state: parse beside the loop.
                state = await asyncio.to_thread(self.read)
                if state is not None:
                    changed(state)
        finally:
            watch.close()

    def read(self) -> NodeState | None:
        """What the file says now; None when it is missing or broken, which is logged."""
        try:
            state = parse_state(self._path.read_bytes())
        except FileNotFoundError:
            self._complain("state file is missing; flows carry addresses only until it is there", "")
        except OSError as error:
            self._complain("state file cannot be read; keeping what is known", error.strerror or str(error))
        except BrokenState as error:
            self._complain("state file is broken; keeping what is known", str(error))
        else:
            self._complaint = ""
            return state
        return None

    def _complain(self, phrase: str, error: str) -> None:
        """Log a problem once, not at every try, until the file was fine again."""
        if self._complaint != phrase:
            self._complaint = phrase
            log.warning(phrase, file=str(self._path), **({"error": error} if error else {}))
