"""Writing to stdout and stderr.

In:        text made by model/text.
Out:       bytes on the two streams, as UTF-8 whatever the terminal's locale says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from model.text.style import Style

if TYPE_CHECKING:
    from model.text.flows import Chunk


def write(text: str) -> None:
    """Write to stdout and flush: the reader may be waiting for every line."""
    if text:
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()


def show(text: str, *, colour: bool = False) -> None:
    """Write what people read: with `colour` it may have colours, and nothing else in it controls a terminal."""
    write(Style(colour).harmless(text))


def write_error(text: str) -> None:
    """Write to stderr."""
    if text:
        sys.stdout.flush()
        sys.stderr.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stderr.buffer.flush()


def write_chunks(chunks: Iterable[Chunk]) -> None:
    """Write each chunk to its stream, in order."""
    for chunk in chunks:
        (write_error if chunk.error else write)(chunk.text)


def wants_colour(choice: str, env: Mapping[str, str] | None = None) -> bool:
    """Whether to colour: `always`, `never`, or as the terminal can (any other word)."""
    env = os.environ if env is None else env
    word = choice.lower()
    if word in ("always", "never"):
        return word == "always"
    return sys.stdout.isatty() and env.get("TERM") != "dumb" and not env.get("NO_COLOR")
