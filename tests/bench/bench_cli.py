"""The command line as people run it: how soon it answers, how fast it prints.

Every figure is of the real executable as a process of its own, its start included unless the name says otherwise; it
shares two cores with the server that it asks. Output goes nowhere.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import GOLDEN
from tests.support.batches import read_golden
from tests.support.flow_lines import flow_lines
from tests.support.process import Process, observer_process
from tests.support.recordings import paced, write_recording

PROGRAM = str(Path(sys.executable).parent / "flowscope")
RUNS = 5
START_RUNS = 9
RING = 2**19 - 1
LINES = 200_000
START_LINES = 20_000


def run() -> dict[str, object]:
    """All figures."""
    figures: dict[str, object] = dict(starts())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with servers(folder) as (observer, relay):
            figures |= first_flow(observer, relay)
            figures |= from_server("relay_columns", relay, RING, "--all")
            figures |= from_server("observer_messages", observer, 4_999, "--last", "4999")
        figures |= from_file(folder)
    return figures


def starts() -> dict[str, object]:
    """Wall time of commands that ask nobody."""
    return {
        f"{name}_ms": round(statistics.median(timed(*arguments)[0] for _ in range(START_RUNS)) * 1000, 1)
        for name, arguments in (
            ("python_alone", ()),
            ("version", ("version",)),
            ("observe_help", ("observe", "--help")),
            ("print_raw_filters", ("observe", "--print-raw-filters", "--pod", "a/b")),
        )
    }


def timed(*arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of one run; without arguments, of an interpreter that does nothing."""
    command = [PROGRAM, *arguments] if arguments else [sys.executable, "-c", "pass"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    wall_s = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def servers(folder: Path) -> Iterator[tuple[str, str]]:
    """An observer with a full ring, and a relay in front of it."""
    events, _ = read_golden(GOLDEN / "bench", "bench-mix")
    state = (GOLDEN / "events" / "getters.json").read_bytes()
    path = write_recording(folder / "full", paced(events, state, per_second=500_000, seconds=1.06))
    flags = ["--ring-flows", str(RING), "--replay", str(path), "--replay-speed", "0"]
    with observer_process(folder, *flags) as (process, observer):
        process.wait_for("replay ended")
        address = f"unix://{folder}/relay.sock"
        plain = ["--disable-client-tls", "--disable-server-tls", "--health-listen", ""]
        relay = Process(["cli", "relay", "--listen", address, "--peers", f"n={observer}", *plain], folder / "relay.log")
        try:
            deadline = time.monotonic() + 20
            while subprocess.run([PROGRAM, "status", "--server", address], capture_output=True, check=False).returncode:
                if time.monotonic() > deadline:
                    raise AssertionError(f"the relay does not get ready: {relay.log.read_text()}")
            yield observer, address
        finally:
            relay.stop()


def first_flow(observer: str, relay: str) -> dict[str, object]:
    """From the start of the process to its first line."""
    figures: dict[str, object] = {}
    for name, address, arguments in (
        ("observer", observer, ("--last", "20")),
        ("relay", relay, ("--last", "20")),
        ("relay_follow", relay, ("-f", "--last", "20")),
        ("relay_all_in_columns", relay, ("--all",)),
    ):
        waits = []
        for _ in range(RUNS):
            begun = time.perf_counter()
            command = [PROGRAM, "observe", *arguments, "--server", address]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline()
                waits.append(time.perf_counter() - begun)
                process.kill()
        figures[f"first_flow_{name}_ms"] = round(statistics.median(waits) * 1000, 1)
    return figures


def from_server(name: str, address: str, flows: int, *arguments: str) -> dict[str, object]:
    """Flows per second of a large answer."""
    figures: dict[str, object] = {}
    for output in ("compact", "json"):
        runs = [timed("observe", *arguments, "-o", output, "--server", address) for _ in range(RUNS)]
        figures |= rates(f"{name}_{output}", flows, runs)
    return figures


def from_file(folder: Path) -> dict[str, object]:
    """Flows per second of a file of JSON lines."""
    path, start = folder / "flows.jsonl", folder / "start.jsonl"
    with path.open("wb") as file, start.open("wb") as beginning:
        for number, line in enumerate(flow_lines(GOLDEN, LINES)):
            file.write(line)
            if number < START_LINES:
                beginning.write(line)
    figures: dict[str, object] = {"file_bytes_per_line": round(path.stat().st_size / LINES)}
    for output in ("compact", "json"):
        runs = [timed("observe", "--input-file", str(path), "-o", output) for _ in range(RUNS)]
        figures |= rates(f"file_{output}", LINES, runs)
        # What a longer file would add: neither start nor learning what lines look like.
        starts = [timed("observe", "--input-file", str(start), "-o", output)[0] for _ in range(RUNS)]
        seconds = statistics.median(wall_s for wall_s, _ in runs) - statistics.median(starts)
        figures[f"file_{output}_further_flows_per_s"] = round((LINES - START_LINES) / seconds)
    return figures


def rates(name: str, flows: int, runs: list[tuple[float, float]]) -> dict[str, object]:
    """Medians of wall and processor time."""
    return {
        f"{name}_flows_per_s": round(flows / statistics.median(wall_s for wall_s, _ in runs)),
        f"{name}_cpu_us_per_flow": round(statistics.median(cpu_s for _, cpu_s in runs) / flows * 1e6, 2),
    }
