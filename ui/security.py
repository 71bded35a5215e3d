"""What a browser may do with this server: nothing but show its own page, and that only for who may see it.

In:        requests as they come off the socket.
Out:       the same to the application, below the base path, for allowed hosts, origins and holders of the token.
Elsewhere: app.py serves; config.py has the settings.
Source:    W3C Content Security Policy Level 3; RFC 6265 (cookies). DNS rebinding is stopped by the list of host names.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS: Final = {
    # Blob images: the map is exported as PNG by drawing its own SVG.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
COOKIE: Final = "flowscope-token"
LOGIN: Final = Path(__file__).parent / "static" / "login.html"
OPEN_PATHS: Final = frozenset({"/healthz", "/static/css/flowscope.css", "/static/icon.svg"})
"""What the login page needs, and what a balancer asks."""
FORM_BYTES: Final = 4096


class Guard:
    """ASGI middleware in front of everything."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str], token: str = "", base_path: str = "") -> None:
        """`token`: asked of every browser; empty: of none. `base_path`: cut from the front of paths, where present."""
        self._app = app
        self._hosts = LOOPBACK | set(hosts)
        self._token = token
        # Any token fits into a cookie so, and a cookie that leaks does not tell the token.
        self._cookie = hashlib.sha256(f"flowscope cookie {token}".encode()).hexdigest()
        self._base = "/" + base_path.strip("/") if base_path.strip("/") else ""
        self._headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if host_name(host) not in self._hosts:
            return await self._refuse(scope, receive, send, f"host {host!r} is not served here; allow it with --hosts")
        origin = headers.get(b"origin")
        if origin is not None and origin != "null" and origin.partition("://")[2] != host:
            return await self._refuse(scope, receive, send, "a page of another origin may not read flows")
        if self._base and scope["path"] == self._base:
            return await self._redirect(send, f"{self._base}/", [])
        scope = self._below_base(scope)
        if self._token and not self._knows_token(headers) and scope["path"] not in OPEN_PATHS:
            return await self._login(scope, receive, send)
        return await self._app(scope, receive, self._with_headers(send))

    def _below_base(self, scope: Scope) -> Scope:
        """Proxies may cut the base path or leave it: both work."""
        if self._base and scope["path"].startswith(f"{self._base}/"):
            path = scope["path"][len(self._base) :]
            return {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        return scope

    def _knows_token(self, headers: dict[bytes, str]) -> bool:
        scheme, _, bearer = headers.get(b"authorization", "").partition(" ")
        try:
            morsel = SimpleCookie(headers.get(b"cookie", "")).get(COOKIE)
        except CookieError:
            morsel = None
        known = hmac.compare_digest((morsel.value if morsel else "").encode(), self._cookie.encode())
        return known or (scheme.lower() == "bearer" and self._is_token(bearer))

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._token.encode())

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._refuse(scope, receive, send, "log in first: open the address printed at start")
            return
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "POST" and scope["path"] == "/login":
            given = parse_qs((await _body(receive)).decode("utf-8", "replace")).get("token", [""])[0]
        if self._is_token(given):
            # A relative address: below which path a proxy put us, only the browser knows.
            where = "./" if scope["path"] in ("/", "/login") else scope["path"].rpartition("/")[2]
            cookie = f"{COOKIE}={self._cookie}; HttpOnly; SameSite=Strict; Path={self._base or '/'}; Max-Age=2592000"
            await self._redirect(send, where, [(b"set-cookie", cookie.encode())])
            return
        page = LOGIN.read_bytes() if scope["path"] in ("/", "/login") else b"log in first\n"
        kind = b"text/html; charset=utf-8" if scope["path"] in ("/", "/login") else b"text/plain; charset=utf-8"
        start = {"type": "http.response.start", "status": 401, "headers": [(b"content-type", kind)]}
        await self._with_headers(send)(start)
        await send({"type": "http.response.body", "body": page})

    async def _redirect(self, send: Send, where: str, headers: list[tuple[bytes, bytes]]) -> None:
        start = {"type": "http.response.start", "status": 303, "headers": [(b"location", where.encode()), *headers]}
        await self._with_headers(send)(start)
        await send({"type": "http.response.body", "body": b""})

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        return sending

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, why: str) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": why[:120]})
            return
        start = {
            "type": "http.response.start",
            "status": 403,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
        await self._with_headers(send)(start)
        await send({"type": "http.response.body", "body": f"{why}\n".encode()})


async def _body(receive: Receive) -> bytes:
    """A small body; the rest of a large one is not read."""
    body = b""
    while len(body) < FORM_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name, _, port = host.rpartition(":")
    return (name if port.isdigit() and name else host).lower()
