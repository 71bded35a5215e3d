"""Order is a property: within the window everything comes out sorted, what comes later is counted and marked."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.merge import FOREVER, NEVER, Items, Merge

ITEM = np.dtype([("ts_ns", "<i8"), ("id", "<i8")])


def items(*times: int, first_id: int = 0) -> Items:
    array = np.zeros(len(times), ITEM)
    array["ts_ns"] = times
    array["id"] = np.arange(first_id, first_id + len(times))
    return array


@dataclass
class Collected:
    """What a merge let out."""

    times: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    """Ids of items marked as late."""

    def take(self, merge: Merge, bound: int) -> None:
        released = merge.release(bound)
        self.times += released.items["ts_ns"].tolist()
        self.ids += released.items["id"].tolist()
        self.late += released.items["id"][: released.late].tolist()


def disordered_sources(random: Random) -> tuple[int, list[list[int]]]:
    """Times of several sources, each out of order by no more than the first number."""
    disorder = random.choice([0, 1, 5, 20])
    sources = []
    for _ in range(random.randint(1, 5)):
        times = sorted(random.randint(0, 200) for _ in range(random.randint(0, 40)))
        sources.append(sorted(times, key=lambda time: time + random.randint(0, disorder)))
    return disorder, sources


@given(st.integers(0, 2**32))
@settings(max_examples=300)
def test_any_order_of_arrival_within_the_window_comes_out_sorted(seed: int) -> None:
    random = Random(seed)
    disorder, sources = disordered_sources(random)
    merge = Merge(ITEM, disorder)
    handles = [merge.add() for _ in sources]
    left = [list(times) for times in sources]
    collected, next_id = Collected(), 0
    while any(left):
        # Any sources deliver any number of their next items, in one push.
        picked = random.sample(range(len(sources)), random.randint(1, len(sources)))
        parts, counts = [], []
        for index in picked:
            count = random.randint(0, len(left[index]))
            parts.append(items(*left[index][:count], first_id=next_id))
            left[index] = left[index][count:]
            counts.append(count)
            next_id += count
        merge.push([handles[index] for index in picked], counts, np.concatenate(parts))
        collected.take(merge, merge.bound())
    for handle in handles:
        merge.end(handle)
    collected.take(merge, merge.bound())
    assert collected.times == sorted(time for times in sources for time in times)
    assert sorted(collected.ids) == list(range(next_id))
    assert merge.late == 0
    assert merge.size() == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 100), min_size=1, max_size=6), st.integers(-50, 150)),
        max_size=25,
    )
)
@settings(max_examples=200)
def test_whatever_happens_nothing_is_lost_and_exactly_the_late_ones_are_marked(
    deliveries: list[tuple[int, list[int], int]],
) -> None:
    merge = Merge(ITEM)
    handles = [merge.add() for _ in range(4)]
    released: list[tuple[int, bool]] = []
    collected, pushed = Collected(), 0
    for source, times, passed_over in deliveries:
        merge.push([handles[source]], [len(times)], items(*times, first_id=pushed))
        pushed += len(times)
        # A source that is waited for too long is passed over: it may be late from then on.
        for handle in handles:
            merge.promise(handle, passed_over)
        before = len(collected.ids)
        collected.take(merge, merge.bound())
        marked = set(collected.late)
        released += [
            (time, one in marked) for time, one in zip(collected.times[before:], collected.ids[before:], strict=True)
        ]
    for handle in handles:
        merge.end(handle)
    before = len(collected.ids)
    collected.take(merge, merge.bound())
    marked = set(collected.late)
    released += [
        (time, one in marked) for time, one in zip(collected.times[before:], collected.ids[before:], strict=True)
    ]
    assert sorted(collected.ids) == list(range(pushed))
    newest = NEVER
    for time, late in released:
        assert late == (time < newest)
        newest = max(newest, time)
    assert merge.late == sum(late for _, late in released) == len(collected.late)


def test_nothing_is_released_before_every_source_has_spoken() -> None:
    merge = Merge(ITEM)
    first, second = merge.add(), merge.add()
    merge.push([first], [2], items(10, 20))
    assert merge.bound() == NEVER
    assert len(merge.release(merge.bound()).items) == 0
    merge.push([second], [1], items(15))
    assert merge.release(merge.bound()).items["ts_ns"].tolist() == [10, 15]


def test_equal_times_keep_the_order_of_arrival() -> None:
    merge = Merge(ITEM)
    first, second = merge.add(), merge.add()
    merge.push([second, first], [2, 2], items(5, 5, 5, 5))
    assert merge.release(5).items["id"].tolist() == [0, 1, 2, 3]


def test_a_source_that_ends_no_longer_holds_the_others_back() -> None:
    merge = Merge(ITEM)
    first, second = merge.add(), merge.add()
    merge.push([first], [1], items(10))
    merge.end(second)
    assert merge.bound() == 10
    merge.end(first)
    assert merge.bound() == FOREVER


def test_a_promise_releases_what_others_delivered() -> None:
    merge = Merge(ITEM, disorder_ns=3)
    first, second = merge.add(), merge.add()
    merge.push([first], [1], items(10))
    assert merge.bound() == NEVER
    merge.promise(second, 50)
    assert merge.bound() == 7
    merge.promise(first, 40)
    assert merge.release(merge.bound()).items["ts_ns"].tolist() == [10]


def test_a_source_that_speaks_again_is_waited_for_by_its_own_times() -> None:
    merge = Merge(ITEM)
    silent, other = merge.add(), merge.add()
    merge.push([silent, other], [1, 1], items(10, 12))
    merge.promise(silent, 50)
    assert merge.bound() == 12
    merge.push([other], [1], items(30))
    assert merge.release(merge.bound()).items["ts_ns"].tolist() == [10, 12, 30]
    merge.push([silent, other], [1, 1], items(31, 40))
    assert merge.bound() == 31
    merge.push([silent], [1], items(33))
    assert merge.release(merge.bound()).items["ts_ns"].tolist() == [31, 33]
    assert merge.late == 0


def test_what_waits_can_be_renumbered() -> None:
    merge = Merge(ITEM)
    only, other = merge.add(), merge.add()
    merge.push([only], [3], items(1, 2, 3))
    merge.promise(other, 1)
    merge.release(1)
    merge.pending()["id"] += 100
    merge.end(other)
    assert merge.release(3).items["id"].tolist() == [101, 102]
