"""Reading lines by what differs says the same as reading them one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.observe.files import LineReader, LineTooLong, lines_of
from cli.observe.records import FastRecords, SlowRecords
from model.encode import Encoder
from model.filters import compile_filters
from model.text.flows import Chunk, FlowText, Look, Output, join
from model.text.lines import parse_times
from model.text.times import json_time
from model.text.tojson import to_json
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from tests.support.rows import make_rows, responses

OUTPUTS = (Output.COMPACT, Output.DICT, Output.TABLE, Output.JSON)

REQUESTS = (
    observer_pb2.GetFlowsRequest(),
    observer_pb2.GetFlowsRequest(whitelist=[flow_pb2.FlowFilter(verdict=[flow_pb2.FORWARDED])]),
    observer_pb2.GetFlowsRequest(blacklist=[flow_pb2.FlowFilter(destination_port=["80"])]),
    observer_pb2.GetFlowsRequest(since={"seconds": 1_768_471_200, "nanos": 5_000_000}),
    observer_pb2.GetFlowsRequest(until={"seconds": 1_768_471_200, "nanos": 5_000_000}),
)


def printed(
    which: type[FastRecords] | type[SlowRecords],
    lines: Sequence[bytes],
    request: observer_pb2.GetFlowsRequest,
    look: Look,
) -> tuple[list[Chunk], str]:
    text = FlowText(look)
    records = which(request, compile_filters(request.whitelist, request.blacklist), text)
    reader = LineReader()
    chunks: list[Chunk] = []
    # Small batches: kinds of lines are learned on the way.
    for start in range(0, len(lines), 5):
        chunks += records.select(lines[start : start + 5], start, reader).chunks()
    return join(chunks), text.finish()


def check(lines: Sequence[bytes], request: observer_pb2.GetFlowsRequest, look: Look) -> None:
    assert printed(FastRecords, lines, request, look) == printed(SlowRecords, lines, request, look)


def many_lines(count: int) -> list[bytes]:
    rows, tables = make_rows(count, endpoints=6, connections=4)
    encoded = Encoder(tables).responses(rows)
    return [
        to_json(observer_pb2.GetFlowsResponse.FromString(encoded.payload(at))).encode() for at in range(len(encoded))
    ]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """A line of ours with something else in a place that differs from line to line, or anywhere."""
    line = draw(st.sampled_from(many_lines(40)))
    old = draw(
        st.sampled_from([b'"time":"', b'"uuid":"', b'"source_port":', b'"destination_port":', b"}", b'"', b",", b"2"])
    )
    new = draw(
        st.sampled_from(
            [
                b'"time":"x',
                b'"uuid":"<',
                b'"source_port":0',
                b'"source_port":00',
                b'"source_port":"8", "x":',
                b"}}",
                b" }",
                b'"tunnel":{"l4":{"TCP":{"source_port":7}}},"source_port":',
                b'"',
                b"\\",
                b"\x00",
                b"\xff",
                b", ",
                b"9",
                b"",
            ]
        )
    )
    return line.replace(old, new, draw(st.sampled_from([1, 2, -1])))


LINES = st.one_of(
    st.sampled_from(many_lines(40)),
    st.sampled_from(many_lines(40)),
    st.sampled_from(many_lines(40)),
    spoiled(),
    responses().map(lambda response: to_json(response).encode()),
    st.sampled_from(
        [
            b"",
            b"{}",
            b"nonsense",
            b'{"agent_event":{}}',
            b'{"node_status":{"state_change":"NODE_ERROR"},"time":"2026-01-15T10:00:00Z"}',
            b'{"lost_events":{"num_events_lost":"3"},"time":"2026-01-15T10:00:00Z"}',
        ]
    ),
)


@settings(max_examples=150)
@given(st.lists(LINES, max_size=14), st.sampled_from(REQUESTS), st.sampled_from(OUTPUTS))
def test_fast_and_slow_reading_agree_on_any_lines(
    lines: list[bytes], request: observer_pb2.GetFlowsRequest, output: Output
) -> None:
    check([*lines, *lines, *lines], request, Look(output=output, node_names=True))


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("request_number", range(len(REQUESTS)))
def test_fast_and_slow_reading_agree_on_usual_lines(output: Output, request_number: int) -> None:
    check(many_lines(1_000), REQUESTS[request_number], Look(output=output))


@pytest.mark.parametrize("name", ["mixed", "events", "lenient", "names", "l7"])
def test_fast_and_slow_reading_agree_on_golden_lines(name: str, golden: Path) -> None:
    lines = (golden / "cli" / "input" / f"{name}.jsonl").read_bytes().splitlines() * 3
    for output in OUTPUTS:
        check(lines, REQUESTS[0], Look(output=output))


def test_most_lines_are_read_the_fast_way() -> None:
    from model.text.lines import Lines

    lines = many_lines(3_000)
    reader = Lines()
    read_one = LineReader().quietly
    reader.read(lines, read_one)
    assert reader.read(lines, read_one).regular.mean() > 0.99


@pytest.mark.parametrize("count", [0, 1, 3, 30])
def test_the_first_and_the_last_records_can_be_taken(count: int) -> None:
    look = Look()
    lines = [*many_lines(20), b"{}", b'{"lost_events":{}}', b'{"node_status":{"state_change":4}}'] * 2
    for which in (FastRecords, SlowRecords):
        text = FlowText(look)
        records = which(REQUESTS[0], compile_filters([], []), text).select(lines, 0, LineReader())
        slow = SlowRecords(REQUESTS[0], compile_filters([], []), FlowText(look)).select(lines, 0, LineReader())
        count = min(count, len(records))
        assert join(records.first(count).chunks()) == join(slow.first(count).chunks())
        assert join(records.last(count).chunks()) == join(slow.last(count).chunks())


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(st.integers(1, (1 << 62)).map(lambda ns: json_time().one(*divmod(ns, 10**9))), st.text(max_size=30))
    )
)
def test_times_are_parsed_in_batches_as_one_by_one(texts: list[str]) -> None:
    from model.text.times import parse_rfc3339

    ns, good, neat = parse_times([text.encode() for text in texts])
    assert not np.any(neat & ~good)
    for text, found, is_good in zip(texts, ns.tolist(), good.tolist(), strict=True):
        if is_good:
            seconds, nanos = parse_rfc3339(text)
            assert found == seconds * 10**9 + nanos
            assert not (neat[0] if len(texts) == 1 else False) or json_time().one(seconds, nanos) == text


def pipe_of(data: bytes) -> Iterator[list[bytes]]:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    return lines_of(read)


def test_lines_need_no_end_at_the_end() -> None:
    assert list(pipe_of(b"a\nb\n\nc")) == [[b"a", b"b", b""], [b"c"]]
    assert list(pipe_of(b"")) == []


def test_a_line_of_64_kib_ends_the_reading_behind_what_came_before() -> None:
    assert [len(line) for lines in pipe_of(b"x" * 65_535 + b"\n") for line in lines] == [65_535]


def test_a_longer_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"a\nb\n" + b"x" * 65_536 + b"\nc\n")
    file = os.open(path, os.O_RDONLY)
    batches = lines_of(file)
    assert next(batches) == [b"a", b"b"]
    with pytest.raises(LineTooLong):
        next(batches)
    os.close(file)
