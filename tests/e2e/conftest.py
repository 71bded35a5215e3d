"""One lab for all end-to-end tests: the demo's cluster, with relay and UI on ports of its own.

`lab` brings it up for the first test that asks and takes it down after the last one. Tests must leave it as they
found it: what they apply, they name after themselves.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.options import KIND_CONFIG

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Lab:
    """A lab and how to talk to it."""

    run_dir: Path
    relay: str
    """host:port of the relay; empty: none."""
    ui: str
    cluster: str
    """Its name begins the names of nodes and namespaces."""

    def flowscope(self, *words: str, timeout_s: float = 90, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run `flowscope WORDS` to its end; output is text."""
        return subprocess.run(command(*words), capture_output=True, text=True, timeout=timeout_s, cwd=ROOT, **kwargs)

    def lab(self, word: str, *words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """`flowscope lab WORD ...` on this lab."""
        return self.flowscope("lab", word, "--run-dir", str(self.run_dir), *words, **kwargs)

    def exec(self, pod: str, *words: str, namespace: str = "cilium-test") -> subprocess.CompletedProcess[str]:
        """Run a command in a pod."""
        return self.lab("exec", "-n", namespace, pod, "--", *words)

    def observe(self, *words: str) -> subprocess.Popen[str]:
        """Start `flowscope observe WORDS` against the relay; the caller ends it."""
        return subprocess.Popen(
            command("observe", "--server", self.relay, *words), stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def status(self) -> dict[str, Any]:
        """`flowscope lab status -o json`."""
        state: dict[str, Any] = json.loads(self.lab("status", "-o", "json").stdout)
        return state

    def pod(self, deployment: str) -> dict[str, Any]:
        """One pod of a deployment, as `status` shows it."""
        return next(pod for pod in self.status()["pods"] if pod["deployment"] == deployment)

    def node(self, role: str) -> str:
        """Name of a node: control-plane, worker, worker2 or worker3."""
        return f"{self.cluster}-{role}"

    def socket(self, node: str) -> str:
        """Address of a node's observer."""
        return f"unix://{self.run_dir / node / 'observer.sock'}"


def cluster_name(purpose: str) -> str:
    """A name that no lab of another test run has, nor one that a person left running."""
    return f"{purpose}{os.getpid()}"


def command(*words: str) -> list[str]:
    """Command line of `flowscope WORDS`."""
    return [sys.executable, "-m", "cli", *words]


def free_address() -> str:
    """host:port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The demo's cluster, up and serving."""
    if os.geteuid() != 0:
        pytest.skip("needs root (run `make test` as root)")
    folder = tmp_path_factory.mktemp("lab")
    found = Lab(folder / "run", relay=free_address(), ui=free_address(), cluster=cluster_name("e2e"))
    config = folder / "kind-config.yaml"
    config.write_text(f"name: {found.cluster}\n{KIND_CONFIG.read_text()}")
    up = found.lab("up", "--config", str(config), "--relay-listen", found.relay, "--ui-listen", found.ui)
    try:
        assert up.returncode == 0, up.stderr
        yield found
    finally:
        down = found.lab("down")
    assert down.returncode == 0, down.stderr
