"""model/ring.py: what is kept, what a reader gets, what it is told about the rest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import ring as ring_module
from model.ring import InvalidCapacity, Ring, check_capacity
from model.row import Kind, empty_rows
from model.tables import Node
from tests.support.small_rows import flow_rows, kinds_row, lost_row


@pytest.mark.parametrize("capacity", [1, 3, 7, 4095, 65535, 2**20 - 1])
def test_capacities_of_hubble_are_accepted_and_larger_ones_too(capacity: int) -> None:
    assert check_capacity(capacity) == capacity


@pytest.mark.parametrize("capacity", [-1, 0, 2, 4096, 65536, 2**21 - 1])
def test_other_capacities_are_refused_with_their_number(capacity: int) -> None:
    with pytest.raises(InvalidCapacity, match=f"got {capacity}"):
        check_capacity(capacity)


def test_a_reader_gets_rows_in_order_with_their_numbers() -> None:
    ring = Ring(7)
    cursor = ring.cursor()
    ring.append(flow_rows([10, 20, 30]))
    piece = cursor.read(10)
    assert piece.rows["ts_ns"].tolist() == [10, 20, 30]
    assert piece.rows["seq"].tolist() == [0, 1, 2]
    assert piece.missed == 0
    assert len(cursor.read(10).rows) == 0


def test_a_reader_stops_where_it_is_told_to() -> None:
    ring = Ring(7)
    ring.append(flow_rows(range(5)))
    cursor = ring.cursor(0)
    assert cursor.read(10, stop=2).rows["ts_ns"].tolist() == [0, 1]
    assert cursor.read(10, stop=2).rows["ts_ns"].tolist() == []


def test_an_overtaken_reader_learns_how_many_events_it_missed() -> None:
    ring = Ring(3)
    cursor = ring.cursor()
    ring.append(flow_rows(range(5)))
    piece = cursor.read(10)
    assert piece.missed == 2
    assert piece.start == 2


def test_a_lost_events_row_counts_for_what_it_told_of() -> None:
    ring = Ring(3)
    cursor = ring.cursor()
    ring.append(lost_row(ring.tables, 1000))
    ring.append(flow_rows(range(4)))
    assert cursor.read(10).missed == 1001


def test_more_rows_at_once_than_fit_keep_the_newest() -> None:
    ring = Ring(3)
    cursor = ring.cursor()
    ring.append(flow_rows(range(10)))
    piece = cursor.read(10)
    rest = cursor.read(10)
    assert piece.missed == 7
    assert np.concatenate([piece.rows, rest.rows])["seq"].tolist() == [7, 8, 9]
    assert ring.head == 10
    assert len(ring) == 3


def test_only_flows_count_as_seen() -> None:
    ring = Ring(7)
    ring.append(flow_rows([1, 2]))
    ring.append(kinds_row(Kind.AGENT))
    ring.append(lost_row(ring.tables, 5))
    assert ring.flows_seen == 2
    assert len(ring) == 4


def test_tables_are_compacted_when_they_outgrow_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "COMPACT_SLACK", 20)
    ring = Ring(3)
    ring._compact_at = 20
    moved: list[str] = []
    ring.before_compaction.append(lambda: moved.append("before"))
    ring.after_compaction.append(lambda: moved.append("after"))
    for number in range(40):
        row = empty_rows(1)
        row["src"] = ring.tables.endpoints.intern(f"endpoint {number}".encode())
        row["node"] = ring.tables.nodes.intern(Node("n"))
        ring.append(row)
    assert ring.tables.generation >= 1
    assert moved[:2] == ["before", "after"]
    assert ring.tables.size() < 40
    rows = np.concatenate([rows for _, rows in ring.backwards(10, 10)])
    texts = {ring.tables.endpoints[int(index)] for index in rows["src"]}
    assert texts == {b"endpoint 37", b"endpoint 38", b"endpoint 39"}


@given(appends=st.lists(st.integers(0, 12), max_size=12), chunk=st.integers(1, 9))
@settings(max_examples=150)
def test_walking_backwards_visits_every_stored_row_once(appends: list[int], chunk: int) -> None:
    ring = Ring(7)
    for count in appends:
        ring.append(flow_rows(range(ring.head, ring.head + count)))
    seen: list[int] = []
    for start, rows in ring.backwards(chunk, chunk + 1):
        assert rows["seq"].tolist() == list(range(start, start + len(rows)))
        seen = rows["ts_ns"].tolist() + seen
    assert seen == list(range(max(0, sum(appends) - 7), sum(appends)))


@given(steps=st.lists(st.tuples(st.sampled_from(["flows", "lost", "read"]), st.integers(1, 9)), max_size=40))
@settings(max_examples=200)
def test_what_was_read_and_what_was_missed_add_up_to_what_was_emitted(steps: list[tuple[str, int]]) -> None:
    ring = Ring(7)
    cursor = ring.cursor()
    emitted = read = 0

    def take(limit: int) -> int:
        piece = cursor.read(limit)
        total = piece.missed
        for row in piece.rows:
            total += 10 * int(row["verdict"]) if row["kind"] == Kind.LOST else 1
        return total

    for what, count in steps:
        if what == "flows":
            ring.append(flow_rows([0] * count))
            emitted += count
        elif what == "lost":
            row = lost_row(ring.tables, 10 * count)
            row["verdict"] = count
            ring.append(row)
            emitted += 10 * count
        else:
            read += take(count)
    for _ in range(3):
        read += take(100)
    assert read == emitted


@given(steps=st.lists(st.integers(1, 2000), min_size=1, max_size=30))
@settings(max_examples=50)
def test_the_sums_of_lost_events_stay_right_while_old_ones_are_forgotten(steps: list[int]) -> None:
    ring = Ring(2047)
    cursor = ring.cursor()
    emitted = 0
    for count in steps:
        rows = np.repeat(lost_row(ring.tables, 3), count)
        ring.append(rows)
        emitted += 3 * count
    read = 0
    while True:
        piece = cursor.read(10_000)
        read += piece.missed + 3 * len(piece.rows)
        if not len(piece.rows):
            break
    assert read == emitted
