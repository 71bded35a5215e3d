"""A relay under load: nodes, relay and client as processes of their own, for the soak and the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.process import ROOT, Process


@contextmanager
def node_processes(folder: Path, nodes: int, *flags: str) -> Iterator[tuple[Process, list[str]]]:
    """Made-up nodes (tests/support/fake_nodes.py) in one process; yields it and NAME=ADDRESS of each."""
    process = Process(
        ["tests.support.fake_nodes", str(folder), "--nodes", str(nodes), *flags], folder / "fake_nodes.log"
    )
    try:
        process.wait_for("serving")
        lines = process.log.read_text().splitlines()
        yield process, [line for line in lines if "=unix://" in line]
    finally:
        process.stop()


@contextmanager
def relay_process(folder: Path, peers: Sequence[str], *flags: str) -> Iterator[tuple[Process, str]]:
    """A relay that is connected to all `peers`; yields it and its address."""
    arguments = ["relay", "--listen=127.0.0.1:0", "--health-listen=", f"--peers={','.join(peers)}"]
    process = Process(
        [*arguments, "--disable-client-tls", "--disable-server-tls", "--drain-s=1", *flags], folder / "relay.log"
    )
    try:
        for peer in peers:
            process.wait_for(f"node={peer.partition('=')[0]} ")
        address = process.log.read_text().partition("address=")[2].split()[0].strip('"')
        yield process, address
    finally:
        process.stop()


def check_order(address: str, request: dict[str, Any], seconds: float = 60.0) -> dict[str, Any]:
    """Run tests/support/order_client.py to its end; its figures."""
    command = [sys.executable, "-m", "tests.support.order_client", address]
    command += ["--request", json.dumps(request), "--seconds", str(seconds)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=seconds + 60).stdout
    result: dict[str, Any] = json.loads(output)
    return result
