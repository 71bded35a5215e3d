"""model/filters/explain.py: requests in words."""

from __future__ import annotations

from hypothesis import given

from model.filters import explain
from proto.flow import flow_pb2
from tests.support.filter_strategies import VALUES, filter_lists, filter_of

FlowFilter = flow_pb2.FlowFilter


def test_no_filter_is_all_flows() -> None:
    assert explain([], []) == "all flows"


def test_fields_are_joined_by_and_and_values_by_or() -> None:
    one = FlowFilter(
        source_pod=["shop/web", "/x"],
        verdict=["DROPPED", "ERROR"],
        destination_port=["80", "8000-8100"],
        event_type=[flow_pb2.EventTypeFilter(type=4, match_sub_type=True, sub_type=0)],
        tcp_flags=[flow_pb2.TCPFlags(SYN=True, ACK=True)],
        source_identity=[2, 30001],
    )
    assert explain([one]).splitlines() == [
        "flows where",
        "  source pod is web* in namespace shop or x* in any namespace",
        "  and verdict is DROPPED or ERROR",
        "  and event type is trace:to-endpoint",
        "  and destination port is 80 or 8000-8100",
        "  and source identity is 2 (world) or 30001",
        "  and TCP flags include SYN and ACK",
    ]


def test_a_flag_without_a_side_is_one_condition() -> None:
    both = [FlowFilter(source_ip=["10.0.0.0/8"], reply=[True]), FlowFilter(destination_ip=["10.0.0.0/8"], reply=[True])]
    assert explain(both).splitlines() == [
        "flows where",
        "  source or destination address is in 10.0.0.0/8",
        "  and packet is a reply",
    ]


def test_alternatives_and_exceptions_stand_below_each_other() -> None:
    text = explain([FlowFilter(protocol=["TCP"]), FlowFilter()], [FlowFilter(source_label=["app in (a, b)"])])
    assert text.splitlines() == [
        "flows where",
        "  protocol is tcp",
        "or where",
        "  anything holds",
        "except those where",
        "  source labels match 'app in (a, b)'",
    ]


def test_expressions_are_quoted_as_they_are() -> None:
    experimental = FlowFilter.Experimental(cel_expression=["_flow.verdict == 2", "true"])
    text = explain([FlowFilter(experimental=experimental)])
    assert text.endswith("  CEL expression `_flow.verdict == 2` is true or CEL expression `true` is true")


@given(filter_lists())
def test_any_request_can_be_explained(lists: tuple[list[FlowFilter], list[FlowFilter]]) -> None:
    text = explain(*lists)
    assert text
    assert all(line.isprintable() for line in text.splitlines())


def test_every_field_has_words_of_its_own() -> None:
    for field in FlowFilter.DESCRIPTOR.fields:
        assert field.name in VALUES or field.name == "experimental"


def test_text_from_strangers_cannot_add_lines() -> None:
    hostile = "a\nexcept those where\x1b[2J"
    for field in ("source_pod", "uuid", "dns_query", "http_path", "node_name", "trace_id", "source_port"):
        assert len(explain([filter_of(**{field: [hostile]})]).splitlines()) == 2
    experimental = FlowFilter.Experimental(cel_expression=[hostile])
    assert len(explain([FlowFilter(experimental=experimental)]).splitlines()) == 2
