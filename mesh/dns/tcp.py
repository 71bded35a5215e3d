"""Queries by TCP: each client's connection has one of its own to the server, over which queries are pipelined.

In:        connections that the kernel hands to the listener.
Out:       the same messages, with a length in front of each (RFC 7766), in the order in which they are ready.
Elsewhere: engine.py decides; sockets.py makes sockets.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

import structlog

from mesh.dns.answers import is_answer_to
from mesh.dns.engine import Engine, Waiting
from mesh.dns.sockets import FAMILIES, Target, listener, mark_for, toward

IDLE_S: Final = 60.0
CONNECT_S: Final = 5.0
MAX_CONNECTIONS: Final = 2000
MAX_UNREAD: Final = 256 * 1024
"""Bytes of answers that a client has not taken; one that takes none is let go."""
_LENGTH: Final = struct.Struct(">H")

log = structlog.get_logger(component="dns-proxy")


class Tcp:
    """All TCP clients of a node."""

    def __init__(self, engine: Engine, port: int) -> None:
        """Raises: OSError when the port is taken."""
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._listeners = [listener(family, socket.SOCK_STREAM, port) for family in FAMILIES]
        for sock in self._listeners:
            self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Take no more, let all go."""
        for sock in self._listeners:
            self._loop.remove_reader(sock)
            sock.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self, sock: socket.socket) -> None:
        while True:
            try:
                connection, client = sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.warning("cannot accept a connection", error=error.strerror)
                return
            if len(self._tasks) >= MAX_CONNECTIONS:
                self._engine.counts["connections_over_limit"] += 1
                connection.close()
                continue
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection, client[:2]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket, client: Target) -> None:
        try:
            target = connection.getsockname()[:2]
            reader, writer = await asyncio.open_connection(sock=connection)
        except OSError:
            connection.close()
            return
        session = _Session(self._engine, client, target, writer)
        try:
            while True:
                async with asyncio.timeout(IDLE_S):
                    packet = await _read(reader)
                await session.ask(packet)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            await session.end()


class _Session:
    """One client's connection, and the one to its server once something may be asked there."""

    def __init__(self, engine: Engine, client: Target, target: Target, writer: asyncio.StreamWriter) -> None:
        self._engine = engine
        self._client = client
        self._target = target
        self._writer = writer
        self._server: asyncio.StreamWriter | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._waiting: dict[int, Waiting] = {}
        self._next = 0

    async def ask(self, packet: bytes) -> None:
        """One query; its answer may come after those of later ones."""
        waiting = self._engine.ask(packet, self._client, self._target, socket.IPPROTO_TCP, self)
        if waiting is None:
            return
        loop = asyncio.get_running_loop()
        # Ids of ours: a client may repeat its own while the first is still on its way.
        self._next = (self._next + 1) & 0xFFFF
        ident = self._next
        if ident in self._waiting:
            self._engine.failed(waiting)
            return
        self._waiting[ident] = waiting
        loop.call_later(self._engine.limits.timeout_s, self._give_up, ident, waiting)
        try:
            server = await self._connected(waiting)
            server.write(_LENGTH.pack(len(packet)) + ident.to_bytes(2, "big") + packet[2:])
            await server.drain()
        except (OSError, TimeoutError) as error:
            log.debug("cannot ask a server", server=self._target[0], error=str(error))
            self._lose_server()

    def answer(self, packet: bytes, client: tuple[str, int]) -> None:
        """Send an answer to the client."""
        if self._writer.is_closing():
            self._engine.counts["unsent_answers"] += 1
        elif self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            self._engine.counts["slow_clients"] += 1
            self._writer.transport.abort()
        else:
            self._writer.write(_LENGTH.pack(len(packet)) + packet)

    async def end(self) -> None:
        """The client is gone."""
        for waiting in self._waiting.values():
            self._engine.abandoned(waiting)
        self._waiting.clear()
        if self._receiving is not None:
            self._receiving.cancel()
        for writer in (self._server, self._writer):
            if writer is not None:
                writer.close()

    async def _connected(self, waiting: Waiting) -> asyncio.StreamWriter:
        if self._server is None:
            identity = waiting.scope.client.identity
            sock = toward(self._target[0], socket.SOCK_STREAM, mark_for(identity))
            try:
                async with asyncio.timeout(CONNECT_S):
                    await asyncio.get_running_loop().sock_connect(sock, self._target)
                    reader, self._server = await asyncio.open_connection(sock=sock)
            except BaseException:
                sock.close()
                raise
            self._receiving = asyncio.create_task(self._receive(reader))
        return self._server

    async def _receive(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                packet = await _read(reader)
                ident = int.from_bytes(packet[:2], "big")
                waiting = self._waiting.get(ident)
                if waiting is None or not is_answer_to(packet, waiting.asked.question):
                    self._engine.counts["stray_answers"] += 1
                    continue
                del self._waiting[ident]
                self._engine.answered(waiting, packet)
        except (OSError, EOFError):
            self._lose_server()

    def _lose_server(self) -> None:
        """The server has gone: who waits learns it; the next query makes another connection."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        lost, self._waiting = self._waiting, {}
        for waiting in lost.values():
            self._engine.failed(waiting)

    def _give_up(self, ident: int, waiting: Waiting) -> None:
        if self._waiting.get(ident) is waiting:
            del self._waiting[ident]
            self._engine.timed_out(waiting)


async def _read(reader: asyncio.StreamReader) -> bytes:
    """One message. Raises: EOFError at the end of the stream."""
    (length,) = _LENGTH.unpack(await reader.readexactly(2))
    return await reader.readexactly(length)
