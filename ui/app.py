"""The web server: one page, its files, one WebSocket, and what is asked for once.

In:        HTTP requests of browsers that security.Guard lets through.
Out:       the page; live.Page speaks over the WebSocket, api.py answers the rest.
Elsewhere: hub.py has the flows; main.py runs this under uvicorn.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from ui.api import BadParameter, refuse, router
from ui.hub import Hub
from ui.live import Page

log = structlog.get_logger(component="ui")

STATIC: Final = Path(__file__).parent / "static"
TRY_AGAIN_LATER: Final = 1013


def create_app(hub: Hub, most_clients: int) -> FastAPI:
    """The application; `hub` is fed by feed.py."""
    app = FastAPI(title="Flowscope", docs_url=None, redoc_url=None, openapi_url=None)
    clients: set[WebSocket] = set()

    @app.get("/")
    async def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/healthz")
    async def health() -> dict[str, object]:
        return {
            "relay": "connected" if hub.connected else hub.relay_text,
            "flows": len(hub.ring),
            "seen": hub.ring.head,
        }

    @app.websocket("/api/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        if len(clients) >= most_clients:
            await socket.close(TRY_AGAIN_LATER, "too many open pages; raise --clients")
            return
        clients.add(socket)
        try:
            await serve_page(socket, hub)
        finally:
            clients.discard(socket)

    app.include_router(router(hub))
    app.add_exception_handler(BadParameter, refuse)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


async def serve_page(socket: WebSocket, hub: Hub) -> None:
    """Talk to one page until it goes away."""
    page = Page(hub, socket.send_text)
    pushing = asyncio.create_task(page.run(), name="push")
    try:
        while True:
            listening = asyncio.create_task(socket.receive_text(), name="listen")
            await asyncio.wait({listening, pushing}, return_when=asyncio.FIRST_COMPLETED)
            if pushing.done():
                listening.cancel()
                return await pushing
            page.message(listening.result())
    except (WebSocketDisconnect, RuntimeError, KeyError) as error:
        # Starlette raises RuntimeError when a message is sent to a page that has just gone, and KeyError for a
        # message of bytes, which no page of ours sends.
        log.debug("page gone", why=type(error).__name__)
    finally:
        pushing.cancel()
