"""docs/walkthrough.md, command by command, in namespaces where nobody else's lab or port is in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.walk import missing, steps

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "walkthrough.md"
ALONE = 'mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up && exec "$@"'


def test_every_command_of_the_guide_prints_what_the_guide_shows() -> None:
    command = [sys.executable, "-m", "tests.support.walk", str(GUIDE)]
    alone = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-c", ALONE, "sh", *command]
    done = subprocess.run(alone, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_guide_is_read_as_commands_with_their_outputs() -> None:
    first, second = steps("text\n```console\n# one \\\n  two\nout\n# three\n```\n# no command\n")
    assert (first.command, first.shown, first.line) == ("one two", ("out",), 4)
    assert (second.command, second.shown) == ("three", ())


def test_what_is_missing_and_what_is_too_much_is_told() -> None:
    assert missing(["a", "b"], ["a", "b"]) == []
    assert missing(["a", "..."], ["a", "b"]) == []
    assert missing(["a", "b"], ["b", "c"]) == ["- a", "+ c"]
    assert missing(["a", "b"], ["b", "a"]) == ["the lines come in another order"]
    line = "Nov 28 02:52:48.350: ns/client2-65c477c4c8-5znz5:{} (ID:257) -> ns/echo:8080 (ID:258) to-proxy FORWARDED"
    assert missing([line.format(35050)], [line.format(61234)] * 2) == []
