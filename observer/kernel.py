"""The kernel as a source: the perf rings of a pinned event map, drained by watermark and by timer.

In:        the folder of the datapath's pins.
Out:       a Source, or a Failure with one line that names the remedy.
Elsewhere: perf.py reads the rings; bpf/ writes them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import structlog

from bpf.loader import BpfError
from model.events import EventBatch
from observer.perf import PerfReader
from service.failure import Failure

log = structlog.get_logger(component="kernel")

TICK_S: Final = 0.004
"""Time between two drains while events come, unless a ring fills up sooner: an event waits half of it on average, and
each drain costs the same work however few events it finds."""
QUIET_TICK_S: Final = 0.008
QUIET_AFTER_S: Final = 1.0
PAGE_KIB: Final = 4
RETRY_S: Final = 1.0


class Kernel:
    """The perf rings of one node's datapath."""

    patient = False
    ended = False

    def __init__(self, pin_dir: Path, buffer_kib: int) -> None:
        """
        buffer_kib  ring of each CPU.
        Raises: Failure.
        """
        try:
            self._reader = PerfReader(pin_dir, max(1, buffer_kib // PAGE_KIB))
        except ValueError:
            raise Failure(
                f"--perf-buffer-kib must be 4 times a power of two (4, 8, ... 2048, 4096), got {buffer_kib}"
            ) from None
        except BpfError as error:
            raise Failure(f"cannot read events: {error}") from error
        log.info("reading perf rings", pins=str(pin_dir), kib_per_cpu=buffer_kib)
        self._next_s = time.monotonic()
        self._busy_s = self._next_s

    def read(self) -> EventBatch | None:
        """What came since the last time; returns at the latest after a tick."""
        now = time.monotonic()
        if now < self._next_s:
            self._reader.poll(self._next_s - now)
            now = time.monotonic()
        batch = self._reader.drain()
        if batch is not None:
            self._busy_s = now
        self._next_s = now + (TICK_S if now - self._busy_s < QUIET_AFTER_S else QUIET_TICK_S)
        return batch

    def close(self) -> None:
        """Leave the rings; the programs go on without a reader."""
        self._reader.close()
