"""Batches of rows read the same as the messages that they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encode import Encoder
from model.ingest import rows_from_responses
from model.mask import FieldMask
from model.row import Kind, Rows
from model.tables import Tables
from model.text.flows import SHOWN_FIELDS, FlowText, Look, Output
from model.text.parts import FlowStyle
from model.text.rows import RowText
from model.text.rows_json import RowJson
from model.text.style import Style
from model.text.times import FORMATS, time_format
from model.text.tojson import to_json
from proto.observer import observer_pb2
from tests.support.rows import make_rows, responses, tables_and_rows

LOOKS = st.builds(
    Look,
    output=st.sampled_from([Output.COMPACT, Output.DICT, Output.TABLE]),
    times=st.sampled_from(sorted(FORMATS)).map(time_format),
    node_names=st.booleans(),
    flows=st.builds(
        FlowStyle, translate=st.booleans(), policy_names=st.booleans(), style=st.builds(Style, st.booleans())
    ),
)


def one_by_one(look: Look, rows: Rows, tables: Tables, *, masked: bool) -> str:
    encoded = Encoder(tables, FieldMask.parse(SHOWN_FIELDS) if masked else None).responses(rows)
    text = FlowText(look)
    responses = [observer_pb2.GetFlowsResponse.FromString(encoded.payload(at)) for at in range(len(rows))]
    chunks = text.many(responses)
    assert not any(chunk.error for chunk in chunks)
    return "".join(chunk.text for chunk in chunks) + text.finish()


def in_batches(look: Look, rows: Rows, tables: Tables, *, masked: bool) -> str:
    text = FlowText(look)
    row_text = RowText(look, tables, masked=masked)
    half = len(rows) // 2
    chunks = [text.records(row_text.text(part)) for part in (rows[:half], rows[half:])]
    return "".join(chunk.text for chunk in chunks if chunk) + text.finish()


@settings(max_examples=120)
@given(tables_and_rows(max_rows=4), LOOKS, st.booleans())
def test_a_batch_reads_like_its_flows_one_by_one(both: tuple[Tables, Rows], look: Look, masked: bool) -> None:
    tables, rows = both
    assert in_batches(look, rows, tables, masked=masked) == one_by_one(look, rows, tables, masked=masked)


@settings(max_examples=120)
@given(tables_and_rows(max_rows=4))
def test_a_batch_is_the_same_json_as_its_flows_one_by_one(both: tuple[Tables, Rows]) -> None:
    tables, rows = both
    look = Look(output=Output.JSON)
    assert RowJson(look, tables).text(rows) == one_by_one(look, rows, tables, masked=False)


def test_a_large_batch_is_the_same_json_as_its_flows_one_by_one() -> None:
    rows, tables = make_rows(3_000)
    look = Look(output=Output.JSON)
    assert RowJson(look, tables).text(rows) == one_by_one(look, rows, tables, masked=False)


@pytest.mark.parametrize("output", [Output.COMPACT, Output.DICT, Output.TABLE])
def test_a_large_batch_reads_like_its_flows_one_by_one(output: Output) -> None:
    rows, tables = make_rows(3_000)
    look = Look(output=output, node_names=True)
    assert in_batches(look, rows, tables, masked=False) == one_by_one(look, rows, tables, masked=False)


@settings(max_examples=150)
@given(st.lists(responses(), max_size=4), LOOKS)
def test_flows_of_other_servers_read_like_their_messages(
    foreign: list[observer_pb2.GetFlowsResponse], look: Look
) -> None:
    tables = Tables()
    rows = rows_from_responses(foreign, tables)
    text = FlowText(look)
    expected = "".join(chunk.text for chunk in text.many(foreign)) + text.finish()
    assert in_batches(look, rows, tables, masked=False) == expected


@settings(max_examples=150)
@given(st.lists(responses(), max_size=4))
def test_flows_of_other_servers_are_the_same_json_as_their_messages(
    foreign: list[observer_pb2.GetFlowsResponse],
) -> None:
    tables = Tables()
    rows = rows_from_responses(foreign, tables)
    assert RowJson(Look(output=Output.JSON), tables).text(rows) == "".join(to_json(one) + "\n" for one in foreign)


def test_agent_and_debug_events_are_no_flows() -> None:
    rows, tables = make_rows(4)
    rows["kind"][:2] = Kind.AGENT, Kind.DEBUG
    assert RowText(Look(), tables).text(rows).count("\n") == 2
