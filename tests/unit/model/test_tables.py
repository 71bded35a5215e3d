"""Interned tables: indices stay, absent is 0, compaction keeps what rows still need."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.row import Rows, empty_rows
from model.tables import Interface, Tables


def rows_pointing_at(tables: Tables, endpoints: list[bytes]) -> Rows:
    rows = empty_rows(len(endpoints))
    rows["src"] = [tables.endpoints.intern(value) for value in endpoints]
    return rows


def endpoints_of(tables: Tables, rows: Rows) -> list[bytes | None]:
    return [tables.endpoints[index] for index in rows["src"].tolist()]


def test_a_value_gets_one_index_and_absent_is_zero() -> None:
    tables = Tables()
    assert tables.endpoints[0] is None
    assert tables.endpoints.intern(b"") == tables.endpoints.intern(b"") == 1
    assert tables.ifaces.intern(Interface(7, "lxc1")) == 1
    assert tables.endpoints.intern_all([b"", None, b"x"]).tolist() == [1, 0, 2]


@given(st.lists(st.binary(max_size=3), max_size=30), st.data())
def test_compaction_forgets_the_dead_and_keeps_the_living(values: list[bytes], data: st.DataObject) -> None:
    tables = Tables()
    rows = rows_pointing_at(tables, values)
    live = rows[: data.draw(st.integers(0, len(rows)))]
    before = endpoints_of(tables, live)
    tables.compact([live])
    assert endpoints_of(tables, live) == before
    assert len(tables.endpoints) == 1 + len(set(before))
    assert tables.generation == 1


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=1)), max_size=30), st.data())
def test_what_was_appended_is_kept_beside_what_was_interned(
    values: list[tuple[bool, bytes]], data: st.DataObject
) -> None:
    tables = Tables()
    rows = empty_rows(len(values))
    for at, (appended, value) in enumerate(values):
        rows["aux"][at] = tables.aux.append_all([value])[0] if appended else tables.aux.intern(value)
    assert [tables.aux[index] for index in rows["aux"].tolist()] == [value for _, value in values]
    live = rows[: data.draw(st.integers(0, len(rows)))]
    tables.compact([live])
    assert [tables.aux[index] for index in live["aux"].tolist()] == [value for _, value in values[: len(live)]]
    known = {
        value: index for (appended, value), index in zip(values, live["aux"].tolist(), strict=False) if not appended
    }
    assert {value: tables.aux.intern(value) for value in known} == known
    assert tables.aux[tables.aux.intern(b"new")] == b"new"


@given(st.lists(st.binary(max_size=3), max_size=30), st.lists(st.binary(max_size=3), max_size=30))
def test_rows_adopted_from_other_tables_mean_the_same(ours: list[bytes], theirs: list[bytes]) -> None:
    tables, other = Tables(), Tables()
    for value in ours:
        tables.endpoints.intern(value)
    rows = rows_pointing_at(other, theirs)
    kept = rows.copy()
    assert endpoints_of(tables, tables.adopt(rows, other)) == theirs
    assert np.array_equal(rows, kept)
