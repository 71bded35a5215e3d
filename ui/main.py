"""The dashboard process: the web server and the stream that feeds it, one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn

from model.ring import InvalidCapacity
from rpc.client import Channel
from rpc.target import Target
from service.run import Failure
from ui.app import create_app
from ui.config import UiConfig
from ui.cost import follow_costs
from ui.feed import follow
from ui.hub import Hub
from ui.layouts import Layouts
from ui.security import LOOPBACK, Guard
from ui.wish import LONGEST

log = structlog.get_logger(component="ui")

BACKLOG = 128


class Server(uvicorn.Server):
    """uvicorn without its own signal handling, which service.run has."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(config: UiConfig, stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Serve until `stop`. Raises: Failure for an address that cannot be used."""
    try:
        channel = Channel(config.server)
        target = Target.parse(config.listen)
    except ValueError as error:
        raise Failure(f"{error}") from error
    try:
        layouts = Layouts(Path(config.layout_file) if config.layout_file else None)
        hub = Hub(config.flows, config.map_window_s, layouts)
    except InvalidCapacity as error:
        raise Failure(f"--flows: {error}") from error
    token = config.token or ("" if is_private(target) else secrets.token_urlsafe(24))
    app = Guard(create_app(hub, config.clients), {*config.hosts, target.host}, token, config.base_path)
    web = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws_max_size=LONGEST,
            timeout_graceful_shutdown=max(1, int(config.drain_s)),
        )
    )
    sockets = [listening_socket(target)]
    async with channel, asyncio.TaskGroup() as tasks:
        feeding = [
            tasks.create_task(follow(channel, hub, config.history), name="feed"),
            tasks.create_task(follow_costs(channel, hub.costs), name="costs"),
        ]
        serving = tasks.create_task(web.serve(sockets=sockets), name="web")
        log.info("dashboard ready", address=str(target), server=config.server)
        if token and not config.token:
            log.info("log in with this address", url=login_url(target, config.base_path, token))
        await stop.wait()
        web.should_exit = True
        await serving
        for task in feeding:
            task.cancel()


def is_private(target: Target) -> bool:
    """Whether only this machine's users can come by: then no token is asked for by default."""
    return target.kind == "unix" or f"[{target.host}]" in LOOPBACK or target.host in LOOPBACK


def login_url(target: Target, base_path: str, token: str) -> str:
    """What to open in a browser the first time."""
    base = f"/{base_path.strip('/')}" if base_path.strip("/") else ""
    return f"http://{target}{base}/?token={token}"


def listening_socket(target: Target) -> socket.socket:
    """A bound socket. Raises: Failure naming the address and the remedy."""
    try:
        if target.kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            Path(target.path).unlink(missing_ok=True)
            sock.bind(target.path)
        else:
            family, kind, protocol, _, address = socket.getaddrinfo(
                target.host or None, target.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Failure(
            f"cannot serve the dashboard on {target}: {reason}; choose another address with --listen"
        ) from error
    return sock
