"""The client for asyncio.

In:        an address, and questions (query.py).
Out:       streams of flows, as messages or as tables; status, nodes and namespaces.
Elsewhere: sync.py is the same for programs without an event loop; rpc/ is the connection; model/ has the columns.

Messages are asked for with Hubble's call, which every server knows. Tables come from our servers in columns; whether a
server has them it says in its answer to Hubble's call (proto/flowscope/columns.proto), so others see nothing unusual.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.message import DecodeError

from flowscope.error import FlowscopeError
from flowscope.query import request_of
from model.columns import from_arrow_ipc
from model.flow_parts import split_aux
from model.ingest import rows_from_wire
from model.row import Kind, Rows, empty_rows
from model.tables import Tables
from model.whole_rows import joined, take
from proto.flow import flow_pb2
from proto.flowscope.columns_pb2 import ColumnsResponse
from proto.observer import observer_pb2
from proto.relay import relay_pb2
from rpc.client import Channel, Reply, basic_auth, parse
from rpc.framing import Message
from rpc.status import RpcError, Status
from rpc.target import Target
from rpc.tls import ClientTls, TlsError, client_context

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger("flowscope")

COLUMNS: Final = "/flowscope.Columns/GetFlows"
OBSERVER: Final = "/observer.Observer/"
FLOWS: Final = f"{OBSERVER}GetFlows"
COLUMNS_HEADER: Final = "flowscope-columns"
"""In the response metadata of servers that serve columns too."""
MANY: Final = 5_000
"""Flows from which on columns are faster in all."""

DEFAULT_SERVER: Final = "localhost:4245"
SERVER_VARIABLES: Final = ("FLOWSCOPE_SERVER", "HUBBLE_SERVER")
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0
"""Between attempts to connect again."""
TABLES_KEPT: Final = 200_000
"""Interned values before a stream begins with new tables; it may have no end."""

R = TypeVar("R", bound=Reply)


class Client:
    """One server: an observer (one node) or a relay (all nodes), of Flowscope or of Hubble.

    Use it with `async with`, or call close(). Nothing is dialled before the first question.
    """

    def __init__(
        self,
        server: str = "",
        *,
        tls: ClientTls | bool | None = None,
        username: str = "",
        password: str = "",
        token: str = "",
        timeout_s: float = 12.0,
    ) -> None:
        """
        server     host:port, unix:///path or tls://host:port; default: $FLOWSCOPE_SERVER, $HUBBLE_SERVER or
                   localhost:4245
        tls        True: TLS with the authorities of this machine; flowscope.Tls(...): with files of your own
        username   with `password`: HTTP basic authentication
        token      a bearer token
        timeout_s  for status, nodes and namespaces; flows may take as long as they take
        Raises: FlowscopeError InvalidArgument. Passwords and tokens travel over TLS only.
        """
        metadata = []
        if username and token:
            raise FlowscopeError("InvalidArgument", "username and token cannot be combined")
        if username:
            metadata.append(basic_auth(username, password))
        elif token:
            metadata.append(("authorization", f"Bearer {token}"))
        try:
            target = Target.parse(server or default_server(os.environ))
            files = ClientTls() if tls is True else tls or None
            if files is not None:
                client_context(files)
        except (ValueError, TlsError) as error:
            raise FlowscopeError("InvalidArgument", str(error)) from error
        self.channel = Channel(target, tls=files, metadata=metadata)
        if metadata and self.channel.tls is None:
            raise FlowscopeError("InvalidArgument", "a password or token needs TLS: tls=True, or tls://host:port")
        self._timeout_s = timeout_s
        self.has_columns: bool | None = None
        """Whether the server has columns; None: not known yet."""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up; streams that are being read end with FlowscopeError Canceled."""
        await self.channel.close()

    def flows(self, **question: Any) -> FlowStream:
        """Flows, oldest first. The words of questions: query.request_of, and flowscope.WORDS for filters.

        Raises: FlowscopeError InvalidArgument for a question that makes no sense.
        """
        return FlowStream(self, request_of(**question))

    async def status(self) -> observer_pb2.ServerStatusResponse:
        """How many flows the server has and has seen. Raises: FlowscopeError."""
        return await self._ask("ServerStatus", observer_pb2.ServerStatusRequest(), observer_pb2.ServerStatusResponse)

    async def nodes(self) -> list[observer_pb2.Node]:
        """The nodes behind a relay. Raises: FlowscopeError, Unimplemented on a node."""
        reply = await self._ask("GetNodes", observer_pb2.GetNodesRequest(), observer_pb2.GetNodesResponse)
        return list(reply.nodes)

    async def namespaces(self) -> list[str]:
        """Namespaces seen in the last hour. Raises: FlowscopeError."""
        reply = await self._ask(
            "GetNamespaces", observer_pb2.GetNamespacesRequest(), observer_pb2.GetNamespacesResponse
        )
        # A relay of many clusters names a namespace once per cluster.
        return list(dict.fromkeys(one.namespace for one in reply.namespaces))

    async def _ask(self, method: str, request: Message, reply: type[R]) -> R:
        try:
            return await self.channel.unary(OBSERVER + method, request, reply, timeout_s=self._timeout_s)
        except RpcError as error:
            raise told(error) from error


class FlowStream:
    """The answer to one question; each reading of it asks the server again.

    Iterate over flows or batches, or collect all of it. A following stream whose connection breaks connects again,
    logs that it does (logger `flowscope`), and resumes behind the newest flow it had.
    """

    def __init__(self, client: Client, request: observer_pb2.GetFlowsRequest) -> None:
        self.request = request
        self.lost = 0
        """Events that were reported lost so far."""
        self.nodes: dict[str, str] = {}
        """What a relay said of its nodes: state by name (`NODE_CONNECTED`, ...)."""
        self.reconnects = 0
        self._client = client

    async def __aiter__(self) -> AsyncGenerator[flow_pb2.Flow, None]:
        """Flow by flow. Raises: FlowscopeError."""
        async with aclosing(self.flow_lists()) as lists:
            async for flows in lists:
                for flow in flows:
                    yield flow

    async def batches(self) -> AsyncGenerator[pa.Table, None]:
        """Arrow tables of flows that arrive together; columns as in model/arrow_table.py. Raises: FlowscopeError."""
        from model.arrow_table import rows_to_arrow_table

        async with aclosing(self._pieces(kept=TABLES_KEPT)) as pieces:
            async for rows, tables in pieces:
                yield rows_to_arrow_table(rows, tables)

    async def to_arrow(self) -> pa.Table:
        """All flows as one table. Raises: FlowscopeError; InvalidArgument when the question follows."""
        from model.arrow_table import rows_to_arrow_table

        if self.request.follow:
            raise FlowscopeError("InvalidArgument", "a following stream has no end; use batches(), or leave out follow")
        pieces = [(empty_rows(0), Tables()), *[piece async for piece in self._pieces()]]
        return rows_to_arrow_table(joined([rows for rows, _ in pieces]), pieces[-1][1])

    async def to_pandas(self) -> pd.DataFrame:
        """All flows as a frame; text that repeats is categorical, numbers and truth values know <NA>.

        Raises: as to_arrow.
        """
        return frame_of(await self.to_arrow())

    async def flow_lists(self) -> AsyncGenerator[list[flow_pb2.Flow], None]:
        """Flows in lists, as they arrive together. Raises: FlowscopeError."""
        reading = Reading(self, self._client, wants_columns=False)
        with telling():
            async with aclosing(reading.bodies()) as arrived:
                async for bodies in arrived:
                    answers = [parse(observer_pb2.GetFlowsResponse, body) for body in bodies]
                    flows = [answer.flow for answer in answers if answer.HasField("flow")]
                    if len(flows) < len(answers):
                        self._note_all(answers)
                    if self.request.follow:
                        reading.saw(max((flow.time.ToNanoseconds() for flow in flows), default=0))
                    if flows:
                        yield flows

    async def _pieces(self, kept: int | None = None) -> AsyncGenerator[tuple[Rows, Tables], None]:
        """Rows of flows with the tables they point into: the same ones until they hold more than `kept` values."""
        tables = Tables()
        reading = Reading(self, self._client, wants_columns=columns_pay(self.request))
        with telling():
            async with aclosing(reading.bodies()) as arrived:
                async for bodies in arrived:
                    rows = self._column_rows(bodies, tables) if reading.columns else self._wire_rows(bodies, tables)
                    self._count_lost(rows, tables)
                    flows = take(rows, rows["kind"] == Kind.FLOW)
                    if len(flows):
                        reading.saw(int(flows["ts_ns"].max()))
                        yield flows, tables
                    if kept is not None and tables.size() > kept:
                        tables = Tables()

    def _column_rows(self, bodies: list[bytes], tables: Tables) -> Rows:
        found = [empty_rows(0)]
        for body in bodies:
            answer = parse(ColumnsResponse, body)
            if answer.HasField("batch"):
                found.append(from_arrow_ipc(answer.batch, tables))
            elif answer.HasField("node_status"):
                self._note_nodes(answer.node_status)
        return joined(found)

    def _wire_rows(self, bodies: list[bytes], tables: Tables) -> Rows:
        rows = rows_from_wire(bodies, tables)
        if len(rows) < len(bodies):
            # What is neither flow nor lost events has no row; a relay sends such a message now and then.
            for answer in (parse(observer_pb2.GetFlowsResponse, body) for body in bodies):
                if answer.HasField("node_status"):
                    self._note_nodes(answer.node_status)
        return rows

    def _count_lost(self, rows: Rows, tables: Tables) -> None:
        for aux in rows["aux"][rows["kind"] == Kind.LOST].tolist():
            event, _ = split_aux(tables.aux[aux] or b"")
            self.lost += flow_pb2.LostEvent.FromString(event).num_events_lost

    def _note_all(self, answers: Iterable[observer_pb2.GetFlowsResponse]) -> None:
        for answer in answers:
            if answer.HasField("node_status"):
                self._note_nodes(answer.node_status)
            elif answer.HasField("lost_events"):
                self.lost += answer.lost_events.num_events_lost

    def _note_nodes(self, status: relay_pb2.NodeStatusEvent) -> None:
        number = status.state_change
        known = relay_pb2.NodeState.DESCRIPTOR.values_by_number.get(number)
        self.nodes.update(dict.fromkeys(status.node_names, known.name if known else str(number)))


class Reading:
    """One reading of a stream. It knows how far it came, so it can go on where its connection broke."""

    def __init__(self, stream: FlowStream, client: Client, *, wants_columns: bool) -> None:
        self.columns = False
        """Whether the bodies at hand are ColumnsResponse; else they are GetFlowsResponse."""
        self._stream = stream
        self._client = client
        self._wants_columns = wants_columns
        self._request = observer_pb2.GetFlowsRequest()
        self._request.CopyFrom(stream.request)
        self._began_ns = time.time_ns()
        self._newest_ns = 0
        self._was_answered = False
        self._wait_s = FIRST_WAIT_S
        self._lost_at_s: float | None = None

    def saw(self, newest_ns: int) -> None:
        """Flows up to this time were delivered."""
        self._newest_ns = max(self._newest_ns, newest_ns)

    async def bodies(self) -> AsyncGenerator[list[bytes], None]:
        """Messages as they arrive together. Raises: RpcError."""
        while True:
            try:
                async with aclosing(self._call()) as arrived:
                    async for bodies in arrived:
                        yield bodies
                if not self._changes_over():
                    return
            except RpcError as error:
                if self.columns and error.code is Status.UNIMPLEMENTED:
                    # Another server answers at this address now.
                    self._client.has_columns = False
                elif self._can_go_on(error):
                    await self._wait(error)
                else:
                    raise

    async def _call(self) -> AsyncGenerator[list[bytes], None]:
        self.columns = self._wants_columns and self._client.has_columns is True
        async with self._client.channel.stream(COLUMNS if self.columns else FLOWS, self._request) as stream:
            headers = await stream.start()
            if not self.columns:
                self._client.has_columns = headers.get(COLUMNS_HEADER) == "1"
                if self._changes_over():
                    return
            if self._lost_at_s is not None:
                log.warning("connected again after %.1f s", time.monotonic() - self._lost_at_s)
            self._was_answered, self._lost_at_s, self._wait_s = True, None, FIRST_WAIT_S
            async for batch in stream:
                yield batch.bodies()

    def _changes_over(self) -> bool:
        return self._wants_columns and not self.columns and self._client.has_columns is True

    def _can_go_on(self, error: RpcError) -> bool:
        """Whether the connection broke, or a server of ours goes down for a moment; not whether it refused."""
        if not (self._request.follow and self._was_answered) or error.code is not Status.UNAVAILABLE:
            return False
        return self._client.channel.state in ("failed", "idle") or self._client.has_columns is True

    async def _wait(self, error: RpcError) -> None:
        """Say what happened, once, and wait a little longer each time."""
        if self._lost_at_s is None:
            self._lost_at_s = time.monotonic()
            self._stream.reconnects += 1
            log.warning("connection lost, connecting again: %s", error.message)
            self._resume_behind_newest()
        await asyncio.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def _resume_behind_newest(self) -> None:
        request = self._request
        if self._newest_ns:
            request.number = 0
            # Flows of the same nanosecond on another node are lost; the alternative is to deliver some twice.
            request.since.FromNanoseconds(self._newest_ns + 1)
        elif not request.number and not request.HasField("since"):
            request.since.FromNanoseconds(self._began_ns)


def columns_pay(request: observer_pb2.GetFlowsRequest) -> bool:
    """Whether to change over to columns: they come whole, and a follower would get its flows in larger, later batches.

    Changing over costs a round trip, which few flows are not worth.
    """
    return not request.follow and not request.field_mask.paths and not 0 < request.number < MANY


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A table as a frame. A port that is not known is <NA>; pandas alone would turn the others into 53.0."""
    import pandas as pd
    import pyarrow as pa

    types = {pa.bool_(): pd.BooleanDtype()}
    for bits in (8, 16, 32, 64):
        types[getattr(pa, f"int{bits}")()] = getattr(pd, f"Int{bits}Dtype")()
        types[getattr(pa, f"uint{bits}")()] = getattr(pd, f"UInt{bits}Dtype")()
    return table.to_pandas(types_mapper=types.get)


def default_server(env: Mapping[str, str]) -> str:
    """The server of the environment, as for the command line."""
    return next((env[name] for name in SERVER_VARIABLES if env.get(name)), DEFAULT_SERVER)


@contextmanager
def telling() -> Iterator[None]:
    """Errors of calls, and of answers that are none, as the one error of this package."""
    try:
        yield
    except RpcError as error:
        raise told(error) from error
    except (ValueError, DecodeError) as error:
        raise FlowscopeError("Internal", f"the server sent something else than flows: {error}") from error


def told(error: RpcError) -> FlowscopeError:
    """An error of a call."""
    return FlowscopeError(error.code.text, error.message)
