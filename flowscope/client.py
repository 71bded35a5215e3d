"""The client for asyncio.

In:        an address, and questions (query.py).
Out:       streams of flows, in columns where the server has them and in Hubble's messages where it has not.
Elsewhere: sync.py is the same for programs without an event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from flowscope.error import FlowscopeError
from flowscope.query import request_of
from model.columns import from_arrow_ipc
from model.encode import Encoder
from model.ingest import rows_from_wire
from model.row import Kind, Rows
from model.tables import Tables
from proto.flow import flow_pb2
from proto.flowscope.columns_pb2 import ColumnsResponse
from proto.observer import observer_pb2
from proto.relay.relay_pb2 import NodeState
from rpc.client import Channel, basic_auth
from rpc.status import RpcError, Status
from rpc.tls import ClientTls

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS: Final = "/flowscope.Columns/GetFlows"
OBSERVER: Final = "/observer.Observer/"
UNARY_TIMEOUT_S: Final = 12.0
FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 5.0


class Client:
    """One server. Use it with `async with`, or call close()."""

    def __init__(
        self,
        server: str = "localhost:4245",
        *,
        tls: ClientTls | None = None,
        username: str = "",
        password: str = "",
        token: str = "",
    ) -> None:
        """server: host:port, unix:///path or tls://host:port. Passwords and tokens travel over TLS only.

        Raises: FlowscopeError InvalidArgument.
        """
        metadata = []
        if username:
            metadata.append(basic_auth(username, password))
        elif token:
            metadata.append(("authorization", f"Bearer {token}"))
        try:
            self.channel = Channel(server, tls=tls, metadata=metadata)
        except ValueError as error:
            raise FlowscopeError("InvalidArgument", str(error)) from error
        if metadata and self.channel.tls is None:
            raise FlowscopeError("InvalidArgument", "a password or token needs TLS; write tls:// before the address")

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        await self.channel.close()

    def flows(self, **question: Any) -> FlowStream:
        """Flows, oldest first; see query.request_of for the words."""
        return FlowStream(self.channel, request_of(**question))

    async def status(self) -> observer_pb2.ServerStatusResponse:
        """How many flows the server has and has seen."""
        reply: observer_pb2.ServerStatusResponse = await self._ask(
            "ServerStatus", observer_pb2.ServerStatusRequest(), observer_pb2.ServerStatusResponse
        )
        return reply

    async def nodes(self) -> list[observer_pb2.Node]:
        """The nodes behind a relay. Raises: FlowscopeError Unimplemented on a node."""
        reply = await self._ask("GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse)
        return list(reply.nodes)

    async def namespaces(self) -> list[str]:
        """Namespaces seen in the last hour."""
        reply = await self._ask(
            "GetNamespaces", observer_pb2.GetNamespacesRequest(), observer_pb2.GetNamespacesResponse
        )
        return [one.namespace for one in reply.namespaces]

    async def _ask(self, method: str, request: Any, reply: type[Any]) -> Any:
        try:
            return await self.channel.unary(OBSERVER + method, request, reply, timeout_s=UNARY_TIMEOUT_S)
        except RpcError as error:
            raise _told(error) from error


class FlowStream:
    """The answer to one question. Iterate over flows or batches once, or collect all of it.

    A following stream whose server goes away connects again and resumes behind the newest flow it had.
    """

    def __init__(self, channel: Channel, request: observer_pb2.GetFlowsRequest) -> None:
        self.request = request
        self.lost = 0
        """Events that were reported lost so far."""
        self.nodes: dict[str, str] = {}
        """What a relay said of its nodes: state by name (`NODE_CONNECTED`, ...)."""
        self.reconnects = 0
        self._channel = channel
        self._columns = True
        self._newest_ns = 0

    async def __aiter__(self) -> AsyncIterator[flow_pb2.Flow]:
        async for rows, tables in self.pieces():
            for flow in Encoder(tables).flows(rows):
                yield flow

    async def batches(self) -> AsyncIterator[pa.Table]:
        """Arrow tables as they come, with the columns of model/arrow_table.py."""
        from model.arrow_table import rows_to_arrow_table

        async for rows, tables in self.pieces():
            yield rows_to_arrow_table(rows, tables)

    async def to_arrow(self) -> pa.Table:
        """All flows as one table. Raises: FlowscopeError InvalidArgument when the question follows."""
        import pyarrow as pa

        from model.arrow_table import rows_to_arrow_table
        from model.row import empty_rows

        if self.request.follow:
            raise FlowscopeError(
                "InvalidArgument", "a following stream does not end; use batches() or leave out follow"
            )
        tables = [batch async for batch in self.batches()]
        return pa.concat_tables([rows_to_arrow_table(empty_rows(0), Tables()), *tables]).unify_dictionaries()

    async def to_pandas(self) -> pd.DataFrame:
        """All flows as a frame; see to_arrow."""
        return (await self.to_arrow()).to_pandas()

    async def pieces(self) -> AsyncIterator[tuple[Rows, Tables]]:
        """Rows of Kind.FLOW with the tables they point into, batch by batch. Raises: FlowscopeError."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                async for rows, tables in self._answers():
                    wait_s = FIRST_WAIT_S
                    flows = rows[rows["kind"] == int(Kind.FLOW)]
                    self._count(rows, tables)
                    if len(flows):
                        self._newest_ns = max(self._newest_ns, int(flows["ts_ns"].max()))
                        yield flows, tables
                return
            except RpcError as error:
                if error.code is Status.UNIMPLEMENTED and self._columns:
                    self._columns = False
                elif error.code is Status.UNAVAILABLE and self.request.follow and self._newest_ns:
                    await asyncio.sleep(wait_s)
                    wait_s = min(wait_s * 2, LONGEST_WAIT_S)
                    self.reconnects += 1
                    self.request.number = 0
                    self.request.since.FromNanoseconds(self._newest_ns + 1)
                else:
                    raise _told(error) from error

    async def _answers(self) -> AsyncIterator[tuple[Rows, Tables]]:
        path = COLUMNS if self._columns else f"{OBSERVER}GetFlows"
        async with self._channel.stream(path, self.request) as stream:
            async for batch in stream:
                # Tables of their own for each batch keep a stream that never ends from growing.
                if self._columns:
                    for body in batch.bodies():
                        answer = ColumnsResponse.FromString(body)
                        self._note(answer)
                        if answer.batch:
                            tables = Tables()
                            yield from_arrow_ipc(answer.batch, tables), tables
                else:
                    tables = Tables()
                    bodies = [body for body in batch.bodies() if not self._note(_response(body))]
                    yield rows_from_wire(bodies, tables), tables

    def _note(self, answer: ColumnsResponse | observer_pb2.GetFlowsResponse) -> bool:
        if not answer.HasField("node_status"):
            return False
        state = NodeState.Name(answer.node_status.state_change)
        self.nodes.update(dict.fromkeys(answer.node_status.node_names, state))
        return True

    def _count(self, rows: Rows, tables: Tables) -> None:
        for aux in rows["aux"][rows["kind"] == int(Kind.LOST)].tolist():
            self.lost += flow_pb2.LostEvent.FromString(tables.aux[aux] or b"").num_events_lost


def _response(body: bytes) -> observer_pb2.GetFlowsResponse:
    return observer_pb2.GetFlowsResponse.FromString(body)


def _told(error: RpcError) -> FlowscopeError:
    return FlowscopeError(error.code.text, error.message)
