"""The agent goes away, comes back as another build, and traffic through a service does not notice."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from bpf.datapath import Datapath
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from tests.support.testnet import Cluster, Node
from tests.support.traffic import exchange, open_socket

pytestmark = pytest.mark.kernel

VIP = {"ipv4": "10.96.0.80", "ipv6": "fd00:10:96::50"}
IPERF, HELD = 5201, 8080
LONG_S = 60


def services(cluster: Cluster) -> list[ServiceFrontend]:
    return [
        ServiceFrontend(
            frontend=Frontend(address=ip_address(VIP[version]), port=port, protocol=6),
            backends=(Backend(address=address, port=port),),
            kind=FrontendKind.CLUSTER_IP,
        )
        for version in VIP
        for port in (IPERF, HELD)
        if (address := getattr(cluster.far.endpoint, version)) is not None
    ]


def replace_programs(node: Node, objects: Path, wanted: list[ServiceFrontend]) -> Datapath:
    """What an agent does that starts with other programs than those it finds."""
    datapath = Datapath(node.netns, netns=node.netns, bpffs=node.datapath.pin_dir.parents[1], objects=objects)
    datapath.ensure_loaded()
    datapath.attach_overlay("cilium_vxlan")
    datapath.attach_host("cilium_host")
    datapath.attach_netdev("eth0")
    for endpoint in datapath.endpoints().values():
        datapath.attach_endpoint(endpoint)
    datapath.sync_services(wanted)
    return datapath


def programs(node: Node) -> set[str]:
    return {path.name for path in node.datapath.pin_dir.glob("programs-*")}


def test_connections_through_a_service_outlive_agent_and_programs(
    cluster: Cluster, objects: Path, tmp_path: Path
) -> None:
    build = tmp_path / "build"
    shutil.copytree(objects, build)
    with (build / "tc_from_container.bpf.o").open("ab") as changed:
        changed.write(b"\0")
    near, wanted = cluster.near, services(cluster)
    near.datapath.sync_services(wanted)
    before = programs(near)
    inside = ["ip", "netns", "exec"]
    server = subprocess.Popen(
        [*inside, cluster.far.netns, "iperf3", "-s", "-1", "--forceflush"], stdout=subprocess.PIPE, text=True
    )
    with server, open_socket(cluster.far.netns, socket.SOCK_STREAM, port=HELD) as listener:
        assert server.stdout is not None
        while "listening" not in server.stdout.readline():
            pass
        client = subprocess.Popen(
            [*inside, cluster.client.netns, "iperf3", "-J", "-t", str(LONG_S), "-i", "0.5", "-c", VIP["ipv4"]],
            stdout=subprocess.PIPE,
            text=True,
        )
        with client, open_socket(cluster.client.netns, socket.SOCK_STREAM) as sock:
            sock.connect((VIP["ipv4"], HELD))
            held, _ = listener.accept()
            with held:
                sock.sendall(b"before")
                assert held.recv(100) == b"before"
                near.datapath.close()
                sock.sendall(b"away")
                assert held.recv(100) == b"away"
                near.datapath = replace_programs(near, build, wanted)
                sock.sendall(b"after")
                assert held.recv(100) == b"after"
                held.sendall(b"and back")
                assert sock.recv(100) == b"and back"
                client.send_signal(signal.SIGINT)
                told = json.loads(client.communicate(timeout=20)[0])
        server.wait(10)
    assert told["error"].startswith("interrupt"), "by nothing else than this test"
    assert all(one["sum"]["bytes"] for one in told["intervals"]), "in no half second did nothing get through"
    assert len(programs(near)) == 1
    assert programs(near) != before


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
@pytest.mark.parametrize("where", ["server", "far"])
def test_full_segments_pass_through_a_service(cluster: Cluster, version: str, where: str) -> None:
    pod = getattr(cluster, where)
    address: IPv4Address | IPv6Address = getattr(pod.endpoint, version)
    frontend = Frontend(address=ip_address(VIP[version]), port=80, protocol=6)
    backend = Backend(address=address, port=HELD)
    cluster.near.datapath.sync_services(
        [ServiceFrontend(frontend=frontend, backends=(backend,), kind=FrontendKind.CLUSTER_IP)]
    )
    size = 2_000_000
    assert len(exchange(cluster.client.netns, pod.netns, VIP[version], 80, size=size, served_at=HELD)) == size
    assert not [event for event in cluster.log.collect() + cluster.away_log.collect() if event.type == 1]
