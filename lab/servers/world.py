"""Servers of the world: HTTP on port 80 of every address there, and a port 53 that is silent.

In:        requests of pods.
Out:       200 and the name or address that was asked for.
Elsewhere: lab/world.py says which addresses there are; http.py speaks HTTP.
"""

from __future__ import annotations

import socket
import sys

from lab.servers.http import Handler, Request, Response, listen, serve
from lab.world import HTTP_PORT, SILENT


def handler() -> Handler:
    """Answers everything alike."""

    def answer(request: Request) -> Response:
        host = request.headers.get("host", "")
        return Response(200, f"{host}{request.path}\n".encode(), (("Content-Type", "text/plain"),))

    return answer


def main() -> int:
    """Run the servers; returns the exit code."""
    # Never read: queries fill its buffer, and then the kernel drops them.
    silence = listen(SILENT, 53, socket.SOCK_DGRAM)
    with silence:
        return serve(handler(), HTTP_PORT)


if __name__ == "__main__":
    sys.exit(main())
