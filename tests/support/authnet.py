"""Agents that authenticate, for kernel tests: one thread per node, inside the node's namespace, with a real store.

In:        a tests.support.testnet network whose pods have the identities that the controller gave.
Out:       AuthAgent: an agent's rounds as far as authentication goes; `kill` ends it in the middle of whatever it does.
Elsewhere: mesh/main.py is the agent itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bpf.datapath import Datapath
from bpf.facts import AuthPair
from bpf.policies import EndpointPolicy
from mesh.auth.node import AuthSettings, NodeAuthentication
from mesh.cluster import Cluster
from mesh.leader import Lock, lead
from mesh.resources.base import Key
from mesh.resources.cluster import Node as NodeResource
from mesh.store import SqliteStore
from tests.support.testnet import Node, inside


class AuthAgent:
    """The agent of one node. Runs from `start` to `kill`."""

    def __init__(self, node: Node, name: str, folder: Path, lifetime_s: int = 3600) -> None:
        self.node = node
        self.name = name
        self._folder = folder
        self._settings = AuthSettings(port=4250, lifetime_s=lifetime_s)
        self.policies: Mapping[int, EndpointPolicy] = {}
        """Of the node's pods; in the kernel already. Before `start`."""
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: asyncio.Task[None] | None = None
        self._auth: NodeAuthentication | None = None
        self._ready = threading.Event()
        self._failed: BaseException | None = None

    def start(self) -> None:
        """Returns after the first round."""
        self._ready.clear()
        self._thread = threading.Thread(target=self._live, name=f"agent of {self.name}")
        self._thread.start()
        assert self._ready.wait(60)
        assert self._failed is None, self._failed

    def kill(self) -> None:
        """Nothing is finished or put in order; does nothing when it does not run."""
        if self._loop is not None and self._work is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._work.cancel)
            self._thread.join(60)
        self._loop = self._work = self._thread = None

    def status(self) -> dict[str, Any]:
        """What the agent says about itself."""
        assert self._auth is not None
        return self._auth.status()

    def _live(self) -> None:
        try:
            inside(self.node.netns, lambda: asyncio.run(self._run()))
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()

    async def _run(self) -> None:
        self._loop, self._work = asyncio.get_running_loop(), asyncio.current_task()
        with ExitStack() as stack:
            store = SqliteStore(self._folder / "store")
            stack.callback(store.close)
            datapath = stack.enter_context(Datapath(self.node.netns, bpffs=self.node.datapath.pin_dir.parents[1]))
            datapath.look()
            lock = Lock(self._folder / "store")
            stack.callback(lock.release)
            resource = store.get(Key("Node", "", self.name))
            assert isinstance(resource, NodeResource)
            auth = NodeAuthentication(self._folder / self.name, resource, store, datapath, self._settings)
            # The kernel closes what a process has open when it ends.
            stack.callback(auth._listener.close)
            auth.start()
            self._auth = auth
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(lead(store, lock, "default"))
                tasks.create_task(self._rounds(store, datapath, auth))

    async def _rounds(self, store: SqliteStore, datapath: Datapath, auth: NodeAuthentication) -> None:
        async for _ in store.watch():
            datapath.sync_ipcache(auth.mark(datapath.ipcache()))
            ends = {pod.endpoint.endpoint_id: pod.endpoint for pod in self.node.pods}
            auth.update(Cluster(store.find()), True, ends, self.policies)
            self._ready.set()


def has_record(node: Node, local: int, remote: int) -> bool:
    """Whether the kernel of a node lets a pair pass, on whatever node the other one is."""
    return any(pair[:2] == (local, remote) for pair in node.datapath.auth().records())


def expire_now(node: Node) -> list[AuthPair]:
    """End all records of a node; returns whose they were."""
    table = node.datapath.auth()
    found = list(table.records())
    for pair in found:
        table.allow(pair, 1)
    return found
