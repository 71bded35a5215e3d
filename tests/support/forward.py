"""What stands between browsers and dashboards: a balancer that can change its mind, and a proxy with a path.

In:        connections of a browser.
Out:       the same bytes to a dashboard; optionally with the front of each path cut off, as many proxies do.
Elsewhere: page.py starts dashboards.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Forwarder:
    """Forwards to `port`; `switch` breaks what is open and goes on with another one."""

    def __init__(self, port: int, cut: str = "") -> None:
        self._port, self._cut = port, f" {cut}/".encode() if cut else b""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def switch(self, port: int) -> None:
        self._port = port
        self._break()

    def close(self) -> None:
        self._server.close()
        self._break()

    def _break(self) -> None:
        pairs, self._pairs = self._pairs, []
        for one in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._pairs.append((client, server))
            threading.Thread(target=self._copy, args=(client, server, self._cut), daemon=True).start()
            threading.Thread(target=self._copy, args=(server, client, b""), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket, cut: bytes) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if cut and data.startswith((b"GET ", b"POST ")):  # a browser begins each request in a packet of its own
                    data = data.replace(cut, b" /", 1)
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def forwarding(address: str, cut: str = "") -> Iterator[Forwarder]:
    """In front of a dashboard at `http://host:port/`. cut: begins all paths that browsers ask for."""
    forwarder = Forwarder(int(address.rstrip("/").rpartition(":")[2]), cut)
    try:
        yield forwarder
    finally:
        forwarder.close()
