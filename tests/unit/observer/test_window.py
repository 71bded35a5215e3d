"""observer/window.py: start, end and selection of a request, against the rules told one event at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.ring import Ring
from model.row import Kind, Rows
from observer.window import Mask, Selection, Window
from tests.support.small_rows import flow_rows, kinds_row, lost_row

DROPPED = 2


def only_dropped(rows: Rows) -> Mask:
    mask: Mask = rows["verdict"] == DROPPED
    return mask


@dataclass(frozen=True)
class Event:
    """An event as the slow reference sees it."""

    kind: Kind
    ts: int
    dropped: bool


def fill(ring: Ring, events: list[Event]) -> None:
    for event in events:
        if event.kind == Kind.FLOW:
            row = flow_rows([event.ts], [DROPPED if event.dropped else 1])
        elif event.kind == Kind.LOST:
            row = lost_row(ring.tables, 1, event.ts)
        else:
            row = kinds_row(event.kind, event.ts)
            row["verdict"] = DROPPED if event.dropped else 1
        ring.append(row)


def collect(ring: Ring, window: Window, filtered: bool = False, kind: Kind = Kind.FLOW, limit: int = 3) -> list[int]:
    """The numbers of the rows that a request gets without waiting."""
    selection = Selection(ring, window, only_dropped if filtered else None, kind, send_lost=kind == Kind.FLOW)
    for _ in selection.seek():
        pass
    got: list[int] = []
    while True:
        selected = selection.step(limit)
        got += selected.rows["seq"].tolist()
        if selected.ended or not selection.behind:
            return got


def reference(events: list[Event], capacity: int, window: Window, filtered: bool, kind: Kind) -> list[int]:
    """The rules of the API reference, one event at a time."""
    stored = list(enumerate(events))[-capacity:]

    def passes(event: Event) -> bool:
        return not filtered or event.dropped

    start = 0
    if window.first and window.since_ns is None:
        start = 0
    elif window.follow and window.number == 0 and window.since_ns is None:
        start = max(len(stored) - 1, 0)
    else:
        counted = 0
        for index in range(len(stored) - 1, -1, -1):
            event = stored[index][1]
            if event.kind == Kind.LOST or not passes(event):
                continue
            if window.since_ns is not None:
                if event.ts < window.since_ns:
                    start = index + 1
                    break
                continue
            counted += 1
            if counted == window.number:
                start = index
                break
    sent: list[int] = []
    flows = 0
    for number, event in stored[start:]:
        if not window.follow and window.number and flows >= window.number:
            break
        if event.kind == Kind.LOST:
            if kind == Kind.FLOW:
                sent.append(number)
            continue
        if window.until_ns is not None and event.ts > window.until_ns:
            break
        if window.since_ns is not None and event.ts < window.since_ns:
            continue
        if not passes(event) or event.kind != kind:
            continue
        sent.append(number)
        flows += 1
    return sent


KINDS = st.sampled_from([Kind.FLOW, Kind.FLOW, Kind.FLOW, Kind.LOST, Kind.AGENT, Kind.DEBUG])
EVENTS = st.lists(st.builds(Event, KINDS, st.integers(0, 20), st.booleans()), max_size=30)
TIMES = st.none() | st.integers(0, 21)


@given(
    events=EVENTS,
    number=st.sampled_from([0, 1, 2, 3, 7, 2**64 - 1]),
    first=st.booleans(),
    follow=st.booleans(),
    since=TIMES,
    until=TIMES,
    filtered=st.booleans(),
    kind=st.sampled_from([Kind.FLOW, Kind.AGENT]),
    limit=st.integers(1, 9),
    in_order=st.booleans(),
)
@settings(max_examples=500)
def test_a_request_gets_what_the_rules_say(
    events: list[Event],
    number: int,
    first: bool,
    follow: bool,
    since: int | None,
    until: int | None,
    filtered: bool,
    kind: Kind,
    limit: int,
    in_order: bool,
) -> None:
    if in_order:
        events = sorted(events, key=lambda event: event.ts)
    window = Window(number=number, first=first, follow=follow, since_ns=since, until_ns=until)
    ring = Ring(15)
    fill(ring, events)
    filtered = filtered and kind == Kind.FLOW
    assert collect(ring, window, filtered, kind, limit) == reference(events, 15, window, filtered, kind)


def twenty_flows() -> Ring:
    """Flows 0..19 at times 0..19; the odd ones are dropped."""
    ring = Ring(31)
    ring.append(flow_rows(range(20), [1, DROPPED] * 10))
    return ring


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (Window(number=3), [17, 18, 19]),
        (Window(number=3, first=True), [0, 1, 2]),
        (Window(), list(range(20))),
        (Window(number=2**64 - 1), list(range(20))),
        (Window(since_ns=15, number=2), [15, 16]),
        (Window(since_ns=15, number=2, first=True), [15, 16]),
        (Window(since_ns=18), [18, 19]),
        (Window(until_ns=17, number=5), [15, 16, 17]),
        (Window(until_ns=3, number=5), []),
        (Window(until_ns=1), [0, 1]),
        (Window(first=True), list(range(20))),
        (Window(follow=True), [19]),
        (Window(follow=True, number=2), [18, 19]),
        (Window(follow=True, since_ns=17), [17, 18, 19]),
    ],
)
def test_the_combinations_of_the_api_reference(window: Window, expected: list[int]) -> None:
    assert collect(twenty_flows(), window) == expected


def test_a_filter_applies_before_the_count() -> None:
    assert collect(twenty_flows(), Window(number=3), filtered=True) == [15, 17, 19]


def test_a_long_walk_pauses_between_chunks() -> None:
    ring = Ring(65535)
    ring.append(flow_rows(np.arange(65535).tolist(), [DROPPED] + [1] * 65534))
    selection = Selection(ring, Window(number=1), only_dropped)
    assert sum(1 for _ in selection.seek()) >= 8
    assert selection.step(10).rows["seq"].tolist() == [0]


def test_a_follower_goes_on_with_what_comes_later_and_is_never_limited() -> None:
    ring = twenty_flows()
    selection = Selection(ring, Window(follow=True, number=1))
    list(selection.seek())
    assert selection.step(10).rows["seq"].tolist() == [19]
    ring.append(flow_rows([20, 21, 22]))
    selected = selection.step(10)
    assert selected.rows["seq"].tolist() == [20, 21, 22]
    assert not selection.behind
    assert not selected.ended


def test_a_follower_on_an_empty_ring_gets_the_first_event() -> None:
    ring = Ring(7)
    selection = Selection(ring, Window(follow=True))
    list(selection.seek())
    assert not selection.behind
    ring.append(flow_rows([1]))
    assert selection.step(10).rows["ts_ns"].tolist() == [1]


def test_a_request_that_does_not_follow_ends_although_new_rows_keep_coming() -> None:
    ring = twenty_flows()
    selection = Selection(ring, Window())
    list(selection.seek())
    ring.append(flow_rows([100]))
    selected = selection.step(100)
    assert selected.rows["seq"].tolist() == list(range(20))
    assert selected.ended


def test_an_overtaken_follower_is_told_in_place() -> None:
    ring = Ring(7)
    selection = Selection(ring, Window(follow=True))
    list(selection.seek())
    ring.append(flow_rows(range(10)))
    selected = selection.step(100)
    assert selected.missed == 3
    assert selected.rows["seq"].tolist() == [3, 4, 5, 6]
