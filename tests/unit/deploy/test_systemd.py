"""The systemd units are valid and hardened."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import IN_CI

UNITS = sorted((Path(__file__).parents[3] / "deploy" / "systemd").glob("*.service"))
HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictNamespaces": "yes",
    "LockPersonality": "yes",
}
AS_ROOT = ("flowscope-agent",)
"""Changes the node's devices and kernel; all others have a user of their own."""


def test_each_long_running_service_has_a_unit() -> None:
    assert [unit.stem for unit in UNITS] == [
        "flowscope-agent",
        "flowscope-observer",
        "flowscope-relay",
        "flowscope-ui",
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        reason = "needs systemd-analyze (run `make setup-dev` as root)"
        if IN_CI:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    # The executable that the unit names is installed on the target machine, not here.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/bin/flowscope", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr, done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_unit_gives_the_service_no_more_than_it_needs(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read(unit)
    service = dict(parser["Service"])
    assert {key: service.get(key) for key in HARDENED} == HARDENED
    assert service.get("User") == (None if unit.stem in AS_ROOT else "flowscope")
    assert "CapabilityBoundingSet" in service
