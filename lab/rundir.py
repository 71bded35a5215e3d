"""The lab's folder: where everything lives that outlasts a process.

In:        what the lab makes and what state it is in.
Out:       paths; a lock that says whether a lab runs; a journal of what to remove; lab.json for the command line.
Elsewhere: supervisor.py writes, commands.py reads, cleanup.py removes.

    lock            held by the supervisor as long as it lives
    journal         one line per network namespace, written before the namespace is made
    lab.json        nodes, pods and processes, for `lab exec` and `lab status`
    store/          the resource store
    bpf/            a BPF file system of the lab's own: unmounting it removes every pin
    <node>/         state.json, agent.json, observer.sock
    pods/<ns>_<pod>/  the pod's /etc files
    logs/           one file per process
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from service.failure import Failure

DEFAULT: Final = Path("/run/flowscope/lab")
MARK: Final = "FLOWSCOPE_LAB"
"""Environment variable of every process of a lab; its value is the lab's folder."""


class RunDir:
    """One lab's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.store = self.path / "store"
        self.bpffs = self.path / "bpf"
        self.logs = self.path / "logs"
        self.pods = self.path / "pods"
        self.state_file = self.path / "lab.json"
        self._journal = self.path / "journal"
        self._lock_file = self.path / "lock"
        self._lock: int | None = None

    def create(self) -> None:
        """Make the folder. Raises: Failure when that is impossible."""
        try:
            for folder in (self.path, self.bpffs, self.logs, self.pods):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failure(
                f"cannot make the folder {error.filename}: {error.strerror}; choose another --run-dir"
            ) from None

    def lock(self) -> bool:
        """Become the one lab of this folder; False when another process is."""
        descriptor = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def unlock(self) -> None:
        """Let others be the lab of this folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def is_running(self) -> bool:
        """Whether a lab's supervisor lives."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def record_netns(self, names: Iterable[str]) -> None:
        """Note namespaces that are about to be made: whatever happens now, cleanup will find them."""
        with self._journal.open("a") as journal:
            journal.writelines(f"{name}\n" for name in names)

    def recorded_netns(self) -> list[str]:
        """Namespaces that this lab has made, or was about to make."""
        try:
            return list(dict.fromkeys(self._journal.read_text().split()))
        except OSError:
            return []

    def write_state(self, state: dict[str, Any]) -> None:
        """Replace lab.json."""
        fresh = self.state_file.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        os.replace(fresh, self.state_file)

    def read_state(self) -> dict[str, Any]:
        """lab.json; empty without one."""
        try:
            state = json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def node(self, name: str) -> Path:
        """Folder of a node."""
        return self.path / name

    def pod(self, namespace: str, name: str) -> Path:
        """Folder with a pod's /etc files."""
        return self.pods / f"{namespace}_{name}"

    def forget(self) -> None:
        """Remove the folder's content except logs, which tell why a lab died, and the lock, which may be held."""
        for entry in self.path.iterdir() if self.path.exists() else ():
            if entry in (self.logs, self._lock_file):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()
