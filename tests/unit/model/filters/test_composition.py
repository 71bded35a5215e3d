"""model/filters/compile.py: lists of filters, kinds of rows, tables that grow."""

from __future__ import annotations

import numpy as np
import pytest

from model.filters import FlowPredicate, InvalidFilter, compile_filters
from model.row import Bit, Kind, Rows, empty_rows
from model.tables import Tables
from proto.flow import flow_pb2
from tests.support.rows import make_endpoint, make_rows
from tests.support.small_rows import joined, kinds_row, lost_row

FlowFilter = flow_pb2.FlowFilter
EventTypeFilter = flow_pb2.EventTypeFilter


def answers(predicate: FlowPredicate, rows: Rows, tables: Tables) -> list[bool]:
    return [bool(answer) for answer in predicate.mask(rows, tables)]


def rows_with(*numbers: int) -> tuple[Rows, Tables]:
    rows = empty_rows(len(numbers))
    rows["verdict"] = numbers
    return rows, Tables()


def test_without_filters_everything_passes() -> None:
    rows, tables = rows_with(0, 1, 2)
    predicate = compile_filters([], [])
    assert predicate.passes_all
    assert answers(predicate, rows, tables) == [True, True, True]


def test_values_of_a_field_are_alternatives_and_fields_must_all_hold() -> None:
    rows, tables = rows_with(1, 2, 2)
    rows["direction"] = [1, 1, 2]
    predicate = compile_filters(
        [FlowFilter(verdict=["DROPPED", "ERROR"], traffic_direction=["EGRESS", "TRAFFIC_DIRECTION_UNKNOWN"])]
    )
    assert answers(predicate, rows, tables) == [False, False, True]


def test_filters_of_a_list_are_alternatives_and_the_blacklist_takes_away() -> None:
    rows, tables = rows_with(1, 2, 3, 4)
    predicate = compile_filters(
        [FlowFilter(verdict=["FORWARDED"]), FlowFilter(verdict=["DROPPED", "ERROR"])], [FlowFilter(verdict=["ERROR"])]
    )
    assert answers(predicate, rows, tables) == [True, True, False, False]


def test_an_empty_filter_holds_for_everything() -> None:
    rows, tables = rows_with(1, 2)
    assert answers(compile_filters([FlowFilter()]), rows, tables) == [True, True]
    assert answers(compile_filters([], [FlowFilter()]), rows, tables) == [False, False]


def test_no_rows_give_no_answers() -> None:
    every_field = FlowFilter(source_pod=["a"], source_ip=["::/0"], uuid=["x"], http_url=["x"], verdict=["FORWARDED"])
    assert len(compile_filters([every_field]).mask(empty_rows(0), Tables())) == 0


def other_kinds() -> tuple[Rows, Tables]:
    tables = Tables()
    agent, debug, flow = kinds_row(Kind.AGENT), kinds_row(Kind.DEBUG), empty_rows(1)
    agent["event_type"], agent["sub_type"] = 130, 3
    debug["event_type"], debug["sub_type"] = 2, 5
    agent["aux"] = tables.aux.intern(flow_pb2.AgentEvent(type="POLICY_UPDATED").SerializeToString())
    flow["event_type"], flow["bits"] = 4, Bit.HAS_EVENT_TYPE
    return joined([agent, debug, lost_row(tables, 3), flow]), tables


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (EventTypeFilter(type=130), [True, False, True, False]),
        (EventTypeFilter(type=130, match_sub_type=True, sub_type=3), [True, False, True, False]),
        (EventTypeFilter(type=130, match_sub_type=True, sub_type=4), [False, False, True, False]),
        (EventTypeFilter(type=2), [False, True, True, False]),
        (EventTypeFilter(), [True, True, True, True]),
        (EventTypeFilter(match_sub_type=True, sub_type=0), [False, False, True, True]),
    ],
)
def test_agent_and_debug_events_have_an_event_type(entry: EventTypeFilter, expected: list[bool]) -> None:
    rows, tables = other_kinds()
    assert answers(compile_filters([FlowFilter(event_type=[entry])]), rows, tables) == expected


@pytest.mark.parametrize(
    "content",
    [
        FlowFilter(trace_id=[""]),
        FlowFilter(encrypted=[False]),
        FlowFilter(ip_version=["IP_NOT_USED"]),
        FlowFilter(source_label=["!app"]),
        FlowFilter(verdict=["VERDICT_UNKNOWN"], event_type=[EventTypeFilter()]),
    ],
)
def test_agent_and_debug_events_do_not_match_what_looks_at_flows(content: FlowFilter) -> None:
    rows, tables = other_kinds()
    assert answers(compile_filters([content]), rows, tables)[:2] == [False, False]
    assert answers(compile_filters([], [content]), rows, tables)[:2] == [True, True]


def test_lost_events_pass_on_a_server_whatever_the_filters_say() -> None:
    tables = Tables()
    rows = lost_row(tables, 3)
    for predicate in compile_filters([FlowFilter(verdict=["DROPPED"])]), compile_filters([], [FlowFilter()]):
        assert answers(predicate, rows, tables) == [True]


@pytest.mark.parametrize(
    ("whitelist", "blacklist", "passes"),
    [
        ([FlowFilter(verdict=["FORWARDED"])], [], False),
        ([FlowFilter(verdict=["VERDICT_UNKNOWN"], encrypted=[False])], [], True),
        ([FlowFilter(event_type=[EventTypeFilter()])], [], False),
        ([FlowFilter(ip_version=["IP_NOT_USED"])], [], False),
        ([FlowFilter(source_label=["!app"])], [], True),
        ([], [FlowFilter(protocol=["udp"])], True),
        ([], [FlowFilter()], False),
    ],
)
def test_lost_events_of_a_file_are_judged_as_empty_flows(
    whitelist: list[FlowFilter], blacklist: list[FlowFilter], passes: bool
) -> None:
    tables = Tables()
    predicate = compile_filters(whitelist, blacklist)
    assert predicate.mask(lost_row(tables, 1), tables, lost_passes=False).tolist() == [passes]
    assert predicate.matches_nothing() == passes


def test_the_exporter_passes_lost_events_by_event_type_only() -> None:
    tables = Tables()
    rows = lost_row(tables, 1)
    assert compile_filters([FlowFilter(event_type=[EventTypeFilter(type=4)])]).export_mask(rows, tables).tolist() == [
        True
    ]
    assert compile_filters([FlowFilter(verdict=["VERDICT_UNKNOWN"])]).export_mask(rows, tables).tolist() == [False]
    assert compile_filters([], [FlowFilter(verdict=["VERDICT_UNKNOWN"])]).export_mask(rows, tables).tolist() == [True]


def test_values_that_come_later_are_judged_too() -> None:
    predicate = compile_filters([FlowFilter(source_pod=["ns-03/"])], [FlowFilter(http_url=["items/7"])])
    tables = Tables()
    for count in range(0, 40, 5):
        rows, _ = make_rows(200, endpoints=10 + count, connections=20 + count, tables=tables, seed=count)
        fresh = compile_filters([FlowFilter(source_pod=["ns-03/"])], [FlowFilter(http_url=["items/7"])])
        assert np.array_equal(predicate.mask(rows, tables), fresh.mask(rows, tables))


def test_answers_are_dropped_when_indices_change_their_meaning() -> None:
    rows, tables = make_rows(500, endpoints=50)
    predicate = compile_filters(
        [FlowFilter(source_pod=["ns-03/"]), FlowFilter(http_url=["items"]), FlowFilter(source_fqdn=["cdn.*"])]
    )
    predicate.mask(rows, tables)
    kept = rows[100:160].copy()
    expected = predicate.mask(kept, tables)
    tables.compact([kept])
    assert np.array_equal(predicate.mask(kept, tables), expected)


def test_one_predicate_serves_several_tables() -> None:
    predicate = compile_filters([FlowFilter(source_pod=["ns-01/"])])
    one, other = Tables(), Tables()
    one.endpoints.intern(make_endpoint(2).SerializeToString())
    for tables, expected in (one, False), (other, True), (one, False):
        rows = empty_rows(1)
        rows["src"] = 1 if tables is one else other.endpoints.intern(make_endpoint(1).SerializeToString())
        assert answers(predicate, rows, tables) == [expected]


def test_an_unknown_field_is_refused_and_not_ignored() -> None:
    unknown = FlowFilter.FromString(b"\xba\x06\x01x")
    with pytest.raises(InvalidFilter, match=r"unknown field 103 in flow\.FlowFilter"):
        compile_filters([unknown])
    inside = FlowFilter(source_workload=[flow_pb2.Workload.FromString(b"\xba\x06\x01x")])
    with pytest.raises(InvalidFilter, match=r"unknown field 103 in flow\.Workload"):
        compile_filters([], [inside])


def test_an_aux_entry_that_is_no_flow_matches_nothing_and_breaks_nothing() -> None:
    tables = Tables()
    rows = empty_rows(2)
    rows["aux"] = [0, tables.aux.intern(b"\xff\xff\xff")]
    assert answers(compile_filters([FlowFilter(http_method=["get"])]), rows, tables) == [False, False]
