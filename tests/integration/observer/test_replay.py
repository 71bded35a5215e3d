"""observer/sources.py on real recordings."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from model.events import EventBatch, LostSamples
from observer.recording import Hello, Item, JsonRecords, State, pack, preamble
from observer.sources import Replay
from service.failure import Failure
from tests.support.batches import make_batch

MS = 1_000_000


def recording(path: Path, *items: Item, cut: int = 0) -> str:
    data = preamble() + b"".join(map(pack, items))
    path.write_bytes(data[: len(data) - cut])
    return str(path)


def play(replay: Replay) -> list[Item]:
    items: list[Item] = []
    deadline = time.monotonic() + 5
    while not replay.ended:
        replay.wait(0.05)
        items += replay.take()
        assert time.monotonic() < deadline
    replay.close()
    return items


def times(items: list[Item]) -> list[int]:
    return [time for item in items if isinstance(item, EventBatch) for time in item.times_ns.tolist()]


def test_events_get_the_present_time_and_keep_their_distances(tmp_path: Path) -> None:
    path = recording(
        tmp_path / "r",
        make_batch([b"a", b"b"], [1000, 1000 + 2 * MS], lost=[LostSamples(1, 0, 5, 1000 + MS)]),
        make_batch([b"c"], [1000 + 30 * MS]),
    )
    before = time.time_ns()
    items = play(Replay(path))
    assert time.time_ns() - before >= 30 * MS
    got = times(items)
    assert before <= got[0] <= time.time_ns()
    assert [at - got[0] for at in got] == [0, 2 * MS, 30 * MS]
    first = items[0]
    assert isinstance(first, EventBatch)
    assert first.lost[0].time_ns == got[0] + MS


def test_a_faster_replay_shrinks_the_distances(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", make_batch([b"a"], [0]), make_batch([b"b"], [1000 * MS]))
    got = times(play(Replay(path, speed=100)))
    assert got[1] - got[0] == 10 * MS


def test_speed_zero_waits_for_nothing_and_can_wait_itself(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", make_batch([b"a"], [0]), make_batch([b"b"], [10**15]))
    replay = Replay(path, speed=0)
    assert replay.patient
    before = time.time_ns()
    got = times(play(replay))
    assert before <= got[0] <= got[1] <= time.time_ns()


def test_recorded_times_can_be_kept(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", make_batch([b"a", b"b"], [5, 6]), JsonRecords(7, (b"{}",)))
    items = play(Replay(path, speed=0, original_times=True))
    assert times(items) == [5, 6]
    assert items[1] == JsonRecords(7, (b"{}",))


def test_a_replay_can_be_repeated(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", make_batch([b"a", b"b"], [5, 6]))
    assert len(times(play(Replay(path, speed=0, loops=3)))) == 6


def test_a_recording_without_events_does_not_repeat_forever(tmp_path: Path) -> None:
    assert play(Replay(recording(tmp_path / "r", State(b"{}")), speed=0, loops=0)) == [State(b"{}")]


def test_the_end_of_a_cut_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", make_batch([b"a"], [5]), make_batch([b"b"], [6]), cut=30)
    with capture_logs() as lines:
        got = times(play(Replay(path, speed=0)))
    assert len(got) == 1
    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert line["event"] == "recording ends early"
    assert "cut off at byte" in line["where"]


def test_the_node_and_its_state_can_be_seen_before_playing(tmp_path: Path) -> None:
    path = recording(tmp_path / "r", Hello("west/n1", ("a=b",)), State(b"{1}"), make_batch([b"a"], [5]), State(b"{2}"))
    replay = Replay(path, speed=0)
    assert replay.preview() == (Hello("west/n1", ("a=b",)), State(b"{1}"))
    assert len(play(replay)) == 4


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file or directory"),
        (b"", "does not begin with 'flowscope recording'; make one with --record"),
        (b"{}" * 50, "does not begin with 'flowscope recording'"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "r"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Failure, match=text) as caught:
        Replay(str(path))
    assert str(path) in str(caught.value)


def test_negative_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="cannot be negative"):
        Replay(recording(tmp_path / "r"), speed=-1)
