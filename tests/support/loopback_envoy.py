"""A real Envoy on loopback with what resources of the cluster say, and HTTP servers behind it."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import envoy

from mesh.envoy import module, records
from mesh.envoy.carrier import READ
from mesh.envoy.ring import Ring
from mesh.envoyconfig import messages, validation
from mesh.envoyconfig.guarding import ACCESS_LOG
from mesh.envoyconfig.listeners import Gate, Place
from mesh.envoyconfig.translate import Translation, translate
from mesh.resources.base import Resource
from model.decode.lines import FIELDS, SEPARATOR
from tests.support.cluster import node
from tests.support.waiting import eventually

POD_RANGE = ip_network("127.0.9.0/24")
"""Clients with these addresses count as pods of the node."""
INGRESS = ip_address("127.0.8.254")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Server:
    """Answers every request with what it has seen, as JSON; /status/503 asks for a status."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.seen: list[dict[str, Any]] = []
        self.failing = 0
        """So many answers from now on are 503."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet per answer: the second one would wait for an acknowledgement

            def do_GET(self) -> None:
                outer._answer(self)

            do_POST = do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self.address, self.port = address, int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        headers = {key.lower(): value for key, value in request.headers.items()}
        fact = {
            "name": self.name,
            "method": request.command,
            "path": request.path,
            "headers": headers,
            "client": request.client_address[0],
        }
        self.seen.append(fact)
        body = json.dumps(fact).encode()
        path = request.path.partition("?")[0]
        status = int(path.removeprefix("/status/")) if path.startswith("/status/") else 200
        if self.failing:
            self.failing, status = self.failing - 1, 503
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("X-Name", self.name)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def seen(self) -> dict[str, Any]:
        """What the server behind has seen."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


@dataclass
class Running:
    """An Envoy, and where its listeners listen."""

    translation: Translation
    ports: dict[str, int] = field(default_factory=dict)

    def get(
        self,
        listener: str,
        path: str,
        *,
        host: str = "example.org",
        method: str = "GET",
        source: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request to the listener whose full name ends in `listener`."""
        [port] = {port for name, port in self.ports.items() if name.endswith(listener)}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
        try:
            connection.connect()
            if tls is not None:
                assert connection.sock is not None
                connection.sock = tls.wrap_socket(connection.sock, server_hostname=host)
            connection.request(method, path, headers={"Host": host, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@contextmanager
def running(
    resources: Sequence[Resource], folder: Path, gate: Gate | None = None, told: Path | None = None
) -> Iterator[Running]:
    """Translate the resources for a node and run Envoy with the outcome; `told`: where it leaves records."""
    ports: dict[str, int] = {}

    def port(name: str) -> int:
        return ports.setdefault(name, free_port())

    place = Place(
        port=port,
        source=lambda *_: messages.new("envoy.config.core.v3.ConfigSource", ads={}),
        pod_ranges=(POD_RANGE,),
        ingress=(INGRESS,),
        gate=gate,
        upstream_logs=tuple(messages.new(ACCESS_LOG, **one) for one in records.upstream_logs("egress", str(told)))
        if told
        else (),
    )
    found = Running(translate(resources, node(0), place), ports)
    path = folder / "bootstrap.json"
    path.write_text(json.dumps(validation.bootstrap(found.translation.resources)))
    binary = Path(next(iter(envoy.__path__)), "_bin", "envoy")
    command = [str(binary), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | module.ENVIRONMENT)
        try:
            eventually(lambda: all(map(_listens, ports.values())) or process.poll() is not None)
            assert process.poll() is None, (folder / "envoy.log").read_text()[-3000:]
            yield found
        finally:
            process.terminate()
            process.wait()


def told_in(folder: Path, count: int = 1) -> list[dict[str, str]]:
    """At least `count` records that an Envoy of one worker has left there, by the names of their fields."""
    ring = Ring(next(folder.glob("*.ring")))
    texts: list[str] = []

    def has_enough() -> bool:
        texts.extend(ring.take(READ).decode().splitlines())
        return len(texts) >= count

    eventually(has_enough)
    return [dict(zip(FIELDS, one.split(SEPARATOR), strict=True)) for one in texts]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def service_of(server: Server | str, namespace: str = "default", *, address: str = "", target: int = 0) -> str:
    """YAML of a ready pod and a service, port 80, that stand for the server; or for another one at `address`."""
    name, address, target = (
        (server.name, server.address, server.port) if isinstance(server, Server) else (server, address, target)
    )
    return f"""
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}-0, namespace: {namespace}, labels: {{app: {name}}}, uid: {name}}}
spec: {{nodeName: kind-worker0, containers: [{{name: main, image: pause}}]}}
status: {{phase: Running, ready: true, podIP: {address}, podIPs: [{{ip: {address}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: web, port: 80, targetPort: {target}}}]
"""
