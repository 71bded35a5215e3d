"""Ports of the node's proxies: who listens where.

In:        a kind of proxy (`http`, `tls`, `dns`, the full name of a listener) and a direction.
Out:       a port, the same one whenever it is asked for, by a later agent too.
Elsewhere: compiling.py writes the ports into policies; the proxies take theirs from here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from mesh.files import write_atomically
from service.failure import Failure

FIRST: Final = 10000
LAST: Final = 20000


class ProxyPorts:
    """Numbers by parser and direction (egress?)."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: where they are kept for the next agent; None: nowhere."""
        self._path = path
        self._ports = _read(path) if path is not None else {}

    def port(self, parser: str, egress: bool) -> int:
        """The port of a proxy. Raises: Failure when all are taken, or when a new one cannot be kept."""
        found = self._ports.get((parser, egress))
        if found is None:
            taken = set(self._ports.values())
            found = next((port for port in range(FIRST, LAST + 1) if port not in taken), 0)
            if not found:
                raise Failure(f"all ports from {FIRST} to {LAST} are taken by proxies; use fewer Envoy listeners")
            self._ports[parser, egress] = found
            if self._path is not None:
                write_atomically(self._path, {_key(*one): port for one, port in self._ports.items()})
        return found


def _key(parser: str, egress: bool) -> str:
    return f"{'egress' if egress else 'ingress'} {parser}"


def _read(path: Path) -> dict[tuple[str, bool], int]:
    """What an earlier agent has kept; nothing when it cannot be read, as then nothing else is left of it either."""
    try:
        known = json.loads(path.read_text())
        found = {(key.partition(" ")[2], key.startswith("egress ")): int(port) for key, port in known.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    return {one: port for one, port in found.items() if FIRST <= port <= LAST}
