"""Flows and events from a server.

In:        a request, Settings that say which server.
Out:       text on stdout and stderr as messages arrive.
Elsewhere: connection.py connects; columns.py takes over where the server offers columns; model/text words the messages.

One task, cancelled by SIGINT: the command then ends with what it has, and exit code 0.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

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

GET_DEBUG_EVENTS: Final = "/observer.Observer/GetDebugEvents"

R = TypeVar("R", bound=Reply)


def observe_flows(request: observer_pb2.GetFlowsRequest, look: Look, settings: Settings) -> None:
    """Ask for flows and print them. Raises: CommandError."""
    text = FlowText(look)

    def show(responses: list[observer_pb2.GetFlowsResponse]) -> None:
        write_chunks(text.many(responses))

    async def work(server: Server) -> None:
        if not await _flows(server, request, look, show):
            from cli.observe.columns import stream_columns

            await stream_columns(server, request, look, text)

    _run(work, settings, lambda: write(text.finish()))


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

    _run(work, settings, lambda: write(text.finish()))


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

    _run(work, settings, lambda: write(text.finish()))


async def _flows(
    server: Server,
    request: observer_pb2.GetFlowsRequest,
    look: Look,
    show: Callable[[list[observer_pb2.GetFlowsResponse]], None],
) -> bool:
    """Stream flows as messages; False, with nothing shown, when the server offers columns and those pay."""
    async with server.stream(GET_FLOWS, request) as stream:
        headers = await stream.start()
        server.check_version(headers)
        if headers.get(COLUMNS_HEADER) == "1" and columns_pay(request, look):
            return False
        async for batch in stream:
            show(messages(batch, observer_pb2.GetFlowsResponse))
    return True


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


def _run(work: Callable[[Server], Coroutine[Any, Any, None]], settings: Settings, finish: Callable[[], None]) -> None:
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
