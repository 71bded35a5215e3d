"""An observer as a process of its own, as users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A running service and what the kernel knows of it."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
            )

    def cpu_s(self) -> float:
        """Processor time used so far, user and system."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mib(self) -> float:
        """Resident memory."""
        for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("the process is gone")

    def wait_for(self, text: str, timeout_s: float = 20.0) -> None:
        """Until the log holds `text`."""
        deadline = time.monotonic() + timeout_s
        while text not in self.log.read_text():
            if self.popen.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} in: {self.log.read_text()}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 10.0) -> int:
        """Signal it and wait; returns the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise


@contextmanager
def observer_process(folder: Path, *flags: str, listen: str = "") -> Iterator[tuple[Process, str]]:
    """Run `python -m observer` until it serves; yields it and its address."""
    address = listen or f"unix://{folder}/observer.sock"
    defaults = ["--events", "none", "--state-file", ""]
    process = Process(["observer", "--listen", address, *defaults, *flags], folder / "observer.log")
    try:
        process.wait_for("listening")
        if listen.endswith(":0"):
            address = process.log.read_text().split("address=")[1].split()[0].strip('"')
        yield process, address
    finally:
        process.stop()
