"""DNS rules in the lab: what clients get, what flows show, and what restarts do to it."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Lab
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

POD_SUFFIX = r"-[0-9a-f]{8,10}-[a-z0-9]{5}(:\d+)?"

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: e2e-dns, namespace: cilium-test}
spec:
  endpointSelector: {matchLabels: {name: client2}}
  egress:
  - toEndpoints:
    - matchLabels: {'k8s:k8s-app': kube-dns, 'k8s:io.kubernetes.pod.namespace': kube-system}
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules:
        dns: [{matchName: one.one.one.one}, {matchPattern: "*.cilium-test.svc.cluster.local"}, {matchName: k8s.io}]
  - toCIDR: [192.0.2.254/32]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules:
        dns: [{matchPattern: "*"}]
  - toFQDNs: [{matchPattern: "*.one.one.one"}]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""


@pytest.fixture(scope="module")
def ruled(lab: Lab) -> Iterator[Lab]:
    """The lab with the policy in force."""
    assert lab.flowscope("mesh", "apply", "--store", store(lab), "-f", "-", input=POLICY).returncode == 0
    eventually(lambda: not reaches(lab, "http://k8s.io/", wait_s=1) and reaches(lab, "http://one.one.one.one/"), 30.0)
    try:
        yield lab
    finally:
        lab.flowscope("mesh", "delete", "--store", store(lab), "-f", "-", input=POLICY)


def store(lab: Lab) -> str:
    return str(lab.run_dir / "store")


def reaches(lab: Lab, url: str, wait_s: int = 3) -> bool:
    return lab.exec("client2", "curl", "-4", "-s", "-m", str(wait_s), "-o", "/dev/null", f"{url}").returncode == 0


def lines(lab: Lab, *filters: str) -> list[str]:
    """Flows of client2 without time, ports and what names pods of one deployment apart."""
    found = lab.flowscope("observe", "--server", lab.relay, "--pod", "cilium-test/client2", "--last", "500", *filters)
    assert found.returncode == 0, found.stderr
    return [
        re.sub(r"-[0-9a-f]{8,10}-[a-z0-9]{5}(:\d+)?", "", line.partition(": ")[2]) for line in found.stdout.splitlines()
    ]


def agent_pid(lab: Lab, node: str) -> int:
    found: int = next(one["pid"] for one in lab.status()["processes"] if one["name"] == f"{node}_agent")
    return found


def proxy_pid(lab: Lab, node: str) -> int:
    # Empty for a moment, while a new proxy writes its own.
    return int((lab.run_dir / node / "dns-proxy.pid").read_text() or 0)


def test_only_addresses_of_an_allowed_name_can_be_reached(ruled: Lab) -> None:
    assert reaches(ruled, "http://one.one.one.one/")
    # Its name may be asked, but nothing says that its address may be reached.
    assert not reaches(ruled, "http://k8s.io/", wait_s=1)
    # Nor may this name be asked: curl cannot resolve it.
    assert ruled.exec("client2", "curl", "-s", "-m", "3", "http://cilium.io/").returncode == 6


def test_queries_and_answers_are_flows_beside_the_packets(ruled: Lab) -> None:
    reaches(ruled, "http://one.one.one.one/")
    reaches(ruled, "http://cilium.io/")
    wanted = [
        "dns-request proxy FORWARDED (DNS Query one.one.one.one. A)",
        'dns-response proxy FORWARDED (DNS Answer "192.0.2.1,192.0.2.2" TTL: 60 (Proxy one.one.one.one. A))',
        "dns-request proxy DROPPED (DNS Query cilium.io. A)",
        "to-proxy FORWARDED (UDP)",
    ]
    eventually(lambda: all(any(line.endswith(one) for line in lines(ruled)) for one in wanted), 10.0)
    assert any(
        "cilium-test/client2" in line and "-> kube-system/coredns" in line for line in lines(ruled, "--type", "l7")
    )


def test_flows_to_an_address_show_the_name_that_led_there(ruled: Lab) -> None:
    assert reaches(ruled, "http://one.one.one.one/")

    def named() -> bool:
        reaches(ruled, "http://one.one.one.one/")
        found = ruled.flowscope(
            "observe", "--server", ruled.relay, "--to-fqdn", "one.one.one.one", "--last", "1", "-o", "json"
        ).stdout
        return any(
            "one.one.one.one" in json.loads(line)["flow"].get("destination_names", ()) for line in found.splitlines()
        )

    eventually(named, 10.0)


def test_a_server_that_never_answers_holds_up_nobody_else(ruled: Lab) -> None:
    script = (
        "import socket, struct; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.254', 53));"
        "[s.send(struct.pack('>HHHHHH', n, 256, 1, 0, 0, 0) + b'\\1a\\0\\0\\1\\0\\1') for n in range(500)]"
    )
    assert ruled.exec("client2", "python3", "-c", script).returncode == 0
    assert reaches(ruled, "http://one.one.one.one/")


def test_neither_a_new_proxy_nor_a_new_agent_forgets(ruled: Lab) -> None:
    node = ruled.pod("client2")["node"]
    old = proxy_pid(ruled, node)
    os.kill(old, signal.SIGKILL)
    eventually(lambda: proxy_pid(ruled, node) not in (0, old) and reaches(ruled, "http://one.one.one.one/"), 20.0)
    survivor, agent = proxy_pid(ruled, node), agent_pid(ruled, node)
    os.kill(agent, signal.SIGKILL)
    # Names that were learned, and the proxy, need no agent.
    assert reaches(ruled, "http://192.0.2.1/")
    eventually(lambda: agent_pid(ruled, node) not in (None, agent), 20.0)
    eventually(lambda: reaches(ruled, "http://one.one.one.one/"), 20.0)
    assert proxy_pid(ruled, node) == survivor
    assert reaches(ruled, "http://192.0.2.2/")
    assert not reaches(ruled, "http://192.0.2.3/", wait_s=1)


NODE_POLICY = """
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {{name: e2e-node-dns}}
spec:
  nodeSelector: {{matchLabels: {{kubernetes.io/hostname: {node}}}}}
  egress:
  - toEntities: [host, remote-node]
  - toEndpoints:
    - matchLabels: {{'k8s:k8s-app': kube-dns, 'k8s:io.kubernetes.pod.namespace': kube-system}}
    toPorts: [{{ports: [{{port: "53", protocol: ANY}}], rules: {{dns: [{{matchName: one.one.one.one}}]}}}}]
  - toFQDNs: [{{matchName: one.one.one.one}}]
    toPorts: [{{ports: [{{port: "80", protocol: TCP}}]}}]
"""
QUERY = """
import socket, struct, sys
query = struct.pack("!HHHHHH", 7, 256, 1, 0, 0, 0)
query += b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[2].split(".")) + struct.pack("!BHH", 0, 1, 1)
stream = sys.argv[1] == "tcp"
with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as sock:
    sock.settimeout(10)
    sock.connect(("10.96.0.10", 53))
    sock.send(struct.pack("!H", len(query)) + query if stream else query)
    print(sock.recv(600)[5 if stream else 3] & 15)
"""


@pytest.fixture
def ruled_node(lab: Lab) -> Iterator[str]:
    """A node whose own processes may ask for one name, and go where it leads."""
    node = lab.node("worker3")
    policy = NODE_POLICY.format(node=node)
    assert lab.flowscope("mesh", "apply", "--store", store(lab), "--wait", "-f", "-", input=policy).returncode == 0
    try:
        yield node
    finally:
        lab.flowscope("mesh", "delete", "--store", store(lab), "-f", "-", input=policy)


def test_a_nodes_own_processes_ask_through_the_proxy(lab: Lab, ruled_node: str) -> None:
    def run(*words: str) -> tuple[int, str]:
        found = lab.lab("exec", "--node", ruled_node, "--", *words)
        return found.returncode, found.stdout.strip()

    curl = ("curl", "-s", "-o", "/dev/null", "http://192.0.2.1/", "-m")
    assert run(*curl, "1") == (28, ""), "nobody has asked for the name that leads there"
    refused = "5"
    for kind in ("udp", "tcp"):
        assert run("python3", "-c", QUERY, kind, "k8s.io") == (0, refused)
        assert run("python3", "-c", QUERY, kind, "one.one.one.one") == (0, "0")
    assert run(*curl, "20") == (0, "")
    lines = lab.flowscope("observe", "--server", lab.relay, "--type", "l7", "--identity", "1", "--last", "20").stdout
    assert "(host) -> kube-system/coredns" in lines
    assert "dns-request proxy DROPPED (DNS Query k8s.io. A)" in lines
