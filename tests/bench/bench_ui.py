"""The dashboard: what an open page costs its server, what it sends, how soon and how smoothly the page draws.

A made-up fleet (tests/support/fleet.py) is fed as Arrow batches that were made before, so CPU is that of the dashboard:
reading batches, keeping and counting flows, and pushing to one page. Memory over half an hour is `make soak-page`; here
stands its short form.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from websockets.asyncio.client import connect

from tests.support.browser import chromium
from tests.support.page import Looker, fleet_ui
from tests.support.page_soak import Growth, soak

SECONDS = 5.0
SETTLE_S = 3.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAN = """
const done = arguments[0], view = document.querySelector('service-map').viewport;
let frames = 0, longest = 0, last = performance.now(); const begin = last;
function frame(now) {
  frames += 1; longest = Math.max(longest, now - last); last = now;
  view.pan(Math.sin(now / 200) * 12, Math.cos(now / 300) * 8);
  if (now - begin < 3000) requestAnimationFrame(frame);
  else done([frames / ((now - begin) / 1000), longest]);
}
requestAnimationFrame(frame);
"""


def run() -> dict[str, object]:
    figures: dict[str, object] = {}
    for per_second in (10_000, 100_000):
        figures |= asyncio.run(_server(per_second))
    figures |= _browser()
    figures |= _memory()
    return figures


def _memory() -> dict[str, object]:
    """Growth over a minute at 10,000 flows/s, with a ring that is full from the start."""
    samples = soak(60, 5, 10_000, "--flows", "65535", tell=lambda sample: None)
    growth = Growth.of(samples)
    return {
        "memory_at_10k_flows_per_s_server_mib": samples[-1].server_mib,
        "memory_at_10k_flows_per_s_page_heap_mib": samples[-1].heap_mib,
        "memory_growth_in_20_s_server_mib": growth.server_mib,
        "memory_growth_in_20_s_page_heap_mib": growth.heap_mib,
    }


async def _server(per_second: int) -> dict[str, object]:
    name = f"at_{per_second // 1000}k_flows_per_s"
    with fleet_ui("--encoded", "--per-second", str(per_second)) as (address, process):
        await asyncio.sleep(SETTLE_S)
        idle = await _cpu(process.pid)
        async with connect(f"ws{address[4:]}api/live", max_size=None) as socket:
            await socket.send(json.dumps({"type": "subscribe"}))
            counting = asyncio.create_task(_count(socket))
            await asyncio.sleep(1)
            before = _resident_mib(process.pid)
            open_page = await _cpu(process.pid)
            await asyncio.sleep(SECONDS)
            growth = _resident_mib(process.pid) - before
            counting.cancel()
        sent, took = counting_result
    return {
        f"{name}_cpu_percent_no_page": idle,
        f"{name}_cpu_percent_one_page": open_page,
        f"{name}_kib_per_s_to_browser": round(sent / took / 1024, 1),
        f"{name}_server_mib": round(before),
        f"{name}_growth_mib_in_{round(2 * SECONDS)}_s": round(growth, 1),
    }


counting_result = (0, 1.0)


async def _count(socket: Any) -> None:
    global counting_result
    began, sent = time.monotonic(), 0
    async for message in socket:
        sent += len(message)
        counting_result = (sent, time.monotonic() - began)


async def _cpu(pid: int) -> float:
    """Percent of one CPU over SECONDS."""
    before = _ticks(pid)
    await asyncio.sleep(SECONDS)
    return round(100 * (_ticks(pid) - before) / TICKS_PER_S / SECONDS, 1)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _browser() -> dict[str, object]:
    figures: dict[str, object] = {}
    with chromium() as driver:
        with fleet_ui() as (address, _):
            looker = Looker(driver, address)
            looker.open()
            time.sleep(1)
            first = []
            for _ in range(5):
                looker.open()
                looker.until("performance.getEntriesByName('first-picture').length")
                first.append(looker.js("performance.getEntriesByName('first-picture')[0].startTime"))
            figures["first_picture_ms_median"] = round(statistics.median(first))
        with fleet_ui("--services", "1000", "--edges", "10000", "--per-second", "2000", "--history-s", "10") as (
            address,
            _,
        ):
            looker = Looker(driver, address)
            opened = "~".join(f"ns/team-{number:02}" for number in range(25))
            looker.open(f"?opened={opened}")
            looker.until("document.querySelectorAll('.card').length >= 1000")
            figures |= _pan(looker, "1000_services_10000_arrows")
        with fleet_ui("--services", "5000", "--edges", "20000", "--per-second", "5000", "--history-s", "10") as (
            address,
            _,
        ):
            looker = Looker(driver, address)
            looker.open()
            looker.until("document.querySelectorAll('.card').length >= 125")
            figures |= _pan(looker, "5000_services_grouped")
    return figures


def _pan(looker: Looker, name: str) -> dict[str, object]:
    """Frames while the map is moved."""
    time.sleep(3)
    rate, longest = looker.driver.execute_async_script(PAN)
    return {
        f"pan_{name}_frames_per_s": round(rate, 1),
        f"pan_{name}_longest_frame_ms": round(longest),
        f"page_heap_mib_{name}": round(looker.js("performance.memory.usedJSHeapSize") / 2**20, 1),
    }
