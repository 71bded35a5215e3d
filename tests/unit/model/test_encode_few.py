"""model/encode_few.py: the same bytes as encode.py, from one row at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encode import Encoder
from model.encode_few import FEW, FewEncoder
from model.mask import FieldMask
from model.row import Rows
from model.tables import Tables
from tests.support.rows import make_rows, tables_and_rows

MASKS = st.sampled_from(
    [(), ("time",), ("uuid", "l4"), ("source.pod_name", "verdict"), ("l4.TCP.source_port", "IP", "ethernet")]
)


@given(st.data())
@settings(max_examples=100)
def test_any_rows_become_the_bytes_that_the_large_encoder_makes(data: st.DataObject) -> None:
    tables, rows = data.draw(tables_and_rows())
    mask = FieldMask.parse(data.draw(MASKS))
    few = FewEncoder(Encoder(tables, mask), tables)
    large = Encoder(tables, mask)
    for _ in range(2):  # made, then remembered
        assert bytes(few.responses(rows[:FEW])) == bytes(large.responses(rows[:FEW]).buffer)


def test_rows_like_earlier_ones_get_their_own_time_name_and_ports() -> None:
    rows, tables = make_rows(300, connections=3)
    few, large = FewEncoder(Encoder(tables), tables), Encoder(tables)
    random = np.random.default_rng(1)
    for start in range(0, 300, 7):
        some: Rows = rows[start : start + 7]
        some["seq"] = random.integers(0, 2**58, len(some))
        some["ts_ns"] = random.integers(1, 2**62, len(some))
        assert bytes(few.responses(some)) == bytes(large.responses(some).buffer)


def test_compacted_tables_are_noticed() -> None:
    rows, tables = make_rows(20, endpoints=10)
    few = FewEncoder(Encoder(tables), tables)
    few.responses(rows)
    kept = rows[15:].copy()
    tables.compact([kept])
    assert bytes(few.responses(kept)) == bytes(Encoder(tables).responses(kept).buffer)


def test_many_rows_are_left_to_the_large_encoder() -> None:
    rows, tables = make_rows(FEW + 1)
    few = FewEncoder(Encoder(tables), tables)
    assert bytes(few.responses(rows)) == bytes(Encoder(tables).responses(rows).buffer)


def test_what_is_remembered_is_bounded() -> None:
    from model import encode_few

    rows, tables = make_rows(200, connections=200)
    few = FewEncoder(Encoder(tables), tables)
    before, encode_few.REMEMBERED = encode_few.REMEMBERED, 10  # type: ignore[misc]
    try:
        for row in range(200):
            few.responses(rows[row : row + 1])
            assert len(few._known) <= 11
    finally:
        encode_few.REMEMBERED = before  # type: ignore[misc]


def test_no_rows_make_no_bytes() -> None:
    assert FewEncoder(Encoder(Tables()), Tables()).responses(make_rows(0)[0]) == b""
