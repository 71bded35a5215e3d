"""A lab's life: up, used, killed, cleaned, refused. Small labs of their own; one node, no relay."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cleanup import processes
from lab.linux import is_mounted, netns_path
from lab.rundir import RunDir
from tests.e2e.conftest import Lab, cluster_name, free_address

pytestmark = pytest.mark.kernel

CLUSTER = cluster_name("solo")
NODE = f"fs-{CLUSTER}-control-plane"
KIND = f"apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\nname: {CLUSTER}\n"
FOO = """
apiVersion: v1
kind: Pod
metadata: {name: foo-app, labels: {run: foo-app}}
spec:
  containers:
  - {name: foo-app, image: "hashicorp/http-echo:0.2.3", args: ["-text=foo"], ports: [{containerPort: 5678}]}
---
apiVersion: v1
kind: Service
metadata: {name: foo-app}
spec: {selector: {run: foo-app}, ports: [{port: 5678}]}
"""


@pytest.fixture
def solo(tmp_path: Path) -> Iterator[Lab]:
    """A lab that is not up yet; whatever it becomes, it is gone afterwards."""
    (tmp_path / "kind.yaml").write_text(KIND)
    (tmp_path / "foo.yaml").write_text(FOO)
    found = Lab(tmp_path / "run", relay="", ui="", cluster=CLUSTER)
    yield found
    down = found.lab("down")
    assert down.returncode == 0, down.stderr


def up(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    """Bring the one-node lab up."""
    files = lab.run_dir.parent
    config, manifest = str(files / "kind.yaml"), str(files / "foo.yaml")
    return lab.lab("up", "--config", config, "-f", manifest, "--relay-listen", lab.relay, *words)


def own_network() -> list[str]:
    """Devices, routes and settings of the machine's own namespace."""
    return [
        subprocess.run(["ip", *words], capture_output=True, text=True).stdout for words in (["-o", "link"], ["route"])
    ]


def nothing_left(lab: Lab) -> bool:
    """No namespace, process or mount of the lab."""
    run_dir = RunDir(lab.run_dir)
    names = [path.name for path in netns_path("").iterdir() if CLUSTER in path.name] if netns_path("").exists() else []
    return not names and not list(processes(run_dir)) and not is_mounted(run_dir.bpffs)


def test_a_lab_comes_up_serves_takes_manifests_and_goes_without_a_trace(solo: Lab) -> None:
    before = own_network()
    assert up(solo).returncode == 0
    assert own_network() == before

    answer = solo.exec("foo-app", "curl", "-si", "foo-app:5678/", namespace="default")
    assert answer.stdout.endswith("\n\nfoo\n"), answer.stderr
    assert "X-App-Name: http-echo" in answer.stdout

    manifest = solo.run_dir.parent / "bar.yaml"
    manifest.write_text(FOO.replace("foo", "bar"))
    applied = solo.lab("apply", "-f", str(manifest))
    assert applied.stdout == "pod/bar-app created\nservice/bar-app created\n", applied.stderr
    assert solo.exec("foo-app", "curl", "-s", "bar-app:5678/", namespace="default").stdout == "bar\n"

    assert solo.lab("down").stdout == "the lab is down\n"
    assert nothing_left(solo)
    assert own_network() == before
    assert solo.lab("down").stdout == "there was no lab\n"


def test_a_killed_lab_is_cleaned_and_the_next_one_comes_up(solo: Lab) -> None:
    assert up(solo).returncode == 0
    os.kill(solo.status()["pid"], signal.SIGKILL)
    assert solo.lab("status").stdout == "no lab is running\n"
    assert not nothing_left(solo)
    again = up(solo)
    assert again.returncode == 0, again.stderr
    os.kill(solo.status()["pid"], signal.SIGKILL)
    assert solo.lab("down").returncode == 0
    assert nothing_left(solo)


def test_a_second_lab_is_refused(solo: Lab) -> None:
    assert up(solo).returncode == 0
    second = up(solo)
    assert second.returncode == 1
    assert second.stderr == (
        "flowscope: a lab is running already; see `flowscope lab status`, end it with `flowscope lab down`\n"
    )
    assert solo.lab("status").returncode == 0


def test_a_foreign_namespace_is_left_alone(solo: Lab) -> None:
    subprocess.run(["ip", "netns", "add", NODE], check=True)
    try:
        refused = up(solo)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"flowscope: network namespace {NODE} is in the way")
        assert refused.stderr.count("\n") == 1
        solo.lab("down")
        assert netns_path(NODE).exists()
    finally:
        subprocess.run(["ip", "netns", "delete", NODE], check=True)
    assert nothing_left(solo)


def test_a_taken_port_is_named(solo: Lab) -> None:
    with socket.socket() as taken:
        address = free_address()
        taken.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        taken.listen()
        refused = solo.lab("up", "--relay-listen", address)
    assert refused.returncode == 1
    assert f"port {address.rpartition(':')[2]} is taken by another program" in refused.stderr


def test_a_mistake_in_a_manifest_ends_the_attempt_with_one_line(solo: Lab) -> None:
    solo.run_dir.parent.joinpath("foo.yaml").write_text(FOO.replace("containerPort: 5678", "containerPort: 99999"))
    refused = up(solo)
    assert refused.returncode == 1
    assert "spec.containers[0].ports[0].containerPort: must be less than" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert nothing_left(solo)
