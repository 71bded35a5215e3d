"""What clients ask the relay: Hubble's Observer service, and the same flows as columns.

In:        requests.
Out:       streams (collect.py), and sums over what the nodes say of themselves.
Elsewhere: main.py serves these; the health of the relay is decided there.

Source: api.md, sections 3.2 to 3.5 and 6.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import structlog

from proto.flowscope import columns_pb2
from proto.observer import observer_pb2
from proto.relay import relay_pb2
from relay.collect import Collector, forwarded
from relay.columns import ColumnsForm
from relay.config import RelayConfig
from relay.forms import Form, MessagesForm
from relay.peers import PeerConnection, Peers
from rpc.call import Call, Service
from rpc.framing import Message
from rpc.status import RpcError, Status

log = structlog.get_logger(component="relay")

VERSION: Final = "1.19.4"
"""The level of Hubble's API that is served: clients compare their own with it."""

UNAVAILABLE_NAMED: Final = 10
"""Names of unavailable nodes in a status, at most."""

R = TypeVar("R")


class RelayObserver(Service):
    """observer.Observer over all nodes."""

    descriptor = observer_pb2.DESCRIPTOR.services_by_name["Observer"]

    def __init__(self, config: RelayConfig, peers: Peers) -> None:
        self._config = config
        self._peers = peers

    async def GetFlows(self, request: observer_pb2.GetFlowsRequest, call: Call) -> None:  # noqa: N802 (protocol)
        """Flows of all nodes, by time, with what happens to nodes in between."""
        await collect(request, call, self._peers, self._config, MessagesForm())

    async def GetAgentEvents(self, request: object, call: Call) -> None:  # noqa: N802
        """Only nodes have these."""
        raise RpcError(Status.UNIMPLEMENTED, "GetAgentEvents not yet implemented")

    async def GetDebugEvents(self, request: object, call: Call) -> None:  # noqa: N802
        """Only nodes have these."""
        raise RpcError(Status.UNIMPLEMENTED, "GetDebugEvents not yet implemented")

    async def GetNodes(self, request: object, call: Call) -> observer_pb2.GetNodesResponse:  # noqa: N802
        """Every known node and how it is."""
        nodes = await asyncio.gather(*(self._node(one, call) for one in self._peers))
        return observer_pb2.GetNodesResponse(nodes=nodes)

    async def GetNamespaces(self, request: object, call: Call) -> observer_pb2.GetNamespacesResponse:  # noqa: N802
        """The namespaces of all nodes; nodes that do not answer are left out."""
        replies = await asyncio.gather(*(self._namespaces(one, call) for one in self._peers.usable()))
        found = {(one.cluster, one.namespace) for reply in replies for one in reply}
        return observer_pb2.GetNamespacesResponse(
            namespaces=[observer_pb2.Namespace(cluster=cluster, namespace=name) for cluster, name in sorted(found)]
        )

    async def ServerStatus(self, request: object, call: Call) -> observer_pb2.ServerStatusResponse:  # noqa: N802
        """Sums over the nodes that answer, and how many do not."""
        usable = self._peers.usable()
        missing = [one.peer.name for one in self._peers if not one.usable]
        known = len(usable) + len(missing)
        total = observer_pb2.ServerStatusResponse(version=f"hubble-relay v{VERSION}")
        replies = await asyncio.gather(*(self._status(one, call) for one in usable))
        for connection, reply in zip(usable, replies, strict=True):
            if reply is None:
                missing.append(connection.peer.name)
                continue
            total.num_flows += reply.num_flows
            total.max_flows += reply.max_flows
            total.seen_flows += reply.seen_flows
            total.flows_rate += reply.flows_rate
            total.uptime_ns = max(total.uptime_ns, reply.uptime_ns)
        total.num_connected_nodes.value = known - len(missing)
        total.num_unavailable_nodes.value = len(missing)
        total.unavailable_nodes.extend(missing[:UNAVAILABLE_NAMED])
        return total

    async def _node(self, connection: PeerConnection, call: Call) -> observer_pb2.Node:
        peer = connection.peer
        node = observer_pb2.Node(
            name=peer.name,
            address=peer.address,
            tls=observer_pb2.TLS(enabled=peer.tls, server_name=peer.server_name),
            state=relay_pb2.NODE_UNAVAILABLE,
        )
        if not connection.usable:
            return node
        reply = await self._status(connection, call)
        if reply is None:
            node.state = relay_pb2.NODE_ERROR
            return node
        node.state = relay_pb2.NODE_CONNECTED
        node.version, node.uptime_ns = reply.version, reply.uptime_ns
        node.num_flows, node.max_flows, node.seen_flows = reply.num_flows, reply.max_flows, reply.seen_flows
        return node

    async def _status(self, connection: PeerConnection, call: Call) -> observer_pb2.ServerStatusResponse | None:
        request = observer_pb2.ServerStatusRequest()
        return await self._ask(connection, call, "ServerStatus", request, observer_pb2.ServerStatusResponse)

    async def _namespaces(self, connection: PeerConnection, call: Call) -> list[observer_pb2.Namespace]:
        request = observer_pb2.GetNamespacesRequest()
        reply = await self._ask(connection, call, "GetNamespaces", request, observer_pb2.GetNamespacesResponse)
        return [] if reply is None else list(reply.namespaces)

    async def _ask(
        self, connection: PeerConnection, call: Call, method: str, request: Message, reply: type[R]
    ) -> R | None:
        """One node's answer; None when it has none."""
        if connection.channel is None:
            return None
        try:
            return await connection.channel.unary(
                f"/observer.Observer/{method}",
                request,
                reply,
                timeout_s=self._config.call_timeout_s,
                metadata=forwarded(call.metadata),
            )
        except RpcError as error:
            log.warning("node did not answer", node=connection.peer.name, method=method, reason=str(error))
            return None


class RelayColumns(Service):
    """flowscope.Columns over all nodes, also those that only speak Hubble's protocol."""

    descriptor = columns_pb2.DESCRIPTOR.services_by_name["Columns"]

    def __init__(self, config: RelayConfig, peers: Peers) -> None:
        self._config = config
        self._peers = peers

    async def GetFlows(self, request: observer_pb2.GetFlowsRequest, call: Call) -> None:  # noqa: N802
        """The same flows as Observer/GetFlows."""
        await collect(request, call, self._peers, self._config, ColumnsForm())


async def collect(
    request: observer_pb2.GetFlowsRequest, call: Call, peers: Peers, config: RelayConfig, form: Form
) -> None:
    """One stream over all nodes. Raises: RpcError INVALID_ARGUMENT for a request that every node would refuse."""
    if request.first and request.follow:
        raise RpcError(Status.INVALID_ARGUMENT, "first cannot be specified with follow")
    await Collector(request, call, peers, config, form).run()
