"""Command lines are understood, and misunderstood, as Hubble's are."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from cli.__main__ import main
from cli.command import Command, Flag, Flags, UsageError
from cli.flags import BOOL, DURATION, LIST, REPEATED, TEXT, UINT64
from cli.globals import command_tree

FLAGS = Flags(
    (
        Flag(name="output", short="o", kind=TEXT, help=""),
        Flag(name="follow", short="f", kind=BOOL, help=""),
        Flag(name="silent", short="s", kind=BOOL, help=""),
        Flag(name="last", kind=UINT64, help=""),
        Flag(name="timeout", kind=DURATION, help=""),
        Flag(name="files", kind=LIST, help=""),
        Flag(name="allow", kind=REPEATED, help=""),
    )
)


@pytest.mark.parametrize(
    ("line", "values", "words"),
    [
        ("-o json a b", {"output": "json"}, ["a", "b"]),
        ("a -ojson b", {"output": "json"}, ["a", "b"]),
        ("-o=json", {"output": "json"}, []),
        ("--output=json", {"output": "json"}, []),
        ("--output=", {"output": ""}, []),
        ("-fs", {"follow": True, "silent": True}, []),
        ("-fo json", {"follow": True, "output": "json"}, []),
        ("-f=false", {"follow": False}, []),
        ("--follow a", {"follow": True}, ["a"]),
        ("--follow=false", {"follow": False}, []),
        ("--last 0x20", {"last": 32}, []),
        ("--timeout 1m5s", {"timeout": 65_000_000_000}, []),
        ("--files a,b --files c", {"files": ("a", "b", "c")}, []),
        ("--allow a,b --allow c", {"allow": ("a,b", "c")}, []),
        ("-o -f", {"output": "-f"}, []),
        ("a - -- -o --x", {}, ["a", "-", "-o", "--x"]),
    ],
)
def test_flags_and_words_mix_in_all_spellings(line: str, values: dict[str, Any], words: list[str]) -> None:
    assert FLAGS.parse(line.split()) == (values, words)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--x", "unknown flag: --x"),
        ("-Z", "unknown shorthand flag: 'Z' in -Z"),
        ("-fZ", "unknown shorthand flag: 'Z' in -Z"),
        ("--output", "flag needs an argument: --output"),
        ("-o", "flag needs an argument: 'o' in -o"),
        ("---x", "bad flag syntax: ---x"),
        ("--=x", "bad flag syntax: --=x"),
        ("--last x", 'invalid argument "x" for "--last" flag: strconv.ParseUint: parsing "x": invalid syntax'),
        ("--last -1", 'invalid argument "-1" for "--last" flag: strconv.ParseUint: parsing "-1": invalid syntax'),
        ("--timeout x", 'invalid argument "x" for "--timeout" flag: time: invalid duration "x"'),
        ("--timeout 5", 'invalid argument "5" for "--timeout" flag: time: missing unit in duration "5"'),
        ("-f=x", 'invalid argument "x" for "-f, --follow" flag: strconv.ParseBool: parsing "x": invalid syntax'),
    ],
)
def test_mistakes_are_named_in_the_words_people_know(line: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        FLAGS.parse(line.split())
    assert str(error.value) == message


def test_flags_of_the_root_may_stand_before_the_command() -> None:
    call = command_tree().call(["--server", "a:1", "-D", "list", "nodes", "-o", "wide"])
    assert [command.name for command in call.path] == ["flowscope", "list", "nodes"]
    assert call.values == {"server": "a:1", "debug": True, "output": "wide"}


def test_aliases_name_commands() -> None:
    assert command_tree().call(["w", "peer"]).command.name == "peers"


@pytest.mark.parametrize(
    ("word", "suggestions"),
    [("observ", ["observe"]), ("stauts", ["status"]), ("xyzzyx", []), ("relai", ["relay"])],
)
def test_near_misses_are_suggested(word: str, suggestions: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        command_tree().call([word])
    block = "".join(f"\t{name}\n" for name in suggestions)
    expected = f'unknown command "{word}" for "hubble"'
    assert str(error.value) == (f"{expected}\n\nDid you mean this?\n{block}" if suggestions else expected)


def test_unknown_words_after_a_group_print_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "elephants"]) == 0
    assert "flowscope list <command>" in capsys.readouterr().out


def test_help_of_an_unknown_topic_goes_to_stderr_and_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "elephants"]) == 0
    shown = capsys.readouterr()
    assert "elephants" in shown.err
    assert not shown.out


def every_command() -> list[tuple[Command, ...]]:
    tree = command_tree()
    found: list[tuple[Command, ...]] = []

    def walk(path: tuple[Command, ...]) -> None:
        found.append(path)
        for child in tree.children(path[-1]):
            walk((*path, child))

    walk((tree.root,))
    return found


@pytest.mark.parametrize("path", every_command(), ids=lambda path: "-".join(command.name for command in path))
def test_every_command_has_help(path: tuple[Command, ...], capsys: pytest.CaptureFixture[str]) -> None:
    if path[-1].raw:
        pytest.skip("parses its own arguments")
    assert main([*(command.name for command in path[1:]), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage:" in shown
    assert max(map(len, shown.splitlines())) <= 130


@pytest.mark.parametrize("arguments", [["version"], ["observe", "--help"], ["--help"]])
def test_nothing_heavy_is_imported_for_answers_that_need_none(arguments: list[str]) -> None:
    code = (
        "import sys; from cli.__main__ import main; main(sys.argv[1:]);"
        "heavy = {'numpy', 'google.protobuf', 'grpc', 'grpclib', 'asyncio', 'yaml', 'structlog'} & set(sys.modules);"
        "sys.exit(' '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
