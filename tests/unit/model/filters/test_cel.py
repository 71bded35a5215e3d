"""model/filters/cel: expressions, their types, and rows that are grouped before they are asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encode import Encoder
from model.filters import InvalidFilter, compile_filters
from model.filters.cel.compiler import CelError, bool_expression, compile_expression
from model.filters.cel.functions import CelRuntimeError
from model.filters.cel.groups import Answers, Numbering
from model.filters.cel.term import source_of
from model.row import Kind, Rows
from model.tables import Tables
from proto.flow import flow_pb2
from tests.support.rows import make_rows, tables_and_rows
from tests.support.small_rows import joined, kinds_row, lost_row


def example() -> flow_pb2.Flow:
    flow = flow_pb2.Flow(verdict="DROPPED", node_name="east/worker-1")
    flow.time.FromJsonString("2024-05-14T09:30:00.123456789Z")
    flow.l4.TCP.destination_port = 5432
    flow.IP.source, flow.IP.ipVersion = "10.0.0.1", flow_pb2.IPv4
    flow.source.labels.extend(["k8s:app=web", "k8s:tier=front"])
    flow.source.workloads.add(name="web", kind="Deployment")
    flow.is_reply.value = False
    flow.l7.http.code = 404
    return flow


def cel(*expressions: str) -> flow_pb2.FlowFilter:
    return flow_pb2.FlowFilter(experimental=flow_pb2.FlowFilter.Experimental(cel_expression=expressions))


@pytest.mark.parametrize(
    "text",
    [
        "_flow.l4.TCP.destination_port == uint(5432) && _flow.verdict == Verdict.DROPPED",
        "_flow.verdict == flow.Verdict.DROPPED && Tunnel.Protocol.VXLAN == 1",
        "_flow.verdict in [Verdict.ERROR, Verdict.DROPPED]",
        "has(_flow.l4.TCP) && !has(_flow.l4.UDP) && !has(_flow.destination)",
        "has(_flow.source.labels) && has(_flow.node_name) && !has(_flow.uuid)",
        "_flow.l4.UDP.destination_port == 0u",
        "_flow.destination.pod_name == ''",
        "_flow.is_reply == false && _flow.is_reply != null && !_flow.is_reply",
        "_flow.time > timestamp('2024-05-14T09:30:00.123456788Z')",
        "_flow.time - timestamp('2024-05-14T09:00:00Z') < duration('31m')",
        "_flow.time.getHours() == 9 && _flow.time.getHours('+02:00') == 11 && _flow.time.getDayOfWeek() == 2",
        "_flow.source.labels.exists(l, l.startsWith('k8s:app')) && _flow.source.labels.all(l, l.contains('='))",
        "_flow.source.labels.exists_one(l, l.endsWith('front'))",
        "_flow.source.labels.map(l, size(l)) == [11, 14]",
        "_flow.source.labels.filter(l, l.matches('tier'))[0] == 'k8s:tier=front'",
        "_flow.source.workloads[0].kind + '/' + _flow.source.workloads[0].name == 'Deployment/web'",
        "_flow.IP.source.matches(r'^10\\.')",
        "int(_flow.l7.http.code / 100u) == 4 && _flow.l7.http.code % 100u == 4u",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "_flow.verdict == 2 ? true : 1 / 0 == 1",
        "-7 / 2 == -3 && -7 % 2 == -1",
        "'a' in {'a': 1} && {'a': 1}['a'] == 1 && {'a': 1}.a == 1",
        "string(1.5) == '1.5' && string(_flow.time) == '2024-05-14T09:30:00.123456789Z' && double('2') == 2.0",
        "duration('1h30m').getMinutes() == 90 && duration('-1.5s') < duration('0')",
        "type(_flow.verdict) == int && type('a') == string && type(null) == null_type",
        "b'\\xff' == b'\\xff' && size('ä') == 1 && size(b'ab') == 2 && 0x10 == 16 && 1.0e2 == 100.0",
        "dyn(1) == dyn(1.0) && [1, 'a'].exists(x, x == 'a') && !(dyn(true) == dyn(1))",
        "_flow.source != null && _flow.source == _flow.source",
        "_flow.extensions == null",
    ],
)  # fmt: skip
def test_an_expression_holds(text: str) -> None:
    assert bool_expression(text).evaluate(example()) is True


@pytest.mark.parametrize(
    "text",
    [
        "1 / 0 == 1",
        "1u - 2u == 0u",
        "9223372036854775807 + 1 == 0",
        "_flow.source.labels[2] == ''",
        "{'a': 1}['b'] == 1",
        "int('x') == 1",
        "false || 1 % 0 == 1",
        "[1, 0].all(x, 1 / x == 1)",
        "timestamp('yesterday') == _flow.time",
        "dyn('a') + dyn(1) == 'a'",
        "'a'.matches('(')",
    ],
)
def test_an_expression_without_a_value_fails_for_that_flow_only(text: str) -> None:
    with pytest.raises(CelRuntimeError):
        bool_expression(text).evaluate(example())


def test_a_reply_that_is_not_known_is_null_and_no_bool() -> None:
    assert bool_expression("_flow.is_reply == null").evaluate(flow_pb2.Flow()) is True
    with pytest.raises(CelRuntimeError):
        bool_expression("!_flow.is_reply").evaluate(flow_pb2.Flow())


def test_an_expression_that_fails_ends_the_matter() -> None:
    assert not compile_filters([cel("1 / 0 == 1", "true")]).matches(example())
    assert compile_filters([cel("true", "1 / 0 == 1")]).matches(example())
    assert compile_filters([cel("false", "true")]).matches(example())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_flow.verdict", 'got "int", wanted "bool" result type'),
        ("_flow.is_reply", 'got "wrapper(bool)", wanted "bool" result type'),
        ("_flow", 'got "flow.Flow", wanted "bool" result type'),
        ("_flow.time", 'got "google.protobuf.Timestamp", wanted "bool" result type'),
        ("_flow.source.labels", 'got "list(string)", wanted "bool" result type'),
        ("null", 'got "null_type", wanted "bool" result type'),
        (
            "_flow.l4.TCP.destination_port < 1024",
            "ERROR: <input>:1:31: found no matching overload for '_<_' applied to '(uint, int)'\n"
            " | _flow.l4.TCP.destination_port < 1024\n | ..............................^",
        ),
        (
            "_flow.nope == 1",
            "ERROR: <input>:1:6: undefined field 'nope'\n | _flow.nope == 1\n | .....^",
        ),
        (
            "something-invalid",
            "ERROR: <input>:1:1: undeclared reference to 'something' (in container 'flow')\n"
            " | something-invalid\n | ^\n"
            "ERROR: <input>:1:11: undeclared reference to 'invalid' (in container 'flow')\n"
            " | something-invalid\n | ..........^",
        ),
        (
            "true &&\n  _flow.verdict",
            "ERROR: <input>:1:6: found no matching overload for '_&&_' applied to '(bool, int)'\n | true &&\n | .....^",
        ),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', "
            "'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
        ),
        ("1 1", "ERROR: <input>:1:3: Syntax error: extraneous input '1' expecting <EOF>\n | 1 1\n | ..^"),
        ("'a", "ERROR: <input>:1:1: Syntax error: token recognition error at: '''\n | 'a\n | ^"),
        ("9223372036854775808 == 1", "ERROR: <input>:1:1: invalid int literal\n | 9223372036854775808 == 1\n | ^"),
    ],
)
def test_a_mistake_is_shown_where_it_is(text: str, message: str) -> None:
    with pytest.raises(CelError) as refused:
        bool_expression(text)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "(" * 2000 + "true" + ")" * 2000,
        "!" * 4000 + "true",
        "[" * 2000 + "]" * 2000,
        "true ? " * 500,
        "x" * 5000,
        "1+" * 2000 + "1",
        "true && " * 400 + "true",
        "_flow." * 600 + "time",
    ],
)
def test_a_huge_expression_is_answered_and_does_no_harm(text: str) -> None:
    with suppress(CelError, CelRuntimeError):
        bool_expression(text).evaluate(example())


def test_an_expression_cannot_run_forever() -> None:
    numbers = f"[{','.join('1' * 40)}]"
    text = f"{numbers}.all(a, {numbers}.all(b, {numbers}.all(c, {numbers}.all(d, a + b + c + d > 0))))"
    with pytest.raises(CelRuntimeError):
        bool_expression(text).evaluate(example())


@given(st.text(max_size=30) | st.text("_flow.verdict()[]{}!&|'\"=<>+-*/%,:? 0123456789u", max_size=30))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    with suppress(CelError, CelRuntimeError):
        compile_expression(text).evaluate(example())


GROUPED: list[tuple[str, Callable[[flow_pb2.Flow], bool]]] = [
    ("_flow.verdict == Verdict.DROPPED", lambda flow: flow.verdict == flow_pb2.DROPPED),
    ("_flow.l4.TCP.destination_port == 443u", lambda flow: flow.l4.TCP.destination_port == 443),
    ("has(_flow.l4.UDP)", lambda flow: flow.l4.HasField("UDP")),
    ("_flow.l4.TCP.flags.SYN", lambda flow: flow.l4.TCP.flags.SYN),
    ("_flow.IP.source.startsWith('10.244.0.')", lambda flow: flow.IP.source.startswith("10.244.0.")),
    ("_flow.source.pod_name.contains('app-03')", lambda flow: "app-03" in flow.source.pod_name),
    ("_flow.l7.http.url.endsWith('7')", lambda flow: flow.l7.http.url.endswith("7")),
    ("_flow.event_type.sub_type == 3 && _flow.event_type.type == 4", lambda flow: flow.event_type.sub_type == 3 and
     flow.event_type.type == 4),
    ("_flow.is_reply == true", lambda flow: flow.HasField("is_reply") and flow.is_reply.value),
    ("_flow.node_name == 'worker-0'", lambda flow: flow.node_name == "worker-0"),
    ("_flow.interface.name != ''", lambda flow: flow.interface.name != ""),
    ("_flow.uuid.endsWith('7')", lambda flow: flow.uuid.endswith("7")),
    ("_flow.time.getSeconds() == 0 || size(_flow.Summary) > 12", lambda flow: flow.time.seconds % 60 == 0 or
     len(flow.Summary) > 12),
    ("_flow.drop_reason == 133u && _flow.drop_reason_desc == DropReason.POLICY_DENIED", lambda flow: flow.drop_reason ==
     133 and flow.drop_reason_desc == 133),
    ("_flow == _flow && !_flow.IP.encrypted", lambda flow: not flow.IP.encrypted),
    ("_flow.traffic_direction == 1 && _flow.policy_match_type == 2u", lambda flow: flow.traffic_direction == 1 and
     flow.policy_match_type == 2),
    ("_flow.destination_service.name != '' && size(_flow.source_names) == 0", lambda flow:
     flow.destination_service.name != "" and not flow.source_names),
    ("_flow.egress_allowed_by.size() + _flow.ingress_denied_by.size() > 0", lambda flow:
     len(flow.egress_allowed_by) + len(flow.ingress_denied_by) > 0),
]  # fmt: skip


@pytest.mark.parametrize("repeat", [1, 2])
@pytest.mark.parametrize("number", range(len(GROUPED)))
def test_rows_in_groups_get_the_answers_of_single_flows(number: int, repeat: int) -> None:
    text, wanted = GROUPED[number]
    predicate = compile_filters([cel(text)])
    for seed in range(repeat):
        rows, tables = make_rows(400, endpoints=40, connections=30, nodes=2, seed=seed)
        assert predicate.mask(rows, tables).tolist() == [wanted(flow) for flow in Encoder(tables).flows(rows)]


@settings(max_examples=60)
@given(tables_and_rows(kinds=(Kind.FLOW,)))
def test_odd_rows_in_groups_get_the_answers_of_single_flows(drawn: tuple[Tables, Rows]) -> None:
    tables, rows = drawn
    flows = Encoder(tables).flows(rows)
    for text, _ in GROUPED:
        predicate = compile_filters([cel(text)])
        assert predicate.mask(rows, tables).tolist() == [predicate.matches(flow) for flow in flows]


def test_other_kinds_of_rows_are_not_asked() -> None:
    rows, tables = make_rows(4, endpoints=4)
    mixed = joined([rows, kinds_row(Kind.AGENT), kinds_row(Kind.DEBUG), lost_row(tables, 1)])
    assert compile_filters([cel("true")]).mask(mixed, tables).tolist() == [True] * 4 + [False, False, True]


def test_an_expression_says_which_columns_it_looks_at() -> None:
    def columns(text: str) -> tuple[str, ...] | None:
        source = source_of(bool_expression(text).reads)
        return None if source is None else source.columns

    assert columns("_flow.l4.TCP.destination_port == 1u") == ("dport", "l4")
    assert columns("has(_flow.source.labels) && has(_flow.l4.TCP)") == ("l4", "src")
    assert columns("_flow.l7.http.method == 'GET'") == ("aux",)
    assert columns("_flow.time != null") is None
    assert columns("_flow.source == _flow.source && _flow != null") is None


WIDE = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63, 2**64 - 1])
NARROW = st.integers(-3, 3)


@given(st.data(), st.lists(st.sampled_from([np.uint8, np.uint64, np.int32]), min_size=1, max_size=4))
def test_equal_rows_and_no_others_share_a_key(data: st.DataObject, kinds: list[Any]) -> None:
    numbering, seen = Numbering(), dict[tuple[int, ...], dict[int, tuple[int, ...]]]()
    for _ in range(3):
        count = data.draw(st.integers(1, 20))
        values: dict[Any, st.SearchStrategy[int]] = {np.uint8: st.integers(0, 255), np.uint64: WIDE, np.int32: NARROW}
        columns = [np.array(data.draw(st.lists(values[kind], min_size=count, max_size=count)), kind) for kind in kinds]
        keys = numbering.keys(columns)
        assert keys is not None
        rows = list(zip(*(column.tolist() for column in columns), strict=True))
        by_key = seen.setdefault(numbering.layout, {})
        for key, row in zip(keys.tolist(), rows, strict=True):
            assert by_key.setdefault(key, row) == row
        assert len(set(keys.tolist())) == len(set(rows))


@given(st.data(), st.sampled_from([(3, 4), (40,)]))
def test_answers_are_remembered_by_key_until_the_layout_changes(data: st.DataObject, layout: tuple[int, ...]) -> None:
    answers, model = Answers(), dict[int, bool]()
    for _ in range(5):
        keys = np.array(data.draw(st.lists(st.integers(0, 2 ** sum(layout) - 1) | st.integers(0, 9), min_size=1)))
        assert answers.of(keys, layout).tolist() == [int(model.get(key, -1)) for key in keys.tolist()]
        new = sorted(set(keys.tolist()) - set(model))
        model |= {key: key % 3 == 0 for key in new}
        answers.add(np.array(new, np.int64), np.array([model[key] for key in new], np.bool_))
    assert len(answers) == len(model)
    assert (answers.of(np.array([0]), (1, *layout)) == -1).all()


def test_a_filter_with_an_expression_is_refused_like_any_other() -> None:
    with pytest.raises(InvalidFilter, match=r'^error compiling CEL expression: got "int", wanted "bool"'):
        compile_filters([cel("1")])
