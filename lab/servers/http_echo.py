"""hashicorp/http-echo: answers every request with the text it was started with.

In:        `-text=foo`, `-listen=:5678`, `-status-code=200`, as the original takes them (one dash or two).
Out:       200, the text and a line feed, and the original's X-App-* headers.
Elsewhere: http.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lab.servers.http import Handler, Request, Response, serve

VERSION = "0.2.3"


def handler(text: str, status: int = 200) -> Handler:
    """Answers everything alike, but /health as the original does."""
    headers = (
        ("X-App-Name", "http-echo"),
        ("X-App-Version", VERSION),
        ("Content-Type", "text/plain; charset=utf-8"),
    )
    echo = Response(status, f"{text}\n".encode(), headers)
    health = Response(200, b'{"status":"ok"}\n', (("Content-Type", "application/json; charset=utf-8"),))

    def answer(request: Request) -> Response:
        return health if request.path == "/health" else echo

    return answer


def options(arguments: Sequence[str]) -> dict[str, str]:
    """Go's flags: `-name=value`, `--name=value`, `-name value`. Raises: ValueError for anything else."""
    values: dict[str, str] = {}
    words = list(arguments)
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("-") or name.lstrip("-") not in {"text", "listen", "status-code"}:
            raise ValueError(f"unknown argument {name!r}; known are -text, -listen and -status-code")
        if not equals:
            if not words:
                raise ValueError(f"{name} needs a value")
            value = words.pop(0)
        values[name.lstrip("-")] = value
    return values


def main(arguments: Sequence[str]) -> int:
    """Run the server; returns the exit code."""
    try:
        given = options(arguments)
        host, _, port = given.get("listen", ":5678").rpartition(":")
        text = given.get("text") or os.environ.get("ECHO_TEXT", "")
        if not text:
            raise ValueError("missing -text")
        return serve(handler(text, int(given.get("status-code", "200"))), int(port), host.strip("[]"))
    except ValueError as error:
        print(f"http-echo: {error}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
