"""A flow's UUID is a function of its node's boot and its number, there and back, one by one and in batches."""

from __future__ import annotations

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model.encode import Encoder
from model.flow_id import (
    SEQ_BITS,
    flow_uuid,
    parse_uuid,
    parse_uuid_bytes,
    parse_uuid_halves,
    uuid_bytes,
    uuid_halves,
    uuid_mask,
    uuid_text,
)
from model.row import Kind
from model.tables import Node
from tests.support.rows import make_rows

HALVES = st.integers(0, 2**64 - 1)


@given(HALVES, st.integers(0, 2**SEQ_BITS - 1))
def test_boot_and_number_are_read_back_from_a_valid_uuid(boot: int, seq: int) -> None:
    text = flow_uuid(Node("n", boot=boot), seq)
    assert parse_uuid(text) == (boot, seq)
    assert (uuid.UUID(text).version, uuid.UUID(text).variant) == (8, uuid.RFC_4122)
    assert str(uuid.UUID(text)) == text


def test_a_flow_without_a_known_node_has_a_uuid_too() -> None:
    assert parse_uuid(flow_uuid(None, 7)) == (0, 7)


@given(st.one_of(st.text(max_size=40), st.uuids().map(str).map(str.upper), st.uuids(version=4).map(str)))
def test_other_text_is_no_uuid_of_ours(text: str) -> None:
    assert parse_uuid(text) is None


def test_only_the_usual_spelling_of_a_uuid_is_read() -> None:
    text = "c0ffee00-0000-4000-8000-0000000000ab"
    assert parse_uuid_halves(text) == (0xC0FFEE0000004000, 0x80000000000000AB)
    for other in (text.upper(), text.replace("-", ""), f" {text}", text[:-1], "+" + text[1:], "c0ffee00_" + text[9:]):
        assert parse_uuid_halves(other) is None


@given(st.lists(st.tuples(HALVES, HALVES), max_size=20))
def test_batches_are_written_and_read_as_single_ones(halves: list[tuple[int, int]]) -> None:
    high, low = (
        (np.array(column, np.uint64) for column in zip(*halves, strict=True)) if halves else [np.empty(0, "u8")] * 2
    )
    text = uuid_bytes(high, low)
    assert [bytes(line).decode() for line in text] == [uuid_text(*pair) for pair in halves]
    again = parse_uuid_bytes(text)
    assert [column.tolist() for column in again] == [high.tolist(), low.tolist(), [True] * len(high)]


@given(st.binary(min_size=36, max_size=36))
def test_bytes_that_are_no_uuid_are_told_apart(text: bytes) -> None:
    good = parse_uuid_bytes(np.frombuffer(text, np.uint8).reshape(1, 36))[2]
    assert good[0] == (parse_uuid_halves(text.decode("latin-1")) is not None)


def test_flows_are_found_by_uuid() -> None:
    rows, tables = make_rows(500, nodes=3)
    rows["kind"][20] = Kind.LOST
    high, low = uuid_halves(rows, tables)
    wanted = [uuid_text(int(high[at]), int(low[at])) for at in (3, 20, 77)]
    assert wanted[0] == Encoder(tables).flows(rows[3:4])[0].uuid
    assert np.flatnonzero(uuid_mask(rows, tables, [*wanted, "no uuid"])).tolist() == [3, 77]
