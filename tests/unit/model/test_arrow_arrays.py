"""model/arrow_arrays.py: what goes in comes out, and pandas stays where it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.arrow_arrays import from_numbers, from_values, to_numbers

TEXTS = st.text(max_size=5)
PAIR = pa.struct({"name": pa.string(), "labels": pa.list_(pa.string()), "boot": pa.uint64()})


@given(st.lists(st.none() | st.binary(max_size=5)))
def test_bytes_come_back(values: list[bytes | None]) -> None:
    array = from_values(values, pa.binary())
    array.validate(full=True)
    assert array.to_pylist() == values


@given(st.lists(st.none() | st.lists(TEXTS, max_size=3)))
def test_lists_of_texts_come_back(values: list[list[str] | None]) -> None:
    array = from_values(values, pa.list_(pa.string()))
    array.validate(full=True)
    assert array.to_pylist() == values


@given(st.lists(st.none() | st.tuples(TEXTS, st.lists(TEXTS, max_size=2), st.integers(0, 2**64 - 1))))
def test_structs_come_back(values: list[tuple[str, list[str], int] | None]) -> None:
    array = from_values(values, PAIR)
    array.validate(full=True)
    assert array.to_pylist() == [
        value and dict(zip(("name", "labels", "boot"), value, strict=True)) for value in values
    ]


@pytest.mark.parametrize("kind", ["<i8", "<u8", "<u4", "<u2", "u1"])
def test_numbers_come_back_also_from_a_slice(kind: str) -> None:
    values = np.arange(10, dtype=kind)
    array = from_numbers(values)
    assert to_numbers(array, values.dtype).tolist() == array.to_pylist() == values.tolist()
    assert to_numbers(array.slice(3, 4), values.dtype).tolist() == [3, 4, 5, 6]
    assert to_numbers(array.slice(3, 0), values.dtype).tolist() == []


def test_rows_of_bytes_are_fixed_size_binary() -> None:
    array: Any = from_numbers(np.arange(12, dtype=np.uint8).reshape(2, 6))
    assert array.to_pylist() == [bytes(range(6)), bytes(range(6, 12))]


def test_sending_and_reading_flows_does_not_import_pandas() -> None:
    program = (
        "import sys; from tests.support.rows import make_rows; from model.columns import *; from model.tables import *;"
        "rows, tables = make_rows(100); from_arrow_ipc(to_arrow_ipc(rows, tables), Tables());"
        "assert 'pyarrow' in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True, timeout=60)
