"""The pods' servers as processes on loopback, asked by real clients."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from mesh.dns.wire import Code, pack_name
from mesh.resources.base import Key, changed
from mesh.resources.manifests import parse_manifests
from mesh.resources.services import Service
from mesh.store import SqliteStore
from tests.support.cluster import node as make_node
from tests.support.cluster import pod, ready, settled

ROOT = Path(__file__).parents[3]
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(port: int, *argv: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that listens on `port`; it must end by itself on SIGTERM."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    server = subprocess.Popen([sys.executable, *argv], env=environment, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, server.stderr and server.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.01)
        yield server
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(5) in (0, -signal.SIGTERM)


def curl(*words: str) -> str:
    return subprocess.run(["curl", "-s", "-m", "5", *words], capture_output=True, text=True).stdout


def test_the_json_server_answers_curl_over_both_families_and_keeps_connections() -> None:
    port = free_port()
    with running(port, "-S", "-m", "lab.servers.json_echo", PORT=str(port)):
        assert len(curl(f"http://127.0.0.1:{port}/")) == 2057
        assert curl(f"http://[::1]:{port}/client-ip") == '{\n  "client-ip": "::1"\n}'
        two = curl("-w", "%{num_connects} ", *[f"http://127.0.0.1:{port}/public/1"] * 2)
        assert two.count("public information") == 2
        assert two.endswith("0 ")


def test_http_echo_says_its_text() -> None:
    port = free_port()
    with running(port, "-S", "-m", "lab.servers.http_echo", "-text=foo", f"-listen=127.0.0.1:{port}"):
        assert curl(f"http://127.0.0.1:{port}/any") == "foo\n"


def test_requests_in_pieces_and_in_one_piece_are_answered_alike() -> None:
    port = free_port()
    with running(port, "-S", "-m", "lab.servers.http_echo", "-text=x", f"-listen=:{port}"):
        with socket.create_connection(("127.0.0.1", port)) as client:
            for byte in b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc":
                client.sendall(bytes((byte,)))
            client.sendall(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            received = b""
            while part := client.recv(65536):
                received += part
        assert received.count(b"HTTP/1.1 200 OK") == 3


def test_a_taken_port_is_one_line_and_exit_code_1() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        words = [sys.executable, "-S", "-m", "lab.servers.http_echo", "-text=x", f"-listen=:{taken.getsockname()[1]}"]
        done = subprocess.run(words, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot listen on" in done.stderr


def query(name: str, rtype: int = 1) -> bytes:
    return struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + pack_name(name) + struct.pack(">HH", rtype, 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path)
    web = ready(changed(pod("web", app="web"), status=pod("web").status))
    resources = settled([make_node(1), web, *parse_manifests(SERVICE)])
    opened.apply(resources)
    yield opened
    opened.close()


def test_dns_answers_by_udp_and_tcp_and_follows_the_store(store: SqliteStore, tmp_path: Path) -> None:
    port = free_port()
    with running(port, "-m", "lab.servers.coredns", "--store", str(tmp_path), "--port", str(port)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            client.connect(("127.0.0.1", port))

            def ask(packet: bytes) -> bytes:
                client.send(packet)
                return client.recv(4096)

            answer = ask(query("web.default.svc.cluster.local"))
            (service,) = store.find("Service")
            assert isinstance(service, Service)
            assert str(ip_address(answer[-4:])) == service.spec.cluster_ip
            client.send(b"\xff" * 50)  # is taken for a response, and never answered
            assert ask(query("nobody.default.svc.cluster.local"))[3] & 15 == Code.NAME_ERROR

            store.delete([Key("Service", "default", "web")])
            deadline = time.monotonic() + 5
            while ask(query("web.default.svc.cluster.local"))[3] & 15 != Code.NAME_ERROR:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        with socket.create_connection(("127.0.0.1", port)) as stream:
            packet = query("cluster.local", 6)
            stream.sendall((struct.pack(">H", len(packet)) + packet) * 2)
            stream.settimeout(5)
            received = b""
            while len(received) < 2 or len(received) < 2 * (2 + int.from_bytes(received[:2], "big")):
                received += stream.recv(4096)
            assert received[2:4] == packet[:2]
