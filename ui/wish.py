"""What a page asks for, as it came over the WebSocket.

In:        text of a message.
Out:       Wish, LayoutNote or SparkNote; BadMessage says which control of the page is wrong, and how.
Elsewhere: live.py answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ui.cells import COLUMNS, USUAL
from ui.hub import Seconds
from ui.layouts import Layout
from ui.picture import Openness
from ui.query import BadQuery, Query, parse_query

LONGEST: Final = 4_000_000
"""Bytes of a message; a layout of 6,000 cards has two."""

Group = Annotated[str, Field(max_length=300)]
Ms = Annotated[int, Field(ge=0, le=2**53)]


class BadMessage(ValueError):
    """A message that cannot be followed."""

    def __init__(self, control: str, text: str) -> None:
        super().__init__(text)
        self.control = control
        """Which part of the page shows the problem: filter, range, compare, columns, message."""


class Wish(BaseModel):
    """Everything a page shows follows from this and the flows."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["subscribe"]
    filter: Annotated[str, Field(max_length=4_000)] = ""
    range: tuple[Ms, Ms] | None = None
    """Milliseconds since the epoch; null: live."""
    compare: tuple[Ms, Ms] | None = None
    bar_s: Annotated[int, Field(ge=30, le=3600)] = 300
    """Seconds that the time bar shows."""
    paused: bool = False
    tall: bool = False
    """The map has more height than width: another layout."""
    opened: Annotated[list[Group], Field(max_length=2_000)] = []
    closed: Annotated[list[Group], Field(max_length=2_000)] = []
    columns: Annotated[list[str], Field(min_length=1, max_length=60)] = list(USUAL)
    view: Literal["map", "flows", "l7", "dns", "findings", "health"] = "map"
    cursor: dict[str, Any] | None = None
    """As the last message of flows gave it."""

    @property
    def openness(self) -> Openness:
        return Openness(frozenset(self.opened), frozenset(self.closed))

    @property
    def span(self) -> Seconds | None:
        return _seconds(self.range) if self.range else None

    @property
    def base(self) -> Seconds | None:
        return _seconds(self.compare) if self.compare else None

    def query(self) -> Query:
        """Raises: BadMessage."""
        try:
            return parse_query(self.filter)
        except BadQuery as error:
            raise BadMessage("filter", str(error)) from error

    def check(self) -> None:
        """Raises: BadMessage for what the types cannot tell."""
        for control, span in (("range", self.range), ("compare", self.compare)):
            if span is not None and span[0] >= span[1]:
                raise BadMessage(control, "a span must end behind its beginning")
        unknown = [name for name in self.columns if name not in COLUMNS]
        if unknown:
            raise BadMessage("columns", f"no column is called {unknown[0][:40]!r}")


class LayoutNote(BaseModel):
    """Cards were placed or moved."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["layout"]
    view: Annotated[str, Field(max_length=10_000)]
    layout: Layout


class SparkNote(BaseModel):
    """The pointer rests on an arrow."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: Literal["spark"]
    edge: Annotated[str, Field(max_length=1_200)]


Message = Wish | LayoutNote | SparkNote
_MESSAGES: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def parse(text: str) -> Message:
    """Raises: BadMessage."""
    try:
        message = _MESSAGES.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = [str(part) for part in first["loc"] if part not in ("subscribe", "layout", "spark")]
        control = place[0] if place and place[0] in ("filter", "range", "compare", "columns") else "message"
        raise BadMessage(control, f"{'.'.join(place) or 'message'}: {first['msg']}"[:300]) from error
    if isinstance(message, Wish):
        message.check()
    return message


def _seconds(span: tuple[int, int]) -> Seconds:
    start = span[0] // 1000
    return start, max(-(-span[1] // 1000), start + 1)
