"""Records of a file, selected and ready to be printed.

In:        lines; the bounds and filters of a request.
Out:       Records: what passed, in the order of the file; its text.
Elsewhere: files.py reads the file and counts; model/text makes the text.

Two ways with one result: SlowRecords reads each line as a message; FastRecords does so only with lines that resemble
no earlier one, and has numpy do the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from model.filters import FlowPredicate
from model.row import Rows
from model.tables import Tables
from model.text.flows import Chunk, FlowText, Look, Output, flow_text, join, lost_text
from model.text.lines import Lines
from model.text.rows import RowText
from model.whole_rows import take
from proto.flow import flow_pb2
from proto.observer import observer_pb2

if TYPE_CHECKING:
    from cli.observe.files import LineReader

Response = observer_pb2.GetFlowsResponse
Bools = npt.NDArray[np.bool_]

_NS: int = 1_000_000_000


class Records(Protocol):
    """Some records of a file."""

    def __len__(self) -> int: ...

    def first(self, count: int) -> Self:
        """At most so many of the first."""

    def last(self, count: int) -> Self:
        """So many of the last."""

    def chunks(self) -> Iterable[Chunk]:
        """Their text. Ask once: a stream remembers what it has printed."""


class Bounds:
    """What a request says about time, and what passes its filters."""

    def __init__(self, request: observer_pb2.GetFlowsRequest, predicate: FlowPredicate) -> None:
        self._since = _key(request.since) if request.HasField("since") else None
        self._until = _key(request.until) if request.HasField("until") else None
        self._predicate = predicate
        self._nothing_passes = predicate.matches(flow_pb2.Flow())

    def passes(self, response: Response) -> bool:
        """Whether one response passes. Its own time counts, 1970 when absent; filters see its flow, or an empty one."""
        time = _key(response.time)
        if (self._since is not None and time < self._since) or (self._until is not None and time > self._until):
            return False
        return self._predicate.matches(response.flow) if response.HasField("flow") else self._nothing_passes

    def mask(self, rows: Rows, outer_ns: npt.NDArray[np.int64], tables: Tables) -> Bools:
        """The same for rows of flows."""
        passes = self._predicate.mask(rows, tables)
        if self._since is not None:
            passes &= outer_ns >= self._since[0] * _NS + self._since[1]
        if self._until is not None:
            passes &= outer_ns <= self._until[0] * _NS + self._until[1]
        return passes


def _key(time: object) -> tuple[int, int]:
    return time.seconds, time.nanos  # type: ignore[attr-defined]


class SlowRecords:
    """Reads line by line."""

    def __init__(self, request: observer_pb2.GetFlowsRequest, predicate: FlowPredicate, text: FlowText) -> None:
        self._bounds = Bounds(request, predicate)
        self._text = text

    def select(self, lines: Sequence[bytes], before: int, reader: LineReader) -> Messages:
        """What passes. `before` lines of the file came earlier."""
        read = (reader.read(line, number) for number, line in enumerate(lines, before + 1))
        passed = [response for response in read if response is not None and self._bounds.passes(response)]
        return Messages(passed, self._text)


class Messages:
    """Records as messages."""

    def __init__(self, responses: Sequence[Response], text: FlowText) -> None:
        self.responses = responses
        self._text = text

    def __len__(self) -> int:
        return len(self.responses)

    def first(self, count: int) -> Messages:
        return Messages(self.responses[:count], self._text)

    def last(self, count: int) -> Messages:
        return Messages(self.responses[len(self.responses) - count :], self._text)

    def chunks(self) -> Iterable[Chunk]:
        return self._text.many(self.responses)


class FastRecords:
    """Reads what resembles earlier lines by what differs."""

    WORTHWHILE: ClassVar[int] = 16
    """Lines at once from which on this is the faster way."""

    def __init__(self, request: observer_pb2.GetFlowsRequest, predicate: FlowPredicate, text: FlowText) -> None:
        self._bounds = Bounds(request, predicate)
        self._text = text
        self._lines = Lines(for_json=text.look.output is Output.JSON)
        self._row_text = RowText(text.look, self._lines.tables)

    @staticmethod
    def serves(request: observer_pb2.GetFlowsRequest, look: Look) -> bool:
        """Whether nothing is asked of a flow that lines of one kind do not share."""
        if look.output is Output.LEGACY_JSON:
            return False
        return not any(one.uuid or one.experimental.cel_expression for one in (*request.whitelist, *request.blacklist))

    def select(self, lines: Sequence[bytes], before: int, reader: LineReader) -> Records:
        """What passes. `before` lines of the file came earlier."""
        known = reader.discard_unknown
        batch = self._lines.read(lines, reader.quietly)
        if self._row_text.tables is not self._lines.tables:
            self._row_text = RowText(self._text.look, self._lines.tables)
        regular = batch.regular
        if self._text.look.output is Output.JSON:
            regular = batch.canonical
        responses: dict[int, Response] = {}
        passed = np.zeros(len(lines), np.bool_)
        for at in np.flatnonzero(~regular).tolist():
            response = reader.read(lines[at], before + at + 1)
            if response is not None and self._bounds.passes(response):
                responses[at] = response
                passed[at] = True
        passed |= regular & self._bounds.mask(batch.rows, batch.outer_ns, self._lines.tables)
        if reader.discard_unknown is not known:
            # Lines that were broken until now are not any more.
            self._lines.forget()
        places = np.flatnonzero(passed)
        if self._text.look.output is Output.JSON:
            return _Lines([(lines[at], responses.get(at)) for at in places.tolist()], self._text)
        row_text, self_text = self._row_text, self._text
        there = {place: responses[at] for place, at in enumerate(places.tolist()) if at in responses}
        return _Rows(take(batch.rows, places), there, row_text, self_text)


class _Lines:
    """Lines that are printed as they are, and some that are not."""

    def __init__(self, lines: Sequence[tuple[bytes, Response | None]], text: FlowText) -> None:
        self._lines = lines
        self._text = text

    def __len__(self) -> int:
        return len(self._lines)

    def first(self, count: int) -> _Lines:
        return _Lines(self._lines[:count], self._text)

    def last(self, count: int) -> _Lines:
        return _Lines(self._lines[len(self._lines) - count :], self._text)

    def chunks(self) -> Iterable[Chunk]:
        return join(self._chunks())

    def _chunks(self) -> Iterator[Chunk]:
        run: list[bytes] = []
        for line, response in self._lines:
            if response is None:
                run.append(line)
                continue
            if run:
                yield _lines_chunk(run)
                run = []
            if (chunk := self._text.one(response)) is not None:
                yield chunk
        if run:
            yield _lines_chunk(run)


def _lines_chunk(lines: Sequence[bytes]) -> Chunk:
    return Chunk((b"\n".join(lines) + b"\n").decode())


class _Rows:
    """Rows, some of which are stand-ins for messages."""

    def __init__(self, rows: Rows, responses: dict[int, Response], row_text: RowText, text: FlowText) -> None:
        self._rows = rows
        self._responses = responses
        self._row_text = row_text
        self._text = text

    def __len__(self) -> int:
        return len(self._rows)

    def first(self, count: int) -> _Rows:
        return self._part(0, min(count, len(self)))

    def last(self, count: int) -> _Rows:
        return self._part(len(self) - count, len(self))

    def _part(self, start: int, end: int) -> _Rows:
        there = {place - start: response for place, response in self._responses.items() if start <= place < end}
        return _Rows(self._rows[start:end], there, self._row_text, self._text)

    def chunks(self) -> Iterable[Chunk]:
        return join(self._chunks())

    def _chunks(self) -> Iterator[Chunk]:
        # What is no record, such as node status, goes to another stream: it parts the rows.
        given: dict[int, str] = {}
        start = 0
        for place, response in self._responses.items():
            member = response.WhichOneof("response_types")
            if member in ("flow", "lost_events"):
                write = flow_text if member == "flow" else lost_text
                given[place] = write(response, self._text.look)
                continue
            yield from self._records(start, place, given)
            if (chunk := self._text.one(response)) is not None:
                yield chunk
            start = place + 1
        yield from self._records(start, len(self._rows), given)

    def _records(self, start: int, end: int, given: dict[int, str]) -> Iterator[Chunk]:
        here = {place - start: text for place, text in given.items() if start <= place < end}
        chunk = self._text.records(self._row_text.text(self._rows[start:end], here))
        if chunk is not None:
            yield chunk
