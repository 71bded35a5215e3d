"""The rooms depend on each other one way. Services meet on the wire, never in an import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

MAY_USE: dict[str, set[str]] = {
    "proto": set(),
    "model": {"proto"},
    "service": set(),
    "bpf": {"service"},
    "rpc": {"proto", "service"},
    "observer": {"bpf", "model", "proto", "rpc", "service"},
    "relay": {"model", "proto", "rpc", "service"},
    "mesh": {"bpf", "model", "proto", "rpc", "service"},
    "ui": {"model", "proto", "rpc", "service"},
    "flowscope": {"model", "proto", "rpc", "service"},
}
FREE = {"cli", "connectivity", "lab"}
"""Rooms that may use everything."""
ROOMS = set(MAY_USE) | FREE


@pytest.mark.parametrize("room", sorted(MAY_USE))
def test_a_room_uses_only_what_stands_below_it(room: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {used}"
        for path in python_files(room)
        for used in first_party_imports(path) - {room} - MAY_USE[room]
    }
    assert not wrong


def test_every_package_at_the_top_is_a_known_room() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == ROOMS


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_says_what_comes_in_what_goes_out_and_what_lives_elsewhere(room: str) -> None:
    entry = ROOT / room / "__init__.py"
    words = ast.get_docstring(ast.parse(entry.read_text())) or ""
    assert all(heading in words for heading in ("In:", "Out:", "Elsewhere:")), entry


def python_files(room: str) -> list[Path]:
    return [path for path in (ROOT / room).rglob("*.py") if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))]


def first_party_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.partition(".")[0])
    return names & ROOMS
