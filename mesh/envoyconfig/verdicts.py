"""What Envoy has accepted on this machine: it is not asked twice about the same.

In:        resources as messages; a folder that all who ask share, the resource store's.
Out:       Envoy's complaint, empty when it has accepted them, now or before.
Elsewhere: validation.py asks Envoy; `flowscope mesh apply` asks before it stores, agents before they hand over.

Envoy's answer depends on the configuration and on Envoy itself, and the name of what is remembered is made of both.
Complaints are not remembered, as Envoy may have had no time. Whoever asks waits for others who ask: agents of one
machine that hear of a resource at the same moment start one Envoy, not as many as there are of them.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from mesh.envoyconfig.translate import EnvoyResources
from mesh.envoyconfig.validation import binary, bootstrap, complaint_about_text

MOST: Final = 500
"""Remembered acceptances; the oldest go."""


class Verdicts:
    """Of one folder, which is made when something is to be remembered. Works without it, too."""

    def __init__(self, folder: Path, ask: Callable[[str], str] = complaint_about_text) -> None:
        self._folder = folder
        self._ask = ask

    def complaint(self, resources: EnvoyResources) -> str:
        """As validation.complaint(). Raises: Failure when Envoy cannot be run."""
        text = json.dumps(bootstrap(resources), sort_keys=True)
        path = self._folder / self._name(text)
        if path.exists():
            return ""
        with self._alone():
            if path.exists():
                return ""
            said = self._ask(text)
            if not said:
                with suppress(OSError):
                    path.touch(mode=0o600)
                    self._forget()
        return said

    @staticmethod
    def _name(text: str) -> str:
        envoy = binary().stat()
        return sha256(f"{envoy.st_ino} {envoy.st_size} {envoy.st_mtime_ns}\n{text}".encode()).hexdigest()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            lock = (self._folder / "lock").open("w")
        except OSError:
            # Nothing can be remembered there; Envoy can be asked.
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _forget(self) -> None:
        known = [one for one in self._folder.iterdir() if one.name != "lock"]
        for one in sorted(known, key=lambda one: one.stat().st_mtime_ns)[:-MOST]:
            one.unlink(missing_ok=True)
