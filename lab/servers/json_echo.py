"""The JSON server of Cilium's connectivity test (quay.io/cilium/json-mock), on port 8080.

In:        PORT in the environment (8080 when unset).
Out:       /            a page of 2,057 bytes with the headers of an Express server
           /public, /private, /db, /public/1   JSON
           /client-ip   the address of the client as the server sees it; /hostname the pod's name
           /auth-header-required/...           401 unless `Authorization: Bearer 123456`
           else         404 and an empty object
Elsewhere: http.py.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Final

from lab.servers.http import Request, Response, serve

DATABASE: Final = {
    "private": [{"id": 1, "body": "secret information"}],
    "public": [{"id": 1, "body": "public information"}],
}

EXPRESS: Final = (
    ("X-Powered-By", "Express"),
    ("Vary", "Origin, Accept-Encoding"),
    ("Access-Control-Allow-Credentials", "true"),
)
KEEP_ALIVE: Final = (("Connection", "keep-alive"), ("Keep-Alive", "timeout=5"))

PAGE_BYTES: Final = 2057
"""Size of the original's front page: the bytes of a flow are then those that people know from its recordings."""

_PAGE_TEXT: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>JSON server</title></head>
<body>
<h1>JSON server</h1>
<p>Resources: <a href="/private">/private</a>, <a href="/public">/public</a>, <a href="/client-ip">/client-ip</a>,
<a href="/hostname">/hostname</a>, <a href="/auth-header-required">/auth-header-required</a>, <a href="/db">/db</a></p>
<!-- %s -->
</body>
</html>
"""
PAGE: Final = (_PAGE_TEXT % ("." * (PAGE_BYTES - len(_PAGE_TEXT) + 2))).encode()

FRONT: Final = Response(
    200,
    PAGE,
    (
        *EXPRESS,
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", "public, max-age=0"),
        ("Last-Modified", "Sat, 26 Oct 1985 08:15:00 GMT"),
        ("ETag", 'W/"809-7438674ba0"'),
        ("Content-Type", "text/html; charset=UTF-8"),
        *KEEP_ALIVE,
    ),
)
NO_CACHE: Final = (("Cache-Control", "no-cache"), ("Pragma", "no-cache"), ("Expires", "-1"))
GUARDED: Final = "/auth-header-required"
TOKEN: Final = "Bearer 123456"


def answer(request: Request) -> Response:
    """The answer to one request."""
    path = request.path
    if path.startswith(GUARDED) and request.headers.get("authorization") != TOKEN:
        return _text(401, f'The Authorization header is missing or wrong; expected "{TOKEN}"')
    if request.method not in ("GET", "HEAD"):
        return _json(404, {})
    if path in ("/", "/index.html"):
        return FRONT
    if path.startswith("/client-ip"):
        return _json(200, {"client-ip": request.peer})
    if path.startswith("/hostname"):
        return _json(200, {"hostname": socket.gethostname()})
    if path == "/db":
        return _json(200, DATABASE)
    name, _, number = path.strip("/").partition("/")
    records = DATABASE.get(name)
    if records is None:
        return _json(404, {})
    if not number:
        return _json(200, records)
    found = next((one for one in records if str(one["id"]) == number), None)
    return _json(200, found) if found else _json(404, {})


def _json(status: int, value: object) -> Response:
    body = json.dumps(value, indent=2).encode()
    return Response(
        status, body, (*EXPRESS, *NO_CACHE, ("Content-Type", "application/json; charset=utf-8"), *KEEP_ALIVE)
    )


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), (*EXPRESS, ("Content-Type", "text/html; charset=utf-8"), *KEEP_ALIVE))


if __name__ == "__main__":
    sys.exit(serve(answer, int(os.environ.get("PORT", "8080"))))
