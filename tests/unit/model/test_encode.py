"""Encoded batches mean what their rows mean, masked or not, whatever the encoder remembers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encode import Encoder
from model.mask import FieldMask
from model.row import Kind, Rows
from model.tables import Tables
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from tests.support.plain_encoding import PATHS, decoded, plain_response
from tests.support.rows import make_rows, tables_and_rows


def masks() -> st.SearchStrategy[FieldMask | None]:
    return st.lists(st.sampled_from(PATHS), max_size=6).map(FieldMask.parse)


def expected(tables: Tables, rows: Rows, mask: FieldMask | None) -> list[observer_pb2.GetFlowsResponse | None]:
    return [plain_response(row, tables, mask) if row["kind"] <= Kind.LOST else None for row in rows]


@settings(max_examples=100)
@given(tables_and_rows(kinds=tuple(Kind)), masks())
def test_a_message_says_what_its_row_says(case: tuple[Tables, Rows], mask: FieldMask | None) -> None:
    tables, rows = case
    encoder = Encoder(tables, mask)
    assert decoded(encoder.responses(rows)) == expected(tables, rows, mask)
    assert decoded(encoder.responses(rows[::-1])) == expected(tables, rows[::-1], mask)


@pytest.mark.parametrize("paths", [[], ["time", "l4", "IP", "source.identity", "node_name"], ["Summary"]])
def test_realistic_traffic_is_encoded_row_by_row_as_it_should(paths: list[str]) -> None:
    rows, tables = make_rows(3000, endpoints=200, connections=100, nodes=3)
    mask = FieldMask.parse(paths)
    assert decoded(Encoder(tables, mask).responses(rows)) == expected(tables, rows, mask)


def test_no_message_field_comes_twice_for_decoders_that_do_not_merge() -> None:
    rows, tables = make_rows(300)
    snat = flow_pb2.Flow(IP=flow_pb2.IP(source_xlated="192.0.2.1"))
    rows["aux"][:10] = tables.aux.intern(snat.SerializeToString())
    encoded = Encoder(tables).responses(rows)
    for index in range(len(encoded)):
        canonical = observer_pb2.GetFlowsResponse.FromString(encoded.payload(index)).flow.SerializeToString()
        # Padding and explicit zeros add some bytes; a second IP, l4 or ethernet would add a tag more.
        flow_bytes = encoded.payload(index)
        for tag in (b"\x2a", b"\x32", b"\x22"):
            assert top_level_tags(flow_bytes).count(tag[0]) == top_level_tags(b"\x0a" + prefixed(canonical)).count(
                tag[0]
            )


def prefixed(data: bytes) -> bytes:
    length, out = len(data), bytearray()
    while length >= 0x80:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*out, length]) + data


def top_level_tags(response: bytes) -> list[int]:
    """Tags of the fields of the flow in a response."""
    fields = dict(split_fields(response))
    return [tag for tag, _ in split_fields(fields[0x0A])]


def split_fields(data: bytes) -> list[tuple[int, bytes]]:
    fields, at = [], 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        size = number()
        if tag & 7 == 2:
            fields.append((tag, data[at : at + size]))
            at += size
        else:
            fields.append((tag, b""))
    return fields


def test_parts_are_dropped_when_they_take_too_much_memory_and_nothing_else_changes() -> None:
    rows, tables = make_rows(20_000, endpoints=3000, connections=5000)
    small = Encoder(tables, piece_bytes=100_000).responses(rows)
    large = Encoder(tables).responses(rows)
    assert small.buffer == large.buffer
    assert np.array_equal(small.ends, large.ends)


def test_indices_that_change_their_meaning_are_not_mixed_up() -> None:
    rows, tables = make_rows(500, endpoints=100)
    encoder = Encoder(tables)
    before = decoded(encoder.responses(rows))
    live = rows[250:].copy()
    tables.compact([live])
    assert decoded(encoder.responses(live)) == before[250:]


def test_tables_may_grow_between_batches() -> None:
    rows, tables = make_rows(100, endpoints=10)
    encoder = Encoder(tables)
    encoder.responses(rows)
    more, _ = make_rows(100, endpoints=1000, seed=1, tables=tables)
    assert decoded(encoder.responses(more)) == expected(tables, more, None)


def test_no_rows_give_no_bytes() -> None:
    rows, tables = make_rows(1)
    encoded = Encoder(tables).responses(rows[:0])
    assert (bytes(encoded.buffer), len(encoded)) == (b"", 0)


def test_flows_leaves_out_everything_that_is_no_flow() -> None:
    rows, tables = make_rows(3)
    rows["kind"][1] = Kind.LOST
    rows["aux"][1] = tables.aux.intern(b"")
    assert [flow.uuid[-2:] for flow in Encoder(tables).flows(rows)] == ["00", "02"]
