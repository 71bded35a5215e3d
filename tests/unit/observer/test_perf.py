"""Finding records in a ring's bytes, and putting CPUs together."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observer.perf_batches import Piece, batch_of_few, merge
from observer.perf_records import SAMPLE_HEAD, first_too_new, read_few, split_records


def sample(event: bytes, time_ns: int = 1) -> bytes:
    """A perf sample: header, time, size, event, padded to whole words."""
    event += bytes(-(4 + len(event)) % 8)
    return struct.pack("<IHHQI", 9, 0, 20 + len(event), time_ns, len(event)) + event


def lost(count: int, time_ns: int = 1) -> bytes:
    return struct.pack("<IHHQQQ", 2, 0, 32, 1, count, time_ns)


def other(kind: int = 5, words: int = 2) -> bytes:
    return struct.pack("<IHH", kind, 0, 8 + 8 * words) + bytes(8 * words)


def ring(*records: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(records), np.uint8)


def one_by_one(data: bytes) -> tuple[list[int], list[int], int, int]:
    """The same, the slow way: starts of samples, counts of losses, others, bytes understood."""
    starts: list[int] = []
    losses: list[int] = []
    others = at = 0
    while at + 8 <= len(data):
        kind, _, size = struct.unpack_from("<IHH", data, at)
        if size < 8 or size % 8 or at + size > len(data):
            break
        if kind == 9:
            starts.append(at)
        elif kind == 2:
            losses.append(struct.unpack_from("<Q", data, at + 16)[0])
        else:
            others += 1
        at += size
    return starts, losses, others, at


lookalike = st.binary(max_size=40).map(lambda tail: bytes(4) + sample(tail, 99)[:60])
records = st.one_of(
    st.binary(max_size=300).map(sample),
    lookalike.map(sample),
    st.lists(lookalike, max_size=4).map(lambda parts: sample(b"".join(parts))),
    st.integers(1, 1000).map(lost),
    st.integers(0, 4).map(lambda words: other(words=words)),
)


@given(st.lists(records, max_size=60))
@settings(max_examples=300)
def test_records_are_found_as_by_walking_from_one_to_the_next(parts: list[bytes]) -> None:
    data = b"".join(parts)
    found = split_records(np.frombuffer(data, np.uint8))
    starts, losses, others, end = one_by_one(data)
    assert found.starts.tolist() == starts
    assert [each.count for each in found.lost] == losses
    assert (found.skipped, found.end) == (others, end) == (others, len(data))


@given(st.lists(records, max_size=8), st.binary(min_size=8, max_size=64).map(lambda raw: raw[: len(raw) // 8 * 8]))
@settings(max_examples=200)
def test_framing_that_makes_no_sense_ends_the_ring_and_nothing_else(parts: list[bytes], noise: bytes) -> None:
    data = b"".join(parts) + noise
    found = split_records(np.frombuffer(data, np.uint8))
    assert found.end <= len(data)
    starts = one_by_one(b"".join(parts))[0]
    assert found.starts.tolist()[: len(starts)] == starts


def test_packet_that_looks_like_a_record_is_not_one() -> None:
    forged = sample(b"forged" * 5)
    packets = [sample(bytes(4) + forged + forged), sample(b"honest"), sample(bytes(4) + forged)]
    assert split_records(ring(*packets)).starts.tolist() == [0, len(packets[0]), len(packets[0]) + len(packets[1])]


def test_loss_keeps_its_place_between_samples() -> None:
    first, gap, second = sample(b"a"), lost(17, time_ns=5), sample(b"b")
    found = split_records(ring(first, gap, second))
    assert found.starts.tolist() == [0, len(first) + len(gap)]
    assert [(each.position, each.count, each.time_ns) for each in found.lost] == [(len(first), 17, 5)]


def piece(cpu: int, times: list[int], gaps: list[tuple[int, int]] | None = None) -> Piece:
    count = len(times)
    offsets = np.arange(count, dtype=np.int64) + 1000 * cpu
    return Piece(cpu, offsets, np.full(count, 8, np.int64), np.array(times, np.int64), gaps or [])


def test_cpus_are_merged_by_time_and_gaps_keep_their_neighbours() -> None:
    batch = merge(
        np.zeros(0, np.uint8),
        [piece(0, [10, 20, 40], [(1, 5), (3, 7)]), piece(1, [15, 30], [(0, 2)]), piece(2, [], [(0, 1)])],
        now_ns=99,
    )
    assert batch.times_ns.tolist() == [10, 15, 20, 30, 40]
    assert batch.cpus.tolist() == [0, 1, 0, 1, 0]
    assert batch.offsets.tolist() == [0, 1000, 1, 1001, 2]
    assert [(gap.at, gap.cpu, gap.count) for gap in batch.lost] == [(0, 2, 1), (1, 1, 2), (2, 0, 5), (5, 0, 7)]


def test_equal_times_stay_in_the_order_of_cpus() -> None:
    batch = merge(np.zeros(0, np.uint8), [piece(0, [10, 10]), piece(1, [10])], now_ns=99)
    assert batch.cpus.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("times", "now_ns", "kept"),
    [
        ([], 50, 0),
        ([10, 20], 50, 2),
        ([10, 60, 70], 50, 1),
        ([60], 50, 0),
        ([10, 3_600_000_000_000], 50, 2),
    ],
)
def test_events_of_a_later_moment_wait_unless_the_clock_was_set_back(times: list[int], now_ns: int, kept: int) -> None:
    assert first_too_new(np.array(times, np.int64), now_ns) == kept


@given(st.lists(st.one_of(records, st.binary(max_size=300).map(sample)), max_size=12), st.integers(0, 7))
@settings(max_examples=200)
def test_a_few_records_are_read_alike_or_left_to_the_many(parts: list[bytes], cut: int) -> None:
    data = b"".join(parts)
    data = data[: len(data) - cut]
    few = read_few(data, now_ns=1000)
    starts, losses, others, end = one_by_one(data)
    if losses or others or end < len(data):
        assert few is None
    else:
        assert few is not None
        assert few[1] == len(data)
        assert [start - SAMPLE_HEAD for _, start, _ in few[0]] == starts
        assert all(data[start - 12 : start - 4] == time_ns.to_bytes(8, "little") for time_ns, start, _ in few[0])


def test_of_a_few_events_too_those_after_the_drain_began_are_left_for_the_next() -> None:
    data = b"".join(sample(b"x" * 12, time_ns) for time_ns in (1, 2, 900, 3))
    size = len(data) // 4
    assert read_few(data, now_ns=3) == ([(1, 20, 12), (2, 20 + size, 12)], 2 * size)
    # A clock that was set back: such events are not from the near future.
    far = b"".join(sample(b"x" * 12, time_ns) for time_ns in (1, 10**18, 2))
    few = read_few(far, now_ns=3)
    assert few is not None
    assert [time_ns for time_ns, _, _ in few[0]] == [1, 10**18, 2]


def test_a_few_events_make_a_batch_as_many_do() -> None:
    data = b"".join(sample(bytes([number]) * 12, number) for number in range(3))
    events = [(2, 20, 12, 1), (3, 20 + len(data) // 3, 12, 0)]
    batch = batch_of_few(data, events)
    assert [batch.record(index) for index in range(2)] == [b"\0" * 12, b"\1" * 12]
    assert (batch.times_ns.tolist(), batch.cpus.tolist()) == ([2, 3], [1, 0])
    assert len(batch_of_few(b"", [])) == 0
