"""The kernel as a source: the perf rings of a pinned event map, woken by watermark.

In:        the folder of the datapath's pins.
Out:       a Source, or a Failure with one line that names the remedy.
Elsewhere: perf.py reads the rings; bpf/ writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from bpf.libbpf import BpfError
from observer.perf import PerfReader
from observer.recording import Item
from service.failure import Failure

log = structlog.get_logger(component="kernel")

PAGE_KIB: Final = 4


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

    def take(self) -> list[Item]:
        """What the rings hold."""
        batch = self._reader.drain()
        return [] if batch is None else [batch]

    def wait(self, timeout_s: float) -> None:
        """Until a ring is filling up, or the time is over."""
        self._reader.poll(timeout_s)

    def close(self) -> None:
        """Leave the rings; the programs go on without a reader."""
        self._reader.close()
