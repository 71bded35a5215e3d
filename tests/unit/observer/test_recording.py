"""observer/recording.py: what is read back, wherever the file was cut or damaged."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.events import EventBatch, LostSamples
from observer.recording import Gap, Hello, Item, JsonRecords, NotARecording, Recording, State, pack, preamble
from tests.support.batches import make_batch

TIMES = st.integers(-(2**62), 2**62)
LOST = st.builds(LostSamples, st.integers(0, 5), st.integers(0, 63), st.integers(0, 2**63), TIMES)


@st.composite
def batches(draw: st.DrawFn) -> EventBatch:
    records = draw(st.lists(st.binary(max_size=40), max_size=6))
    times = draw(st.lists(TIMES, min_size=len(records), max_size=len(records)))
    lost = [one for one in draw(st.lists(LOST, max_size=2)) if one.at <= len(records)]
    return make_batch(records, times, list(range(len(records))), lost)


LINES = st.lists(st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")), max_size=4).map(tuple)
ITEMS = st.one_of(
    batches(),
    st.builds(JsonRecords, TIMES, LINES),
    st.builds(State, st.binary(max_size=200)),
    st.builds(Gap, st.integers(0, 2**40), TIMES),
    st.builds(Hello, st.text(max_size=10), st.lists(st.text(max_size=5), max_size=3).map(tuple)),
)


def plain(item: Item) -> object:
    """Something that compares by value."""
    if isinstance(item, EventBatch):
        records = [item.record(index) for index in range(len(item))]
        return records, item.times_ns.tolist(), item.cpus.tolist(), item.lost
    return item


def events_of(items: list[Item]) -> list[tuple[bytes, int]]:
    return [
        (item.record(index), int(item.times_ns[index]))
        for item in items
        if isinstance(item, EventBatch)
        for index in range(len(item))
    ]


def read(data: bytes) -> tuple[list[Item], str | None]:
    recording = Recording(io.BytesIO(data))
    items = list(recording)
    return items, recording.cut


@given(st.lists(ITEMS, max_size=5))
@settings(max_examples=100)
def test_what_was_recorded_is_read_back(items: list[Item]) -> None:
    got, cut = read(preamble() + b"".join(map(pack, items)))
    assert cut is None
    assert list(map(plain, got)) == list(map(plain, items))


@given(items=st.lists(ITEMS, min_size=1, max_size=4), where=st.floats(0, 1))
@settings(max_examples=300)
def test_a_file_cut_anywhere_gives_everything_before_the_cut(items: list[Item], where: float) -> None:
    frames = list(map(pack, items))
    whole = preamble() + b"".join(frames)
    at = len(preamble()) + int(where * (len(whole) - len(preamble())))
    got, cut = read(whole[:at])
    complete = 0
    position = len(preamble())
    for frame in frames:
        position += len(frame)
        complete += position <= at
    assert list(map(plain, got[:complete])) == list(map(plain, items[:complete]))
    assert (cut is None) == (at in np.cumsum([len(preamble()), *map(len, frames)]))
    if cut is not None:
        assert f"byte {at}" in cut
        assert "\n" not in cut
    # Of the cut frame comes a part, unchanged, or nothing.
    assert events_of(got) == events_of(items)[: len(events_of(got))]


def test_whole_events_of_the_frame_that_was_cut_are_given() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (10, 100), np.uint8)
    frame = pack(make_batch([row.tobytes() for row in noise], list(range(10))))
    got, cut = read(preamble() + frame[:-150])
    assert [time for _, time in events_of(got)] == list(range(8))
    assert cut is not None


def test_whole_events_are_given_from_a_compressed_frame_too() -> None:
    frame = pack(make_batch([b"x" * 1000 + bytes([number]) for number in range(200)], list(range(200))))
    assert len(frame) < 10_000
    got, _ = read(preamble() + frame[:-100])
    assert 0 < len(events_of(got)) < 200


@given(items=st.lists(ITEMS, min_size=1, max_size=3), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=200)
def test_damage_ends_reading_where_it_is_and_never_raises(items: list[Item], where: float, bit: int) -> None:
    whole = bytearray(preamble() + b"".join(map(pack, items)))
    at = len(preamble()) + int(where * (len(whole) - len(preamble())))
    whole[at] ^= 1 << bit
    got, cut = read(bytes(whole))
    assert cut is not None
    assert list(map(plain, got)) == list(map(plain, items))[: len(got)]


@pytest.mark.parametrize("data", [b"", b"flowscope", b"GIF89a" * 20, b"flowscope recording\n\x02\x00"])
def test_another_file_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(NotARecording) as caught:
        Recording(io.BytesIO(data))
    assert "\n" not in str(caught.value)


def test_a_compressed_bomb_does_not_fill_the_memory() -> None:
    with pytest.raises(ValueError, match="too large"):
        pack(State(b"0" * (65 * 2**20)))
