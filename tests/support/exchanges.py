"""Services in front of pods, and one TCP exchange through them: for tests that look at who talks to whom.

In:        pods of a test cluster, an address that the datapath knows.
Out:       a ServiceFrontend; the peer that either side believes to have.
Elsewhere: tests/support/testnet.py makes the cluster, tests/support/traffic.py the sockets.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any, Final

import pytest

from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from tests.support.outside import ANY
from tests.support.testnet import Pod
from tests.support.traffic import background, open_socket

TCP: Final = 6
VERSIONS = pytest.mark.parametrize("version", ["ipv4", "ipv6"])


def service_at(
    address: str,
    version: str,
    *pods: Pod,
    kind: FrontendKind,
    port: int,
    target: int = 8080,
    protocol: int = TCP,
    terminating: tuple[Pod, ...] = (),
    **more: Any,
) -> ServiceFrontend:
    """A service at an address, in front of the pods' addresses of `version`."""
    return ServiceFrontend(
        frontend=Frontend(address=ip_address(address), port=port, protocol=protocol),
        backends=tuple(
            Backend(address=ip_address(getattr(pod, version)), port=target, terminating=pod in terminating)
            for pod in pods
        ),
        kind=kind,
        **more,
    )


def ask(netns: str, server: Pod, version: str, address: str, port: int, target: int = 8080) -> tuple[str, str]:
    """One TCP exchange of a client in `netns`; whom it thinks it talks to, and whom the server."""
    listener = open_socket(server.netns, socket.SOCK_STREAM, ANY[version], target)

    def serve() -> str:
        connection, peer = listener.accept()
        with connection:
            connection.settimeout(3)
            assert connection.recv(100) == b"hello"
            connection.sendall(b"welcome")
            connection.recv(100)
        return str(peer[0])

    with listener, background(serve) as peers, open_socket(netns, socket.SOCK_STREAM, ANY[version]) as sock:
        sock.connect((address, port))
        sock.sendall(b"hello")
        assert sock.recv(100) == b"welcome"
        told = str(sock.getpeername()[0])
        sock.close()
    return told, peers[0]
