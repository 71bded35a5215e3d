"""Traffic between namespaces, for kernel tests: real sockets, opened inside them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import TypeVar

from tests.support.testnet import inside

T = TypeVar("T")
TIMEOUT_S = 3.0


def open_socket(netns: str, kind: int, address: str = "0.0.0.0", port: int = 0, protocol: int = 0) -> socket.socket:
    """A bound socket that lives in a namespace, whichever thread uses it."""

    def make() -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(TIMEOUT_S)
        sock.bind((address, port))
        if kind == socket.SOCK_STREAM and port:
            sock.listen()
        return sock

    return inside(netns, make)


@contextmanager
def background(action: Callable[[], T]) -> Iterator[list[T]]:
    """Run `action` in a thread meanwhile; its result is in the list afterwards."""
    result: list[T] = []
    thread = Thread(target=lambda: result.append(action()))
    thread.start()
    try:
        yield result
    finally:
        thread.join(TIMEOUT_S * 2)


def exchange(
    client_netns: str, server_netns: str, address: str, port: int, size: int = 64, served_at: int = 0
) -> bytes:
    """One request and answer over TCP, closed by the client first, as curl does; returns the answer.

    `served_at` is the server's port where that is another one than the client knows.
    """
    listener = open_socket(server_netns, socket.SOCK_STREAM, "::" if ":" in address else "0.0.0.0", served_at or port)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(TIMEOUT_S)
            connection.recv(4096)
            connection.sendall(b"y" * size)
            connection.recv(4096)  # b"": the client has closed

    answer = b""
    with listener, background(serve):
        sock = open_socket(client_netns, socket.SOCK_STREAM, "::" if ":" in address else "0.0.0.0")
        with sock:
            sock.connect((address, port))
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while len(answer) < size:
                answer += sock.recv(65536)
    return answer


def send_packet(netns: str, ifname: str, frame: bytes) -> None:
    """One Ethernet frame, as it is."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((ifname, 0))
            sock.send(frame)

    inside(netns, send)


def ipv4_packet(src: str, dst: str, payload: bytes, protocol: int = 17, ttl: int = 64, fragment: int = 0) -> bytes:
    """An IPv4 packet with a right header checksum, without Ethernet."""
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45, 0, 20 + len(payload), 4711, fragment, ttl, protocol, 0, socket.inet_aton(src), socket.inet_aton(dst),
    )  # fmt: skip
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    check: int = ~(total + (total >> 16)) & 0xFFFF
    return head[:10] + check.to_bytes(2, "big") + head[12:] + payload


def udp_datagram(sport: int, dport: int, payload: bytes = b"hello") -> bytes:
    """A UDP datagram without checksum (IPv4 allows that)."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def ethernet(
    payload: bytes, ethertype: int = 0x0800, src: str = "02:00:00:00:00:99", dst: str = "02:00:00:00:00:01"
) -> bytes:
    """An Ethernet frame."""
    return bytes.fromhex(dst.replace(":", "") + src.replace(":", "")) + ethertype.to_bytes(2, "big") + payload
