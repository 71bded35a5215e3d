"""What is looked at besides requests: counters of drops, logs, connections that last.

In:        a ClusterView; what there was when the run began.
Out:       checks: what was looked at, and what is wrong with it.
Elsewhere: suite/tests.py says when; prober.py is the connection that lasts; bpf/datapath.py reads counters.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

from bpf.datapath import Datapath
from connectivity import prober
from connectivity.cluster import ClusterView, Party
from connectivity.verdicts import AUTH_REQUIRED, DEFAULT_DENY, POLICY_DENY
from proto.flow.flow_pb2 import DropReason
from service.failure import Failure

FIRST_DROP: Final = 130
WANTED_DROPS: Final = frozenset({DEFAULT_DENY, POLICY_DENY, AUTH_REQUIRED})
"""What policies of the tests are there to do."""
ERRORS: Final = ("level=error", "level=critical", "Traceback (most recent", "[error]", "[critical]", "panic:")
SHOWN: Final = 3
"""Lines of a log, most."""
ANSWERS: Final = 5
"""Of a connection, at least, while its agents are restarted."""
POLL_S: Final = 0.1

Checked = tuple[str, list[str]]
"""What was looked at, and problems."""


class Witness:
    """Knows how things were when the run began."""

    def __init__(self, cluster: ClusterView, timeout_s: float) -> None:
        self._cluster = cluster
        self._timeout_s = timeout_s
        self._drops = {node.name: self._count(node.name) for node in cluster.nodes()}
        self._sizes = {file: file.stat().st_size for file in self._logs()}

    async def no_unexpected_packet_drops(self) -> AsyncIterator[Checked]:
        """Nodes have dropped nothing that no policy wanted dropped."""
        for node, before in self._drops.items():
            more = self._count(node) - before
            yield node, [f"{_reason(reason)} {count} times" for reason, count in sorted(more.items())]

    async def no_errors_in_logs(self) -> AsyncIterator[Checked]:
        """Agents, observers, proxies and Envoys have complained of nothing."""
        for file in self._logs():
            with file.open(errors="replace") as log:
                log.seek(self._sizes.get(file, 0))
                bad = [line.strip() for line in log if any(word in line for word in ERRORS)]
            more = [f"and {len(bad) - SHOWN} more lines"] if len(bad) > SHOWN else []
            yield str(file.relative_to(self._cluster.run_dir.path)), bad[:SHOWN] + more

    async def no_interrupted_connections(self) -> AsyncIterator[Checked]:
        """Connections stay while the agents on both sides are restarted."""
        client = self._cluster.pods("client2")[0]
        echoes = self._cluster.echoes()
        held = [await _hold(client, echo) for echo in echoes]
        try:
            await self._restart_agents({client.node, *(echo.node for echo in echoes)})
        finally:
            said = [await _end(process) for process in held]
        for echo, seen in zip(echoes, said, strict=True):
            problems = [str(seen["error"])] if seen["error"] else []
            if not problems and seen["answers"] < ANSWERS:
                problems = [f"only {seen['answers']} answers"]
            yield f"{client.name} -> {echo.name}", problems

    async def _restart_agents(self, nodes: set[str]) -> None:
        """Raises: Failure when one does not come back."""
        old = {name: self._agent(name) for name in nodes}
        for agent in old.values():
            os.kill(int(agent["pid"]), signal.SIGTERM)
        deadline = time.monotonic() + self._timeout_s
        while any(self._agent(name)["pid"] == agent["pid"] for name, agent in old.items()):
            if time.monotonic() > deadline:
                raise Failure(f"agents of {', '.join(sorted(nodes))} do not come back; see `flowscope lab status`")
            await asyncio.sleep(POLL_S)

    def _agent(self, node: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self._cluster.run_dir.node(node) / "agent.json").read_text())
        return told

    def _count(self, node: str) -> Counter[int]:
        with Datapath(node, bpffs=self._cluster.run_dir.bpffs) as datapath:
            datapath.look()
            found: Counter[int] = Counter()
            for one in datapath.packet_counters():
                if one.reason >= FIRST_DROP and one.reason not in WANTED_DROPS:
                    found[one.reason] += one.packets
            return found

    def _logs(self) -> Iterator[Path]:
        run_dir = self._cluster.run_dir
        yield from sorted(run_dir.logs.glob("*.log"))
        for node in self._cluster.nodes():
            yield from sorted(run_dir.node(node.name).rglob("*.log"))


def _reason(number: int) -> str:
    return DropReason.Name(number) if number in DropReason.values() else f"drop reason {number}"


async def _hold(client: Party, echo: Party) -> asyncio.subprocess.Process:
    """A connection that asks again and again, and has been answered, unless it has ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", prober.__file__, "hold", echo.ipv4, "8080",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=client.place.enter,
    )  # fmt: skip
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def _end(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """What a connection has seen."""
    await asyncio.sleep(ANSWERS * prober.PAUSE_S)
    if process.returncode is None:
        process.terminate()
    said, _ = await process.communicate()
    seen: dict[str, Any] = json.loads(said) if said else {"answers": 0, "error": "the client ended"}
    return seen
