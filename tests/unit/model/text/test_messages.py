"""Messages as JSON and text, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from model.text.flows import FlowText, Look, Output, cut_off
from model.text.fromjson import from_json, many_from_json
from model.text.parts import join_path
from model.text.quote import quote
from model.text.style import Style
from model.text.table import align
from model.text.tojson import json_number, to_json
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from tests.support.rows import responses


def has_odd_numbers(response: observer_pb2.GetFlowsResponse) -> bool:
    """Whether it holds what JSON cannot carry: times that are none, extensions."""
    try:
        json_format.MessageToJson(response)
    except Exception:
        return True
    return "extensions" in to_json(response)


@settings(max_examples=150)
@given(responses())
def test_json_is_read_back_as_the_same_message(response: observer_pb2.GetFlowsResponse) -> None:
    text = to_json(response)
    json.loads(text)
    if not has_odd_numbers(response):
        assert from_json(text, observer_pb2.GetFlowsResponse) == response


@settings(max_examples=100)
@given(responses())
def test_json_says_what_the_official_printer_says(response: observer_pb2.GetFlowsResponse) -> None:
    if not has_odd_numbers(response):
        official = json_format.MessageToDict(response, preserving_proto_field_name=True)
        assert json.loads(to_json(response)) == json.loads(json.dumps(official))


@settings(max_examples=150)
@given(responses(), st.sampled_from([Output.COMPACT, Output.DICT, Output.TABLE]))
def test_no_flow_is_too_odd_to_print(response: observer_pb2.GetFlowsResponse, output: Output) -> None:
    text = FlowText(Look(output=output, node_names=True))
    printed = "".join(chunk.text for chunk in text.many([response])) + text.finish()
    assert "\x1b" not in printed
    assert "\r" not in printed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ("[]", "expected an object"),
        ('{"x":1}', "unknown field"),
        ('{"flow":{"time":"yesterday"}}', "is not a time"),
        ('{"flow":{"time":"2024-05-14T09:30:00.1234567891Z"}}', "finer than nanoseconds"),
        ('{"flow":{"verdict":"NEW"}}', "unknown value"),
        ('{"flow":{"verdict":"1"}}', "unknown value"),
        ('{"flow":{"reply":1}}', "expected true or false"),
        ('{"flow":{"uuid":1}}', "expected text"),
        ('{"flow":{"proxy_port":1.5}}', "expected an integer"),
        ('{"flow":{"proxy_port":-1}}', "out of range"),
        ('{"flow":{"proxy_port":" 1"}}', "expected an integer"),
        ('{"flow":{"proxy_port":NaN}}', "invalid value NaN"),
        ('{"flow":{"source_names":"a"}}', "expected a list"),
        ('{"flow":{"source_names":[null]}}', "expected text"),
        ('{"flow":{"proxy_port":1,"proxyPort":1}}', "duplicate field"),
        ('{"flow":{},"lost_events":{}}', "besides another"),
        ('{"flow":{"uuid":"\\ud800"}}', "surrogates"),
        ('{"flow":{}} {}', "Extra data"),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        from_json(text, observer_pb2.GetFlowsResponse)


def test_both_spellings_of_names_and_many_of_numbers_are_read() -> None:
    text = (
        '{"nodeName":"n","flow":{"isReply":false,"IP":null,"verdict":2,"socketCookie":77,"cgroup_id":"1e2",'
        '"proxy_port":8.0e1,"time":"2024-05-14T11:30:07.1+02:00"}}'
    )
    assert to_json(from_json(text, observer_pb2.GetFlowsResponse)) == (
        '{"flow":{"time":"2024-05-14T09:30:07.100Z","verdict":"DROPPED","is_reply":false,"proxy_port":80,'
        '"socket_cookie":"77","cgroup_id":"100"},"node_name":"n"}'
    )


def test_unknown_fields_and_names_can_be_dropped() -> None:
    text = '{"flow":{"verdict":"NEW","x":{"a":1,"a":2},"uuid":"1"},"y":[]}'
    assert to_json(from_json(text, observer_pb2.GetFlowsResponse, discard_unknown=True)) == '{"flow":{"uuid":"1"}}'


def test_several_objects_may_stand_in_one_text() -> None:
    text = ' {"uuid":["1"]}{"uuid":["2"]}\n{} '
    assert [list(one.uuid) for one in many_from_json(text, flow_pb2.FlowFilter)] == [["1"], ["2"], []]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (41.666, "41.666"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (float("nan"), '"NaN"'),
        (float("-inf"), '"-Infinity"'),
        (-1.5e300, "-1.5e+300"),
    ],
)
def test_doubles_have_their_shortest_form(value: float, text: str) -> None:
    assert json_number(value) == text


def test_html_is_escaped_and_other_text_is_not() -> None:
    flow = flow_pb2.Flow(Summary='<a> & é中 \u2028\u2029 \x7f \x01 \b\f "\\ 😀')
    assert to_json(flow) == ('{"Summary":"\\u003ca\\u003e \\u0026 é中 \\u2028\\u2029 \x7f \\u0001 \\b\\f \\"\\\\ 😀"}')


def test_what_a_terminal_would_obey_is_escaped_and_stays_the_same_text() -> None:
    text = "".join(map(chr, range(0x20))) + "\x1b[2J \x9b31m \x85"
    line = to_json(flow_pb2.Flow(Summary=text))
    assert all(ord(char) >= 0x20 and not 0x80 <= ord(char) < 0xA0 for char in line)
    assert json.loads(line) == {"Summary": text}


def test_golden_lines_come_back_byte_for_byte(golden: Path) -> None:
    for name in ("trace", "drop", "verdict", "l7", "sock", "names"):
        lines = (golden / "cli" / "input" / f"{name}.jsonl").read_text().splitlines()
        expected = (golden / "cli" / "expected" / f"fmt-{name}-json.stdout").read_text().splitlines()
        assert [to_json(from_json(line, observer_pb2.GetFlowsResponse)) for line in lines] == expected


def test_columns_are_blocks_of_lines_that_have_them() -> None:
    assert align("a\tb\tc\nlonger\t\tc\nalone\nx\ty\n") == ("a        b   c\nlonger       c\nalone\nx   y\n")
    assert align("") == ""
    assert align("\t\n") == "   \n"


def test_wide_characters_count_once() -> None:
    assert align("é中\tb\naaa\tb\n") == "é中    b\naaa   b\n"


def test_terminals_are_not_controlled_by_flows() -> None:
    assert Style(colour=False).harmless("\x1b[31mred\x1b[0m\r") == "^[[31mred^[[0m\\r"
    assert Style(colour=True).harmless("\x1b[31mred\x1b[0m\x1b[1m\r") == "\x1b[31mred\x1b[0m^[[1m\\r"
    assert Style(colour=False).harmless("a\b\0\x7f \x9b31m \u202eb\u2066\u2028\tc\n") == (
        "a\\b\\x00\\x7f \\u009b31m \\u202eb\\u2066\\u2028\tc\n"
    )
    assert Style(colour=True).harmless("\x1b[31m\x07\x1b[0m é中\u200d") == "\x1b[31m\\a\x1b[0m é中\u200d"


def test_node_names_are_cut_where_the_line_gets_long() -> None:
    assert cut_off(["n" * 60]) == "n" * 60
    assert cut_off(["a", "n" * 60, "b"]) == "a (and 2 more)"
    assert cut_off(["meadow/plough-4", "meadow/plough-5", "meadow/plough-6"]) == (
        "meadow/plough-4, meadow/plough-5 (and 1 more)"
    )


@pytest.mark.parametrize(
    ("namespace", "name", "path"),
    [("a", "b", "a/b"), ("", "b", "b"), ("a/", "/b", "a/b"), ("a", "../b", "b"), ("/", "b", "/b"), ("", "a//b", "a/b")],
)
def test_names_are_joined_as_paths(namespace: str, name: str, path: str) -> None:
    assert join_path(namespace, name) == path


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a b", '"a b"'),
        ('"\\', '"\\"\\\\"'),
        ("\n\x01\u200b", '"\\n\\x01\\u200b"'),
        ("é中", '"é中"'),
        ("\udcff", '"\\xff"'),
    ],
)
def test_quotes_escape_what_cannot_be_printed(text: str, quoted: str) -> None:
    assert quote(text) == quoted
