"""Rules for every test: what cannot run here is a skip with its reason, and a failure when CI is set.

Marks: `kernel` needs root and a kernel with eBPF; `browser` needs Chromium and its driver.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Time decides nothing: machines are shared, and an import in the first example takes longer than a limit of Hypothesis.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

MODULE = Path(__file__).parents[1] / "mesh" / "envoy" / "module"
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def kernel_obstacle() -> str | None:
    """Why kernel tests cannot run, or None."""
    if os.geteuid() != 0:
        return "needs root (run `make test` as root)"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF)"
    if shutil.which("ip") is None:
        return "needs iproute2 (run `make setup`)"
    return None


def browser_obstacle() -> str | None:
    """Why browser tests cannot run, or None."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        return "needs chromium and chromium-driver (run `make setup`)"
    return None


OBSTACLES = {"kernel": kernel_obstacle, "browser": browser_obstacle}


def pytest_sessionstart() -> None:
    """Build what Envoy loads, if it is not current: every node of a lab, of a test network too, needs it."""
    if shutil.which("clang"):
        subprocess.run(["make", "-s", "-C", str(MODULE)], check=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, obstacle in OBSTACLES.items():
        if item.get_closest_marker(mark) and (reason := obstacle()):
            if IN_CI:
                pytest.fail(f"{mark} test cannot run: {reason}", pytrace=False)
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a kernel or browser test that skips itself counts as failed: nothing hides."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail") and any(map(item.get_closest_marker, OBSTACLES)):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


GOLDEN = Path(__file__).parents[2] / "shared" / "golden"
SPEC = GOLDEN.parent / "spec"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with inputs and the outputs of the reference implementation; a neighbour of the checkout."""
    return _neighbour(GOLDEN)


@pytest.fixture(scope="session")
def spec() -> Path:
    """Folder with the facts of the wire; a neighbour of the checkout."""
    return _neighbour(SPEC)


def _neighbour(folder: Path) -> Path:
    folder = Path(os.environ.get("FLOWSCOPE_SHARED", folder.parent)) / folder.name
    if not folder.exists():
        message = f"{folder} is missing; set FLOWSCOPE_SHARED to the folder that holds golden/ and spec/"
        if IN_CI:
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    return folder
