"""Pictures of docs/screenshots with real traffic: a lab's map, a request that is refused, the life of a connection.

    flowscope lab up && make screenshots-of-lab

gives a lab that runs an ingress and policies for requests, lets its pods and the outside talk for a minute and a half,
writes the pictures, and takes away what it gave. Look at each before you commit it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from tests.support.page import ROOT, Looker
from tests.support.screenshots import FOLDER, SIZES, take_all

MANIFESTS: Final = ROOT / "lab" / "manifests"
GIVEN: Final = (
    MANIFESTS / "walk" / "kind-lb-cm.yaml",
    MANIFESTS / "walk" / "foo-bar-apps.yaml",
    MANIFESTS / "walk" / "cilium-ingress.yaml",
    MANIFESTS / "client-egress-only-dns.yaml",
    MANIFESTS / "client-egress-l7-http.yaml",
)
INGRESS: Final = "172.18.255.200"
"""The first address of the pool in kind-lb-cm.yaml."""
PERIOD_S: Final = 80.0
"""So much talk before the first picture; at half of it, what is said changes."""


def flowscope(*words: str) -> str:
    """Run `flowscope WORDS`; gives what it printed."""
    return subprocess.run([sys.executable, "-m", "cli", *words], cwd=ROOT, capture_output=True, text=True).stdout


def curl(client: str, *addresses: str) -> None:
    """One request each, from a pod or from outside."""
    where = ("--outside",) if client == "outside" else ("-n", "cilium-test", client)
    flowscope("lab", "exec", *where, "--", "curl", "-s", "-o", "/dev/null", "-m", "2", *addresses)


def talk(stop: threading.Event, change_s: float) -> None:
    """What the pictures show. Requests to /private are refused; client may not speak to pods at all."""
    while not stop.is_set():
        is_late = time.time() > change_s
        curl("client2", "echo-other-node:8080/", "echo-same-node:8080/", "echo-other-node:8080/private")
        curl("outside", f"{INGRESS}/foo", *([] if is_late else [f"{INGRESS}/bar"]), "172.18.0.5:32133/")
        if is_late:
            curl("client", "echo-same-node:8080/")


def lab_map(page: Looker) -> None:
    """Pods, nodes and the outside, with what the proxies saw."""
    page.open()


def refused(page: Looker) -> None:
    """A request that was answered with 403, and the rule for it."""
    chosen(page, "--type+l7+--protocol+http+--verdict+DROPPED", "document.querySelector('detail-panel .why pre')")


def life(page: Looker) -> None:
    """From outside through the ingress's proxy to a pod."""
    chosen(page, "--type+l7+--to-pod+default/foo-app", "document.querySelectorAll('.stations li').length > 3")


def lab_compare(change: datetime, page: Looker) -> None:
    """Half of a minute against the half before it; between them, what is said changed."""
    first, turn, last = (f"{change + timedelta(seconds=by):%Y-%m-%dT%H:%M:%SZ}" for by in (-32, 0, 32))
    page.open(f"?from={turn}&to={last}&compare={first}_{turn}")
    page.until("document.querySelector('.edge[data-change=new]')")


def chosen(page: Looker, words: str, shown: str) -> None:
    """One flow of a filter in the panel."""
    page.open(f"?filter={words}")
    if page.js("innerWidth <= 720"):
        page.click("[data-view=flows][role=tab]")
    page.until("document.querySelectorAll('flow-table .row').length > 2")
    page.click("#pause")
    page.click("flow-table .row:nth-child(3)")
    page.until(shown)


def main(address: str, folder: Path) -> list[Path]:
    """Write the pictures; gives their paths."""
    files = [word for path in GIVEN for word in ("-f", str(path))]
    flowscope("mesh", "apply", "--wait", *files)
    change = datetime.now(UTC) + timedelta(seconds=PERIOD_S / 2)
    scenes: dict[str, Callable[[Looker], None]] = {
        "lab-map": lab_map,
        "lab-refused": refused,
        "lab-life": life,
        "lab-compare": partial(lab_compare, change),
    }
    stop = threading.Event()
    talking = threading.Thread(target=talk, args=(stop, change.timestamp()))
    try:
        talking.start()
        time.sleep(PERIOD_S)
        return [path for size in SIZES for path in take_all(address, scenes, size, folder)]
    finally:
        stop.set()
        talking.join()
        flowscope("mesh", "delete", *files)


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--ui", default="http://localhost:12000/", help="the lab's dashboard")
    words.add_argument("--folder", type=Path, default=FOLDER)
    given = words.parse_args()
    for path in main(given.ui, given.folder):
        print(path)
