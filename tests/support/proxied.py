"""Real Envoys in the nodes of a test network, and HTTP between its pods.

In:        a node's namespace, a folder; views of policies.
Out:       an EnvoyNode on a loop of its own, the records that it tells; requests as clients send them.
Elsewhere: tests.support.policynet compiles policies and brings them to the kernel.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from mesh.envoy.matching import NodeView
from mesh.envoy.node import EnvoyNode
from mesh.envoy.process import forget_memory
from mesh.records import Records
from tests.support.lines import record_of
from tests.support.testnet import inside
from tests.support.waiting import eventually

T = TypeVar("T")
TIMEOUT_S = 10.0


class EnvoyHost:
    """An agent's Envoy, without the agent. The loop's thread lives in the node's namespace, and so does Envoy."""

    def __init__(self, netns: str, folder: Path, port: Callable[[str, bool], int]) -> None:
        self.netns = netns
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(folder / "records.sock"))
        self._port = port
        self._lines: list[dict[str, Any]] = []
        self.start_agent()

    def start_agent(self) -> None:
        """What an agent does when it comes up, also after another one was there."""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=inside, args=(self.netns, self.loop.run_forever), daemon=True)
        self._thread.start()
        self.run(self._start())

    async def _start(self) -> None:
        self._records = Records(str(self.folder / "records.sock"))
        self.node = EnvoyNode(self.folder, "n", self._port, self._records, concurrency=1)
        await self.node.start()

    def stop_agent(self) -> None:
        """The agent goes; Envoy stays."""
        self.loop.call_soon_threadsafe(self.node.stop)
        self.loop.call_soon_threadsafe(self._records.close)
        self.run(asyncio.sleep(0.01))  # lets cancelled tasks end
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(TIMEOUT_S)

    def update(self, view: NodeView) -> None:
        assert self.run(self.node.update(view)), self.node.problems

    def records(self, count: int = 0) -> list[dict[str, Any]]:
        """What was told since the last call; waits for `count`."""
        eventually(lambda: self._receive() >= count)
        found, self._lines = self._lines, []
        return found

    def _receive(self) -> int:
        while True:
            try:
                self._lines += [record_of(line) for line in self._socket.recv(2**20).splitlines()]
            except BlockingIOError:
                return len(self._lines)

    def close(self) -> None:
        """End everything, Envoy too."""
        pid = self.node.process.pid
        self.stop_agent()
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        forget_memory(self.folder)
        self._socket.close()


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {"client": self.client_address[0], "path": self.path, "headers": list(self.headers.items())}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815  # names that http.server looks for

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def echo_server(netns: str, port: int, family: int = socket.AF_INET) -> Iterator[None]:
    """Tells every client what it has sent, as JSON."""

    class Server(ThreadingHTTPServer):
        address_family = family
        daemon_threads = True

    server = inside(netns, lambda: Server(("", port), _Echo))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Answer:
    """What a client got."""

    def __init__(self, found: http.client.HTTPResponse) -> None:
        self.status = found.status
        self.headers = {name.lower(): value for name, value in found.getheaders()}
        self.body = found.read()

    @property
    def echo(self) -> dict[str, Any]:
        """What the server says that it has got."""
        return json.loads(self.body)  # type: ignore[no-any-return]

    def received(self, header: str) -> list[str]:
        """Values of a header, as the server has got them."""
        return [value for name, value in self.echo["headers"] if name.lower() == header]


def connection(netns: str, address: str, port: int) -> http.client.HTTPConnection:
    """A connection of a client in a namespace."""

    def make() -> http.client.HTTPConnection:
        made = http.client.HTTPConnection(address, port, timeout=TIMEOUT_S)
        made.connect()
        return made

    return inside(netns, make)


def ask(netns: str, address: str, port: int, method: str = "GET", path: str = "/", **headers: str) -> Answer:
    """One request on a connection of its own. In names of headers `_` stands for `-`."""
    made = connection(netns, address, port)
    try:
        return ask_on(made, method, path, **headers)
    finally:
        made.close()


def ask_on(made: http.client.HTTPConnection, method: str = "GET", path: str = "/", **headers: str) -> Answer:
    """One request on a connection that is there."""
    made.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return Answer(made.getresponse())


def ask_raw(netns: str, address: str, port: int, data: bytes) -> bytes:
    """Bytes that need not be HTTP; the beginning of the answer."""

    def exchange() -> bytes:
        with socket.create_connection((address, port), TIMEOUT_S) as sock:
            sock.sendall(data)
            try:
                return sock.recv(65536)
            except ConnectionResetError:
                return b""

    return inside(netns, exchange)
