"""The connection to the server that the settings name.

In:        Settings: address, TLS files, user and password, port forwarding.
Out:       an open rpc Channel; replies; warnings about servers that are newer than we are.
Elsewhere: rpc/ speaks gRPC; settings.py merges the flags; forward.py reaches into a Kubernetes cluster.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from cli import log
from cli.errors import CommandError
from cli.settings import Settings, uses_tls
from cli.version import API_VERSION
from rpc.client import Channel, Reply, Stream, basic_auth
from rpc.framing import Message
from rpc.status import RpcError, Status
from rpc.target import Target
from rpc.tls import ClientTls, TlsError, client_context

R = TypeVar("R", bound=Reply)

DEFAULT_PORT: Final = 443
"""For addresses without a port, as gRPC's resolver has it."""

_NS_PER_S: Final = 1_000_000_000


def tls_files(settings: Settings) -> ClientTls | None:
    """How to check the server and what to show it; None without TLS.

    Raises: CommandError for a file that cannot be used. It is read even when no call is made, as Hubble does.
    """
    if not uses_tls(settings):
        return None
    tls = ClientTls(
        ca_files=settings.items("tls-ca-cert-files"),
        cert_file=settings.text("tls-client-cert-file"),
        key_file=settings.text("tls-client-key-file"),
        server_name=settings.text("tls-server-name"),
        insecure=settings.on("tls-allow-insecure"),
    )
    try:
        client_context(tls)
    except TlsError as error:
        raise CommandError(str(error)) from error
    return tls


class Server:
    """One server, with the habits of the command line: time limits, version check."""

    def __init__(self, channel: Channel, request_timeout_s: float | None) -> None:
        self._channel = channel
        self._request_timeout_s = request_timeout_s
        self._checked: set[str] = set()

    async def unary(self, path: str, request: Message, reply: type[R]) -> R:
        """One request, one reply. Raises: RpcError."""
        headers: dict[str, str] = {}
        answer = await self._channel.unary(path, request, reply, timeout_s=self._request_timeout_s, headers=headers)
        self.check_version(headers)
        return answer

    def stream(self, path: str, request: Message) -> Stream:
        """A server-streaming call."""
        return self._channel.stream(path, request)

    @property
    def broken(self) -> bool:
        """Whether the connection was lost, as opposed to a call that the server ended with an error."""
        return self._channel.state in ("failed", "idle")

    def check_version(self, headers: Mapping[str, str]) -> None:
        """Warn, once, when a server speaks a newer API than we do. It may then send what we cannot show."""
        for header, what in _VERSION_HEADERS.items():
            theirs = _minor(headers.get(header, ""))
            ours = _minor(API_VERSION)
            if theirs is not None and ours is not None and ours < theirs and header not in self._checked:
                self._checked.add(header)
                log.warn(
                    f"Hubble CLI version is lower than Hubble {what}, API compatibility is not guaranteed,"
                    " updating to a matching or higher version is recommended",
                    **{f"hubble-{what.lower()}-version": headers[header], "hubble-cli-version": API_VERSION},
                )


_VERSION_HEADERS: Final = {"hubble-relay-version": "Relay", "hubble-server-version": "Server"}


def _minor(version: str) -> tuple[int, int] | None:
    match = re.match(r"\s*v?(\d+)(?:\.(\d+))?(?:\.\d+)?(?:[-+\s]|$)", version, re.ASCII)
    return (int(match[1]), int(match[2] or "0")) if match else None


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Server]:
    """The server of the settings; nothing is dialled before the first call.

    Raises: CommandError.
    """
    address = settings.text("server")
    tls = tls_files(settings)
    user, password = settings.text("basic-auth-username"), settings.text("basic-auth-password")
    if user and tls is None:
        raise CommandError(
            f"failed to create gRPC client to '{address}': grpc: the credentials require transport level security"
            " (use grpc.WithTransportCredentials() to set)"
        )
    timeout_ns = settings.number("request-timeout")
    async with _forwarded(settings, address) as reachable:
        try:
            target = Target.parse(reachable, DEFAULT_PORT)
        except ValueError as error:
            raise CommandError(f"failed to create gRPC client to '{address}': {error}") from error
        channel = Channel(target, tls=tls, metadata=[basic_auth(user, password)] if user else [])
        log.debug("connected to Hubble API", server=reachable)
        try:
            yield Server(channel, timeout_ns / _NS_PER_S if timeout_ns > 0 else None)
        finally:
            await channel.close()


@asynccontextmanager
async def _forwarded(settings: Settings, address: str) -> AsyncIterator[str]:
    if not settings.on("port-forward"):
        yield address
        return
    from cli.forward import forwarded

    async with forwarded(settings) as local:
        yield local


def call(work: Callable[[Server], Coroutine[Any, Any, None]], settings: Settings) -> None:
    """Run `work` with a connection, for commands that SIGINT kills.

    Raises: CommandError, also for a call that failed.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    async def run() -> None:
        async with connected(settings) as server:
            await work(server)

    try:
        asyncio.run(run())
    except RpcError as error:
        raise CommandError(str(error)) from error


def message_of(error: RpcError) -> str:
    """What `observe` prints for a failed call: an unknown code adds nothing to the message."""
    return error.message if error.code is Status.UNKNOWN else str(error)
