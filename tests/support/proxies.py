"""Small transparent proxies, for kernel tests: they judge nothing, and note whom they served.

In:        connections and datagrams that the datapath hands to their listeners, whatever the destination.
Out:       the same to the destination, from the client's own address.
Elsewhere: Envoy and the DNS proxy do this for real, with the same socket options.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Thread
from types import TracebackType
from typing import Final, Self

from tests.support.testnet import inside
from tests.support.traffic import TIMEOUT_S

EGRESS: Final = 0x0B00
INGRESS: Final = 0x0A00
L7LB: Final = 0x0900

# Not in the socket module of Python 3.11.
IP_TRANSPARENT: Final = 19
IP_RECVORIGDSTADDR: Final = 20
IPV6_RECVORIGDSTADDR: Final = 74
IPV6_TRANSPARENT: Final = 75

_ORIGINAL: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_RECVORIGDSTADDR),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR),
}
_TRANSPARENT: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_TRANSPARENT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
}
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

Address = tuple[str, int]


def transparent_socket(netns: str, family: int, kind: int, mark: int, bound: Address | None = None) -> socket.socket:
    """A socket of a proxy in a node's namespace; it may be bound to an address that the node does not have."""

    def make() -> socket.socket:
        sock = socket.socket(family, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(*_TRANSPARENT[socket.AddressFamily(family)], 1)
        # As bytes: identities above 32767 make it more than a C int holds.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
        sock.settimeout(TIMEOUT_S)
        if bound is not None:
            sock.bind(bound)
        return sock

    return inside(netns, make)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@dataclass(slots=True)
class TcpProxy:
    """Passes connections on to where the client wanted to go; `served` are (client, destination) of each."""

    netns: str
    port: int
    mark: int = EGRESS
    """Of the listener, and so of the connections it takes."""
    family: int = socket.AF_INET
    upstream_mark: int = 0
    """0: the same."""
    source: str = ""
    """Towards backends; empty: the client's."""
    backend: Address | None = None
    """Goes there, whatever the client wanted."""
    served: list[tuple[Address, Address]] = field(default_factory=list)
    upstream: list[Address] = field(default_factory=list)
    """Own ends of the connections to backends."""
    _listener: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)
    _accepting: Thread | None = None
    _serving: list[Thread] = field(default_factory=list)

    def start(self) -> None:
        family = socket.AddressFamily(self.family)
        bound = (_LOOPBACK[family], self.port)
        listener = transparent_socket(self.netns, family, socket.SOCK_STREAM, self.mark, bound)
        # Short, because a thread that waits in accept() would keep the socket listening after it is closed.
        listener.settimeout(0.05)
        listener.listen()
        self._listener = listener
        self._accepting = Thread(target=self._accept, args=(listener,), daemon=True)
        self._accepting.start()

    def die(self) -> None:
        """Close everything, as the kernel does when a process ends."""
        assert self._listener is not None
        assert self._accepting is not None
        _end(self._listener)
        self._accepting.join()
        for sock in self._open:
            _end(sock)
        self._listener = None
        self._open.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # What ends by itself may do so, with all its packets; a copy, because a late client may still be accepted.
        for thread in tuple(self._serving):
            thread.join(0.2)
        if self._listener is not None:
            self.die()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self._open.append(client)
            thread = Thread(target=self._serve, args=(client,), daemon=True)
            thread.start()
            self._serving.append(thread)

    def _serve(self, client: socket.socket) -> None:
        try:
            source, target = client.getpeername()[:2], client.getsockname()[:2]
        except OSError:  # it has gone already, or we have
            return
        self.served.append((source, target))
        mark = self.upstream_mark or self.mark
        server = transparent_socket(self.netns, self.family, socket.SOCK_STREAM, mark, (self.source or source[0], 0))
        self._open.append(server)
        with client, server:
            try:
                server.connect(self.backend or target)
                self.upstream.append(server.getsockname()[:2])
            except OSError:
                return
            back = Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        source.settimeout(None)
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def udp_proxy(
    netns: str, port: int, family: int = socket.AF_INET, *, keep_source: bool = True, identity: int = 0
) -> Iterator[list[tuple[Address, Address]]]:
    """Passes datagrams on and answers back; yields (client, destination) of each.

    Without `keep_source`, the backend sees the node's address, and `identity` stands in the mark.
    """
    listener = transparent_socket(
        netns, family, socket.SOCK_DGRAM, EGRESS, (_LOOPBACK[socket.AddressFamily(family)], port)
    )
    listener.setsockopt(*_ORIGINAL[socket.AddressFamily(family)], 1)
    listener.settimeout(None)
    served: list[tuple[Address, Address]] = []

    def serve() -> None:
        while True:
            try:
                data, ancillary, _, client = listener.recvmsg(2048, 128)
            except OSError:
                return
            if not data:
                return
            target = _original(ancillary)
            served.append((client[:2], target))
            mark = EGRESS if keep_source else EGRESS | (identity & 0xFFFF) << 16 | identity >> 16
            upstream = transparent_socket(
                netns, family, socket.SOCK_DGRAM, mark, (client[0], 0) if keep_source else None
            )
            answers = transparent_socket(netns, family, socket.SOCK_DGRAM, EGRESS, target)
            with upstream, answers, contextlib.suppress(TimeoutError):
                upstream.sendto(data, target)
                answers.sendto(upstream.recv(2048), client)

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(TIMEOUT_S)


def _original(ancillary: list[tuple[int, int, bytes]]) -> Address:
    for level, kind, data in ancillary:
        if (level, kind) == _ORIGINAL[socket.AF_INET]:
            return socket.inet_ntop(socket.AF_INET, data[4:8]), struct.unpack_from("!H", data, 2)[0]
        if (level, kind) == _ORIGINAL[socket.AF_INET6]:
            return socket.inet_ntop(socket.AF_INET6, data[8:24]), struct.unpack_from("!H", data, 2)[0]
    raise AssertionError("no original destination")
