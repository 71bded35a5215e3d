"""Executes a guide: the commands of its `console` blocks one after the other, each with the output shown below it.

In:        a Markdown file. In a block, a line that begins with `# ` is a command (`\\` at its end: goes on in the next
           line); the lines below are its output. A line `...` stands for any lines.
Out:       what differs from the file; with --write, the file with the outputs of this run.
Elsewhere: tests/e2e/test_walkthrough.py runs it in namespaces of its own.

What changes from run to run (times, ports, hashes, ages, identities) is alike for it. Of lines of flows the order is
free, and how often the same one comes: two nodes, and two questions of one resolver, have no order, and a kernel may
acknowledge twice.

    python -m tests.support.walk docs/walkthrough.md [--write]
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROMPT: Final = "# "
ANYTHING: Final = "..."

VARIABLE: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), word)
    for pattern, word in (
        (r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\.\d{3}", "TIME"),
        (r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", "DATE"),
        (r"-[a-z0-9]{7,10}-[a-z0-9]{5}\b", "-HASH"),
        (r"pod-template-hash=[a-z0-9]+", "pod-template-hash=HASH"),
        (r"\(ID:\d+\)", "(ID)"),
        # Ports that a kernel chose; those of services have their protocol behind them.
        (r":\d{5}\b(?!/TCP)", ":PORT"),
        (r"\b\d+(\.\d+)?(ms|µs|us)\b", "AWHILE"),
        (r"(?<=\s)(\d+[dhms])+(?=\s|$)", "AGE"),
        (r"x-envoy-upstream-service-time: \d+", "x-envoy-upstream-service-time: N"),
        (r"after \d+\.\d s", "after N s"),
        (r"flows: \d+/", "flows: N/"),
        (r" +", " "),
    )
)
FLOW: Final = re.compile(r"^TIME: ")


@dataclass(frozen=True, slots=True)
class Step:
    """One command and the lines that the guide shows below it."""

    line: int
    """Of the command's end."""
    command: str
    shown: tuple[str, ...]


def steps(text: str) -> Iterator[Step]:
    """All commands of a guide, in order."""
    inside, command, start = False, "", 0
    shown: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            if command:
                yield Step(start, command, tuple(shown))
                command = ""
            inside = line.startswith("```console")
        elif inside and (line.startswith(PROMPT) or command.endswith("\\")):
            if command.endswith("\\"):
                command, start = f"{command[:-1]}{line.strip()}", number
                continue
            if command:
                yield Step(start, command, tuple(shown))
            command, shown, start = line.removeprefix(PROMPT), [], number
        elif inside:
            shown.append(line)


class Shell:
    """One bash for the whole guide, so that its variables live on."""

    def __init__(self) -> None:
        scripts = os.path.dirname(sys.executable)
        env = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
        self._bash = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        )

    def run(self, command: str) -> list[str]:
        """The lines that a command prints, on standard error too. Raises: RuntimeError when the shell is gone."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = f"--- {secrets.token_hex(8)}"
        self._bash.stdin.write(f"{command} </dev/null\necho; echo '{mark}'\n")
        self._bash.stdin.flush()
        printed: list[str] = []
        for line in self._bash.stdout:
            if line.rstrip("\n") == mark:
                return printed[:-1] if printed and not printed[-1] else printed
            printed.append(line.rstrip("\n"))
        raise RuntimeError(f"the shell ended in: {command}")

    def close(self) -> None:
        """End it."""
        self._bash.kill()
        self._bash.communicate()


def alike(line: str) -> str:
    """A line without what changes from run to run."""
    for pattern, word in VARIABLE:
        line = pattern.sub(word, line)
    return line.strip()


def missing(shown: Sequence[str], printed: Sequence[str]) -> list[str]:
    """Lines of the guide that were not printed, and, unless `...` allows them, printed lines that it does not have."""
    wanted = [alike(line) for line in shown if line.strip() and line.strip() != ANYTHING]
    got = [alike(line) for line in printed if line.strip()]
    lacking = [f"- {line}" for line in dict.fromkeys(wanted) if line not in got]
    if ANYTHING not in (line.strip() for line in shown):
        lacking += [f"+ {line}" for line in dict.fromkeys(got) if line not in wanted]
    if not lacking:
        in_order = [line for line in wanted if not FLOW.match(line)]
        rest = iter(line for line in got if not FLOW.match(line))
        if not all(line in rest for line in in_order):
            lacking.append("the lines come in another order")
    return lacking


def walk(path: Path, write: bool = False) -> list[str]:
    """Run the guide; returns what differs, one text for each command that does."""
    lines = path.read_text().splitlines()
    differences: list[str] = []
    printed: list[tuple[Step, list[str]]] = []
    shell = Shell()
    try:
        for step in steps("\n".join(lines)):
            printed.append((step, shell.run(step.command)))
            if lacking := missing(step.shown, printed[-1][1]):
                differences.append(f"{path.name}:{step.line}: {step.command}\n" + "\n".join(lacking))
    finally:
        shell.close()
    if write:
        for step, got in reversed(printed):
            if ANYTHING not in step.shown:
                lines[step.line : step.line + len(step.shown)] = got
        path.write_text("\n".join(lines) + "\n")
    return differences


if __name__ == "__main__":
    found = walk(Path(sys.argv[1]), write="--write" in sys.argv[2:])
    print("\n\n".join(found))
    sys.exit(1 if found else 0)
