"""`lab demo`: everything in one command, and everything gone after it."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lab.cleanup import processes
from lab.rundir import RunDir
from tests.e2e.conftest import ROOT, cluster_name, command, free_address

NAME = cluster_name("demo")
CLUSTER = f"""
apiVersion: kind.x-k8s.io/v1alpha4
kind: Cluster
name: {NAME}
nodes: [{{role: control-plane}}, {{role: worker}}, {{role: worker}}]
"""


def words(folder: Path, *more: str) -> list[str]:
    config = folder / "kind.yaml"
    config.write_text(CLUSTER)
    where = ["--run-dir", str(folder / "run"), "--config", str(config)]
    return command("lab", "demo", *where, "--relay-listen", free_address(), "--ui-listen", "", *more)


@pytest.mark.kernel
def test_the_demo_shows_flows_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(words(tmp_path, "--duration", "3"), capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "cilium-test/client2-" in done.stdout
    assert "to-overlay FORWARDED (TCP Flags: SYN)" in done.stdout
    assert not list(processes(RunDir(tmp_path / "run")))
    assert f"fs-{NAME}" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout


@pytest.mark.kernel
def test_ctrl_c_ends_the_demo_with_code_0_and_leaves_nothing(tmp_path: Path) -> None:
    demo = subprocess.Popen(words(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "FORWARDED" in line:
            break
    demo.send_signal(signal.SIGINT)
    _, said = demo.communicate(timeout=30)
    assert (demo.returncode, said) == (0, "")
    assert f"fs-{NAME}" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout


def test_without_the_means_the_demo_says_so_and_shows_recorded_traffic() -> None:
    demo = command("lab", "demo", "--relay-listen", free_address(), "--ui-listen", "", "--duration", "3")
    reason = "the lab needs root for network namespaces and eBPF; run it with sudo"
    if os.geteuid() == 0:
        # Still root, because a checkout may be readable by nobody else.
        demo = ["setpriv", "--bounding-set=-sys_admin,-bpf", "--inh-caps=-sys_admin,-bpf", *demo]
        reason = "the kernel refuses eBPF maps (Operation not permitted); run the lab with CAP_BPF and CAP_SYS_ADMIN"
    done = subprocess.run(demo, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{reason}; showing recorded traffic of a lab instead\n"
    assert "FORWARDED (TCP Flags: SYN)" in done.stdout
