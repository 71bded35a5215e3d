"""What the observer's sources hand to the decoder: batches of raw monitor events.

In:        perf rings (observer/perf.py), recordings, golden files.
Out:       one EventBatch per drain, decoded in one go by decode.py.
Elsewhere: the layout of each event is in layouts.py (spec: Cilium monitor messages).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class LostSamples:
    """The kernel could not store `count` events of `cpu`, just before the event at index `at` of the batch."""

    at: int
    cpu: int
    count: int
    time_ns: int
    """When the gap was read, ns since the epoch."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Raw events of one drain, in order of time.

    Record i is data[offsets[i] : offsets[i] + lengths[i]]: a monitor message, its first byte the message type.
    Bytes behind the message's own captured length are padding.
    """

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    cpus: npt.NDArray[np.uint16]
    times_ns: npt.NDArray[np.int64]
    """Nanoseconds since the epoch (realtime)."""
    lost: tuple[LostSamples, ...] = ()

    def __len__(self) -> int:
        return len(self.offsets)

    def record(self, index: int) -> bytes:
        """The bytes of one event."""
        start = int(self.offsets[index])
        return self.data[start : start + int(self.lengths[index])].tobytes()
