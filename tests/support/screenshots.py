"""The pictures of docs/screenshots: landing, map, drop reason, compare; dark and light; a desk and a phone.

    make screenshots

serves the dashboard over the made-up shop (fleet.py) and writes every picture anew. Look at each before you commit it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from tests.support.browser import chromium
from tests.support.page import Looker, fleet_ui

FOLDER: Final = Path(__file__).parents[2] / "docs" / "screenshots"
SIZES: Final = {"1440x900": (1440, 900, False), "390x844": (390, 844, True)}
THEMES: Final = ("dark", "light")
SETTLED: Final = "document.querySelectorAll('.card').length && !document.querySelector('service-map.arranging')"

HOVER: Final = """(() => {
  const label = document.querySelector("[data-edge='shop/frontend>shop/recommendation'] .label");
  const {left, top} = label.getBoundingClientRect();
  label.dispatchEvent(new PointerEvent("pointerover", {bubbles: true, clientX: left - 350, clientY: top - 120}));
})()"""


def landing(page: Looker) -> None:
    """What is seen first: everything."""
    page.open()


def map_of_one_arrow(page: Looker) -> None:
    """One arrow and its numbers."""
    page.open()
    page.event("[data-edge='shop/frontend>shop/recommendation'] .hit", "click")
    page.until("!document.querySelector('detail-panel').hidden")
    page.until(SETTLED)
    time.sleep(1)
    if page.js("innerWidth > 720"):  # fingers do not hover
        page.js(HOVER)
        page.until("document.querySelectorAll('.spark rect').length > 5")


def drop_reason(page: Looker) -> None:
    """Why a flow was dropped, and what would allow it."""
    page.open("?filter=--verdict+DROPPED+--to-port+5432")
    if page.js("innerWidth <= 720"):
        page.click("[data-view=flows][role=tab]")
    page.until("document.querySelectorAll('flow-table .row').length > 5")
    page.click("#pause")
    page.click("flow-table .row")
    page.until("document.querySelector('detail-panel .why pre')")


def compare(page: Looker) -> None:
    """The last minute against the one before it."""
    now = datetime.now(UTC)
    first, last = (f"{now - timedelta(seconds=back):%Y-%m-%dT%H:%M:%SZ}" for back in (50, 5))
    earlier, end = (f"{now - timedelta(seconds=back):%Y-%m-%dT%H:%M:%SZ}" for back in (150, 105))
    page.open(f"?from={first}&to={last}&compare={earlier}_{end}")
    page.until("document.querySelector('.edge[data-change=new]')")


SCENES: Final[dict[str, Callable[[Looker], None]]] = {
    "landing": landing,
    "map": map_of_one_arrow,
    "drop-reason": drop_reason,
    "compare": compare,
}


def take(folder: Path, scenes: tuple[str, ...] = tuple(SCENES)) -> list[Path]:
    """Write the pictures; gives their paths."""
    taken = []
    for size in SIZES:
        with fleet_ui() as (address, _):
            taken += take_all(address, {name: SCENES[name] for name in scenes}, size, folder)
    return taken


def take_all(address: str, scenes: Mapping[str, Callable[[Looker], None]], size: str, folder: Path) -> list[Path]:
    """The scenes of one dashboard in one size, dark and light."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height, mobile = SIZES[size]
    taken = []
    with chromium(width, height) as driver:
        device = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
        page = Looker(driver, address)
        page.open()
        for theme in THEMES:
            page.js(f"localStorage.setItem('flowscope-theme', '{theme}')")
            for name, scene in scenes.items():
                scene(page)
                page.until(SETTLED)
                time.sleep(1.5)  # words find their places, colours fade
                path = folder / f"{name}-{theme}-{size}.png"
                driver.save_screenshot(str(path))
                taken.append(path)
    return taken


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("scenes", nargs="*", help=f"of {', '.join(SCENES)}; all of them when none is named")
    words.add_argument("--folder", type=Path, default=FOLDER)
    given = words.parse_args()
    for path in take(given.folder, tuple(given.scenes) or tuple(SCENES)):
        print(path)
