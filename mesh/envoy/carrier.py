"""What Envoy tells about requests, carried to the observer as it is, each record once or counted as lost.

In:        a folder in which every worker of an Envoy has a ring.
Out:       blocks of whole records, to mesh/records.py; a count of what could not be carried.
Elsewhere: module/ writes the rings and ring.py reads one; progress.py remembers what the observer was not told.

Rings never make Envoy wait, whoever reads them or does not. They outlive agents and Envoys: the next agent goes on
where the last one has stopped, and what an Envoy that died has written is read to its end. While an Envoy takes over
from another one, both have rings.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog

from mesh.envoy.progress import ProgressFile
from mesh.envoy.ring import BrokenRing, Ring
from mesh.inotify import MODIFIED, MOVED_HERE, Inotify
from mesh.records import DATAGRAM, Records
from service.failure import Failure

READ: Final = DATAGRAM
"""What is read together travels together: it is sent, or it is not."""
GATHER_S: Final = 0.02
"""Records wait so long for others: an agent and an observer wake up, and what they do costs the same for any number."""
TICK_S: Final = 0.5

log = structlog.get_logger(component="envoy")


class Carrier:
    """Belongs to one loop."""

    def __init__(self, folder: Path, records: Records) -> None:
        self.folder = folder
        self._records = records
        self._progress = ProgressFile(folder / "progress")
        self._rings: dict[str, Ring] = {}
        self._broken: set[str] = set()
        self._inotify: Inotify | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Go on where the last agent stopped. Raises: Failure."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._records.lose(self._progress.open())
            self._inotify = Inotify(self._notified)
            self._inotify.watch(self.folder, MODIFIED | MOVED_HERE)
            self._look()
        except OSError as error:
            raise Failure(
                f"cannot keep records in {self.folder}: {error.strerror}; check the folder's owner"
            ) from error
        self._task = asyncio.get_running_loop().create_task(self._run(), name="envoy-records")
        self._carry()

    def close(self) -> None:
        """Read no more; what Envoy writes from now on waits for whoever opens it next."""
        if self._inotify is None:
            return
        if self._task is not None:
            self._task.cancel()
        self._pass_on()
        if self._timer is not None:
            self._timer.cancel()
        self._inotify.close()
        self._inotify = None
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        self._progress.close()

    # ---- reading ----

    def _look(self) -> None:
        """Find rings that are new."""
        for path in sorted(self.folder.glob("*.ring")):
            if path.name in self._rings or path.name in self._broken:
                continue
            try:
                self._rings[path.name] = Ring(path)
            except BrokenRing as error:
                self._broken.add(path.name)
                log.error("records of requests cannot be read", error=str(error))
            except OSError as error:
                log.error("records of requests cannot be read, yet", ring=path.name, error=error.strerror)

    def _notified(self) -> None:
        self._look()
        self._wake()

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_S, self._carry)

    def _carry(self) -> None:
        """Pass on what is there, as long as the observer has room; then sleep until there is more."""
        self._timer = None
        if self._pass_on() or self._records.is_behind:
            self._wake()
            return
        for ring in self._rings.values():
            ring.sleep()
        # What came before that rings no bell. What comes in the same nanoseconds waits for what follows, or for a tick.
        if self._pass_on():
            self._wake()

    def _pass_on(self) -> bool:
        """Whether there was something."""
        found = False
        while not self._records.is_behind:
            data = b""
            for ring in self._rings.values():
                # What is not kept is read again by the next agent, if this one dies before it is sent.
                ring.keep()
                data += ring.take(READ - len(data))
            if not data:
                break
            found = True
            self._records.send(data[:-1])
        if found:
            self._save()
        return found

    def _save(self) -> None:
        self._progress.write(self._records.untold)

    # ---- now and then ----

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self._look()
                self._count()
                self._records.tell()
                self._save()
            except OSError as error:
                log.error("records of requests cannot be kept", error=str(error))
            self._wake()

    def _count(self) -> None:
        """Count what was lost; remove rings that are read to their end and will have no more."""
        for name, ring in list(self._rings.items()):
            is_last = ring.is_abandoned()
            self._pass_on()
            if lost := ring.new_losses():
                log.warning("no room for records of requests", count=lost)
                self._records.lose(lost)
            if is_last and not self._records.is_behind:
                ring.remove()
                del self._rings[name]
