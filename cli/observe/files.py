"""Flows from a file or a pipe of JSON lines.

In:        the request that a server would get; a path, or `-` for standard input.
Out:       text on stdout and stderr, as `observe` prints what a server sends.
Elsewhere: model/text/fromjson.py reads a line; model/filters judges it; request.py made the request.

A broken line is reported and skipped. Lines keep their order, whatever their times say.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from cli import log
from cli.errors import CommandError
from cli.output import write, write_chunks
from model.filters import FlowPredicate, InvalidFilter, compile_filters
from model.text.flows import FlowText, Look
from model.text.fromjson import from_json
from proto.flow import flow_pb2
from proto.observer import observer_pb2

TOO_LONG: Final = 65_536
"""Bytes of a line, without its end, that end the reading: the limit of Go's scanner."""

MAX_LAST: Final = 1_000_000

_READ_BYTES: Final = 1 << 20


class LineTooLong(Exception):
    """A line has at least TOO_LONG bytes."""


def observe_file(path: str, request: observer_pb2.GetFlowsRequest, look: Look) -> None:
    """Read the file, print what the request asks for.

    Raises: CommandError.
    """
    # A blocked read ends when its writer ends; Ctrl-C is for the writer.
    signal.signal(signal.SIGINT, lambda *_: None)
    with _opened(path) as file:
        try:
            predicate = compile_filters(request.whitelist, request.blacklist)
        except InvalidFilter as error:
            raise CommandError(str(error)) from error
        if not request.first and MAX_LAST < request.number < (1 << 64) - 1:
            raise CommandError(f"--last must be <= 1_000_000, got {request.number}")
        text = FlowText(look)
        try:
            _print_all(select(Responses().read(lines_of(file)), request, predicate), request, text)
        except LineTooLong:
            raise CommandError("bufio.Scanner: token too long") from None
        except OSError as error:
            raise CommandError(f"read {path}: {_reason(error)}") from error
        finally:
            write(text.finish())


@contextmanager
def _opened(path: str) -> Iterator[int]:
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

    Raises: LineTooLong behind the lines before it; OSError.
    """
    rest = b""
    while data := os.read(file, _READ_BYTES):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        too_long = max(map(len, lines), default=0) >= TOO_LONG
        if too_long:
            lines = lines[: next(index for index, line in enumerate(lines) if len(line) >= TOO_LONG)]
        yield lines
        if too_long or len(rest) >= TOO_LONG:
            raise LineTooLong
    if rest:
        yield [rest]


class Responses:
    """Lines become responses. Remembers whether unknown fields were reported, and the line number."""

    def __init__(self) -> None:
        self._discard_unknown = False
        self._number = 0

    def read(self, batches: Iterable[list[bytes]]) -> Iterator[list[observer_pb2.GetFlowsResponse]]:
        """Batch by batch; what cannot be read is reported."""
        for lines in batches:
            yield [response for line in lines if (response := self.one(line)) is not None]

    def one(self, line: bytes) -> observer_pb2.GetFlowsResponse | None:
        """One line; None when it cannot be read."""
        self._number += 1
        try:
            return from_json(line, observer_pb2.GetFlowsResponse, self._discard_unknown)
        except ValueError as error:
            return self._second_try(line, error)

    def _second_try(self, line: bytes, error: ValueError) -> observer_pb2.GetFlowsResponse | None:
        """Fields that we do not know come from a newer server: worth one warning, not the loss of the line."""
        if not self._discard_unknown:
            try:
                response = from_json(line, observer_pb2.GetFlowsResponse, discard_unknown=True)
            except ValueError as still:
                error = still
            else:
                self._discard_unknown = True
                log.warn(
                    "unknown field detected, upgrade the Hubble CLI to get rid of this warning",
                    error=error,
                    number=self._number,
                )
                return response
        shown = line.rstrip(b"\r").decode("utf-8", "surrogateescape")
        log.warn("Failed to unmarshal json to flow", error=error, line=shown, number=self._number)
        return None


def select(
    batches: Iterable[list[observer_pb2.GetFlowsResponse]],
    request: observer_pb2.GetFlowsRequest,
    predicate: FlowPredicate,
) -> Iterator[list[observer_pb2.GetFlowsResponse]]:
    """The responses within the time bounds and the filters.

    Times are those of the responses, 1970 when absent; filters see the flow, or an empty one for other records.
    """
    since = _key(request.since) if request.HasField("since") else None
    until = _key(request.until) if request.HasField("until") else None
    empty_passes = predicate.matches(flow_pb2.Flow())

    def passes(response: observer_pb2.GetFlowsResponse) -> bool:
        time = _key(response.time)
        if (since is not None and time < since) or (until is not None and time > until):
            return False
        if not response.HasField("flow"):
            return empty_passes
        return predicate.matches(response.flow)

    for batch in batches:
        if since is None and until is None and predicate.passes_all:
            yield batch
        else:
            yield list(filter(passes, batch))


def _key(time: object) -> tuple[int, int]:
    return time.seconds, time.nanos  # type: ignore[attr-defined]


def _print_all(
    batches: Iterable[list[observer_pb2.GetFlowsResponse]], request: observer_pb2.GetFlowsRequest, text: FlowText
) -> None:
    number = request.number if request.number < (1 << 64) - 1 else 0
    if number and not request.first:
        last: deque[observer_pb2.GetFlowsResponse] = deque(maxlen=number)
        for batch in batches:
            last.extend(batch)
        write_chunks(text.many(last))
        return
    left = number
    for batch in batches:
        if number:
            batch = batch[:left]
            left -= len(batch)
        write_chunks(text.many(batch))
        if number and not left:
            return
