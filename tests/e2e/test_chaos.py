"""Agents are killed in the middle of changes: what is denied stays denied, what is connected stays connected.

`make chaos` kills a hundred times; `make test` a few times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cli.mesh.place import Place
from cli.mesh.settling import await_agents
from connectivity import prober
from mesh.resources.services import Service
from mesh.store import SqliteStore
from tests.e2e.conftest import Lab, command

pytestmark = pytest.mark.kernel

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: chaos, namespace: cilium-test}}
spec:
  endpointSelector: {{matchLabels: {{kind: echo}}}}
  ingress:
  - fromEndpoints: [{{matchLabels: {{other: client}}}}]
    toPorts: [{{ports: [{{port: "8080", protocol: TCP}}]}}]
  - fromCIDR: [{prefixes}]
"""
BACK_S = 60.0


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_chaos_of_agents_that_die_in_the_middle_of_changes(lab: Lab, kills: int) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    near, far = lab.pod("echo-same-node"), lab.pod("echo-other-node")
    mesh(lab, "apply", 0)
    settle(lab)
    try:
        with (
            probing(lab, "client2", "hold", near) as same_node,
            probing(lab, "client2", "hold", far) as other_node,
            probing(lab, "client2", "hold", service(lab, "echo-other-node")) as by_service,
            probing(lab, "client", "denied", near) as denied_near,
            probing(lab, "client", "denied", far) as denied_far,
        ):
            for number in range(1, kills + 1):
                node = chance.choice([near["node"], far["node"]])
                # `mesh apply` returns when the store has it; agents are at it for some tens of milliseconds then.
                mesh(lab, "apply", number)
                time.sleep(chance.uniform(0, 0.15))
                kill_agent(lab, node)
                settle(lab)
    finally:
        mesh(lab, "delete", 0)
        settle(lab)
    told = {
        "seed": seed,
        "same": same_node,
        "other": other_node,
        "service": by_service,
        "near": denied_near,
        "far": denied_far,
    }
    for held in (same_node, other_node, by_service):
        assert held["error"] == "", told
        assert held["answers"] > kills, told
    for kept_out in (denied_near, denied_far):
        assert kept_out["attempts"] > kills, told
        assert kept_out["successes"] == 0, told


def policy(number: int) -> str:
    """Always the same for the clients; hundreds of other entries differ each time."""
    prefixes = ", ".join(f"198.51.{number % 100}.{last}/32" for last in range(1, 201))
    return POLICY.format(prefixes=prefixes)


def mesh(lab: Lab, word: str, number: int) -> None:
    """`flowscope mesh apply|delete` of the policy."""
    done = lab.flowscope("mesh", word, "--store", str(lab.run_dir / "store"), "-f", "-", input=policy(number))
    assert done.returncode == 0, done.stderr


def service(lab: Lab, name: str) -> dict[str, Any]:
    """A service with its addresses, as `probing` takes servers."""
    store = SqliteStore(lab.run_dir / "store")
    try:
        (found,) = (one for one in store.find("Service") if one.metadata.name == name)
    finally:
        store.close()
    assert isinstance(found, Service)
    return {"ips": found.spec.cluster_ips}


def kill_agent(lab: Lab, node: str) -> None:
    """As a crash would: no time to clean up."""
    (agent,) = (one for one in lab.status()["processes"] if one["name"] == f"{node}_agent")
    if agent["pid"]:
        os.kill(agent["pid"], signal.SIGKILL)


def settle(lab: Lab) -> None:
    """Until every agent has done what the store says."""
    store = SqliteStore(lab.run_dir / "store")
    try:
        await_agents(Place(lab.run_dir / "store", lab.run_dir), store, BACK_S)
    finally:
        store.close()


@contextmanager
def probing(lab: Lab, client: str, what: str, server: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A prober in a pod; what it saw is in the dictionary afterwards."""
    words = ["lab", "exec", "--run-dir", str(lab.run_dir), "-n", "cilium-test", client, "--"]
    words += [sys.executable, "-S", prober.__file__, what, server["ips"][0], "8080"]
    process = subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True)
    seen: dict[str, Any] = {}
    try:
        time.sleep(0.5)
        yield seen
    finally:
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate(timeout=20)
        seen |= json.loads(text.splitlines()[-1])
