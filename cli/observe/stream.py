"""Flows and events from a server.

In:        a request, Settings that say which server.
Out:       text on stdout and stderr as messages arrive.
Elsewhere: connection.py connects; model/text words the messages.

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
from model.text.flows import FlowText, Look
from proto.observer import observer_pb2
from rpc.client import Batch, Reply, parse
from rpc.framing import Message
from rpc.status import RpcError, Status

GET_FLOWS: Final = "/observer.Observer/GetFlows"
GET_AGENT_EVENTS: Final = "/observer.Observer/GetAgentEvents"
GET_DEBUG_EVENTS: Final = "/observer.Observer/GetDebugEvents"

R = TypeVar("R", bound=Reply)


def observe_flows(request: observer_pb2.GetFlowsRequest, look: Look, settings: Settings) -> None:
    """Ask for flows and print them. Raises: CommandError."""
    text = FlowText(look)

    def show(responses: list[observer_pb2.GetFlowsResponse]) -> None:
        write_chunks(text.many(responses))

    async def work(server: Server) -> None:
        await _stream(server, GET_FLOWS, request, observer_pb2.GetFlowsResponse, show)

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
