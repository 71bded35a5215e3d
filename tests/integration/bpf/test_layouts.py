"""maps.py and include/layouts.h describe the same bytes."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bpf import maps
from bpf.programs import MAP_NAMES
from model import vocabulary

pytestmark = pytest.mark.kernel

INCLUDE = Path(maps.__file__).parent / "include"


@pytest.fixture(scope="module")
def c_structs(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Members and sizes of the structs, as the compiler that builds the programs lays them out."""
    folder = tmp_path_factory.mktemp("layouts")
    # A variable of each, because the BTF of a program has only the types that its maps and functions name.
    variables = "".join(f"struct {name} the_{name};\n" for name in maps.C_STRUCTS)
    (folder / "layouts.bpf.c").write_text(f'#include "layouts.h"\n{variables}')
    flags = re.search(r"^CFLAGS := (.+\\\n.+)$", (INCLUDE.parent / "Makefile").read_text(), re.MULTILINE)
    assert flags
    words = flags[1].replace("\\\n", " ").replace("$(shell uname -m)", platform.machine()).split()
    subprocess.run(
        ["clang", *words, "-c", "layouts.bpf.c", "-o", "layouts.o", "-I", str(INCLUDE)], cwd=folder, check=True
    )
    dump = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", str(folder / "layouts.o")], capture_output=True, check=True
    )
    return {each["name"]: each for each in json.loads(dump.stdout)["types"] if each["kind"] == "STRUCT"}


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
