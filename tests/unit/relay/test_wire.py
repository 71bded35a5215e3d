"""Times are read off encoded messages, whatever their shape, and messages change places whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encode import Encoder
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from relay.wire import ITEM, gather, items_of, progress_of
from rpc.framing import PREFIX, PREFIX_SIZE, frame, split
from tests.support.rows import make_rows

MAX_NS = 9_223_372_035 * 10**9
"""A second before 64 bits of nanoseconds end, in 2262."""


def response(time_ns: int | None, summary: str = "", node: str = "n") -> observer_pb2.GetFlowsResponse:
    message = observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow(Summary=summary), node_name=node)
    if time_ns is not None:
        message.time.FromNanoseconds(time_ns)
    return message


def read(*messages: observer_pb2.GetFlowsResponse) -> list[int]:
    buffer = b"".join(map(frame, messages))
    times: list[int] = items_of(buffer, split(buffer, 10**6)[0], 0)["ts_ns"].tolist()
    return times


@given(st.lists(st.tuples(st.one_of(st.none(), st.integers(0, MAX_NS)), st.text(max_size=20)), max_size=20))
@settings(max_examples=200)
def test_the_time_read_off_the_bytes_is_the_time_of_the_message(shapes: list[tuple[int | None, str]]) -> None:
    messages = [response(time_ns, text) for time_ns, text in shapes]
    assert read(*messages) == [message.time.ToNanoseconds() for message in messages]


@pytest.mark.parametrize("nanos", [0, 1, 127, 128, 16_383, 16_384, 2**21 - 1, 2**21, 2**28 - 1, 2**28, 999_999_999])
@pytest.mark.parametrize("seconds", [0, 1, 2**28 - 1, 2**28, 1_768_471_200, 2**32, 2**33])
def test_every_length_of_time_is_read(seconds: int, nanos: int) -> None:
    assert read(response(seconds * 10**9 + nanos, "text")) == [seconds * 10**9 + nanos]


def test_the_time_of_our_own_messages_stands_in_front() -> None:
    rows, tables = make_rows(200)
    rows["ts_ns"][:20] = rows["ts_ns"][:20] // 10**9 * 10**9
    encoded = Encoder(tables).responses(rows)
    buffer, ends = bytes(encoded.buffer), encoded.ends.tolist()
    assert items_of(buffer, ends, 0)["ts_ns"].tolist() == rows["ts_ns"].tolist()
    starts = np.concatenate(([0], encoded.ends[:-1]))
    windows = np.frombuffer(buffer, np.uint8)[starts[:, None] + PREFIX_SIZE + np.arange(2)]
    assert (windows == [0xCA, 0x3E]).all()  # else every time is decoded, which takes a hundred times as long


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
@settings(max_examples=200)
def test_times_that_no_clock_shows_are_read_or_clamped(seconds: int, nanos: int) -> None:
    message = response(None, "text")
    message.time.seconds, message.time.nanos = seconds, nanos
    (time_ns,) = read(message)
    expected = seconds * 10**9 + nanos
    assert time_ns == expected or abs(expected) > 9_223_372_034 * 10**9


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=10))
@settings(max_examples=200)
def test_bytes_that_are_no_message_have_some_time_and_do_no_harm(bodies: list[bytes]) -> None:
    buffer = b"".join(PREFIX.pack(0, len(body)) + body for body in bodies)
    ends, _ = split(buffer, 10**6)
    assert len(items_of(buffer, ends, 0)) == len(bodies)


@given(st.data())
@settings(max_examples=100)
def test_messages_are_gathered_in_any_order(data: st.DataObject) -> None:
    buffers = {}
    parts = []
    for number in range(data.draw(st.integers(1, 3))):
        messages = [frame(response(index, "x" * index)) for index in range(data.draw(st.integers(1, 6)))]
        buffers[number] = b"".join(messages)
        parts.append(items_of(buffers[number], split(buffers[number], 10**6)[0], number))
    items = np.concatenate(parts)
    order = data.draw(st.permutations(range(len(items))))
    taken = data.draw(st.integers(0, len(items)))
    picked = items[list(order[:taken])]
    assert gather(picked, buffers) == b"".join(
        buffers[int(one["buffer"])][int(one["start"]) : int(one["end"])] for one in picked
    )


def test_a_message_that_only_has_a_time_is_progress() -> None:
    only_time = observer_pb2.GetFlowsResponse()
    only_time.time.FromNanoseconds(1_700_000_000_123_456_789)
    lost = observer_pb2.GetFlowsResponse(lost_events=flow_pb2.LostEvent(num_events_lost=3))
    empty = observer_pb2.GetFlowsResponse()
    buffer = b"".join(map(frame, [only_time, response(5), lost, empty]))
    items = items_of(buffer, split(buffer, 10**6)[0], 0)
    assert progress_of(buffer, items).tolist() == [True, False, False, False]
    assert items["ts_ns"][0] == 1_700_000_000_123_456_789


def test_an_empty_buffer_has_no_items() -> None:
    assert len(items_of(b"", [], 0)) == 0
    assert gather(np.zeros(0, ITEM), {}) == b""
