"""What observation costs now: this dashboard, the relay, the observers, their programs in the kernel.

In:        flowscope.Cost/GetCost of the relay (or of one observer), asked while a page looks at it.
Out:       JSON-ready figures per process, and one plain sentence.
Elsewhere: observer/cost.py and relay/cost.py measure; health.py shows it beside the rest.

Figures are differences between the last two answers: what it costs now, not on average since the start.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from proto.flowscope import cost_pb2
from rpc.client import Channel
from rpc.status import RpcError, Status
from service.usage import cpu_ns, resident_bytes

log = structlog.get_logger(component="ui")

PATH: Final = "/flowscope.Cost/GetCost"
EVERY_S: Final = 2.0
LOOKED_AT_S: Final = 8.0
"""After the last look, nobody is asked any more: measuring costs something itself."""
ANSWER_S: Final = 5.0
NOT_TOLD: Final = "the relay does not tell what it costs; only Flowscope's own relays and observers do"
MIB: Final = 2**20


@dataclass(slots=True)
class Costs:
    """The newest two answers; lives in the hub."""

    problem: str = ""
    """Why there are no figures of others."""
    _older: dict[tuple[str, str], cost_pb2.ProcessCost] = field(default_factory=dict)
    _newer: dict[tuple[str, str], cost_pb2.ProcessCost] = field(default_factory=dict)
    _own: tuple[cost_pb2.ProcessCost, cost_pb2.ProcessCost] | None = None
    _looked: float = -LOOKED_AT_S
    _look: asyncio.Event = field(default_factory=asyncio.Event)
    _started_ns: int = field(default_factory=time.monotonic_ns)

    def take(self, answer: cost_pb2.GetCostResponse) -> None:
        """A new answer."""
        self.problem = ""
        self._older, self._newer = self._newer, {(one.role, one.node_name): one for one in answer.processes}
        before = self._own[1] if self._own else cost_pb2.ProcessCost(role="dashboard")
        self._own = (before, self._own_cost())

    def look(self) -> dict[str, Any]:
        """What is known; somebody wants to see it, so it is asked for."""
        self._looked = time.monotonic()
        self._look.set()
        older, newer = dict(self._older), dict(self._newer)
        before, now = self._own or (cost_pb2.ProcessCost(role="dashboard"), self._own_cost())
        older[now.role, ""], newer[now.role, ""] = before, now
        processes = [_figures(older.get(key), cost) for key, cost in newer.items()]
        return {"processes": processes, "sentences": sentences(processes), "problem": self.problem}

    async def wanted(self) -> None:
        """Until somebody looks, or has looked a moment ago."""
        if time.monotonic() - self._looked > LOOKED_AT_S:
            self._older, self._newer, self._own = {}, {}, None
            self._look.clear()
            await self._look.wait()

    def _own_cost(self) -> cost_pb2.ProcessCost:
        return cost_pb2.ProcessCost(
            role="dashboard",
            cpu_ns=cpu_ns(),
            uptime_ns=time.monotonic_ns() - self._started_ns,
            memory_bytes=resident_bytes(),
        )


async def follow_costs(channel: Channel, costs: Costs) -> None:
    """Ask as long as somebody looks, until cancelled."""
    while True:
        await costs.wanted()
        try:
            request = cost_pb2.GetCostRequest()
            costs.take(await channel.unary(PATH, request, cost_pb2.GetCostResponse, timeout_s=ANSWER_S))
        except RpcError as error:
            costs.problem = NOT_TOLD if error.code is Status.UNIMPLEMENTED else f"cannot ask the relay: {error.message}"
            log.debug("no costs", problem=str(error))
        await asyncio.sleep(EVERY_S)


def _figures(before: cost_pb2.ProcessCost | None, now: cost_pb2.ProcessCost) -> dict[str, Any]:
    """Differences where the process is the same one; else averages since its start."""
    if before is None or before.uptime_ns >= now.uptime_ns:
        before = cost_pb2.ProcessCost()
    took_ns = max(now.uptime_ns - before.uptime_ns, 1)
    past = {program.name: program for program in before.programs}
    programs = []
    for program in now.programs:
        old = past.get(program.name, cost_pb2.ProgramCost())
        if old.runs >= program.runs:  # idle, or counted anew: the mean of all runs so far still says something
            old = cost_pb2.ProgramCost()
        rate = 0.0 if old.runs == 0 else (program.runs - old.runs) * 1e9 / took_ns
        mean_ns = (program.run_ns - old.run_ns) / (program.runs - old.runs)
        programs.append({"name": program.name, "ns": round(mean_ns), "per_s": round(rate, 1)})
    return {
        "node": now.node_name,
        "role": now.role,
        "cpu_percent": round(100 * (now.cpu_ns - before.cpu_ns) / took_ns, 2),
        "memory_mib": round(now.memory_bytes / MIB, 1),
        "programs": sorted(programs, key=lambda program: (-program["per_s"], program["name"])),
        "kernel_problem": now.kernel_problem,
        "problem": now.problem,
    }


def sentences(processes: list[dict[str, Any]]) -> list[str]:
    """For people who want to know whether to worry."""
    known = [one for one in processes if not one["problem"]]
    parts = []
    for role, many in (("observer", "observers"), ("relay", "relays"), ("dashboard", "dashboards")):
        mine = [one for one in known if one["role"] == role]
        if mine:
            words = f"the {role}" if len(mine) == 1 else f"{len(mine)} {many}"
            parts.append(f"{words} {_percent(mine)} and {_memory(mine)}")
    total = f"Observing takes {_percent(known)} of one CPU and {_memory(known)} now"
    return [f"{total}: {', '.join(parts)}.", _kernel_sentence(known)]


def _percent(processes: list[dict[str, Any]]) -> str:
    return f"{sum(one['cpu_percent'] for one in processes):.1f}%"


def _memory(processes: list[dict[str, Any]]) -> str:
    return f"{sum(one['memory_mib'] for one in processes):,.0f} MiB"


def _kernel_sentence(processes: list[dict[str, Any]]) -> str:
    observers = [one for one in processes if one["role"] == "observer"]
    programs = [program for one in observers for program in one["programs"]]
    busy = [program for program in programs if program["per_s"]]
    if not programs:
        reasons = {one["kernel_problem"] for one in observers if one["kernel_problem"]}
        why = "; ".join(sorted(reasons)) or "no packet has passed a program since measuring began"
        return f"In the kernel: {why}." if observers else "In the kernel: not known."
    per_s = sum(program["per_s"] for program in busy)
    if not per_s:
        mean = sum(program["ns"] for program in programs) / len(programs)
        return f"In the kernel nothing runs now; a packet took about {mean:,.0f} ns at each hook that it passed."
    mean = sum(program["ns"] * program["per_s"] for program in busy) / per_s
    share = f"{per_s * mean / 1e7:.2f}%"
    return (
        f"In the kernel a packet takes {mean:,.0f} ns at each hook that it passes (forwarding, policy and reporting "
        f"together), {per_s:,.0f} times a second: {share} of one CPU."
    )
