"""Flows from a file or a pipe of JSON lines.

In:        the request that a server would get; a path, or `-` for standard input.
Out:       text on stdout and stderr, as `observe` prints what a server sends.
Elsewhere: model/text/fromjson.py reads a line, model/text/lines.py reads many that resemble each other; model/filters
           judges them; request.py made the request.

A broken line is reported and skipped. Lines keep their order, whatever their times say.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from cli import log
from cli.errors import CommandError
from cli.observe.records import FastRecords, Records, SlowRecords
from cli.output import write, write_chunks
from model.filters import FlowPredicate, InvalidFilter, compile_filters
from model.text.flows import FlowText, Look
from model.text.fromjson import from_json
from proto.observer import observer_pb2

TOO_LONG: Final = 65_536
"""Bytes of a line, without its end, that end the reading: the limit of Go's scanner."""

MAX_LAST: Final = 1_000_000

EVERYTHING: Final = (1 << 64) - 1
"""The number of a request that means all."""

R = TypeVar("R", bound=Records)

_READ_BYTES: Final = 1 << 22


class LineTooLong(Exception):
    """A line has at least TOO_LONG bytes."""


class ReadFailed(Exception):
    """The file cannot be read; str() says why."""


def observe_file(path: str, request: observer_pb2.GetFlowsRequest, look: Look) -> None:
    """Read the file, print what the request asks for.

    Raises: CommandError.
    """
    # Lines come by the million and form no cycles; looking for those takes one twentieth of the time.
    gc.set_threshold(200_000, 50, 50)
    text = FlowText(look)
    with opened(path, request) as (lines, predicate):
        try:
            for records in wanted(_selected(lines, request, predicate, text), request):
                write_chunks(records.chunks())
        finally:
            write(text.finish())


@contextmanager
def opened(path: str, request: observer_pb2.GetFlowsRequest) -> Iterator[tuple[Iterator[list[bytes]], FlowPredicate]]:
    """The lines of a file, and the filters for them.

    Raises: CommandError.
    """
    # A blocked read ends when its writer ends; Ctrl-C is for the writer.
    signal.signal(signal.SIGINT, lambda *_: None)
    with _open_file(path) as file:
        try:
            predicate = compile_filters(request.whitelist, request.blacklist, port_ranges=True)
        except InvalidFilter as error:
            raise CommandError(str(error)) from error
        if not request.first and MAX_LAST < request.number < EVERYTHING:
            raise CommandError(f"--last must be <= 1_000_000, got {request.number}")
        try:
            yield lines_of(file), predicate
        except LineTooLong:
            raise CommandError("bufio.Scanner: token too long") from None
        except ReadFailed as failed:
            raise CommandError(f"read {path}: {failed}") from failed


@contextmanager
def _open_file(path: str) -> Iterator[int]:
    if path == "-":
        yield sys.stdin.fileno()
        return
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CommandError(f"open {path}: {_reason(error)}") from error
    try:
        yield file
    finally:
        os.close(file)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def lines_of(file: int) -> Iterator[list[bytes]]:
    """The lines of a file as they become available, without line ends.

    Raises: LineTooLong behind the lines before it; ReadFailed.
    """
    rest = b""
    while data := _read(file):
        lines = data.split(b"\n")
        lines[0] = rest + lines[0]
        rest = lines.pop()
        too_long = max(map(len, lines), default=0) >= TOO_LONG
        if too_long:
            lines = lines[: next(index for index, line in enumerate(lines) if len(line) >= TOO_LONG)]
        yield lines
        if too_long or len(rest) >= TOO_LONG:
            raise LineTooLong
    if rest:
        yield [rest]


def _read(file: int) -> bytes:
    try:
        return os.read(file, _READ_BYTES)
    except OSError as error:
        raise ReadFailed(_reason(error)) from error


class LineReader:
    """Lines become responses, one by one. Remembers whether unknown fields were reported."""

    def __init__(self) -> None:
        self.discard_unknown = False

    def quietly(self, line: bytes) -> observer_pb2.GetFlowsResponse | None:
        """A line as it would be read now; None when it is broken."""
        try:
            return from_json(line, observer_pb2.GetFlowsResponse, self.discard_unknown)
        except ValueError:
            return None

    def read(self, line: bytes, number: int) -> observer_pb2.GetFlowsResponse | None:
        """A line; None when it is broken, which is reported with its number in the file."""
        try:
            return from_json(line, observer_pb2.GetFlowsResponse, self.discard_unknown)
        except ValueError as error:
            return self._second_try(line, number, error)

    def _second_try(self, line: bytes, number: int, error: ValueError) -> observer_pb2.GetFlowsResponse | None:
        """Fields that we do not know come from a newer server: worth one warning, not the loss of the line."""
        if not self.discard_unknown:
            try:
                response = from_json(line, observer_pb2.GetFlowsResponse, discard_unknown=True)
            except ValueError as still:
                error = still
            else:
                self.discard_unknown = True
                log.warn(
                    "unknown field detected, upgrade the Hubble CLI to get rid of this warning",
                    error=error,
                    number=number,
                )
                return response
        shown = line.rstrip(b"\r").decode("utf-8", "surrogateescape")
        log.warn("Failed to unmarshal json to flow", error=error, line=shown, number=number)
        return None


def _selected(
    batches: Iterable[list[bytes]], request: observer_pb2.GetFlowsRequest, predicate: FlowPredicate, text: FlowText
) -> Iterator[Records]:
    """The records within the time bounds and the filters, batch by batch."""
    reader = LineReader()
    number = 0
    fast = FastRecords(request, predicate, text) if FastRecords.serves(request, text.look) else None
    slow = SlowRecords(request, predicate, text)
    for lines in batches:
        # A few lines are read before the machinery for many would have started.
        serve = slow if fast is None or len(lines) < FastRecords.WORTHWHILE else fast
        yield serve.select(lines, number, reader)
        number += len(lines)


def wanted(batches: Iterable[R], request: observer_pb2.GetFlowsRequest) -> Iterator[R]:
    """As many of the first or last records as the request asks for."""
    number = request.number if request.number < EVERYTHING else 0
    if number and not request.first:
        yield from _last(batches, number)
        return
    left = number
    for batch in batches:
        if not number:
            yield batch
            continue
        yield (part := batch.first(left))
        left -= len(part)
        if not left:
            return


def _last(batches: Iterable[R], number: int) -> Iterator[R]:
    kept: deque[R] = deque()
    count = 0
    for batch in batches:
        kept.append(batch)
        count += len(batch)
        while count - len(kept[0]) >= number:
            count -= len(kept.popleft())
    if kept and count > number:
        kept[0] = kept[0].last(len(kept[0]) - (count - number))
    yield from kept
