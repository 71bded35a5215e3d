"""Log lines of the command line: `time=... level=WARN msg="..." key=value`, on stderr.

In:        a constant phrase and fields.
Out:       one line each; DEBUG only with `-D`.
Elsewhere: services log with service.log. The form here is the one that Hubble's users know and grep for.
"""

from __future__ import annotations

import datetime
import sys

from model.text.quote import quote

_debug = False


def show_debug(on: bool) -> None:
    """Whether DEBUG lines are printed."""
    global _debug
    _debug = on


def debug(message: str, **fields: object) -> None:
    """Something that helps to find out what goes on."""
    if _debug:
        _write("DEBUG", message, fields)


def info(message: str, **fields: object) -> None:
    """Something worth knowing."""
    _write("INFO", message, fields)


def warn(message: str, **fields: object) -> None:
    """Something that is not as it should be; the command goes on."""
    _write("WARN", message, fields)


def _write(level: str, message: str, fields: dict[str, object]) -> None:
    now = datetime.datetime.now().astimezone()
    time = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    words = [f"time={time}", f"level={level}", f"msg={_value(message)}"]
    words += [f"{name}={_value(str(value))}" for name, value in fields.items()]
    sys.stdout.flush()
    print(" ".join(words), file=sys.stderr)


def _value(text: str) -> str:
    plain = text.isprintable() and not any(char in text for char in ' "=') and text
    return text if plain else quote(text)
