"""The world outside the lab: it knows nodes only, and pods reach it with their node's address."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from ipaddress import ip_address

import pytest

from tests.e2e.conftest import Lab, command

pytestmark = pytest.mark.kernel

PORT = 8099
SERVER = """
import socket, sys
with socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("ready", flush=True)
    while True:
        connection, peer = server.accept()
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n" + peer[0].encode())
        connection.close()
"""


@pytest.mark.parametrize("url", ["192.0.2.1", "[2001:db8::1]"])
def test_pods_reach_the_world_with_their_nodes_address(lab: Lab, url: str) -> None:
    inside = ["lab", "exec", "--run-dir", str(lab.run_dir), "--outside", "--", sys.executable, "-S", "-c", SERVER]
    server = subprocess.Popen(command(*inside, str(PORT)), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        asked = lab.exec("client2", "curl", "-s", "-m", "5", f"http://{url}:{PORT}/")
    finally:
        server.terminate()
        server.wait(10)
        assert server.stdout is not None
        server.stdout.close()
    seen = ip_address(asked.stdout)
    seen = getattr(seen, "ipv4_mapped", None) or seen
    client = lab.pod("client2")
    nodes = {one["name"]: {ip_address(address) for address in one["ips"]} for one in lab.status()["nodes"]}
    assert seen in nodes[client["node"]], "not the pod's own, which nobody outside could answer"
    assert flow_lines(lab, f"-> {url}:{PORT} (world) to-stack FORWARDED (TCP Flags: SYN)")
    assert flow_lines(lab, f"<- {url}:{PORT} (world) to-endpoint FORWARDED (TCP Flags: SYN, ACK)")


def test_what_cannot_be_routed_is_told(lab: Lab) -> None:
    """Of a pod that speaks to the world, and of one that answers a client there through its node."""
    address = "203.0.113.99"
    pod = lab.pod("client2")
    node = next(one for one in lab.status()["nodes"] if one["name"] == pod["node"])
    store = str(lab.run_dir / "store")
    service = lab.flowscope("mesh", "get", "svc", "-n", "cilium-test", "echo-same-node", "-o", "json", "--store", store)
    port = str(json.loads(service.stdout)["spec"]["ports"][0]["nodePort"])
    on_node = ("exec", "--node", node["name"], "--", "ip", "route")
    outside = ("exec", "--outside", "--")
    assert lab.lab(*on_node, "add", "unreachable", address).returncode == 0
    assert lab.lab(*outside, "ip", "addr", "add", f"{address}/32", "dev", "lo").returncode == 0
    try:
        asked = lab.exec("client2", "curl", "-s", "-m", "5", f"http://{address}:{PORT}/")
        assert asked.returncode == 7, "it hears that there is no way, and does not wait in vain"
        url = f"http://{node['ips'][0]}:{port}/"
        lab.lab(*outside, "curl", "-s", "-m", "1", "--interface", address, url)
    finally:
        lab.lab(*on_node, "del", "unreachable", address)
        lab.lab(*outside, "ip", "addr", "del", f"{address}/32", "dev", "lo")
    assert flow_lines(lab, f"<> {address}:{PORT} (world) FIB lookup failed DROPPED (TCP Flags: SYN)")
    answers = flow_lines(lab, "FIB lookup failed DROPPED (TCP Flags: SYN, ACK)", port=port, source="echo-same-node")
    assert f"cilium-test/echo-same-node:{port} (ID:" in answers[0]
    assert f"<> {address}:" in answers[0]


def flow_lines(lab: Lab, text: str, *, port: str = str(PORT), source: str = "client2") -> list[str]:
    """Lines with `text` and `source`, waited for."""
    deadline = time.monotonic() + 10
    words = ("observe", "--server", lab.relay, "--last", "200", "--port", port)
    while True:
        found = [line for line in lab.flowscope(*words).stdout.splitlines() if text in line and source in line]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
