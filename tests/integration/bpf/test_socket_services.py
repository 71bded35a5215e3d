"""Services at sockets: processes of the node get a backend when they ask, and see the address they asked for."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from bpf.datapath import Aggregation
from bpf.libbpf import BpfError
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from bpf.sockets import cgroup_mount
from model.decode.heads import TraceSock, read_trace_sock
from tests.support.testnet import Cluster, Pod
from tests.support.traffic import background, open_socket

pytestmark = pytest.mark.kernel

VIP = {"ipv4": "10.96.0.90", "ipv6": "fd00:10:96::90"}
ANY = {"ipv4": "0.0.0.0", "ipv6": "::"}
TCP, UDP = 6, 17
VERSIONS = pytest.mark.parametrize("version", ["ipv4", "ipv6"])
POINTS = {1: "pre-fwd", 2: "post-fwd", 3: "pre-rev", 4: "post-rev"}
ASK = """
import json, socket, sys
kind, family, address, port, how = sys.argv[1:]
sock = socket.socket(getattr(socket, family), getattr(socket, kind))
sock.settimeout(3)
told = {}
try:
    if how == "sendto":
        sock.sendto(b"hello", (address, int(port)))
        data, peer = sock.recvfrom(100)
    else:
        sock.connect((address, int(port)))
        peer = sock.getpeername()
        sock.send(b"hello")
        data = sock.recv(100)
    told = {"peer": list(peer[:2]), "data": data.decode()}
except OSError as error:
    told = {"errno": error.errno}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def cgroup() -> Iterator[Path]:
    """A cgroup of this module's own."""
    mount = cgroup_mount()
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("no writable cgroup of version 2")
    path = mount / f"flowscope-test-{secrets.token_hex(3)}"
    path.mkdir()
    yield path
    path.rmdir()


@pytest.fixture
def attached(cluster: Cluster, cgroup: Path) -> Iterator[Cluster]:
    """The cluster with the socket programs of `near` on the cgroup."""
    assert cluster.near.datapath.attach_sockets(cgroup) == cgroup.stat().st_ino
    yield cluster
    cluster.near.datapath.detach_sockets()
    cluster.near.datapath.sync_services([])
    # The cluster's log knows events with packets only.
    records(cluster)


def service(version: str, *pods: Pod, protocol: int = TCP, address: str = "", **more: Any) -> ServiceFrontend:
    """A service in front of pods."""
    return ServiceFrontend(
        frontend=Frontend(address=ip_address(address or VIP[version]), port=80, protocol=protocol),
        backends=tuple(Backend(address=ip_address(getattr(pod, version)), port=8080) for pod in pods),
        **{"kind": FrontendKind.CLUSTER_IP, **more},
    )


def ask(
    netns: str, cgroup: Path, address: str, kind: str = "SOCK_STREAM", how: str = "connect", family: str = ""
) -> dict[str, Any]:
    """What a process in the cgroup and in a namespace learns when it talks to port 80 of an address."""
    family = family or ("AF_INET6" if ":" in address else "AF_INET")
    words = [sys.executable, "-S", "-c", ASK, kind, family, address, "80", how]
    words = ["ip", "netns", "exec", netns, *words]
    script = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    done = subprocess.run(["sh", "-c", script, str(cgroup), *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def answer_stream(pod: Pod, version: str) -> Any:
    """Serve one connection, in the background."""
    listener = open_socket(pod.netns, socket.SOCK_STREAM, ANY[version], 8080)

    def serve() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(3)
                connection.sendall(connection.recv(100))

    return background(serve)


def answer_datagram(pod: Pod, version: str) -> Any:
    server = open_socket(pod.netns, socket.SOCK_DGRAM, ANY[version], 8080)

    def serve() -> None:
        with server:
            data, peer = server.recvfrom(100)
            server.sendto(data, peer)

    return background(serve)


def records(cluster: Cluster) -> list[bytes]:
    """Events since the last time, of all kinds."""
    found = []
    while (batch := cluster.log.reader.drain()) is not None:
        found += [batch.record(index) for index in range(len(batch))]
    return found


def told(cluster: Cluster) -> list[tuple[str, str, int]]:
    """Translations told since the last time: point, address, port."""
    found: list[TraceSock] = [read_trace_sock(one) for one in records(cluster) if one[0] == 7]
    return [
        (POINTS[one.xlate_point], str(ip_address(one.dst_ip[: 16 if one.flags & 1 else 4])), one.dst_port)
        for one in found
    ]


@VERSIONS
@pytest.mark.parametrize("where", ["server", "far"])
def test_a_connection_of_the_node_gets_a_backend_and_keeps_the_name(
    attached: Cluster, cgroup: Path, version: str, where: str
) -> None:
    backend: Pod = getattr(attached, where)
    attached.near.datapath.sync_services([service(version, backend)])
    with answer_stream(backend, version):
        assert ask(attached.near.netns, cgroup, VIP[version]) == {"peer": [VIP[version], 80], "data": "hello"}
    found = records(attached)
    socks = [read_trace_sock(one) for one in found if one[0] == 7]
    packed = [one.packed.ljust(16, b"\0") for one in map(ip_address, (VIP[version], getattr(backend, version)))]
    assert [(one.xlate_point, one.dst_ip, one.dst_port) for one in socks] == [(1, packed[0], 80), (2, packed[1], 8080)]
    assert {(one.l4_proto, one.flags, one.cgroup_id) for one in socks} == {
        (1, int(version == "ipv6"), cgroup.stat().st_ino)
    }
    assert not [one for one in found if packed[0][: 4 if version == "ipv4" else 16] in one[40:]], "no packet shows it"


def test_an_ipv6_socket_reaches_an_ipv4_service(attached: Cluster, cgroup: Path) -> None:
    attached.near.datapath.sync_services([service("ipv4", attached.server)])
    mapped = f"::ffff:{VIP['ipv4']}"
    with answer_stream(attached.server, "ipv4"):
        assert ask(attached.near.netns, cgroup, mapped) == {"peer": [mapped, 80], "data": "hello"}


@VERSIONS
@pytest.mark.parametrize("how", ["sendto", "connect"])
def test_datagrams_come_back_from_the_address_that_was_asked(
    attached: Cluster, cgroup: Path, version: str, how: str
) -> None:
    attached.near.datapath.configure(aggregation=Aggregation.NONE)
    attached.near.datapath.sync_services([service(version, attached.far, protocol=UDP)])
    with answer_datagram(attached.far, version):
        found = ask(attached.near.netns, cgroup, VIP[version], "SOCK_DGRAM", how)
    assert found == {"peer": [VIP[version], 80], "data": "hello"}
    backend = (attached.far.ipv4 if version == "ipv4" else attached.far.ipv6, 8080)
    # A connected socket is asked for its peer more than once.
    assert list(dict.fromkeys(told(attached))) == [
        ("pre-fwd", VIP[version], 80),
        ("post-fwd", *backend),
        ("pre-rev", *backend),
        ("post-rev", VIP[version], 80),
    ]


def test_datagrams_that_are_sent_one_by_one_are_told_at_low_levels_only(attached: Cluster, cgroup: Path) -> None:
    attached.near.datapath.sync_services([service("ipv4", attached.server, protocol=UDP)])
    with answer_datagram(attached.server, "ipv4"):
        assert "data" in ask(attached.near.netns, cgroup, VIP["ipv4"], "SOCK_DGRAM", "sendto")
    assert told(attached) == []


@VERSIONS
def test_a_service_without_backends_is_unreachable(attached: Cluster, cgroup: Path, version: str) -> None:
    attached.near.datapath.sync_services([service(version)])
    assert ask(attached.near.netns, cgroup, VIP[version]) == {"errno": 113}
    assert told(attached) == [("pre-fwd", VIP[version], 80)]


def test_an_external_address_is_only_taken_when_it_is_the_nodes_own(attached: Cluster, cgroup: Path) -> None:
    own, kind = str(attached.near.address), FrontendKind.EXTERNAL_IP
    attached.near.datapath.sync_services(
        [service("ipv4", attached.server, address=one, kind=kind) for one in ("192.0.2.7", own)]
    )
    assert ask(attached.near.netns, cgroup, "192.0.2.7") == {"errno": 1}
    with answer_stream(attached.server, "ipv4"):
        assert ask(attached.near.netns, cgroup, own)["peer"] == [own, 80]


@VERSIONS
def test_a_service_with_a_proxy_leads_to_it(attached: Cluster, cgroup: Path, version: str) -> None:
    attached.near.datapath.sync_services([service(version, l7_port=10001)])
    loopback = {"ipv4": "127.0.0.1", "ipv6": "::1"}[version]
    with open_socket(attached.near.netns, socket.SOCK_STREAM, loopback, 10001) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(connection.recv(100))

        with background(serve):
            assert ask(attached.near.netns, cgroup, VIP[version]) == {"peer": [VIP[version], 80], "data": "hello"}


def test_affinity_keeps_the_node_at_its_backend(attached: Cluster, cgroup: Path) -> None:
    attached.near.datapath.sync_services([service("ipv4", attached.server, attached.far, affinity_s=60)])
    names = set()
    with (
        open_socket(attached.server.netns, socket.SOCK_STREAM, port=8080) as one,
        open_socket(attached.far.netns, socket.SOCK_STREAM, port=8080) as other,
    ):
        for listener in (one, other):
            listener.settimeout(0.2)
        for _ in range(6):
            with background(lambda: ask(attached.near.netns, cgroup, VIP["ipv4"])):
                names.add(_accept(one, other))
    assert len(names) == 1


def _accept(one: socket.socket, other: socket.socket) -> str:
    """Which of two servers gets the next connection, which is answered."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for name, listener in (("one", one), ("other", other)):
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.sendall(b"x")
            return name
    raise AssertionError("nobody got the connection")


def test_sockets_of_pods_are_left_to_the_packets_way(attached: Cluster, cgroup: Path) -> None:
    attached.near.datapath.sync_services([service("ipv4", attached.server)])
    with answer_stream(attached.server, "ipv4"):
        assert ask(attached.client.netns, cgroup, VIP["ipv4"]) == {"peer": [VIP["ipv4"], 80], "data": "hello"}
    found = records(attached)
    assert not [one for one in found if one[0] == 7]
    assert found, "packets are seen"


def test_links_survive_their_agent_and_move_with_the_cgroup(attached: Cluster, cgroup: Path) -> None:
    datapath = attached.near.datapath
    datapath.sync_services([service("ipv4", attached.server)])
    datapath.close()
    with answer_stream(attached.server, "ipv4"):
        assert "data" in ask(attached.near.netns, cgroup, VIP["ipv4"])
    datapath.__init__(  # type: ignore[misc]  # the agent comes back
        datapath.node, netns=attached.near.netns, bpffs=attached.net.bpffs
    )
    datapath.ensure_loaded()
    inner = cgroup / "inner"
    inner.mkdir()
    try:
        assert datapath.attach_sockets(cgroup) == cgroup.stat().st_ino, "again"
        assert datapath.attach_sockets(inner) == inner.stat().st_ino
        told(attached)
        with answer_stream(attached.server, "ipv4"):
            assert "data" in ask(attached.near.netns, inner, VIP["ipv4"])
        assert len(told(attached)) == 2
        assert "errno" in ask(attached.near.netns, cgroup, VIP["ipv4"]), "nothing is there any more"
        assert told(attached) == []
    finally:
        inner.rmdir()
    # What hung on a cgroup that is gone hangs on the new one.
    assert datapath.attach_sockets(cgroup) == cgroup.stat().st_ino


def test_a_folder_that_is_no_cgroup_is_named(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(BpfError, match="is not a cgroup of version 2"):
        cluster.near.datapath.attach_sockets(tmp_path)
    with pytest.raises(BpfError, match=r"cgroup .*/missing: No such file"):
        cluster.near.datapath.attach_sockets(tmp_path / "missing")
