"""The lab's CoreDNS: UDP and TCP on port 53, answers from the resource store.

In:        `--store FOLDER`, `--port`; queries.
Out:       answers; packets that are no queries are dropped, or answered FORMERR where they have an id.
Elsewhere: cluster_dns.py decides what to answer.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from lab.servers.cluster_dns import Zone
from lab.servers.http import listen
from mesh.dns.wire import MAX_TCP, Code, Malformed, parse_query, render, render_error
from mesh.store import SqliteStore, Store
from service.failure import Failure

IDLE_S: Final = 10.0
"""A TCP client that says nothing for so long is let go."""


class Responder:
    """Holds the present zone."""

    def __init__(self) -> None:
        self.zone = Zone(())

    def reply(self, packet: bytes, limit: int | None = None) -> bytes | None:
        """Bytes to send back, or None for nothing. limit: None for what the client takes by UDP."""
        try:
            query = parse_query(packet)
        except Malformed as error:
            return None if error.ident is None else render_error(error.ident, Code.FORMAT_ERROR)
        return render(query, self.zone.answer(query), query.udp_size if limit is None else limit)

    async def follow(self, store: Store) -> None:
        """Keep the zone in step with the store."""
        async for changes in store.watch():
            self.zone = Zone(store.find(), changes.revision)


class Udp(asyncio.DatagramProtocol):
    """All UDP clients."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Python 3.11's own datagram transport does not say that it is one.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        answer = self._responder.reply(data)
        if answer is not None:
            self._transport.sendto(answer, addr)


async def serve_tcp(responder: Responder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One TCP client: messages with a length in front (RFC 7766)."""
    try:
        while True:
            async with asyncio.timeout(IDLE_S):
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                packet = await reader.readexactly(length)
            answer = responder.reply(packet, MAX_TCP)
            if answer is None:
                return
            writer.write(struct.pack(">H", len(answer)) + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
        return
    finally:
        writer.close()


async def run(store: Store, port: int) -> None:
    """Serve until SIGTERM. Raises: OSError when the port is taken."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    responder = Responder()
    responder.zone = Zone(store.find())
    following = asyncio.ensure_future(responder.follow(store))
    # UDP first: whoever finds the TCP port open may take the server for ready.
    udp, _ = await loop.create_datagram_endpoint(lambda: Udp(responder), sock=listen("", port, socket.SOCK_DGRAM))
    tcp = await asyncio.start_server(
        lambda reader, writer: serve_tcp(responder, reader, writer), sock=listen("", port), limit=MAX_TCP + 2
    )
    await stop.wait()
    following.cancel()
    udp.close()
    tcp.close()


def main(arguments: Sequence[str]) -> int:
    """Run the server; returns the exit code."""
    parser = argparse.ArgumentParser(prog="coredns")
    parser.add_argument("--store", type=Path, required=True, help="folder of the resource store")
    parser.add_argument("--port", type=int, default=53)
    # What the original takes; there is no Corefile here.
    parser.add_argument("-conf", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        store = SqliteStore(options.store)
        asyncio.run(run(store, options.port))
        store.close()
    except (Failure, OSError) as error:
        print(f"coredns: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
