"""TLS between two agents, in which each proves to have pods of an identity. Nothing else is said.

In:        credentials; the address of the other agent.
Out:       until when the other one's proof holds, or why there is none.
Elsewhere: keyring.py has the credentials; node.py turns a proof into a record.

The client asks for an identity by server name and shows its own certificate. With TLS 1.3 a client is done before its
own certificate has been looked at, so it waits for the server to say whom it has seen.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, TypeVar

import structlog

from mesh.auth.certificates import BadCertificate, Certificate
from mesh.auth.keyring import Credential, listening_context
from mesh.auth.spiffe import identity_of_server_name, server_name_of

TIMEOUT_S: Final = 5.0
MOST_CLIENTS: Final = 32
"""Handshakes that are answered at once; others wait in the kernel."""
_LONGEST: Final = 16384

T = TypeVar("T")

log = structlog.get_logger(component="authentication")


class NotProved(Exception):
    """The other side has not proved its identity, or has not believed ours. Says why, in one line."""


async def prove(address: IPv4Address | IPv6Address, port: int, own: Credential, remote: int) -> float:
    """Shake hands with the agent at an address; until when its proof of `remote` holds, in seconds since 1970.

    Raises: NotProved.
    """
    at = f"the agent at {address}:{port}" if address.version == 4 else f"the agent at [{address}]:{port}"
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as sock:
        sock.setblocking(False)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
                wire = _Wire(sock, own.client_context(), server_name_of(remote))
                peer = await wire.shake_hands()
                answer = await wire.run(lambda: wire.tls.read(_LONGEST))
        except TimeoutError:
            raise NotProved(f"{at} does not answer within {TIMEOUT_S:g} s; does it run?") from None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            raise NotProved(f"{at} has ended the connection; does it still run?") from None
        except ssl.SSLError as error:
            raise NotProved(f"{at} and this one do not agree: {_reason(error, remote)}") from None
        except OSError as error:
            raise NotProved(f"{at} cannot be reached: {error.strerror or error}; does it run?") from None
        except BadCertificate as error:
            raise NotProved(f"{at} has not proved identity {remote}: {error}") from None
    if peer.identity != remote:
        raise NotProved(f"{at} proved identity {peer.identity}, and was asked for {remote}")
    if answer != str(own.certificate.identity).encode():
        raise NotProved(f"{at} does not believe this one's certificate of identity {own.certificate.identity}")
    return peer.ends_s


class _Wire:
    """TLS on a socket, step by step. (asyncio's own keeps the alert to itself that says why a handshake failed.)"""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_name: str | None = None) -> None:
        """`server_name` of the other side; None: we are the server."""
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )

    async def shake_hands(self) -> Certificate:
        """What the other side has shown, and TLS has found to be signed by the authority and its to use."""
        await self.run(self.tls.do_handshake)
        raw = self.tls.getpeercert(binary_form=True)
        if raw is None:
            raise BadCertificate("no certificate was shown")
        return Certificate.parse_der(raw)

    async def run(self, step: Callable[[], T]) -> T:
        """Do something with `tls`, which may need bytes of the other side. Raises: OSError, also ssl.SSLError."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                if self._outgoing.pending:
                    await loop.sock_sendall(self._sock, self._outgoing.read())
            if received := await loop.sock_recv(self._sock, _LONGEST):
                self._incoming.write(received)
            else:
                self._incoming.write_eof()


class Listener:
    """Answers other agents."""

    def __init__(self, credential: Callable[[int], Credential | None], trust: Callable[[], str]) -> None:
        self._credential = credential
        self._trust = trust
        self._socket: socket.socket | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(MOST_CLIENTS)
        self.counts: Counter[str] = Counter()
        """Handshakes by how they ended: proved, refused."""

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def open(self, address: str, port: int) -> int:
        """Listen; returns the port. Raises: OSError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, port), family=family, backlog=MOST_CLIENTS)
        self._socket.setblocking(False)
        self._start(self._accept(self._socket))
        found: int = self._socket.getsockname()[1]
        return found

    def close(self) -> None:
        """Answer nobody any more."""
        for task in self._work:
            task.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            await self._room.acquire()
            try:
                client, _ = await asyncio.get_running_loop().sock_accept(listening)
                client.setblocking(False)
            except OSError as error:
                self._room.release()
                log.warning("cannot take a connection", reason=str(error))
                await asyncio.sleep(1)
                continue
            except asyncio.CancelledError:
                self._room.release()
                raise
            self._start(self._answer(client))

    async def _answer(self, client: socket.socket) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._shake_hands(client)
            self.counts["proved"] += 1
        except (TimeoutError, OSError, BadCertificate) as error:
            # Also ssl.SSLError: whoever connects decides how it fails, so this is counted and not told.
            self.counts["refused"] += 1
            log.debug("not proved", reason=str(error))
        finally:
            client.close()
            self._room.release()

    async def _shake_hands(self, client: socket.socket) -> None:
        trust = self._trust()
        if not trust:
            raise BadCertificate("nobody has been certified yet")
        context = listening_context(trust)
        context.sni_callback = self._choose
        wire = _Wire(client, context)
        peer = await wire.shake_hands()
        said = str(peer.identity).encode()
        await wire.run(lambda: wire.tls.write(said))

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """Show the certificate of the identity that the client asks for."""
        identity = identity_of_server_name(name or "")
        credential = self._credential(identity) if identity is not None else None
        if credential is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        tls.context = credential.server_context()
        return None


def _reason(error: ssl.SSLError, remote: int) -> str:
    if "UNRECOGNIZED_NAME" in str(error.reason):
        return f"it has no certificate of identity {remote}; do pods of it run there?"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return str(error.reason or error).replace("_", " ").lower()
