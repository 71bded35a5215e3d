"""Shells are offered what may come next."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.completion import SHELLS, answer, complete, script, split_line
from cli.globals import command_tree


def offered(*words: str) -> list[str]:
    return [candidate.text for candidate in complete(command_tree(), words).candidates]


def test_commands_are_offered_by_their_beginning() -> None:
    assert "observe" in offered("ob")
    assert offered("list", "") == ["nodes", "namespaces"]
    assert offered("config", "s") == ["set"]
    assert "watch" not in offered("")


def test_flags_are_offered_with_what_they_do() -> None:
    found = complete(command_tree(), ["observe", "--verd"]).candidates
    assert [one.text for one in found] == ["--verdict"]
    assert "DROPPED" in found[0].help
    assert "--server" in offered("observe", "--serv")


@pytest.mark.parametrize(
    "words",
    [("observe", "-t", "trace:to-net"), ("observe", "--type", "trace:to-net"), ("observe", "-ft", "trace:to-net")],
)
def test_values_of_flags_are_offered(words: tuple[str, ...]) -> None:
    assert offered(*words) == ["trace:to-network"]


def test_values_behind_an_equals_sign_keep_the_flag() -> None:
    assert offered("observe", "--output=js") == ["--output=json", "--output=jsonpb"]


def test_files_are_left_to_the_shell() -> None:
    assert complete(command_tree(), ["observe", "--input-file", ""]).places == "file"


def test_words_of_a_command_are_offered() -> None:
    assert offered("config", "get", "tls-s") == ["tls-server-name"]


def test_nonsense_is_no_error() -> None:
    assert offered("elephants", "") == []
    assert "flows" in offered("observe", "--all", "")
    assert answer(command_tree(), []) == ":\n"


def test_bash_gets_only_what_follows_its_word_breaks() -> None:
    line = "flowscope observe -t trace:to-net and more"
    point = str(line.index(" and"))
    assert answer(command_tree(), ["bash", point, line]) == "to-network\t\n:\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a b", ["a", "b"]),
        ("a b ", ["a", "b", ""]),
        ("a 'b c", ["a", "b c"]),
        ('a "b', ["a", "b"]),
        ("a #b", ["a", "#b"]),
    ],
)
def test_lines_are_split_while_they_are_typed(line: str, words: list[str]) -> None:
    assert split_line(line) == words


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script_that_asks_us(shell: str) -> None:
    text = script(shell)
    assert f"__complete {shell}" in text
    assert "@PROGRAM@" not in text
    assert "@NAMES@" not in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes() -> None:
    program = Path(sys.executable).parent / "flowscope"
    lines = [
        script("bash"),
        "compopt() { :; }",
        f"COMP_LINE='{program} observe --verdict DRO'",
        "COMP_POINT=${#COMP_LINE}",
        f"COMP_WORDS=({program} observe --verdict DRO)",
        "COMP_CWORD=3",
        "_flowscope_complete",
        "echo ${COMPREPLY[*]}",
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout == "DROPPED\n"
