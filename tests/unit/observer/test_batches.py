"""observer/batches.py: cutting and joining changes nothing of what is in a batch."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from model.events import EventBatch, LostSamples
from observer.batches import join, split
from tests.support.batches import make_batch


@st.composite
def batches(draw: st.DrawFn) -> EventBatch:
    records = draw(st.lists(st.binary(min_size=1, max_size=5), max_size=12))
    places = draw(st.lists(st.integers(0, len(records)), max_size=3).map(sorted))
    lost = [LostSamples(at, 1, 10 + at, 0) for at in places]
    return make_batch(records, list(range(len(records))), lost=lost)


def content(parts: list[EventBatch]) -> list[object]:
    """Events and losses in the order in which a reader meets them."""
    met: list[object] = []
    for batch in parts:
        lost = list(batch.lost)
        for index in range(len(batch) + 1):
            while lost and lost[0].at <= index:
                met.append(("lost", lost.pop(0).count))
            if index < len(batch):
                met.append((batch.record(index), int(batch.times_ns[index])))
        assert not lost
    return met


@given(batch=batches(), size=st.integers(1, 13))
@settings(max_examples=200)
def test_pieces_hold_what_the_batch_held(batch: EventBatch, size: int) -> None:
    pieces = list(split(batch, size))
    assert all(len(piece) <= size for piece in pieces)
    assert content(pieces) == content([batch])


@given(st.lists(batches(), min_size=1, max_size=4))
@settings(max_examples=200)
def test_joined_batches_hold_what_each_held(parts: list[EventBatch]) -> None:
    assert content([join(parts)]) == content(parts)
