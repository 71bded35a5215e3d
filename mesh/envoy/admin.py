"""Questions to a running Envoy, over its admin socket.

In:        the socket's path.
Out:       versions of resources that it has taken, listeners that listen, who it is.
Elsewhere: node.py asks; process.py starts it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

TIMEOUT_S: Final = 2.0
MAX_ANSWER: Final = 64 * 2**20


class AdminError(OSError):
    """Envoy does not answer, or not with what was asked for."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("envoy", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


class Admin:
    """The admin interface. Questions wait in threads, so that the loop does not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def taken(self) -> dict[str, str]:
        """Versions of resources that Envoy runs with, by the name of its statistic. Raises: AdminError."""
        stats = await self._json("/stats?type=TextReadouts&format=json")
        found = {}
        for one in stats.get("stats", ()):
            name = str(one.get("name", ""))
            if name.endswith(".version_text"):
                found[name.removesuffix(".version_text")] = str(one["value"])
        return found

    async def counters(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose names match a regular expression. Raises: AdminError."""
        stats = await self._json(f"/stats?format=json&filter={pattern}")
        return {one["name"]: one["value"] for one in stats.get("stats", ()) if isinstance(one.get("value"), int)}

    async def warming(self) -> int:
        """How many clusters cannot be used yet. Raises: AdminError."""
        found = await self.counters("^cluster_manager.warming_clusters$")
        return sum(found.values())

    async def listening(self) -> frozenset[str]:
        """Names of listeners. Raises: AdminError."""
        found = await self._json("/listeners?format=json")
        return frozenset(one["name"] for one in found.get("listener_statuses", ()))

    async def server(self) -> dict[str, Any]:
        """Version, state and command line. Raises: AdminError."""
        return await self._json("/server_info")

    async def _json(self, path: str) -> dict[str, Any]:
        body = await asyncio.to_thread(self._ask, path)
        try:
            found = json.loads(body)
        except ValueError as error:
            raise AdminError(f"Envoy's answer to {path} is no JSON") from error
        if not isinstance(found, dict):
            raise AdminError(f"Envoy's answer to {path} is no object")
        return found

    def _ask(self, path: str, method: str = "GET") -> bytes:
        connection = _Connection(self._path)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise AdminError(f"Envoy's admin socket {self._path}: {error}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise AdminError(f"Envoy answers {answer.status} to {path}")
        return body
