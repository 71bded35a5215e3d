"""The one stream from the relay that all pages share.

In:        flowscope.Columns/GetFlows of a relay or observer, or plain GetFlows of any other Hubble server.
Out:       rows and node states, into the hub; after a break it resumes behind the newest flow it has.
Elsewhere: rpc/client.py is the connection; model/columns.py and model/ingest.py turn bytes into rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import structlog

from model.columns import from_arrow_ipc
from model.ingest import rows_from_wire
from model.row import Kind, Rows
from proto.flowscope.columns_pb2 import ColumnsResponse
from proto.observer.observer_pb2 import GetFlowsRequest, GetFlowsResponse
from proto.relay.relay_pb2 import NodeState, NodeStatusEvent
from rpc.client import Channel
from rpc.status import RpcError, Status
from ui.hub import Hub

log = structlog.get_logger(component="ui")

COLUMNS: Final = "/flowscope.Columns/GetFlows"
MESSAGES: Final = "/observer.Observer/GetFlows"
FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 5.0
STATES: Final = {
    NodeState.NODE_CONNECTED: "connected",
    NodeState.NODE_UNAVAILABLE: "unavailable",
    NodeState.NODE_GONE: "gone",
    NodeState.NODE_ERROR: "error",
}


async def follow(channel: Channel, hub: Hub, history: int) -> None:
    """Keep `hub` fed until cancelled; a relay that is away is tried again with growing pauses."""
    newest_ns = 0
    wait_s = FIRST_WAIT_S
    columns = True
    while True:
        try:
            request = GetFlowsRequest(follow=True, number=0 if newest_ns else history)
            if newest_ns:
                request.since.FromNanoseconds(newest_ns + 1)
            async for rows in _batches(channel, hub, request, columns):
                wait_s = FIRST_WAIT_S
                newest_ns = max(newest_ns, int(rows["ts_ns"].max(initial=0)))
                await hub.add(rows)
            problem = "the relay ended the stream"
        except RpcError as error:
            if error.code is Status.UNIMPLEMENTED and columns:
                columns = False
                continue
            problem = f"no relay at {channel.target}: {error.message}"
        except ValueError as error:
            problem = f"the relay at {channel.target} sent something unreadable: {error}"
        log.warning("relay stream broke", problem=problem, retry_s=wait_s)
        await hub.set_relay(False, f"{problem}; trying again")
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


async def _batches(channel: Channel, hub: Hub, request: GetFlowsRequest, columns: bool) -> AsyncIterator[Rows]:
    async with channel.stream(COLUMNS if columns else MESSAGES, request) as stream:
        await stream.start()
        if not stream.trailers:
            await hub.set_relay(True, "live")
        async for batch in stream:
            for rows in await (_columns if columns else _messages)(batch.bodies(), hub):
                rows = rows[rows["kind"] <= Kind.LOST]
                if len(rows):
                    yield rows


async def _columns(bodies: list[bytes], hub: Hub) -> list[Rows]:
    found = []
    for body in bodies:
        response = ColumnsResponse.FromString(body)
        if response.HasField("node_status"):
            await _note(response.node_status, hub)
        elif response.batch:
            found.append(from_arrow_ipc(response.batch, hub.ring.tables))
    return found


async def _messages(bodies: list[bytes], hub: Hub) -> list[Rows]:
    flows = []
    for body in bodies:
        response = GetFlowsResponse.FromString(body)
        if response.HasField("node_status"):
            await _note(response.node_status, hub)
        else:
            flows.append(body)
    return [rows_from_wire(flows, hub.ring.tables)]


async def _note(status: NodeStatusEvent, hub: Hub) -> None:
    await hub.set_nodes(list(status.node_names), STATES.get(status.state_change, "unknown"))
