"""`flowscope mesh` on a running cluster: what is applied works, what is told is so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import Lab
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

FOO = """
apiVersion: v1
kind: Pod
metadata: {name: foo-app, labels: {run: foo-app}}
spec: {containers: [{name: foo-app, image: hashicorp/http-echo:0.2.3, args: ["-text=foo"]}]}
---
apiVersion: v1
kind: Service
metadata: {name: foo-app}
spec: {selector: {run: foo-app}, ports: [{port: 5678}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: foo-app-from-client}
spec:
  endpointSelector: {matchLabels: {run: foo-app}}
  ingress: [{fromEndpoints: [{matchLabels: {io.kubernetes.pod.namespace: cilium-test, name: client}}]}]
"""


@pytest.fixture
def foo(lab: Lab) -> Iterator[Callable[..., str]]:
    """FOO applied and ready; gives `mesh WORDS`, which returns standard output."""
    store = ("--store", str(lab.run_dir / "store"))

    def mesh(*words: str, stdin: str = "") -> str:
        done = lab.flowscope("mesh", *words, *store, input=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "pod/foo-app created" in mesh("apply", "-f", "-", stdin=FOO)
    try:
        status = lab.flowscope("mesh", "status", "--wait", "--wait-duration", "60s", *store)
        assert status.returncode == 0, status.stdout + status.stderr
        yield mesh
    finally:
        mesh("delete", "-f", "-", stdin=FOO)


def test_applied_policy_is_enforced_and_everything_about_it_is_told(lab: Lab, foo: Callable[..., str]) -> None:
    pod = json.loads(foo("get", "pod", "foo-app", "-o", "json"))
    address = f"http://{pod['status']['podIP']}:5678/"
    assert lab.exec("client", "curl", "-sS", "--max-time", "5", address).stdout == "foo\n"
    assert lab.exec("client2", "curl", "-sS", "--max-time", "1", address).returncode == 28

    assert foo("get", "pods").splitlines()[1].split()[:3] == ["foo-app", "1/1", "Running"]
    described = foo("describe", "pod", "foo-app")
    assert "CiliumNetworkPolicy default/foo-app-from-client" in described
    assert "DatapathReady: True" in described
    node = next(
        one for one in json.loads(foo("status", "-o", "json"))["nodes"] if one["name"] == pod["spec"]["nodeName"]
    )
    endpoint = int(described.split("Endpoint: ")[1].split()[0])
    assert node["policies"][str(endpoint)] > 1, "entries in the kernel's policy map"
    assert any(one["name"] == "cilium_ct4_global" and one["entries"] for one in node["maps"])
    shown = foo("status", "--node", node["name"], "--verbose")
    assert f"{pod['status']['podIP']} (default/foo-app)" in shown
    assert "Hubble:                  Ok" in shown


def test_status_draws_the_cluster_and_says_what_is_wrong(lab: Lab, foo: Callable[..., str]) -> None:
    lines = foo("status").splitlines()
    assert [line.split(":")[0].split()[-1] for line in lines[:5]] == [
        "Flowscope",
        "Controller",
        "Envoy",
        "Relay",
        "ClusterMesh",
    ]
    assert lines[0].endswith("OK")
    assert any(line.split()[:2] == ["DaemonSet", "flowscope-agent"] and "Ready: 4/4" in line for line in lines)
    spec = "{nodeSelector: {such: none}, containers: [{name: a, image: pause}]}"
    text = f"{{apiVersion: v1, kind: Pod, metadata: {{name: nowhere}}, spec: {spec}}}"
    foo("apply", "-f", "-", stdin=text)
    try:
        deadline = time.monotonic() + 10
        while "default/nowhere: is not ready" not in (shown := foo("status")):
            assert time.monotonic() < deadline, shown
    finally:
        foo("delete", "pod", "nowhere")


def test_a_policy_that_no_map_can_hold_is_told_to_whoever_applies_it(lab: Lab, foo: Callable[..., str]) -> None:
    address = f"http://{json.loads(foo('get', 'pod', 'foo-app', '-o', 'json'))['status']['podIP']}:5678/"
    # Odd ports, because neighbours share an entry.
    ports = [{"port": str(number), "protocol": "TCP"} for number in range(1, 320, 2)]
    rule = {
        "toCIDR": [f"192.0.2.{number}/32" for number in range(110)],
        "toPorts": [{"ports": ports[at : at + 40]} for at in range(0, len(ports), 40)],
    }
    large = f"{FOO}  egress: [{json.dumps(rule)}]\n"
    store = ("--store", str(lab.run_dir / "store"))
    done = lab.flowscope("mesh", "apply", "--wait", "-f", "-", *store, input=large)
    assert done.returncode == 1
    assert "CiliumNetworkPolicy default/foo-app-from-client: not in force at endpoint " in done.stderr
    assert " (default/foo-app) of node " in done.stderr
    assert "the policy needs 17604 map entries of 16384; use wider selectors" in done.stderr
    assert done.stderr.rstrip().endswith("; the old policy stays")
    # It does.
    assert lab.exec("client", "curl", "-sS", "--max-time", "5", address).stdout == "foo\n"
    assert lab.exec("client2", "curl", "-sS", "--max-time", "1", address).returncode == 28
    # And is told no more once it fits again.
    foo("apply", "--wait", "-f", "-", stdin=FOO)


LINGERS = """
apiVersion: v1
kind: Pod
metadata: {name: lingers}
spec:
  containers: [{name: main, image: pause, lifecycle: {preStop: {sleep: {seconds: 1}}}}]
"""


def test_a_pod_is_gone_when_delete_returns(lab: Lab, foo: Callable[..., str]) -> None:
    foo("apply", "-f", "-", stdin=LINGERS)
    eventually(lambda: "1/1" in foo("get", "pods", "lingers"), timeout_s=60)
    before = time.monotonic()
    assert foo("delete", "pod", "lingers", "--timeout", "60s") == "pod/lingers deleted\n"
    assert time.monotonic() - before >= 1, "it sleeps before it stops"
    assert "lingers" not in foo("get", "pods")
