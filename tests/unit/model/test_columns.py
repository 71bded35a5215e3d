"""Rows travel as Arrow batches and arrive the same; what is no such batch is refused in one line."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from model.columns import VERSION_KEY, compacted, from_arrow_ipc, to_arrow_ipc
from model.encode import Encoder
from model.row import Kind, Rows
from model.tables import TABLE_FIELDS, Tables
from tests.support.rows import make_rows, tables_and_rows


def assert_same_meaning(rows: Rows, tables: Tables, others: Rows, their_tables: Tables) -> None:
    for field in rows.dtype.names or ():
        if not any(field in pointers for pointers in TABLE_FIELDS.values()):
            assert np.array_equal(rows[field], others[field]), field
    for table, fields in TABLE_FIELDS.items():
        for field in fields:
            ours = [tables.table(table)[index] for index in rows[field].tolist()]
            assert ours == [their_tables.table(table)[index] for index in others[field].tolist()], field


@settings(max_examples=60)
@given(tables_and_rows(kinds=tuple(Kind)))
def test_rows_arrive_as_they_were_sent(case: tuple[Tables, Rows]) -> None:
    tables, rows = case
    received = Tables()
    assert_same_meaning(rows, tables, from_arrow_ipc(to_arrow_ipc(rows, tables), received), received)


def test_batches_of_several_senders_meet_in_one_set_of_tables() -> None:
    ours = Tables()
    ours.endpoints.intern(b"\x08\x01")
    for seed in range(3):
        rows, tables = make_rows(2000, endpoints=300, nodes=2, seed=seed)
        assert_same_meaning(rows, tables, from_arrow_ipc(to_arrow_ipc(rows, tables), ours), ours)
    assert len(ours.endpoints) == len(set(ours.endpoints.values))


def test_only_what_a_batch_uses_travels_with_it() -> None:
    rows, tables = make_rows(2000, endpoints=1000)
    received = Tables()
    from_arrow_ipc(to_arrow_ipc(rows[:3], tables), received)
    assert len(received.endpoints) <= 7
    assert len(to_arrow_ipc(rows[:3], tables)) < 20_000


@pytest.mark.parametrize("size", [2, 10, 10_000])
def test_compacting_by_walking_and_by_sorting_agree(size: int) -> None:
    indices = np.array([1, 0, 1, size - 1], np.uint32)
    used, places = compacted(indices, size)
    assert used[0] == 0
    assert len(used) == len(set(used.tolist()))
    assert used[places].tolist() == indices.tolist()


def test_no_rows_travel_too() -> None:
    rows, tables = make_rows(1)
    assert len(from_arrow_ipc(to_arrow_ipc(rows[:0], tables), Tables())) == 0


def changed(data: bytes, metadata: dict[bytes, bytes] | None = None, **columns: object) -> bytes:
    """The same stream with another schema metadata or other columns."""
    batch = pa.ipc.open_stream(data).read_next_batch()
    for name, values in columns.items():
        at = batch.schema.get_field_index(name)
        batch = batch.set_column(at, batch.schema.field(at).with_type(values.type), values)  # type: ignore[attr-defined]
    if metadata is not None:
        batch = batch.replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def hostile_batches() -> dict[str, bytes]:
    rows, tables = make_rows(2)
    data = to_arrow_ipc(rows, tables)
    bad_pointer = pa.DictionaryArray.from_arrays(pa.array([7, 7], pa.uint32()), pa.array([b""]), safe=False)
    bad_aux = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.uint32()), pa.array([b"\xff\xff"]))
    return {
        "length 0": b"",
        "flatbuffers|metadata": b"\xff\xff\xff\xff\x10\x00\x00\x00 not arrow at all",
        "read": data[:-400],
        "does not say flowscope.rows": changed(data, {}),
        "version '2'; this program reads version '1'": changed(data, {VERSION_KEY: b"2"}),
        "columns are others": changed(data, sport=pa.array([1, 2], pa.int64())),
        "sport lacks values": changed(data, sport=pa.array([None, 2], pa.uint16())),
        "kind 9 does not exist": changed(data, kind=pa.array([0, 9], pa.uint8())),
        "indices|bounds": changed(data, aux=bad_pointer),
        "aux: .*parsing": changed(data, aux=bad_aux),
    }


@pytest.mark.parametrize("words", hostile_batches())
def test_what_is_no_batch_of_flows_is_refused_in_one_line(words: str) -> None:
    with pytest.raises(ValueError, match=words) as refusal:
        from_arrow_ipc(hostile_batches()[words], Tables())
    assert "\n" not in str(refusal.value)


def test_damaged_bytes_are_refused_or_give_rows_that_can_be_used() -> None:
    rows, tables = make_rows(50, endpoints=10)
    data = to_arrow_ipc(rows, tables)
    chance = random.Random(1)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 3, 20])):
            damaged[chance.randrange(len(damaged))] = chance.choice([0, 255, chance.randrange(256)])
        received = Tables()
        try:
            survivors = from_arrow_ipc(bytes(damaged), received)
        except ValueError:
            continue
        Encoder(received).flows(survivors)
