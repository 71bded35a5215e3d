"""model/filters/compile.py against the slow reference evaluator of tests/support."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from model.encode import Encoder
from model.filters import compile_filters
from model.ingest import rows_from_responses
from model.row import Kind, Rows
from model.tables import Tables
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from tests.support.filter_reference import passes
from tests.support.filter_strategies import filter_lists, flows
from tests.support.rows import flows as any_flows
from tests.support.rows import make_rows, tables_and_rows

FlowFilter = flow_pb2.FlowFilter
GetFlowsResponse = observer_pb2.GetFlowsResponse
Lists = tuple[list[FlowFilter], list[FlowFilter]]


def expected(rows: Rows, tables: Tables, lists: Lists) -> list[bool]:
    return [passes(flow, *lists) for flow in Encoder(tables).flows(rows)]


@settings(max_examples=150)
@given(st.data(), st.sampled_from([0, 1, 2, 3]), st.lists(filter_lists(), min_size=1, max_size=4))
def test_rows_of_our_own_pass_as_their_messages_do(data: st.DataObject, seed: int, many: Sequence[Lists]) -> None:
    rows, tables = make_rows(60, endpoints=30, connections=20, nodes=2, seed=seed)
    for lists in many:
        assert compile_filters(*lists).mask(rows, tables).tolist() == expected(rows, tables, lists)


@settings(max_examples=100)
@given(tables_and_rows(kinds=(Kind.FLOW,)), st.lists(filter_lists(), min_size=1, max_size=4))
def test_rows_with_odd_values_pass_as_their_messages_do(drawn: tuple[Tables, Rows], many: Sequence[Lists]) -> None:
    tables, rows = drawn
    for lists in many:
        assert compile_filters(*lists).mask(rows, tables).tolist() == expected(rows, tables, lists)


@settings(max_examples=150)
@given(st.lists(flows(), min_size=1, max_size=4), st.lists(filter_lists(), min_size=1, max_size=3))
def test_flows_of_other_servers_pass_as_their_messages_do(drawn: list[flow_pb2.Flow], many: Sequence[Lists]) -> None:
    tables = Tables()
    rows = rows_from_responses([GetFlowsResponse(flow=flow) for flow in drawn], tables)
    for lists in many:
        assert compile_filters(*lists).mask(rows, tables).tolist() == [passes(flow, *lists) for flow in drawn]


@settings(max_examples=60)
@given(st.lists(any_flows(), min_size=1, max_size=3), filter_lists())
def test_any_flow_of_the_wire_passes_as_a_message_does(drawn: list[flow_pb2.Flow], lists: Lists) -> None:
    tables = Tables()
    rows = rows_from_responses([GetFlowsResponse(flow=flow) for flow in drawn], tables)
    assert compile_filters(*lists).mask(rows, tables).tolist() == [passes(flow, *lists) for flow in drawn]


@settings(max_examples=300)
@given(st.lists(flows(), min_size=1, max_size=3), filter_lists())
def test_a_whole_message_passes_as_the_reference_says(drawn: list[flow_pb2.Flow], lists: Lists) -> None:
    predicate = compile_filters(*lists)
    assert [predicate.matches(flow) for flow in drawn] == [passes(flow, *lists) for flow in drawn]
