"""What observation costs, over all nodes: flowscope.Cost of a relay.

In:        the nodes' answers.
Out:       this process and theirs; a node that cannot tell is named with its reason.
Elsewhere: observer/cost.py measures.
"""

from __future__ import annotations

import asyncio
import time

from proto.flowscope import cost_pb2
from relay.collect import forwarded
from relay.config import RelayConfig
from relay.peers import PeerConnection, Peers
from rpc.call import Call, Service
from rpc.status import RpcError, Status
from service.usage import cpu_ns, resident_bytes

PATH = "/flowscope.Cost/GetCost"


class RelayCost(Service):
    """flowscope.Cost over all nodes."""

    descriptor = cost_pb2.DESCRIPTOR.services_by_name["Cost"]

    def __init__(self, config: RelayConfig, peers: Peers) -> None:
        self._config = config
        self._peers = peers
        self._started_ns = time.monotonic_ns()

    async def GetCost(self, request: cost_pb2.GetCostRequest, call: Call) -> cost_pb2.GetCostResponse:  # noqa: N802
        """The relay first, then the nodes as they are listed."""
        own = cost_pb2.ProcessCost(
            node_name=self._config.node_name,
            role="relay",
            cpu_ns=cpu_ns(),
            uptime_ns=time.monotonic_ns() - self._started_ns,
            memory_bytes=resident_bytes(),
        )
        answers = await asyncio.gather(*(self._ask(one, request, call) for one in self._peers))
        return cost_pb2.GetCostResponse(processes=[own, *(cost for answer in answers for cost in answer)])

    async def _ask(
        self, connection: PeerConnection, request: cost_pb2.GetCostRequest, call: Call
    ) -> list[cost_pb2.ProcessCost]:
        problem = connection.problem or "not connected"
        if connection.usable and connection.channel is not None:
            try:
                reply = await connection.channel.unary(
                    PATH,
                    request,
                    cost_pb2.GetCostResponse,
                    timeout_s=self._config.call_timeout_s,
                    metadata=forwarded(call.metadata),
                )
                return list(reply.processes)
            except RpcError as error:
                problem = str(error) if error.code is not Status.UNIMPLEMENTED else "does not tell what it costs"
        return [cost_pb2.ProcessCost(node_name=connection.peer.name, role="observer", problem=problem)]
