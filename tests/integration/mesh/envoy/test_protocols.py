"""Other protocols than plain HTTP/1.1: TLS by its server name, HTTP/2, WebSocket."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from tests.integration.mesh.envoy.test_requests import GET_ROOT, P, http, policy
from tests.support.policynet import PolicyNet
from tests.support.proxied import echo_server
from tests.support.testnet import inside

pytestmark = pytest.mark.kernel

NAMES = "toPorts: [{ports: [{port: '443', protocol: TCP}], serverNames: [a.example, '*.b.example']}]"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


@contextmanager
def serving(netns: str, port: int, answer: bytes, *, close: bool = False) -> Iterator[list[bytes]]:
    """A server that says `answer` to what comes first, then repeats what it hears, or goes; the first is yielded."""
    heard: list[bytes] = []

    def make() -> socket.socket:
        return socket.create_server(("", port))

    def serve() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            with one:
                heard.append(one.recv(65536))
                one.sendall(answer)
                while not close and (more := one.recv(65536)):
                    one.sendall(more)

    listener = inside(netns, make)
    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def hello(name: str) -> bytes:
    """What a TLS client says first."""
    context = ssl.create_default_context()
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@pytest.mark.parametrize(
    ("name", "passes"), [("a.example", True), ("A.Example", True), ("x.b.example", True), ("x.y.b.example", False)]
)
def test_a_tls_client_passes_by_the_name_it_asks_for(mesh: PolicyNet, name: str, passes: bool) -> None:
    mesh.apply(policy(f"egress: [{{toEndpoints: [{P}], {NAMES}}}]"))
    said = hello(name)

    def ask() -> bytes:
        with socket.create_connection((mesh["p"].ip, 443), 5) as sock:
            sock.sendall(said)
            try:
                return sock.recv(100)
            except ConnectionResetError:
                return b""

    with serving(mesh["p"].pod.netns, 443, b"a server's hello") as heard:
        assert inside(mesh["s"].pod.netns, ask) == (b"a server's hello" if passes else b"")
    assert heard == ([said] if passes else []), "a server does not hear of a client that may not"


def test_http2_is_judged_stream_by_stream(mesh: PolicyNet) -> None:
    mesh.apply(policy(http(GET_ROOT)))
    url = f"http://{mesh['p'].ip}:8080"
    words = ["ip", "netns", "exec", mesh["s"].pod.netns, "curl", "-s", "-m", "5", "--http2-prior-knowledge"]
    words += ["-o", "/dev/null", "-w", "%{http_version} %{http_code}\n", f"{url}/x"]
    with echo_server(mesh["p"].pod.netns, 8080):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout == "2 403\n"
    (record,) = mesh.envoys[mesh.near.number].records(1)
    assert (record["http"]["protocol"], record["verdict"]) == ("HTTP/2", "Denied")


def test_a_websocket_is_judged_once_and_then_carries_anything(mesh: PolicyNet) -> None:
    mesh.apply(policy(http("{method: GET, path: /ws}")))
    head = b"GET %s HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"

    def ask(path: bytes) -> tuple[bytes, bytes]:
        with socket.create_connection((mesh["p"].ip, 8080), 5) as sock:
            sock.sendall(head % path)
            status = sock.recv(65536).split(b"\r\n")[0]
            if b"101" not in status:
                return status, b""
            sock.sendall(b"\x00\xff anything")
            return status, sock.recv(100)

    with serving(mesh["p"].pod.netns, 8080, SWITCHED):
        assert inside(mesh["s"].pod.netns, lambda: ask(b"/ws"))[1] == b"\x00\xff anything"
        assert inside(mesh["s"].pod.netns, lambda: ask(b"/no"))[0] == b"HTTP/1.1 403 Forbidden"
