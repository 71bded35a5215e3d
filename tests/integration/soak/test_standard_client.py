"""The packed stream of an observer for long, to a client that knows nothing of it: grpcio.

A recording of the lab is played again and again, faster than it was made. In short form here, ten million flows in
`make soak`; the same through a relay: tests/integration/relay/test_soak.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import ROOT, observer_process

RECORDING = ROOT / "lab" / "recordings" / "kind-worker.fsr"
FLOWS_A_LAP = 1320
SPEED = 400
"""19,000 flows/s: grpcio takes a step between threads per message, and reads 23,000/s of them on two cores."""
ROOM = str(2**20 - 1)
"""Flows. A busy machine may pause the client or the reader for seconds; what they then miss is not what is tested."""


@pytest.mark.parametrize("flows", [200_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_soak_of_a_standard_client_loses_and_reorders_nothing(tmp_path: Path, flows: int) -> None:
    laps = -(-flows // FLOWS_A_LAP)
    flags = ["--replay", str(RECORDING), "--replay-speed", str(SPEED), "--replay-loops", str(laps)]
    flags += ["--ring-flows", ROOM, "--queue-events", ROOM]
    with observer_process(tmp_path, *flags) as (observer, address):
        result = read_with_grpcio(address, laps * FLOWS_A_LAP, timeout_s=60 + flows / 10_000)
        assert (result["flows"], result["gaps"], result["repeats"]) == (laps * FLOWS_A_LAP, 0, 0)
        assert (result["lost"], result["others"]) == (0, 0)
        observer.wait_for(f"flows={laps * FLOWS_A_LAP}")
        assert observer.rss_mib() < 500


def read_with_grpcio(address: str, flows: int, timeout_s: float) -> dict[str, Any]:
    """Run tests/support/grpcio_client.py until it has that many; its account."""
    command = [sys.executable, "-m", "tests.support.grpcio_client", address]
    command += ["--flows", str(flows), "--timeout", str(timeout_s)]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=timeout_s + 60).stdout
    account: dict[str, Any] = json.loads(output)
    return account
