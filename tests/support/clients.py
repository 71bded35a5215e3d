"""Counting clients as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.support.process import ROOT


def start_client(address: str, *flags: str) -> subprocess.Popen[bytes]:
    """Start tests/support/counting_client.py on `address`; its call has begun when this returns."""
    command = [sys.executable, "-m", "tests.support.counting_client", address, *flags]
    client = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"streaming\n"
    return client


def finish_client(client: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for its figures."""
    output, _ = client.communicate(timeout=60)
    result: dict[str, Any] = json.loads(output)
    return result


def count(address: str, *flags: str) -> dict[str, Any]:
    """Run one client to its end."""
    return finish_client(start_client(address, *flags))
