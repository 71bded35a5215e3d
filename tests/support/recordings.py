"""Recordings made of golden events, for tests and benchmarks that need a known input at a known pace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from observer.recording import Hello, Item, JsonRecords, State, pack, preamble
from tests.support.batches import make_batch

EPOCH_NS = 1_700_000_000_000_000_000


def write_recording(path: Path, items: Iterator[Item] | Sequence[Item]) -> Path:
    """A recording of these items."""
    with path.open("wb") as file:
        file.write(preamble())
        for item in items:
            file.write(pack(item))
    return path


def paced(
    events: Sequence[bytes],
    state: bytes,
    *,
    per_second: int,
    seconds: float,
    batch_ms: float = 4.0,
    node: str = "kind-worker",
    records: Sequence[bytes] = (),
) -> Iterator[Item]:
    """`per_second` events a second, over and over, in batches as a reader would have drained them.

    records  proxy records, one with each batch.
    """
    yield Hello(node)
    yield State(state)
    total = round(per_second * seconds)
    per_batch = max(1, round(per_second * batch_ms / 1000))
    step_ns = 1_000_000_000 / per_second
    # Few distinct batches, so that making a long recording is quick.
    ring = list(events) * (1 + per_batch // len(events))
    for number, start in enumerate(range(0, total, per_batch)):
        count = min(per_batch, total - start)
        begin = start % len(events)
        chosen = (ring[begin:] + ring[:begin])[:count]
        times = [EPOCH_NS + round((start + index) * step_ns) for index in range(count)]
        yield make_batch(chosen, times)
        if records:
            yield JsonRecords(times[-1], (records[number % len(records)],))
