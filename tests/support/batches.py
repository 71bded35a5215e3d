"""Event batches for tests and benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.events import EventBatch, LostSamples


def make_batch(
    records: Sequence[bytes],
    times_ns: Sequence[int] | None = None,
    cpus: Sequence[int] | None = None,
    lost: Sequence[LostSamples] = (),
) -> EventBatch:
    """A batch of the given raw events, one behind the other."""
    lengths = np.fromiter(map(len, records), np.int64, len(records))
    ends = np.cumsum(lengths)
    return EventBatch(
        data=np.frombuffer(b"".join(records), np.uint8),
        offsets=ends - lengths,
        lengths=lengths,
        cpus=np.array(cpus if cpus is not None else [0] * len(records), np.uint16),
        times_ns=np.array(times_ns if times_ns is not None else [0] * len(records), np.int64),
        lost=tuple(lost),
    )


def join_batches(batches: Sequence[EventBatch]) -> EventBatch:
    """Batches as one, lost samples at their places."""
    starts = np.cumsum([0] + [batch.data.size for batch in batches])
    counts = np.cumsum([0] + [len(batch) for batch in batches])
    return EventBatch(
        data=np.concatenate([batch.data for batch in batches]),
        offsets=np.concatenate([batch.offsets + start for batch, start in zip(batches, starts, strict=False)]),
        lengths=np.concatenate([batch.lengths for batch in batches]),
        cpus=np.concatenate([batch.cpus for batch in batches]),
        times_ns=np.concatenate([batch.times_ns for batch in batches]),
        lost=tuple(
            LostSamples(one.at + int(at), one.cpu, one.count, one.time_ns)
            for batch, at in zip(batches, counts, strict=False)
            for one in batch.lost
        ),
    )


def read_golden(folder: Path, stem: str) -> tuple[list[bytes], list[dict[str, Any]]]:
    """The raw perf events and the proxy records of a golden folder, each in file order.

    stem  `events` for golden/events, `bench-mix` for golden/bench.
    """
    import gzip

    data = (folder / f"{stem}.bin").read_bytes()
    index = folder / ("index.jsonl" if stem == "events" else f"{stem}.index.jsonl.gz")
    text = gzip.decompress(index.read_bytes()) if index.suffix == ".gz" else index.read_bytes()
    perf: list[bytes] = []
    proxy: list[dict[str, Any]] = []
    for line in text.splitlines():
        entry = json.loads(line)
        if entry["kind"] == "perf":
            perf.append(data[entry["offset"] : entry["offset"] + entry["length"]])
        elif entry["kind"] == "accesslog":
            proxy.append(entry["record"])
    return perf, proxy
