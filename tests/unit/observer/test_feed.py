"""observer/feed.py: bounded, in order, and exact about what had no room."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from model.events import EventBatch, LostSamples
from observer.feed import Fed, Feed, QueueLoss
from observer.recording import JsonRecords, State
from tests.support.batches import make_batch


def batch(events: int, first: int = 0, lost: tuple[LostSamples, ...] = ()) -> EventBatch:
    return make_batch([b"e"] * events, list(range(first, first + events)), lost=lost)


def told(items: list[Fed]) -> int:
    """Events that reached the loop, one way or the other."""
    total = 0
    for item in items:
        if isinstance(item, EventBatch):
            total += len(item) + sum(one.count for one in item.lost)
        elif isinstance(item, QueueLoss):
            total += item.events + sum(count for _, count in item.perf)
        elif isinstance(item, JsonRecords):
            total += len(item.lines)
    return total


def test_an_item_finds_an_empty_feed_whatever_its_size() -> None:
    feed = Feed(10, lambda: None)
    feed.offer(batch(5000))
    assert told(feed.take(1)) == 5000


def test_what_has_no_room_is_told_of_in_its_place() -> None:
    feed = Feed(300, lambda: None)
    feed.offer(batch(200))
    feed.offer(batch(200))
    feed.offer(batch(150))
    first = feed.take(1)
    feed.offer(batch(10))
    second = feed.take(10_000)
    assert [type(item) for item in first + second] == [EventBatch, QueueLoss, EventBatch]
    loss = second[0]
    assert isinstance(loss, QueueLoss)
    assert loss.events == 350
    assert 0 < loss.first_ns <= loss.last_ns
    assert feed.dropped == 350


def test_losses_of_perf_rings_survive_the_batch_that_told_of_them() -> None:
    feed = Feed(100, lambda: None)
    feed.offer(batch(90))
    feed.offer(batch(90, lost=(LostSamples(0, 3, 7, 0),)))
    feed.offer(batch(90, lost=(LostSamples(0, 3, 1, 0), LostSamples(5, 1, 2, 0))))
    feed.take(1)
    feed.settle()
    (loss,) = feed.take(1)
    assert isinstance(loss, QueueLoss)
    assert (loss.events, loss.perf) == (180, ((1, 2), (3, 8)))


def test_a_loss_before_silence_is_told_of_too() -> None:
    feed = Feed(100, lambda: None)
    feed.offer(batch(90))
    feed.offer(batch(90))
    feed.settle()
    assert told(feed.take(10_000)) == 90
    feed.settle()
    assert told(feed.take(10_000)) == 90


def test_the_loop_is_called_once_per_burst() -> None:
    calls: list[int] = []
    feed = Feed(1000, lambda: calls.append(1))
    for _ in range(3):
        feed.offer(batch(1))
    assert len(calls) == 1
    feed.take(10_000)
    feed.offer(batch(1))
    assert len(calls) == 2


def test_a_state_counts_as_no_event() -> None:
    feed = Feed(1000, lambda: None)
    feed.offer(State(b"{}"))
    feed.offer(JsonRecords(0, (b"{}", b"{}")))
    assert told(feed.take(10_000)) == 2


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 200)),
        st.tuples(st.just("lost"), st.integers(1, 50)),
        st.tuples(st.just("take"), st.integers(1, 300)),
        st.tuples(st.just("settle"), st.just(0)),
    ),
    max_size=50,
)


@given(STEPS)
@settings(max_examples=300)
def test_every_event_is_delivered_or_told_of_exactly_once(steps: list[tuple[str, int]]) -> None:
    feed = Feed(400, lambda: None)
    offered, taken = 0, []
    for what, count in steps:
        if what == "offer":
            feed.offer(batch(count))
            offered += count
        elif what == "lost":
            feed.offer(batch(1, lost=(LostSamples(1, 0, count, 0),)))
            offered += 1 + count
        elif what == "take":
            taken += feed.take(count)
        else:
            feed.settle()
    while feed:
        taken += feed.take(100)
        feed.settle()
    feed.settle()
    taken += feed.take(10_000)
    assert told(taken) == offered
