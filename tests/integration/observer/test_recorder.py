"""observer/recorder.py on a real disk, and on one that is full."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from model.events import EventBatch
from observer import recorder as recorder_module
from observer.recorder import Recorder
from observer.recording import Gap, Hello, Item, JsonRecords, Recording
from service.failure import Failure
from tests.support.batches import make_batch
from tests.support.waiting import eventually


def read(path: Path) -> tuple[list[Item], str | None]:
    with path.open("rb") as file:
        recording = Recording(file)
        return list(recording), recording.cut


def test_what_was_offered_is_in_the_file_after_closing(tmp_path: Path) -> None:
    path = tmp_path / "r.flows"
    recorder = Recorder(str(path))
    recorder.offer(Hello("node-1", ("a=b",)))
    recorder.offer(JsonRecords(7, (b"{}",)))
    recorder.close()
    assert read(path) == ([Hello("node-1", ("a=b",)), JsonRecords(7, (b"{}",))], None)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"cannot record to .*/nowhere/r: No such file or directory; choose a file"):
        Recorder(str(tmp_path / "nowhere" / "r"))


def test_a_full_disk_ends_the_recording_with_one_line_and_nothing_else() -> None:
    with capture_logs() as lines:
        recorder = Recorder("/dev/full")
        for _ in range(3):
            recorder.offer(Hello("node-1"))
        recorder.close()
    assert [line["event"] for line in lines] == ["recording stopped"]
    assert lines[0]["error"] == "No space left on device"


def test_a_disk_that_fills_up_leaves_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.flows"
    written = 0
    real_write = os.write

    def write_until_full(file: int, data: memoryview) -> int:
        nonlocal written
        room = 200 - written
        if room <= 0:
            raise OSError(28, "No space left on device")
        written += min(room, len(data))
        return real_write(file, data[:room])

    monkeypatch.setattr(os, "write", write_until_full)
    recorder = Recorder(str(path))
    for _ in range(10):
        recorder.offer(JsonRecords(7, (b"{}",)))
    recorder.close()
    items, cut = read(path)
    assert 1 <= len(items) < 10
    assert cut is None


def test_a_disk_that_is_too_slow_costs_the_recording_a_gap_of_known_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.flows"
    monkeypatch.setattr(recorder_module, "LARGEST_BACKLOG", 1000)
    recorder = Recorder(str(path))
    with recorder._condition:  # the recorder's thread waits here, as for a slow disk
        for number in range(5):
            recorder.offer(make_batch([b"x" * 200] * 3, [number] * 3))
    eventually(lambda: not recorder._waiting)
    recorder.offer(make_batch([b"y"], [9]))
    recorder.close()
    items, _ = read(path)
    gaps = [item.events for item in items if isinstance(item, Gap)]
    assert sum(gaps) == recorder.missed > 0
    kept = sum(len(item) for item in items if isinstance(item, EventBatch))
    assert kept + sum(gaps) == 16
