"""Rows for sinks, from servers and files.

In:        a request; a server or a file.
Out:       batches of rows with their tables; what a relay says about its nodes goes to stderr.
Elsewhere: sinks.py takes the rows; stream.py and files.py print flows one by one instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from cli.connection import Server
from cli.errors import CommandError
from cli.observe.files import LineReader, opened, wanted
from cli.observe.records import Messages, SlowRecords
from cli.observe.sinks import Sink
from cli.observe.stream import ColumnsOffered, flow_batches, run_stream
from cli.output import write_chunks
from cli.settings import Settings
from model.columns import from_arrow_ipc
from model.ingest import rows_from_responses
from model.row import Rows
from model.tables import Tables
from model.text.flows import FlowText, Look
from proto.flowscope import columns_pb2
from proto.observer import observer_pb2

COLUMNS: Final = "/flowscope.Columns/GetFlows"

TABLES_KEPT: Final = 200_000
"""Interned values before we begin with new tables."""


class Feed:
    """Brings rows to a sink; keeps tables bounded."""

    def __init__(self, sink: Sink, look: Look) -> None:
        self._sink = sink
        self._status = FlowText(look)
        self.tables = Tables()

    def responses(self, responses: Sequence[observer_pb2.GetFlowsResponse]) -> None:
        """Messages as they come from any server or file."""
        for response in responses:
            if response.HasField("node_status"):
                chunk = self._status.one(response)
                write_chunks([chunk] if chunk is not None else [])
        self.rows(rows_from_responses(responses, self.tables))

    def columns(self, response: columns_pb2.ColumnsResponse) -> None:
        """A message of the columnar service. Raises: CommandError."""
        if response.HasField("batch"):
            try:
                self.rows(from_arrow_ipc(response.batch, self.tables))
            except ValueError as error:
                raise CommandError(f"the server sent something else than columns: {error}") from error
        elif response.HasField("node_status"):
            status = observer_pb2.GetFlowsResponse(node_status=response.node_status, node_name=response.node_name)
            self.responses([status])

    def rows(self, rows: Rows) -> None:
        """Rows that point into `tables`."""
        if len(rows):
            self._sink.add(rows, self.tables)
        if self.tables.size() > TABLES_KEPT:
            self.tables = Tables()


def from_server(
    request: observer_pb2.GetFlowsRequest,
    look: Look,
    settings: Settings,
    sink: Sink,
    *,
    every_s: float,
    reconnect: bool,
) -> None:
    """Stream flows of a server into a sink, with a tick every `every_s` seconds (0: none). Raises: CommandError."""
    feed = Feed(sink, look)
    wants_columns = not request.follow and not request.field_mask.paths

    async def work(server: Server) -> None:
        ticks = asyncio.create_task(_tick(sink, every_s)) if every_s else None
        try:
            async for responses in flow_batches(server, request, wants_columns, reconnect):
                feed.responses(responses)
        except ColumnsOffered:
            async with server.stream(COLUMNS, request) as stream:
                async for response in stream.messages(columns_pb2.ColumnsResponse):
                    feed.columns(response)
        finally:
            if ticks is not None:
                ticks.cancel()

    run_stream(work, settings, sink.finish)


async def _tick(sink: Sink, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        sink.tick()


def from_file(path: str, request: observer_pb2.GetFlowsRequest, look: Look, sink: Sink) -> None:
    """Read the flows of a file into a sink. Raises: CommandError."""
    feed = Feed(sink, look)
    with opened(path, request) as (lines, predicate):
        slow = SlowRecords(request, predicate, FlowText(look))
        try:
            for records in wanted(_selected(lines, slow), request):
                feed.responses(records.responses)
        finally:
            sink.finish()


def _selected(batches: Iterator[list[bytes]], slow: SlowRecords) -> Iterator[Messages]:
    reader = LineReader()
    number = 0
    for lines in batches:
        yield slow.select(lines, number, reader)
        number += len(lines)
