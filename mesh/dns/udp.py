"""Queries by UDP: one listener per family, sockets that answer as the servers, sockets that ask them.

In:        datagrams that the kernel hands to the listener.
Out:       the same to their servers with ids of ours; answers back with the client's.
Elsewhere: engine.py decides; sockets.py makes sockets.

Servers are asked from connected sockets that queries of one identity to one server share. Each has random ids and,
after some queries, gives way to another with another port, so that an answer cannot be guessed.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import OrderedDict
from typing import Final

import structlog

from mesh.dns.answers import is_answer_to
from mesh.dns.engine import Engine, Waiting
from mesh.dns.sockets import ANCILLARY, FAMILIES, Target, listener, mark_for, original_target, speaking_as, toward

LARGEST: Final = 65_535
TURN: Final = 64
"""Datagrams taken from a socket before others have their turn."""
QUERIES_PER_SOCKET: Final = 1024
IDLE_S: Final = 30.0
SWEEP_S: Final = 0.5
MAX_SPEAKERS: Final = 1024
MAX_SERVERS: Final = 4096

log = structlog.get_logger(component="dns-proxy")


class _Speaker:
    """Answers clients from the address of a server."""

    def __init__(self, sock: socket.socket, engine: Engine) -> None:
        self._socket = sock
        self._engine = engine

    def answer(self, packet: bytes, client: tuple[str, int]) -> None:
        try:
            self._socket.sendto(packet, client)
        except OSError:
            self._engine.counts["unsent_answers"] += 1

    def close(self) -> None:
        self._socket.close()


class _Upstream:
    """Asks one server for one identity."""

    def __init__(self, target: Target, identity: int, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self.used_s = time.monotonic()
        self.asked = 0
        self.waiting: OrderedDict[bytes, tuple[float, Waiting]] = OrderedDict()
        """By our id, oldest first, with the moment at which we stop waiting."""
        self._engine = engine
        self._loop = loop
        self._socket = toward(target[0], socket.SOCK_DGRAM, mark_for(identity))
        try:
            self._socket.connect(target)
        except OSError:
            self._socket.close()
            raise
        loop.add_reader(self._socket, self._receive)

    def ask(self, waiting: Waiting, now_s: float) -> None:
        ident = _random_id()
        while ident in self.waiting:
            ident = _random_id()
        self.used_s = now_s
        self.asked += 1
        try:
            self._socket.send(ident + waiting.query[2:])
        except OSError:
            # Also what an earlier query caused: ICMP errors are told by the next call.
            try:
                self._socket.send(ident + waiting.query[2:])
            except OSError:
                self._engine.failed(waiting)
                return
        self.waiting[ident] = now_s + self._engine.limits.timeout_s, waiting

    def expire(self, now_s: float) -> None:
        while self.waiting:
            ident, (deadline_s, waiting) = next(iter(self.waiting.items()))
            if deadline_s > now_s:
                return
            del self.waiting[ident]
            self._engine.timed_out(waiting)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        engine = self._engine
        for _ in range(TURN):
            try:
                packet = self._socket.recv(LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # Nobody listens there: whoever waits need not wait longer.
                for _, waiting in self.waiting.values():
                    engine.failed(waiting)
                self.waiting.clear()
                return
            ident = packet[:2]
            found = self.waiting.get(ident)
            if found is None or not is_answer_to(packet, found[1].asked.question):
                engine.counts["stray_answers"] += 1
                continue
            del self.waiting[ident]
            engine.answered(found[1], packet)


class Udp:
    """All UDP clients of a node."""

    def __init__(self, engine: Engine, port: int) -> None:
        """Raises: OSError when the port is taken."""
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._speakers: OrderedDict[Target, _Speaker] = OrderedDict()
        self._upstreams: OrderedDict[tuple[Target, int], _Upstream] = OrderedDict()
        self._retired: list[_Upstream] = []
        self._targets: dict[bytes, Target] = {}
        for family in FAMILIES:
            sock = listener(family, socket.SOCK_DGRAM, port)
            self._listeners.append(sock)
            self._loop.add_reader(sock, self._receive, sock)
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def close(self) -> None:
        """Take no more; who waits gets no answer."""
        self._timer.cancel()
        for sock in self._listeners:
            self._loop.remove_reader(sock)
            sock.close()
        for upstream in [*self._upstreams.values(), *self._retired]:
            upstream.close()
        for speaker in self._speakers.values():
            speaker.close()

    def _receive(self, sock: socket.socket) -> None:
        engine = self._engine
        now_s = time.monotonic()
        for _ in range(TURN):
            try:
                packet, ancillary, _, client = sock.recvmsg(LARGEST, ANCILLARY)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.warning("cannot receive queries", error=error.strerror)
                return
            client = client[:2]
            try:
                target = self._target(ancillary[0][2])
                speaker = self._speaker(target)
            except (OSError, IndexError, ValueError) as error:
                engine.counts["unanswerable"] += 1
                log.debug("no way back to a client", client=client[0], error=str(error))
                continue
            waiting = engine.ask(packet, client, target, socket.IPPROTO_UDP, speaker)
            if waiting is not None:
                self._forward(waiting, target, now_s)

    def _forward(self, waiting: Waiting, target: Target, now_s: float) -> None:
        key = target, waiting.scope.client.identity
        upstream = self._upstreams.get(key)
        if upstream is None or upstream.asked >= QUERIES_PER_SOCKET:
            try:
                fresh = _Upstream(target, key[1], self._engine, self._loop)
            except OSError as error:
                log.debug("cannot ask a server", server=target[0], error=error.strerror)
                self._engine.failed(waiting)
                return
            if upstream is not None:
                self._retired.append(upstream)
            elif len(self._upstreams) >= MAX_SERVERS:
                self._retired.append(self._upstreams.popitem(last=False)[1])
            upstream = self._upstreams[key] = fresh
        upstream.ask(waiting, now_s)

    def _target(self, ancillary: bytes) -> Target:
        target = self._targets.get(ancillary)
        if target is None:
            if len(self._targets) >= MAX_SERVERS:
                self._targets.clear()
            target = self._targets[ancillary] = original_target(ancillary)
        return target

    def _speaker(self, target: Target) -> _Speaker:
        speaker = self._speakers.get(target)
        if speaker is None:
            if len(self._speakers) >= MAX_SPEAKERS:
                self._speakers.popitem(last=False)[1].close()
            speaker = self._speakers[target] = _Speaker(speaking_as(*target), self._engine)
        return speaker

    def _sweep(self) -> None:
        now_s = time.monotonic()
        for upstream in [*self._upstreams.values(), *self._retired]:
            upstream.expire(now_s)
        for key, upstream in list(self._upstreams.items()):
            if not upstream.waiting and now_s - upstream.used_s > IDLE_S:
                upstream.close()
                del self._upstreams[key]
        for upstream in [one for one in self._retired if not one.waiting]:
            upstream.close()
            self._retired.remove(upstream)
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)


_ids: list[bytes] = []


def _random_id() -> bytes:
    """Unpredictable ids, made many at a time."""
    if not _ids:
        pool = os.urandom(2048)
        _ids.extend(pool[at : at + 2] for at in range(0, len(pool), 2))
    return _ids.pop()
