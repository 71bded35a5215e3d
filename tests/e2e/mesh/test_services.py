"""Services in the lab: who is reached by which address, from where, and what becomes of connections."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.rundir import RunDir
from mesh.resources.base import Key
from mesh.resources.services import Service
from mesh.store import SqliteStore
from tests.e2e.conftest import ROOT, Lab, command

pytestmark = pytest.mark.kernel

SPACE = "services-e2e"
WAIT_S = 15.0
POD = """
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: services-e2e, labels: {{app: web, name: {name}}}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 60
  containers:
  - name: echo
    image: hashicorp/http-echo:0.2.3
    args: ["-text={name}"]
    ports: [{{containerPort: 5678}}]
    lifecycle: {{preStop: {{sleep: {{seconds: 60}}}}}}
"""
SERVICES = """
apiVersion: v1
kind: Namespace
metadata: {name: services-e2e}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: services-e2e}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 5678}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: services-e2e}
spec: {sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80, targetPort: 5678}]}
---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: services-e2e}
spec: {internalTrafficPolicy: Local, selector: {app: web}, ports: [{port: 80, targetPort: 5678}]}
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: services-e2e}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {name: a}, ports: [{port: 80, targetPort: 5678}]}
---
apiVersion: v1
kind: Service
metadata: {name: alone, namespace: services-e2e}
spec: {selector: {name: a}, ports: [{port: 80, targetPort: 5678}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: metallb-system}
data:
  config: |
    address-pools:
    - {name: default, protocol: layer2, addresses: [172.18.255.200-172.18.255.250]}
"""
TALK = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 80, timeout=10)
connection.connect()
local = connection.sock.getsockname()
for line in sys.stdin:
    connection.request("GET", "/")
    answer = connection.getresponse().read().decode().strip()
    print(answer, connection.sock is not None and connection.sock.getsockname() == local, flush=True)
"""
"""A client that asks again for each line it reads, on one connection, and says whether it still is the same."""


@pytest.fixture(scope="module")
def services(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The lab with two web servers, `a` beside the clients and `b` elsewhere, and services in front of them."""
    here = str(lab.pod("client2")["node"])
    there = next(one["name"] for one in lab.status()["nodes"] if one["name"] not in (here, lab.node("control-plane")))
    file = tmp_path_factory.mktemp("services") / "services.yaml"
    file.write_text(SERVICES + POD.format(name="a", node=here) + POD.format(name="b", node=there))
    applied = lab.lab("apply", "-f", str(file))
    assert applied.returncode == 0, applied.stderr
    try:
        yield lab
    finally:
        store = SqliteStore(RunDir(lab.run_dir).store)
        keys = [one.key for one in store.find() if SPACE in (one.namespace, one.name)]
        store.delete([*keys, Key("ConfigMap", "metallb-system", "config")], at_once=True)
        store.close()
        until(lambda: not [one for one in lab.status()["pods"] if one["namespace"] == SPACE], "its pods are gone")


def until(reached: Callable[[], bool], what: str) -> None:
    """Wait for something; fail when it does not come."""
    deadline = time.monotonic() + WAIT_S
    while not reached():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def service(lab: Lab, name: str) -> Service:
    """A service as the store has it."""
    store = SqliteStore(RunDir(lab.run_dir).store)
    try:
        found = store.get(Key("Service", SPACE, name))
    finally:
        store.close()
    assert isinstance(found, Service)
    return found


def ask(lab: Lab, where: tuple[str, ...], url: str, times: int = 1) -> list[str]:
    """What curl gets, asking `times` times with a connection each; "" for a failure."""
    script = f"for i in $(seq {times}); do curl -s -m 3 {url} || echo; done"
    return lab.lab("exec", *where, "--", "sh", "-c", script).stdout.splitlines()


CLIENT = ("-n", "cilium-test", "client2")


def test_a_name_stands_for_an_address_that_leads_to_every_server(services: Lab) -> None:
    answers = ask(services, CLIENT, f"web.{SPACE}", 24)
    assert set(answers) == {"a", "b"}, answers
    address = service(services, "web").spec.cluster_ip
    assert set(ask(services, CLIENT, address, 24)) == {"a", "b"}


def test_flows_show_the_server_behind_the_service(services: Lab) -> None:
    assert ask(services, CLIENT, f"alone.{SPACE}") == ["a"]

    def seen() -> bool:
        shown = services.flowscope(
            "observe", "--server", services.relay, "--from-pod", "cilium-test/client2", "--to-pod", f"{SPACE}/a"
        )
        return f"{SPACE}/a:5678" in shown.stdout and "to-endpoint FORWARDED" in shown.stdout

    until(seen, "the flow is shown")


def test_a_client_with_affinity_stays_with_its_server(services: Lab) -> None:
    assert len(set(ask(services, CLIENT, f"sticky.{SPACE}", 12))) == 1


def test_an_internal_local_policy_stays_on_the_node(services: Lab) -> None:
    assert set(ask(services, CLIENT, f"near.{SPACE}", 8)) == {"a"}


def test_a_pod_reaches_itself_through_its_service(services: Lab) -> None:
    assert ask(services, ("-n", SPACE, "a"), f"alone.{SPACE}", 3) == ["a"] * 3


OUTSIDE = ("--outside",)


def test_node_ports_lead_to_servers_from_outside_and_from_pods(services: Lab) -> None:
    number = service(services, "web").spec.ports[0].node_port
    for node in services.status()["nodes"]:
        url = f"{node['ips'][0]}:{number}"
        for where in (OUTSIDE, CLIENT):
            answers = ask(services, where, url, 3)
            assert len(answers) == 3, url
            assert set(answers) <= {"a", "b"}, (url, where, answers)


def test_other_nodes_are_clients_of_node_ports_like_any_other(services: Lab) -> None:
    home = services.pod("client2")["node"]
    (address,) = (one["ips"][0] for one in services.status()["nodes"] if one["name"] == home)
    number = service(services, "local").spec.ports[0].node_port
    assert ask(services, ("--node", services.node("control-plane")), f"{address}:{number}", 2) == ["a"] * 2


def test_a_local_policy_answers_only_where_a_server_is(services: Lab) -> None:
    number = service(services, "local").spec.ports[0].node_port
    home = services.pod("client2")["node"]
    for node in services.status()["nodes"]:
        wanted = ["a"] if node["name"] == home else [""]
        assert ask(services, OUTSIDE, f"{node['ips'][0]}:{number}") == wanted, node["name"]


def test_the_first_balancer_address_of_the_pool_is_reached_by_curl_from_outside(services: Lab) -> None:
    def given() -> bool:
        return bool(service(services, "web").balancer_ips)

    until(given, "the service gets an address")
    assert service(services, "web").balancer_ips == ("172.18.255.200",)
    until(lambda: ask(services, OUTSIDE, "172.18.255.200") != [""], "a node answers for the address")
    assert set(ask(services, OUTSIDE, "172.18.255.200", 24)) == {"a", "b"}
    assert set(ask(services, CLIENT, "172.18.255.200", 24)) == {"a", "b"}


def test_nodes_reach_cluster_addresses(services: Lab) -> None:
    address = service(services, "web").spec.cluster_ip
    for node in services.status()["nodes"]:
        answers = ask(services, ("--node", node["name"]), address, 3)
        assert set(answers) <= {"a", "b"}, (node["name"], answers)


def test_connections_drain_when_a_pod_goes(services: Lab, tmp_path: Path) -> None:
    """The one who talks goes on; new connections go elsewhere; the pod stays until it may end."""
    words = command("lab", "exec", "--run-dir", str(services.run_dir), *CLIENT, "--", sys.executable, "-c", TALK)
    with subprocess.Popen(
        [*words, f"web.{SPACE}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as talk:
        assert talk.stdin is not None
        assert talk.stdout is not None

        def say() -> list[str]:
            assert talk.stdin is not None
            assert talk.stdout is not None
            talk.stdin.write("\n")
            talk.stdin.flush()
            return talk.stdout.readline().split()

        first, same = say()
        assert same == "True"
        store = SqliteStore(RunDir(services.run_dir).store)
        try:
            store.delete([Key("Pod", SPACE, first)])
        finally:
            store.close()
        other = "b" if first == "a" else "a"
        until(lambda: set(ask(services, CLIENT, f"web.{SPACE}", 6)) == {other}, "new connections go elsewhere")
        assert say() == [first, "True"]
        talk.stdin.close()
        talk.wait(5)
