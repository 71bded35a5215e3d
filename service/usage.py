"""What this process uses of its machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def cpu_ns() -> int:
    """CPU time of all threads since the start, in user space and in the kernel."""
    return time.process_time_ns()


def resident_bytes() -> int:
    """Memory that is really there."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
