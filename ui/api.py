"""What a page asks for once, over HTTP: older flows, groups, one flow, suggestions, exports.

In:        a filter, a span, and what is wanted of it, as query parameters.
Out:       JSON, or a file; a bad parameter is answered with 400 and {"control", "text"}.
Elsewhere: live.py pushes what changes; flows.py finds rows; explain.py tells of one flow.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Request
from fastapi import Query as Parameter
from fastapi.responses import Response, StreamingResponse

from model.arrow_table import rows_to_arrow_table
from model.row import Rows
from model.tables import Tables
from ui.cells import records
from ui.flows import FAR_FUTURE_NS, Span, everything, funnel, group_by, known_columns, newest, sort_by
from ui.hub import Hub
from ui.query import BadQuery, Query, parse_query
from ui.story import story_of
from ui.suggest import suggest

MOST_ROWS: Final = 500
MOST_CARDS: Final = 12
MS: Final = 1_000_000

Filter = Annotated[str, Parameter(max_length=4_000)]
Ms = Annotated[int | None, Parameter(ge=0, le=2**53)]
Names = Annotated[str, Parameter(max_length=2_000)]


class BadParameter(ValueError):
    """A parameter that cannot be followed; `control` is the part of the page that it came from."""

    def __init__(self, control: str, text: str) -> None:
        super().__init__(text)
        self.control = control


async def refuse(_: Request, error: Exception) -> Response:
    """The answer to a BadParameter."""
    control = error.control if isinstance(error, BadParameter) else "message"
    return Response(orjson.dumps({"control": control, "text": str(error)}), 400, media_type="application/json")


def router(hub: Hub) -> APIRouter:
    """The calls, for one hub."""
    api = APIRouter(prefix="/api")
    ring = hub.ring

    @api.get("/flows")
    async def flows(
        columns: Names,
        filter: Filter = "",
        start: Ms = None,
        stop: Ms = None,
        before: Annotated[int | None, Parameter(ge=0)] = None,
        limit: Annotated[int, Parameter(ge=1, le=MOST_ROWS)] = 200,
        sort: Annotated[str, Parameter(max_length=60)] = "",
        descending: bool = False,
    ) -> Response:
        query, names = _query(filter), _columns(columns)
        if sort:
            _columns(sort)
            found = newest(ring, query, _span(start, stop), 20_000, lost=False)
            found = sort_by(found, ring.tables, sort, descending, 2_000)
        else:
            found = newest(ring, query, _span(start, stop), limit, before)
        rows = records(found.rows, found.positions.tolist(), ring.tables, names)
        return _json({"rows": rows, "more": found.more})

    @api.get("/groups")
    async def groups(by: Names, filter: Filter = "", start: Ms = None, stop: Ms = None) -> Response:
        names = _columns(by)
        if not 1 <= len(names) <= 3:
            raise BadParameter("columns", "group by one to three columns")
        return _json(group_by(everything(ring, _query(filter), _span(start, stop)), ring.tables, names))

    @api.get("/flow")
    async def flow(id: Annotated[str, Parameter(max_length=80)]) -> Response:
        story = story_of(hub, id)
        if story is None:
            raise BadParameter("flow", "this flow is no longer held; a larger --flows keeps more of them")
        return _json(story)

    @api.get("/suggest")
    async def suggestions(text: Filter = "", at: Annotated[int | None, Parameter(ge=0)] = None) -> Response:
        return _json(suggest(hub, text, len(text) if at is None else at))

    @api.get("/cards")
    async def cards(text: Annotated[str, Parameter(max_length=200)]) -> Response:
        return _json({"cards": hub.cards.find(text, MOST_CARDS)})

    @api.get("/funnel")
    async def conditions(filter: Filter = "", start: Ms = None, stop: Ms = None) -> Response:
        return _json({"stages": funnel(ring, _query(filter), _span(start, stop))})

    @api.get("/export")
    async def export(format: str, filter: Filter = "", start: Ms = None, stop: Ms = None) -> Response:
        if format not in EXPORTS:
            raise BadParameter("export", f"formats are {', '.join(EXPORTS)}")
        media, write = EXPORTS[format]
        found = everything(ring, _query(filter), _span(start, stop))
        headers = {"Content-Disposition": f'attachment; filename="flows.{format}"'}
        return StreamingResponse(write(found.rows, ring.tables), media_type=media, headers=headers)

    return api


def _json(value: object) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def _query(text: str) -> Query:
    try:
        return parse_query(text)
    except BadQuery as error:
        raise BadParameter("filter", str(error)) from error


def _columns(text: str) -> tuple[str, ...]:
    try:
        return known_columns([name for name in text.split(",") if name])
    except ValueError as error:
        raise BadParameter("columns", str(error)) from error


def _span(start: int | None, stop: int | None) -> Span:
    if start is not None and stop is not None and start >= stop:
        raise BadParameter("range", "a span must end behind its beginning")
    return Span(0 if start is None else start * MS, FAR_FUTURE_NS if stop is None else stop * MS)


def _csv(rows: Rows, tables: Tables) -> Iterator[bytes]:
    from pyarrow import csv

    file = io.BytesIO()
    csv.write_csv(rows_to_arrow_table(rows, tables, join_lists=True), file)
    yield file.getvalue()


def _parquet(rows: Rows, tables: Tables) -> Iterator[bytes]:
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(rows_to_arrow_table(rows, tables), file)
    yield file.getvalue()


def _json_lines(rows: Rows, tables: Tables) -> Iterator[bytes]:
    """As `flowscope observe -o json` prints them, so that `flowscope observe --input-file` reads them."""
    from model.text.flows import Look, Output
    from model.text.rows_json import RowJson

    for text in RowJson(Look(output=Output.JSON), tables).texts(rows):
        yield text.encode()


EXPORTS: Final[dict[str, tuple[str, Callable[[Rows, Tables], Iterator[bytes]]]]] = {
    "csv": ("text/csv; charset=utf-8", _csv),
    "json": ("application/x-ndjson", _json_lines),
    "parquet": ("application/vnd.apache.parquet", _parquet),
}
