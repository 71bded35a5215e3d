"""What observation costs on this node: flowscope.Cost of an observer.

In:        this process; the pinned programs of the datapath, where there is one.
Out:       CPU, memory, and how long the programs ran in the kernel.
Elsewhere: relay/cost.py collects the answers of all nodes; bpf/handles.py asks the kernel.

Measuring run times costs every run of every BPF program of the machine two readings of the clock. So it is on only
while somebody keeps asking: each question extends it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import structlog

from bpf.handles import Program, measure_run_time
from bpf.libbpf import BpfError
from proto.flowscope import cost_pb2
from rpc.call import Call, Service
from service.usage import cpu_ns, resident_bytes

log = structlog.get_logger(component="observer")

MEASURED_FOR_S: Final = 10.0
"""After the last question."""


class Programs(Protocol):
    """The programs of a node."""

    def cost(self) -> list[cost_pb2.ProgramCost]:
        """Raises: BpfError."""


class PinnedPrograms:
    """Programs that the agent pinned below a folder."""

    def __init__(self, pin_dir: Path) -> None:
        self._pin_dir = pin_dir
        self._measuring = -1
        self._end: asyncio.TimerHandle | None = None

    def cost(self) -> list[cost_pb2.ProgramCost]:
        self._measure()
        return [cost for path in sorted(self._pin_dir.glob("programs-*/*")) if (cost := _cost(path)).runs]

    def close(self) -> None:
        """Measure no more."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._measuring >= 0:
            os.close(self._measuring)
            self._measuring = -1

    def _measure(self) -> None:
        if self._measuring < 0:
            self._measuring = measure_run_time()
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(MEASURED_FOR_S, self.close)


def _cost(path: Path) -> cost_pb2.ProgramCost:
    program = Program.pinned(path)
    try:
        runs, run_ns = program.run_time()
    finally:
        program.close()
    return cost_pb2.ProgramCost(name=path.name, runs=runs, run_ns=run_ns)


class CostService(Service):
    """flowscope.Cost of one node."""

    descriptor = cost_pb2.DESCRIPTOR.services_by_name["Cost"]

    def __init__(self, node_name: Callable[[], str], started_ns: int, programs: Programs | None) -> None:
        """`started_ns` is monotonic; `programs` None: events do not come from a kernel."""
        self._node_name = node_name
        self._started_ns = started_ns
        self._programs = programs

    async def GetCost(self, request: cost_pb2.GetCostRequest, call: Call) -> cost_pb2.GetCostResponse:  # noqa: N802
        """This process, and the programs whose events it reads."""
        cost = cost_pb2.ProcessCost(
            node_name=self._node_name(),
            role="observer",
            cpu_ns=cpu_ns(),
            uptime_ns=time.monotonic_ns() - self._started_ns,
            memory_bytes=resident_bytes(),
        )
        if self._programs is None:
            cost.kernel_problem = "this observer reads no kernel's events"
        else:
            try:
                cost.programs.extend(self._programs.cost())
            except BpfError as error:
                cost.kernel_problem = str(error)
                log.debug("no run times", problem=str(error))
        return cost_pb2.GetCostResponse(processes=[cost])
