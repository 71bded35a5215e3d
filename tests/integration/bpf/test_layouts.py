"""maps.py and include/layouts.h describe the same bytes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bpf import maps
from bpf.datapath import MAP_NAMES, PROGRAM_FILES
from model import vocabulary

pytestmark = pytest.mark.kernel

INCLUDE = Path(maps.__file__).parent / "include"


@pytest.fixture(scope="module")
def c_structs(objects: Path) -> dict[str, Any]:
    """Members and sizes of the structs that the compiler wrote into the objects."""
    found: dict[str, Any] = {}
    for file in PROGRAM_FILES.values():
        dump = subprocess.run(
            ["bpftool", "-j", "btf", "dump", "file", str(objects / file)], capture_output=True, check=True
        )
        for each in json.loads(dump.stdout)["types"]:
            if each["kind"] == "STRUCT":
                found[each["name"]] = each
    return found


@pytest.mark.parametrize("name", maps.C_STRUCTS)
def test_struct_has_the_same_fields_at_the_same_offsets(c_structs: dict[str, Any], name: str) -> None:
    dtype = maps.C_STRUCTS[name]
    assert dtype.fields is not None
    ours = [(field, dtype.fields[field][1]) for field in dtype.names or ()]
    theirs = [(member["name"], member["bits_offset"] // 8) for member in c_structs[name]["members"]]
    assert ours == theirs
    assert dtype.itemsize == c_structs[name]["size"]


def test_every_drop_file_has_its_name_and_exists() -> None:
    text = (INCLUDE / "drops.h").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"(FILE_\w+) = (\d+)", text)}
    names = {numbers[constant]: file for file, constant in re.findall(r'FILE_IS\("(.+?)"\) \? (FILE_\w+)', text)}
    assert names == maps.DROP_FILES
    assert names.items() <= vocabulary.DROP_FILES.items(), "decoded flows name them"
    for file in names.values():
        assert list(INCLUDE.parent.rglob(file)), file


def test_every_map_is_known_to_the_door() -> None:
    declared = re.findall(r"^\} (\w+) SEC\(\"\.maps\"\)", (INCLUDE / "maps.h").read_text(), re.MULTILINE)
    assert sorted(declared) == sorted(MAP_NAMES)
