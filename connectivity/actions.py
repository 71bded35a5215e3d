"""One request of one client.

In:        a Party, a Target.
Out:       an Attempt: exit code, what was said, how to find its flows.
Elsewhere: verdicts.py judges it; lab/ knows the way into a pod.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from typing import Final

from connectivity.cluster import Party, Target
from connectivity.verdicts import Attempt

CONNECT_S: Final = 2
"""Seconds without an answer that count as none."""
WHOLE_S: Final = 8
_FIRST_PORT: Final = 20_000
_PORTS: Final = 10_000
"""Below the range from which kernels choose, so that no other connection has one of these."""
_ports = itertools.count(random.randrange(_PORTS))


async def attempt(client: Party, target: Target) -> Attempt:
    """Ask `target` once."""
    icmp = target.scheme == "icmp"
    port = 0 if icmp else _FIRST_PORT + next(_ports) % _PORTS
    command = _ping(target) if icmp else _curl(target, port)
    started_ns = time.time_ns()
    code, said = await run(client, command)
    return Attempt(
        exit_code=code,
        output=said,
        protocol="icmp" if icmp else "tcp",
        client=frozenset(client.addresses),
        peers=frozenset(target.peers),
        name="" if icmp or _is_address(target.host) else target.host,
        port=port,
        started_ns=started_ns,
        port_kept=target.kind not in ("nodeport", "ingress", "l7-service"),
    )


async def run(client: Party, command: Sequence[str]) -> tuple[int, str]:
    """Exit code and what was said (the last line) of a command at its party's place."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=client.place.enter,
    )
    said, _ = await process.communicate()
    lines = said.decode(errors="replace").strip().splitlines()
    return process.returncode or 0, lines[-1].strip() if lines else ""


def _curl(target: Target, port: int) -> list[str]:
    return [
        "curl", "--silent", "--show-error", "--fail", "--insecure", "--output", "/dev/null",
        "--connect-timeout", str(CONNECT_S), "--max-time", str(WHOLE_S), "--local-port", str(port),
        *target.options, target.url,
    ]  # fmt: skip


def _ping(target: Target) -> list[str]:
    return ["ping", "-c", "1", "-W", str(CONNECT_S), "-q", target.host]


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()
