"""Cutting and joining event batches.

In:        batches as the sources deliver them, tiny or huge.
Out:       batches of a size that suits the loop: large enough to be cheap per event, small enough to let others run.
Elsewhere: model/events.py says what a batch is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from model.events import EventBatch, LostSamples


def split(batch: EventBatch, size: int) -> Iterator[EventBatch]:
    """The batch in pieces of at most `size` events, lost samples at their places."""
    if len(batch) <= size:
        yield batch
        return
    for start in range(0, len(batch), size):
        yield part(batch, start, min(start + size, len(batch)))


def part(batch: EventBatch, start: int, stop: int) -> EventBatch:
    """Events from `start` to before `stop`. What was lost behind the last event of all belongs to the last part."""
    last = stop == len(batch)
    return EventBatch(
        data=batch.data,
        offsets=batch.offsets[start:stop],
        lengths=batch.lengths[start:stop],
        cpus=batch.cpus[start:stop],
        times_ns=batch.times_ns[start:stop],
        lost=tuple(
            replace(one, at=one.at - start)
            for one in batch.lost
            if start <= one.at and (one.at < stop or (last and one.at >= stop))
        ),
    )


def join(batches: Sequence[EventBatch]) -> EventBatch:
    """Batches as one, in their order, lost samples at their places."""
    if len(batches) == 1:
        return batches[0]
    lost: list[LostSamples] = []
    offsets = []
    count = size = 0
    for batch in batches:
        offsets.append(batch.offsets + size)
        lost.extend(replace(one, at=one.at + count) for one in batch.lost)
        count += len(batch)
        size += batch.data.size
    return EventBatch(
        data=np.concatenate([batch.data for batch in batches]),
        offsets=np.concatenate(offsets),
        lengths=np.concatenate([batch.lengths for batch in batches]),
        cpus=np.concatenate([batch.cpus for batch in batches]),
        times_ns=np.concatenate([batch.times_ns for batch in batches]),
        lost=tuple(lost),
    )
