"""Services at sockets in the lab: what a node's own process asks for, and what becomes of it, as flows."""

from __future__ import annotations

import time

import pytest

from bpf.sockets import cgroup_mount
from lab.rundir import RunDir
from mesh.resources.base import Key
from mesh.resources.services import Service
from mesh.store import SqliteStore
from tests.e2e.conftest import Lab

pytestmark = pytest.mark.kernel

WAIT_S = 10.0


@pytest.mark.skipif(cgroup_mount() is None, reason="no cgroups of version 2")
def test_a_process_of_a_node_is_led_to_a_pod_and_flows_tell(lab: Lab) -> None:
    store = SqliteStore(RunDir(lab.run_dir).store)
    try:
        service = store.get(Key("Service", "cilium-test", "echo-other-node"))
    finally:
        store.close()
    assert isinstance(service, Service)
    node = lab.node("control-plane")
    assert answer(lab, node, f"http://{service.spec.cluster_ip}:8080/") == "200"
    deadline = time.monotonic() + WAIT_S
    lines: list[str] = []
    while len(lines) < 2 and time.monotonic() < deadline:
        mask = "--use-default-field-masks=false"
        shown = lab.flowscope("observe", "--server", lab.socket(node), "--type", "trace-sock", mask)
        lines = [line for line in shown.stdout.splitlines() if "cilium-test/echo-other-node" in line]
    assert len(lines) == 2, lines
    assert "(host) <> cilium-test/echo-other-node:8080" in lines[0]
    assert lines[0].endswith("pre-xlate-fwd TRACED (TCP)")
    assert "(host) <> cilium-test/echo-other-node-" in lines[1]
    assert lines[1].endswith("post-xlate-fwd TRANSLATED (TCP)")
    assert answer(lab, node, f"http://127.0.0.1:{service.spec.ports[0].node_port}/") == "200", "as kube-proxy has it"


def answer(lab: Lab, node: str, url: str) -> str:
    """Status that a process of the node gets."""
    curl = ("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", url)
    return lab.lab("exec", "--node", node, "--", *curl).stdout
