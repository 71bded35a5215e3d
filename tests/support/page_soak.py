"""An open page for a long time: does the memory of page and server stay flat?

    python -m tests.support.page_soak --minutes 30 --per-second 10000

prints a sample a minute and a last line with the growth; exit code 1 when one of them grew. The short form runs with
the other tests (tests/e2e/test_page_soak.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from selenium import webdriver

from tests.support.browser import chromium
from tests.support.page import Looker, fleet_ui

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """What both cost at one moment."""

    at_s: float
    server_mib: float
    """Resident memory of the dashboard's process."""
    heap_mib: float
    """Objects of the page that live on after a collection."""
    nodes: int
    """DOM nodes, those in the page and those that something still holds."""
    listeners: int
    flows: int
    """Counted by the page's own view of the server."""


@dataclass(frozen=True, slots=True)
class Growth:
    """The last third of the samples against the third before it; the first one is for warming up."""

    server_mib: float
    heap_mib: float
    nodes: float
    listeners: float

    @classmethod
    def of(cls, samples: list[Sample]) -> Growth:
        third = max(len(samples) // 3, 1)

        def grew(number: Callable[[Sample], float]) -> float:
            before, after = samples[-2 * third : -third], samples[-third:]
            return statistics.median(map(number, after)) - statistics.median(map(number, before))

        return cls(
            round(grew(lambda one: one.server_mib), 2),
            round(grew(lambda one: one.heap_mib), 2),
            grew(lambda one: one.nodes),
            grew(lambda one: one.listeners),
        )

    def is_flat(self) -> bool:
        """Counts for the time bar reach back an hour, so the server may grow by what some minutes of them take."""
        return self.server_mib < 12 and self.heap_mib < 3 and self.nodes < 2000 and self.listeners < 500


def soak(seconds: float, every_s: float, per_second: int, *words: str, tell: Callable[[Sample], None]) -> list[Sample]:
    """Look at the map, the table and each view in turn while flows come in."""
    samples: list[Sample] = []
    with fleet_ui("--encoded", "--per-second", str(per_second), *words) as (address, process), chromium() as driver:
        looker = Looker(driver, address)
        looker.open()
        begin = time.monotonic()
        views = ("findings", "l7", "dns", "health", "map")
        while (at_s := time.monotonic() - begin) < seconds:
            looker.click(f"[data-view={views[len(samples) % len(views)]}][role=tab]")
            time.sleep(max(begin + (len(samples) + 1) * every_s - time.monotonic(), 0.2))
            samples.append(_sample(driver, process.pid, round(at_s, 1)))
            tell(samples[-1])
    return samples


def _sample(driver: webdriver.Chrome, pid: int, at_s: float) -> Sample:
    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    driver.execute_cdp_cmd("Performance.enable", {})
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    page = {metric["name"]: metric["value"] for metric in metrics}
    flows = driver.execute_async_script(
        "const done = arguments[0]; fetch('healthz').then((answer) => answer.json()).then((all) => done(all.seen))"
    )
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return Sample(
        at_s,
        round(resident / MIB, 1),
        round(page["JSHeapUsedSize"] / MIB, 2),
        int(page["Nodes"]),
        int(page["JSEventListeners"]),
        int(flows),
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--minutes", type=float, default=30)
    words.add_argument("--per-second", type=int, default=10_000)
    given = words.parse_args()
    every_s = min(60.0, given.minutes * 2)
    samples = soak(
        given.minutes * 60,
        every_s,
        given.per_second,
        tell=lambda sample: print(json.dumps(asdict(sample)), flush=True),
    )
    growth = Growth.of(samples)
    print(json.dumps({"growth": asdict(growth), "flat": growth.is_flat()}))
    sys.exit(0 if growth.is_flat() else 1)


if __name__ == "__main__":
    main()
