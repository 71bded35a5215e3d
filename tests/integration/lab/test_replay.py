"""Recordings of several nodes, replayed in step."""

from __future__ import annotations

import time
from pathlib import Path

from model.events import EventBatch
from observer.recording import Item, pack, preamble
from observer.sources import Replay
from tests.support.batches import make_batch

S = 1_000_000_000
PERIOD_S = 0.5


def play(path: Path, *items: Item, for_s: float) -> list[int]:
    """Present times of the events that a replay delivers within `for_s`."""
    path.write_bytes(preamble() + b"".join(map(pack, items)))
    replay = Replay(str(path), loops=0, period_s=PERIOD_S)
    got: list[int] = []
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        replay.wait(0.01)
        got += [at for item in replay.take() if isinstance(item, EventBatch) for at in item.times_ns.tolist()]
    replay.close()
    return got


def test_replays_started_at_any_time_agree_on_when_a_recorded_moment_is(tmp_path: Path) -> None:
    base = 1_700_000_000 * S
    one = play(tmp_path / "a", make_batch([b"a"], [base]), make_batch([b"b"], [base + S // 5]), for_s=1.3)
    time.sleep(0.13)
    other = play(tmp_path / "b", make_batch([b"c"], [base + S // 10]), for_s=0.7)
    period_ns = int(PERIOD_S * S)
    assert {(at - base) % period_ns for at in one} == {0, S // 5}
    assert {(at - base) % period_ns for at in other} == {S // 10}
    assert len(one) >= 4
    assert one == sorted(one)


def test_a_replay_that_comes_late_leaves_out_what_has_passed(tmp_path: Path) -> None:
    began = time.time_ns()
    batches = [make_batch([b"x"], [number * S // 100]) for number in range(50)]
    got = play(tmp_path / "r", *batches, for_s=0.3)
    assert got
    assert got[0] > began - S // 5
