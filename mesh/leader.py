"""One process decides for all: it runs the controller after each change of the resource store.

In:        the store's folder, the store.
Out:       what follows from the resources, written into the store.
Elsewhere: controller.py says what follows; agents call `lead`, the lab's supervisor holds the lock while it runs.

Whoever holds the lock on `controller.lock` decides. The kernel gives it back when the process ends, however it ends;
then another one takes over. A store that is shared by machines has its own way to choose (etcd's and Kubernetes'
leases), and replaces Lock.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import Final

import structlog

from mesh.auth.issuing import Issuer
from mesh.controller import reconcile
from mesh.resources.base import timestamp
from mesh.store import Store
from service.failure import Failure

RETRY_S: Final = 1.0
"""How often others look whether the lock is free."""
AUTHORITY: Final = "authority.pem"
"""In the store's folder."""

log = structlog.get_logger(component="controller")


class Lock:
    """The right to decide. Not for several threads."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the store's."""
        self._path = folder / "controller.lock"
        self.issuer = Issuer(folder / AUTHORITY)
        """Whoever decides also certifies."""
        self._held: int | None = None

    def take(self) -> bool:
        """Try once; True when it is ours now. Raises: Failure when the file cannot be opened."""
        if self._held is not None:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Failure(f"cannot open {self._path}: {error.strerror}; check the folder's owner") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._held = descriptor
        return True

    def release(self) -> None:
        """Let another one decide."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def decide(store: Store, lock: Lock, cluster_name: str = "default") -> bool:
    """Write what follows from the resources now, holding the lock; says whether anything was written.

    Raises: Failure when something has run out.
    """
    now = timestamp(time.time())
    update = store.update(lambda resources: reconcile(resources, cluster_name, now))
    signed = lock.issuer.serve(store, cluster_name)
    return bool(update) or bool(signed)


async def lead(store: Store, lock: Lock, cluster_name: str) -> None:
    """Wait until it is our turn, then decide after each change."""
    while not lock.take():
        await asyncio.sleep(RETRY_S)
    log.info("this process decides for the cluster now")
    told = ""
    try:
        async for _ in store.watch():
            try:
                decide(store, lock, cluster_name)
                told = ""
            except Failure as failure:
                # Nodes go on with what has been decided; the next change may be the remedy.
                if str(failure) != told:
                    log.error("cannot decide what follows from the resources", reason=str(failure))
                told = str(failure)
    finally:
        lock.release()
