"""Where the cluster's files are: the resource store, and what each node's agent writes.

In:        --store, FLOWSCOPE_STORE, the default folders, a running lab.
Out:       a Place, and the store in it.
Elsewhere: lab/rundir.py lays out the lab's folder; mesh/config.py has the agent's settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cli.command import Call
from cli.log import debug, show_debug
from lab import rundir
from mesh.store import SqliteStore
from service.failure import Failure

VARIABLE: Final = "FLOWSCOPE_STORE"
DEFAULT_STORE: Final = Path("/var/lib/flowscope/store")
DEFAULT_NODE_FOLDER: Final = Path("/run/flowscope")
DEFAULT_BPFFS: Final = Path("/sys/fs/bpf")
DEFAULT_OBSERVER: Final = "127.0.0.1:4244"


@dataclass(frozen=True, slots=True)
class Place:
    """One cluster's files on this machine."""

    store: Path
    lab: Path | None = None
    """Folder of the lab that owns the store."""
    made: bool = False
    """The user named the store, so it may be made when it is missing."""

    def node_folder(self, node: str) -> Path:
        """Where a node's agent writes: state.json and agent.json."""
        return self.lab / node if self.lab else DEFAULT_NODE_FOLDER

    @property
    def bpffs(self) -> Path:
        """Where agents pin their maps."""
        return self.lab / "bpf" if self.lab else DEFAULT_BPFFS

    def observer(self, node: str) -> str:
        """Address of a node's observer."""
        return f"unix://{self.lab / node / 'observer.sock'}" if self.lab else DEFAULT_OBSERVER

    def node_file(self, node: str, name: str) -> dict[str, Any]:
        """A JSON file of a node's agent; empty when there is none, or it is another node's."""
        try:
            content = json.loads((self.node_folder(node) / name).read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def lab_state(self) -> dict[str, Any]:
        """lab.json; empty outside a lab."""
        return rundir.RunDir(self.lab).read_state() if self.lab else {}


def find_place(call: Call) -> Place:
    """The cluster that a command line means. Raises: Failure when there is none."""
    show_debug(call.on("debug"))
    named = call.text("store") or os.environ.get(VARIABLE, "")
    if named:
        folder = Path(named)
        return Place(folder, _lab_around(folder), made=True)
    if DEFAULT_STORE.exists():
        return Place(DEFAULT_STORE)
    lab = rundir.RunDir(rundir.DEFAULT)
    if lab.store.exists():
        debug("the lab's resource store is used", folder=str(lab.store))
        return Place(lab.store, lab.path)
    raise Failure(
        f"there is no resource store in {DEFAULT_STORE}, and no lab runs;"
        f" start one with `flowscope lab up`, or name a store with --store or {VARIABLE}"
    )


def _lab_around(store: Path) -> Path | None:
    folder = store.absolute().parent
    return folder if store.name == "store" and (folder / "lab.json").exists() else None


@contextmanager
def opened(place: Place, *, writes: bool = False) -> Iterator[SqliteStore]:
    """The store of a place. Raises: Failure, also when it would have to be made only to find it empty."""
    if not place.store.is_dir() and not (writes and place.made):
        raise Failure(f"there is no resource store in {place.store}; see --store")
    if place.store.is_dir() and not os.access(place.store, os.R_OK | os.W_OK | os.X_OK):
        remedy = "run as root" if os.geteuid() else "check the file system"
        raise Failure(f"the resource store in {place.store} cannot be read and written; {remedy}")
    store = SqliteStore(place.store)
    try:
        yield store
    finally:
        store.close()
