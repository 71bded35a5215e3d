"""Events and records of one moment come out in order of time, and nothing is held for ever."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from model.decode.lines import SEPARATOR, Lines, read_lines
from model.layouts import MessageType, TracePoint
from observer.order import HOLD_NS, KEEP_NS, Order
from tests.support.batches import make_batch

START = 1_800_000_000_000_000_000
TO_PROXY = bytes([MessageType.TRACE, TracePoint.TO_PROXY])
OTHER = bytes([MessageType.TRACE, TracePoint.TO_ENDPOINT])


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def record(ns: int) -> dict[str, str]:
    seconds, nanos = divmod(ns, 1_000_000_000)
    return {"timestamp": f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"}


def lines(*times_ns: int) -> Lines:
    return read_lines([SEPARATOR.join([str(ns), "0", "1", "", "", "", "shape"]).encode() for ns in times_ns])


def test_where_no_packet_goes_to_a_proxy_nothing_waits() -> None:
    order = Order(Clock())
    assert not order.holds(make_batch([OTHER], [START]))
    assert order.wait_s() is None


def test_a_record_that_comes_late_stands_between_the_packets_of_its_time() -> None:
    clock = Clock()
    order = Order(clock)
    assert order.holds(make_batch([TO_PROXY, OTHER], [START - 3, START - 1]))
    order.add([record(START - 2)], START)
    assert order.due() == ([], [], [])
    clock.now += HOLD_NS - 2
    batches, records, _ = order.due()
    assert [batch.times_ns.tolist() for batch in batches] == [[START - 3]]
    assert [time for time, _ in records] == [START - 2]
    clock.now += 2
    assert [batch.times_ns.tolist() for batch in order.due()[0]] == [[START - 1]]
    assert order.wait_s() is None


def test_holding_ends_some_time_after_the_last_packet_to_a_proxy() -> None:
    clock = Clock()
    order = Order(clock)
    order.holds(make_batch([TO_PROXY], [START]))
    clock.now += KEEP_NS
    order.due()
    assert not order.holds(make_batch([OTHER], [clock.now]))


def test_a_time_that_cannot_be_is_not_believed() -> None:
    clock = Clock()
    order = Order(clock)
    order.add([record(START + 10**12), record(START - 10**12), {"timestamp": "x"}, {}], START)
    clock.now += HOLD_NS
    assert [time for time, _ in order.due()[1]] == [START] * 4


def test_lines_come_out_when_each_is_due() -> None:
    clock = Clock()
    order = Order(clock)
    order.add_lines(lines(START - 2, START - 9, START), START)
    clock.now += HOLD_NS - 2
    assert [times.tolist() for times, _ in order.due().lines] == [[START - 2, START - 9]]
    assert order.wait_s() is not None
    clock.now += 2
    assert [(times.tolist(), one.times_ns.tolist()) for times, one in order.due().lines] == [([START], [START])]
    assert order.wait_s() is None


def test_a_line_s_time_that_cannot_be_is_not_believed() -> None:
    order = Order(Clock())
    order.add_lines(lines(START + 1, START - 10**12, START - 1), START)
    assert [times.tolist() for times, _ in order.due(everything=True).lines] == [[START, START, START - 1]]


@given(st.lists(st.tuples(st.sampled_from(["event", "record", "line"]), st.integers(0, 2 * HOLD_NS)), max_size=30))
def test_all_that_goes_in_comes_out_once(said: list[tuple[str, int]]) -> None:
    clock = Clock()
    order = Order(clock)
    order.holds(make_batch([TO_PROXY], [START]))
    went = [START]
    out: list[int] = []

    def come(everything: bool = False) -> None:
        due = order.due(everything)
        out.extend(time for batch in due.batches for time in batch.times_ns.tolist())
        out.extend(time for time, _ in due.records)
        out.extend(time for times, _ in due.lines for time in times.tolist())

    for what, later in said:
        clock.now += later
        went.append(clock.now)
        if what == "event":
            assert order.holds(make_batch([OTHER], [clock.now])) or clock.now >= START + KEEP_NS
        elif what == "record":
            order.add([record(clock.now)], clock.now)
        else:
            order.add_lines(lines(clock.now), clock.now)
        come()
    come(everything=True)
    assert sorted(out) == sorted(went)
