"""Kernel events on demand: a program that sends one event per run, run as often as asked (tests/support/emit.bpf.c).

In:        how many, how fast.
Out:       events in the perf rings of whoever reads the pins, with the kernel's own time.
Elsewhere: observer/perf.py reads; the lab makes events out of real traffic.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bpf import maps
from bpf.bpffs import ensure_bpffs
from bpf.datapath import OBJECTS
from bpf.handles import Program
from bpf.loader import load_object
from tests.support.traffic import ethernet, ipv4_packet, udp_datagram

PACKET = ethernet(ipv4_packet("10.244.0.10", "10.244.1.30", udp_datagram(4000, 4001, bytes(200))))


@dataclass
class Emitter:
    """The loaded program."""

    pin_dir: Path
    program: Program
    emitted: int = 0

    def emit(self, count: int) -> None:
        """Send `count` events as fast as the kernel goes."""
        self.program.test_run(PACKET, repeat=count)
        self.emitted += count

    def pace(self, per_second: int, seconds: float, step_s: float = 0.001) -> None:
        """Send events evenly; returns when the time is over."""
        begun = time.monotonic()
        sent = 0
        while (passed := time.monotonic() - begun) < seconds:
            due = int(passed * per_second) - sent
            if due > 0:
                self.emit(due)
                sent += due
            time.sleep(max(0.0, step_s - (time.monotonic() - begun - passed)))


@contextmanager
def emitter(folder: Path) -> Iterator[Emitter]:
    """Load the program, with pins below a bpffs of its own in `folder`."""
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    bpffs = folder / "bpffs"
    ensure_bpffs(bpffs)
    small = dict.fromkeys((*maps.CONNTRACK, maps.FRAGMENTS), 64)
    try:
        loaded = load_object(OBJECTS / "emit.bpf.o", bpffs / "node", None, small)
        try:
            yield Emitter(bpffs / "node", loaded.programs["emit"])
        finally:
            loaded.close()
    finally:
        subprocess.run(["umount", str(bpffs)], check=True)
