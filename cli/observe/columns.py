"""Flows from a server of ours, in columns.

In:        a request; batches of rows as Arrow, what a relay says about its nodes.
Out:       the same text as for messages, made from whole batches.
Elsewhere: stream.py decides when; model/columns.py reads Arrow; model/text/rows.py and rows_json.py make the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cli.connection import Server
from cli.errors import CommandError
from cli.output import write_chunks
from model.columns import from_arrow_ipc
from model.row import Rows
from model.tables import Tables
from model.text.flows import Chunk, FlowText, Look, Output
from model.text.rows import RowText
from model.text.rows_json import RowJson
from proto.flowscope import columns_pb2
from proto.observer import observer_pb2

GET_FLOWS: Final = "/flowscope.Columns/GetFlows"

TABLES_KEPT: Final = 200_000
"""Interned values before we begin with new tables; a stream has no end."""


async def stream_columns(server: Server, request: observer_pb2.GetFlowsRequest, look: Look, text: FlowText) -> None:
    """Ask for flows as columns and print them. Raises: RpcError; CommandError for batches that are none."""
    printer = ColumnText(look, text, masked=bool(request.field_mask.paths))
    async with server.stream(GET_FLOWS, request) as stream:
        async for response in stream.messages(columns_pb2.ColumnsResponse):
            write_chunks(printer.chunks(response))


class ColumnText:
    """Turns responses of the columnar service into text."""

    def __init__(self, look: Look, text: FlowText, *, masked: bool) -> None:
        self._look = look
        self._text = text
        # Columns come whole; a mask is applied here, so that a large answer shows no more than a small one.
        self._masked = masked
        self._new_tables()

    def chunks(self, response: columns_pb2.ColumnsResponse) -> Iterator[Chunk]:
        """The text of one response, in parts. Raises: CommandError."""
        if response.HasField("batch"):
            try:
                rows = from_arrow_ipc(response.batch, self._tables)
            except ValueError as error:
                raise CommandError(f"the server sent something else than columns: {error}") from error
            yield from self._rows(rows)
            if self._tables.size() > TABLES_KEPT:
                self._new_tables()
        elif response.HasField("node_status"):
            status = observer_pb2.GetFlowsResponse(node_status=response.node_status, node_name=response.node_name)
            if response.HasField("time"):
                status.time.CopyFrom(response.time)
            chunk = self._text.one(status)
            if chunk is not None:
                yield chunk

    def _rows(self, rows: Rows) -> Iterator[Chunk]:
        if isinstance(self._row_text, RowJson):
            yield from map(Chunk, self._row_text.texts(rows))
            return
        chunk = self._text.records(self._row_text.text(rows))
        if chunk is not None:
            yield chunk

    def _new_tables(self) -> None:
        self._tables = Tables()
        self._row_text: RowText | RowJson
        if self._look.output is Output.JSON:
            self._row_text = RowJson(self._look, self._tables)
        else:
            self._row_text = RowText(self._look, self._tables, masked=self._masked)
