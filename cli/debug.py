"""`flowscope debug`: files in, lines out.

In:        a folder of recorded events.
Out:       one JSON object per event on stdout.
Elsewhere: model/decode/folder.py decodes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cli.command import Call
from cli.errors import CommandError

_NEEDED: Final = "a folder of events holds index.jsonl, events.bin and getters.json"


def decode(call: Call) -> None:
    """`flowscope debug decode DIR`. Raises: CommandError."""
    from model.decode.folder import decode_folder
    from model.knowledge import InvalidState

    if len(call.words) != 1:
        raise CommandError(f"debug decode takes one folder, got {len(call.words)} words; {_NEEDED}")
    folder = Path(call.words[0])
    state = _parsed(_read(folder / "getters.json").decode("utf-8", "replace"), folder / "getters.json")
    data = _read(folder / "events.bin")
    expected = folder / "expected.jsonl"
    try:
        lines = decode_folder(
            _lines(folder / "index.jsonl"), data, state, _lines(expected) if expected.exists() else ()
        )
        for line in lines:
            sys.stdout.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    except InvalidState as error:
        raise CommandError(f"{folder / 'getters.json'}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}; {_NEEDED}") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read(path).decode("utf-8", "replace").splitlines(), 1):
        if line.strip():
            yield _parsed(line, f"{path}:{number}")


def _parsed(text: str, place: Path | str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{place}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CommandError(f"{place}: expected a JSON object")
    return value
