"""A relay and made-up nodes in the test's own process, on unix sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proto.observer import observer_pb2
from proto.relay import relay_pb2
from relay.config import RelayConfig
from relay.main import serve
from rpc.client import Channel
from rpc.server import Server, Service
from tests.support.fake_nodes import FakeObserver, Flows
from tests.support.waiting import eventually_async

RELAY = "relay-1"
FLOWS = "/observer.Observer/GetFlows"


@dataclass
class Node:
    """A node that can be started, killed and started again."""

    observer: FakeObserver
    address: str
    server: Server | None = None
    others: list[Service] = field(default_factory=list)
    """More services on the same socket."""

    async def start(self) -> None:
        self.server = Server([self.observer, *self.others])
        await self.server.listen(self.address)

    async def kill(self) -> None:
        """Gone without a word: connections break, handlers end."""
        assert self.server is not None
        for connection in list(self.server.connections):
            connection.protocol.connection._transport.abort()
        await asyncio.sleep(0)
        await self.server.close(0)
        self.server = None


def make_node(folder: Path, name: str, flows: Flows, *others: Service) -> Node:
    """A node that is not started yet."""
    return Node(FakeObserver(name, flows), f"unix://{folder}/{name}.sock", others=list(others))


@asynccontextmanager
async def relaying(folder: Path, nodes: Sequence[Node], **settings: Any) -> AsyncIterator[Channel]:
    """Start the nodes and a relay in front of them; gives a channel to the relay."""
    for node in nodes:
        if node.server is None:
            await node.start()
    settings.setdefault("peers", tuple(f"{node.observer.name}={node.address}" for node in nodes))
    async with running(folder, **settings) as channel:
        await eventually_async(lambda: all(node.server is None or node.server.connections for node in nodes))
        yield channel
    for node in nodes:
        if node.server is not None:
            await node.server.close(0)


@asynccontextmanager
async def running(folder: Path, **settings: Any) -> AsyncIterator[Channel]:
    """A relay alone."""
    defaults: dict[str, Any] = {
        "listen": (f"unix://{folder}/relay.sock",),
        "health_listen": "",
        "node_name": RELAY,
        "disable_client_tls": True,
        "disable_server_tls": True,
        "peer_check_s": 0.05,
        "dial_backoff_s": 0.05,
        "retry_timeout_s": 0.05,
        "sort_buffer_drain_timeout_s": 0.2,
        "error_window_s": 0.1,
        "drain_s": 0.5,
    }
    config = RelayConfig(**{**defaults, **settings})
    stop = asyncio.Event()
    task = asyncio.create_task(serve(config, stop, asyncio.Event()))
    try:
        address = config.listen[0]
        await eventually_async(lambda: task.done() or Path(address.removeprefix("unix://")).exists())
        if task.done():
            task.result()
        async with Channel(address) as channel:
            yield channel
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def everything(channel: Channel, request: observer_pb2.GetFlowsRequest) -> list[observer_pb2.GetFlowsResponse]:
    """All responses of a call that ends."""
    async with asyncio.timeout(10), channel.stream(FLOWS, request) as stream:
        return [response async for response in stream.messages(observer_pb2.GetFlowsResponse)]


def texts(responses: Sequence[observer_pb2.GetFlowsResponse]) -> list[str]:
    """What the flows among them say."""
    return [response.flow.Summary for response in responses if response.HasField("flow")]


def statuses(responses: Sequence[observer_pb2.GetFlowsResponse]) -> list[tuple[str, list[str]]]:
    """State and nodes of the status events among them."""
    return [
        (relay_pb2.NodeState.Name(response.node_status.state_change), sorted(response.node_status.node_names))
        for response in responses
        if response.HasField("node_status")
    ]
