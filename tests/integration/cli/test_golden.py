"""Every run of the reference client, repeated with ours: same arguments, same input, same bytes out.

In:        golden/cli (its layout: cli.md, section 14), read in place.
Out:       one test per case; EXCEPTIONS lists what differs and why.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GOLDEN
from tests.integration.cli.fake_server import FakeServer

EXCEPTIONS: dict[str, str] = {}
"""Case id -> why our output differs on purpose."""

THROUGH_THE_EXECUTABLE = 12
"""Every so many cases one runs as a process of its own; the others inside this one, which is faster."""

FOLDER = Path(os.environ.get("FLOWSCOPE_SHARED", GOLDEN.parent)) / "golden" / "cli"


def load_cases() -> list[dict[str, Any]]:
    if not (FOLDER / "cases.json").exists():
        return []
    cases: list[dict[str, Any]] = json.loads((FOLDER / "cases.json").read_text())["cases"]
    return cases


CASES = load_cases()


@dataclass
class Run:
    stdout: bytes
    stderr: bytes
    exit: int


def run_inside(arguments: list[str], stdin: bytes, env: dict[str, str], tmp: Path) -> Run:
    """Run `main` in this process, with real files behind the standard streams."""
    from cli.__main__ import main

    source = tmp / "stdin"
    source.write_bytes(stdin)
    out_bytes, error_bytes = io.BytesIO(), io.BytesIO()
    out, errors = io.TextIOWrapper(out_bytes, "utf-8"), io.TextIOWrapper(error_bytes, "utf-8")
    with (
        open(source) as file,
        environment(env),
        contextlib.chdir(FOLDER),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", file)
        code = main(arguments)
        out.flush()
        errors.flush()
    return Run(out_bytes.getvalue(), error_bytes.getvalue(), code)


def run_outside(arguments: list[str], stdin: bytes, env: dict[str, str]) -> Run:
    executable = Path(sys.executable).parent / "flowscope"
    done = subprocess.run(
        [executable, *arguments], input=stdin, env=env, cwd=FOLDER, capture_output=True, timeout=30, check=False
    )
    return Run(done.stdout, done.stderr, done.returncode)


@contextlib.contextmanager
def environment(env: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.mark.skipif(not CASES, reason=f"{FOLDER} is missing; set FLOWSCOPE_SHARED")
@pytest.mark.parametrize(("number", "case"), list(enumerate(CASES)), ids=[case["id"] for case in CASES])
def test_output_is_that_of_the_reference(number: int, case: dict[str, Any], tmp_path: Path) -> None:
    if case["id"] in EXCEPTIONS:
        pytest.xfail(EXCEPTIONS[case["id"]])
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "TZ": "UTC", **case.get("env", {})}
    stdin = (FOLDER / case["stdin"]).read_bytes() if case.get("stdin") else b""
    script = json.loads((FOLDER / case["server"]).read_text()) if case.get("server") else {}
    with FakeServer(script) as server:
        arguments = [word.replace("{server}", server.address) for word in case["args"]]
        if number % THROUGH_THE_EXECUTABLE == 0:
            run = run_outside(arguments, stdin, env)
        else:
            run = run_inside(arguments, stdin, env, tmp_path)

    def expected(name: str) -> str:
        return (FOLDER / name).read_text().replace("{server}", server.address)

    stdout, stderr = run.stdout.decode(), run.stderr.decode()
    assert stdout == expected(case["stdout"])
    if case.get("stderr_contains"):
        assert case["stderr_contains"] in stderr
    elif case.get("stderr_check") != "ignore":
        assert stderr == (expected(case["stderr"]) if case.get("stderr") else "")
    assert run.exit == case["exit"]
    if case.get("requests"):
        assert server.calls == json.loads(expected(case["requests"]))


def test_every_case_is_compared() -> None:
    """No case may be left out without a reason that stands above."""
    assert EXCEPTIONS.keys() <= {case["id"] for case in CASES}
