"""A client pod, a DNS proxy of its node, and a DNS server pod that can misbehave; for tests and figures."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from bpf.policies import EndpointPolicy, PolicyEntry
from mesh.dns.judge import Client, Permission, Rules
from mesh.dns.wire import Answer, Code, Record, Type, pack_address, pack_name, parse_query, render
from tests.support.process import ROOT
from tests.support.testnet import Pod, inside, network
from tests.support.traffic import open_socket
from tests.support.waiting import eventually

PROXY_PORT: Final = 10_053
CLIENT, SERVER = 33333, 44444
TTL_S: Final = 30


def query(name: str, rtype: int = Type.A, ident: int = 7, edns: int | None = None) -> bytes:
    """A query as resolvers make it."""
    head = struct.pack(">HHHHHH", ident, 0x0100, 1, 0, 0, 0 if edns is None else 1)
    opt = b"" if edns is None else struct.pack(">BHHIH", 0, 41, edns, 0, 0)
    return head + pack_name(name) + struct.pack(">HH", rtype, 1) + opt


def reply_to(packet: bytes, limit: int) -> bytes | None:
    """What the server says, which the name decides; None for silence."""
    asked = parse_query(packet)
    kind = asked.name.lower().partition(".")[0]
    addresses = [ip_address("192.0.2.1" if asked.type == Type.A else "2001:db8::1")]
    if kind == "silent":
        return None
    if kind == "garbage":
        return packet[:2] + b"\x81\x80\0\1\0\7\0\0\0\0" + asked.question + b"\xc0\x0c\0\1"
    if kind == "other":
        return packet[:2] + render(parse_query(query("elsewhere.example")), Answer(), limit)[2:]
    if kind == "nothing":
        return render(asked, Answer(Code.NAME_ERROR), limit)
    if kind == "many":
        addresses = [ip_address(f"198.51.100.{number}") for number in range(200)]
    records = [Record(asked.name, Type(asked.type), TTL_S, pack_address(one)) for one in addresses]
    if kind == "alias":
        records = [
            Record(asked.name, Type.CNAME, 20, pack_name("target.example")),
            Record("target.example", Type(asked.type), TTL_S, records[0].data),
        ]
    return render(asked, Answer(answers=tuple(records)), limit)


class Server:
    """Answers on port 53 of a pod, by both protocols."""

    def __init__(self, netns: str) -> None:
        self.udp = open_socket(netns, socket.SOCK_DGRAM, "::", 53)
        self.tcp = open_socket(netns, socket.SOCK_STREAM, "::", 53)
        self.peers: set[str] = set()
        self.udp.settimeout(None)
        self.tcp.settimeout(None)
        threading.Thread(target=self._serve_udp, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()

    def close(self) -> None:
        for sock in (self.udp, self.tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _serve_udp(self) -> None:
        while True:
            try:
                packet, peer = self.udp.recvfrom(4096)
            except OSError:
                return
            if not packet:
                return
            self.peers.add(peer[0].removeprefix("::ffff:"))
            answer = reply_to(packet, parse_query(packet).udp_size)
            if answer is not None:
                with contextlib.suppress(OSError):
                    self.udp.sendto(answer, peer)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, struct.error):
            connection.settimeout(None)
            stream = connection.makefile("rb")
            while True:
                (length,) = struct.unpack(">H", stream.read(2))
                answer = reply_to(stream.read(length), 65_535)
                if answer is not None:
                    connection.sendall(struct.pack(">H", len(answer)) + answer)


@dataclass(slots=True)
class FakeAgent:
    """The agent's end of the line."""

    path: Path
    prompt: bool = True
    """Whether it says at once that the policy knows what was learned."""
    learned: list[list[Any]] = field(default_factory=list)
    hellos: list[dict[str, Any]] = field(default_factory=list)
    _listener: socket.socket = field(init=False)
    _connection: socket.socket | None = None
    _revision: int = 0
    _obeyed: int = 0

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        for sock in (self._listener, self._connection):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        self._connection = None

    def give(self, rules: Rules) -> None:
        """Give the proxy rules, and wait until they hold."""
        eventually(lambda: self._connection is not None)
        self._revision += 1
        self._send({"rules": rules.as_json(), "revision": self._revision})
        eventually(lambda: self._obeyed == self._revision)

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            stream = connection.makefile("rb")
            self.hellos.append(json.loads(stream.readline()))
            self._connection = connection
            for line in stream:
                message = json.loads(line)
                self._obeyed = message.get("obeyed", self._obeyed)
                self.learned += message.get("learned", [])
                if self.prompt and "number" in message:
                    self._send({"known": message["number"]})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._connection is not None
        self._connection.sendall(json.dumps(message).encode() + b"\n")


@dataclass(slots=True)
class DnsNet:
    """All of it."""

    client: Pod
    server_pod: Pod
    node_netns: str
    folder: Path
    agent: FakeAgent
    server: Server
    records: socket.socket
    process: subprocess.Popen[bytes] | None = None
    flags: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return self.server_pod.ipv4

    def start_proxy(self, *flags: str) -> None:
        """Run the proxy until it has asked for rules."""
        self.flags = flags or self.flags
        settings = (
            f"--agent={self.agent.path}",
            f"--port={PROXY_PORT}",
            f"--records={self.folder}/records.sock",
            *self.flags,
        )
        command = ["ip", "netns", "exec", self.node_netns, sys.executable, "-m", "cli", "dns-proxy", *settings]
        greeted = len(self.agent.hellos)
        with (self.folder / "proxy.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        eventually(lambda: len(self.agent.hellos) > greeted, 15.0)

    def stop_proxy(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def rules(self, *texts: str, selectors: Sequence[str] = (), peers: frozenset[int] | None = None) -> Rules:
        """The client may ask the server these."""
        permissions = tuple(Permission(protocol, 53, 53, peers, texts) for protocol in (6, 17))
        client = Client(
            self.client.endpoint.endpoint_id, CLIENT, self.client.ipv4, self.client.ipv6, ("k8s:app=x",), permissions
        )
        servers = ((f"{self.server_pod.ipv4}/32", SERVER), (f"{self.server_pod.ipv6}/128", SERVER))
        return Rules((client,), servers, ((SERVER, ("k8s:k8s-app=kube-dns",)),), tuple(selectors))

    def udp(self, address: str = "", timeout_s: float = 3.0) -> socket.socket:
        """A socket of the client that asks the server."""
        target = address or self.address
        sock = open_socket(self.client.netns, socket.SOCK_DGRAM, "::" if ":" in target else "0.0.0.0")
        sock.settimeout(timeout_s)
        sock.connect((target, 53))
        return sock

    def ask(self, name: str, rtype: int = Type.A, address: str = "", ident: int = 7, edns: int | None = None) -> bytes:
        """One query by UDP. Raises: TimeoutError."""
        with self.udp(address) as sock:
            sock.send(query(name, rtype, ident, edns))
            return sock.recv(65_535)

    def tcp(self) -> socket.socket:
        """A connection of the client to the server."""

        def connect() -> socket.socket:
            return socket.create_connection((self.address, 53), 3.0)

        return inside(self.client.netns, connect)

    def flows(self, count: int, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """The next records, in the order in which they came."""
        found: list[dict[str, Any]] = []
        self.records.settimeout(timeout_s)
        while len(found) < count:
            found += [json.loads(line) for line in self.records.recv(1 << 18).splitlines()]
        return found

    def forget_flows(self) -> None:
        time.sleep(0.02)
        self.records.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.records.recv(1 << 18)


def tcp_frame(packet: bytes) -> bytes:
    return struct.pack(">H", len(packet)) + packet


def read_frame(sock: socket.socket) -> bytes:
    """One message of a TCP stream."""
    head = _exactly(sock, 2)
    return _exactly(sock, struct.unpack(">H", head)[0])


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def redirecting() -> EndpointPolicy:
    """All may pass, and DNS only through the proxy."""
    entries = tuple(PolicyEntry(True, 0, protocol, 53, 16, precedence=2, proxy_port=PROXY_PORT) for protocol in (6, 17))
    return EndpointPolicy((PolicyEntry(True, 0), *entries), enforced_ingress=False, enforced_egress=True)


@contextlib.contextmanager
def dns_net(folder: Path) -> Iterator[DnsNet]:
    """Client and server pods of one node; the proxy is not started yet."""
    with network(folder) as net:
        node = net.add_node()
        client, server_pod = node.add_pod(1017, CLIENT), node.add_pod(2044, SERVER)
        net.share_ipcache()
        records = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        records.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        records.bind(str(folder / "records.sock"))
        agent, server = FakeAgent(folder / "dns.sock"), Server(server_pod.netns)
        agent.start()
        found = DnsNet(client, server_pod, node.netns, folder, agent, server, records)
        node.datapath.set_policy(client.endpoint.endpoint_id, redirecting())
        try:
            yield found
        finally:
            found.stop_proxy()
            agent.stop()
            server.close()
            records.close()
