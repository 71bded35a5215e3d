"""Copying rows whole is copying rows."""

from __future__ import annotations

import numpy as np

from model.row import ROW, Rows
from model.whole_rows import copied, joined, put, take


def some_rows(count: int) -> Rows:
    return np.frombuffer(np.random.default_rng(1).bytes(count * ROW.itemsize), ROW)


def same(a: Rows, b: Rows) -> bool:
    return a.dtype == b.dtype == ROW and a.tobytes() == b.tobytes()


def test_rows_are_taken_by_index_and_by_mask() -> None:
    rows, at = some_rows(20), np.array([3, 3, 19, 0])
    assert same(take(rows, at), rows[at])
    assert same(take(rows, rows["kind"] > 100), rows[rows["kind"] > 100])
    assert same(take(rows[::2], at[at < 10]), rows[::2][at[at < 10]])


def test_rows_are_put_in_place() -> None:
    rows, target = some_rows(4), np.zeros(10, ROW)
    put(target, slice(2, 4), rows[:2])
    put(target, np.array([9, 7]), rows[2:])
    assert same(target[[2, 3, 9, 7]], rows)
    assert not target["ts_ns"][[0, 1, 4, 5, 6, 8]].any()


def test_rows_are_joined_and_copied() -> None:
    rows = some_rows(5)
    assert same(joined([rows[:2], rows[2:], rows[:0]]), rows)
    copy = copied(rows)
    assert same(copy, rows)
    copy["ts_ns"] = 0
    assert not same(copy, rows)
