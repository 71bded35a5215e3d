"""Flows and events from a server.

In:        a request, Settings that say which server.
Out:       text on stdout and stderr as messages arrive.
Elsewhere: connection.py connects; columns.py takes over where the server offers columns; model/text words the messages.

One task, cancelled by SIGINT: the command then ends with what it has, and exit code 0.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from cli import log
from cli.connection import Server, connected, message_of
from cli.errors import CommandError
from cli.output import write, write_chunks
from cli.settings import Settings
from model.text.events import EventText
from model.text.flows import FlowText, Look, Output
from proto.observer import observer_pb2
from rpc.client import Batch, Reply, parse
from rpc.framing import Message
from rpc.status import RpcError, Status

GET_FLOWS: Final = "/observer.Observer/GetFlows"
GET_AGENT_EVENTS: Final = "/observer.Observer/GetAgentEvents"
COLUMNS_HEADER: Final = "flowscope-columns"
"""In the response metadata of servers that serve flowscope.Columns too (proto/flowscope/columns.proto)."""

MANY: Final = 5_000
"""Flows from which on columns are faster in all."""

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 15.0
"""Between attempts to connect again."""

GET_DEBUG_EVENTS: Final = "/observer.Observer/GetDebugEvents"

R = TypeVar("R", bound=Reply)


def observe_flows(
    request: observer_pb2.GetFlowsRequest, look: Look, settings: Settings, *, reconnect: bool = True
) -> None:
    """Ask for flows and print them. With `reconnect`, a follower outlives its connection. Raises: CommandError."""
    text = FlowText(look)

    async def work(server: Server) -> None:
        try:
            async for responses in flow_batches(server, request, columns_pay(request, look), reconnect):
                write_chunks(text.many(responses))
        except ColumnsOffered:
            from cli.observe.columns import stream_columns

            await stream_columns(server, request, look, text)

    run_stream(work, settings, lambda: write(text.finish()))


def observe_agent_events(request: observer_pb2.GetAgentEventsRequest, look: Look, settings: Settings) -> None:
    """Ask for agent events and print them. Raises: CommandError."""
    text = EventText(look)

    def show(responses: list[observer_pb2.GetAgentEventsResponse]) -> None:
        for response in responses:
            if not response.HasField("agent_event"):
                raise CommandError("not an agent event")
            write(text.agent(response))

    async def work(server: Server) -> None:
        await _stream(server, GET_AGENT_EVENTS, request, observer_pb2.GetAgentEventsResponse, show)

    run_stream(work, settings, lambda: write(text.finish()))


def observe_debug_events(request: observer_pb2.GetDebugEventsRequest, look: Look, settings: Settings) -> None:
    """Ask for debug events and print them. Raises: CommandError."""
    text = EventText(look)

    def show(responses: list[observer_pb2.GetDebugEventsResponse]) -> None:
        for response in responses:
            if not response.HasField("debug_event"):
                raise CommandError("not a debug event")
            write(text.debug(response))

    async def work(server: Server) -> None:
        await _stream(server, GET_DEBUG_EVENTS, request, observer_pb2.GetDebugEventsResponse, show)

    run_stream(work, settings, lambda: write(text.finish()))


class ColumnsOffered(Exception):
    """The server serves columns too, and the caller wants them. Nothing was delivered yet."""


async def flow_batches(
    server: Server, request: observer_pb2.GetFlowsRequest, wants_columns: bool, reconnect: bool
) -> AsyncIterator[list[observer_pb2.GetFlowsResponse]]:
    """The flows of a request, as they arrive together.

    Raises: RpcError; ColumnsOffered before anything else, if `wants_columns`.
    """
    flows = _Following(server, request)
    while True:
        try:
            async with server.stream(GET_FLOWS, flows.request) as stream:
                headers = await stream.start()
                server.check_version(headers)
                flows.started(headers)
                if wants_columns and flows.is_ours:
                    raise ColumnsOffered
                async for batch in stream:
                    responses = messages(batch, observer_pb2.GetFlowsResponse)
                    flows.seen(responses)
                    yield responses
            return
        except RpcError as error:
            if not (reconnect and flows.can_go_on(error)):
                raise
            await flows.wait(error)


class _Following:
    """A stream without end that goes on where its connection broke."""

    def __init__(self, server: Server, request: observer_pb2.GetFlowsRequest) -> None:
        self._server = server
        self.request = request
        self.is_ours = False
        self._was_started = False
        self._lost_at: float | None = None
        self._wait_s = FIRST_WAIT_S
        self._newest_ns = time.time_ns()

    def started(self, headers: Mapping[str, str]) -> None:
        """The server has answered."""
        if self._lost_at is not None:
            log.info("connected again", after=f"{time.monotonic() - self._lost_at:.1f}s")
        self._was_started, self._lost_at, self._wait_s = True, None, FIRST_WAIT_S
        self.is_ours = headers.get(COLUMNS_HEADER) == "1"

    def seen(self, responses: Sequence[observer_pb2.GetFlowsResponse]) -> None:
        """Remember up to where flows were delivered."""
        if self.request.follow:
            newest = max((one.time.ToNanoseconds() for one in responses if one.HasField("flow")), default=0)
            self._newest_ns = max(self._newest_ns, newest) if newest else self._newest_ns

    def can_go_on(self, error: RpcError) -> bool:
        """Whether the connection broke, or our own server goes down for a moment; not whether a request was refused."""
        if not (self.request.follow and self._was_started) or error.code is not Status.UNAVAILABLE:
            return False
        return self._server.broken or self.is_ours

    async def wait(self, error: RpcError) -> None:
        """Say what happened, once, and wait a little longer each time."""
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            log.warn("connection lost, connecting again", error=error.message)
            request = observer_pb2.GetFlowsRequest()
            request.CopyFrom(self.request)
            request.number = 0
            # Flows of the same nanosecond on another node are lost; the alternative is to show some twice.
            request.since.FromNanoseconds(self._newest_ns + 1)
            self.request = request
        await asyncio.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)


def columns_pay(request: observer_pb2.GetFlowsRequest, look: Look) -> bool:
    """Whether the answer is large enough, and its form one that rows can take.

    A client begins with the call that every server knows, so that foreign servers see nothing unusual. Changing over
    costs a round trip and loading pyarrow, 0.1 s together; a follower would get its flows in larger, later batches.
    """
    if request.follow or 0 < request.number < MANY or look.output is Output.LEGACY_JSON:
        return False
    return look.output is not Output.JSON or not request.field_mask.paths


async def _stream(server: Server, path: str, request: Message, reply: type[R], show: Callable[[list[R]], None]) -> None:
    async with server.stream(path, request) as stream:
        server.check_version(await stream.start())
        async for batch in stream:
            show(messages(batch, reply))


def messages(batch: Batch, reply: type[R]) -> list[R]:
    """The messages of a batch. Raises: RpcError."""
    return [parse(reply, body) for body in batch.bodies()]


def run_stream(
    work: Callable[[Server], Coroutine[Any, Any, None]], settings: Settings, finish: Callable[[], None]
) -> None:
    """Connect, run `work` until it ends or SIGINT comes, then `finish`. Raises: CommandError."""

    async def supervised() -> None:
        task = asyncio.ensure_future(connect_and_work())
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return

    async def connect_and_work() -> None:
        async with connected(settings) as server:
            await work(server)

    try:
        asyncio.run(supervised())
    except RpcError as error:
        if error.code is not Status.CANCELLED:
            raise CommandError(message_of(error)) from error
    finally:
        finish()
