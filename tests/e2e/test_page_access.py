"""Ways to the dashboard in a real browser: with a token, below a path, through a balancer; and what may go wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from tests.support.browser import chromium
from tests.support.forward import forwarding
from tests.support.page import Looker, fleet_ui

pytestmark = pytest.mark.browser

TOKEN = "a token with <odd> & characters"
LIVE = "document.querySelector('connection-state .text').textContent.startsWith('live')"
SHIFTS = """
const done = arguments[0]; let sum = 0;
new PerformanceObserver((list) => { for (const one of list.getEntries()) if (!one.hadRecentInput) sum += one.value; })
  .observe({type: 'layout-shift', buffered: true});
setTimeout(() => done(sum), 4000);
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    with fleet_ui("--history-s", "60") as (address, _):
        yield address


def test_a_token_is_asked_for_and_kept(driver: webdriver.Chrome) -> None:
    with fleet_ui("--token", TOKEN, "--history-s", "20") as (address, _):
        page = Looker(driver, address)
        driver.get(address)
        assert page.js("document.querySelector('service-map')") is None
        page.find("input[name=token]").send_keys("wrong", Keys.ENTER)
        page.until("document.querySelector('input[name=token]')")
        page.find("input[name=token]").send_keys(TOKEN, Keys.ENTER)
        page.until("document.querySelectorAll('.card').length")
        assert "token" not in driver.current_url
        page.open("?view=health")
        driver.delete_all_cookies()


@pytest.mark.parametrize("cut", ["", "/net/flowscope"])
def test_the_page_works_below_a_path_that_a_proxy_keeps_or_cuts(driver: webdriver.Chrome, cut: str) -> None:
    flags = [] if cut else ["--base-path", "/net/flowscope"]
    with fleet_ui("--history-s", "20", *flags) as (address, _), forwarding(address, cut) as proxy:
        page = Looker(driver, f"http://localhost:{proxy.port}/net/flowscope/")
        driver.get("about:blank")
        page.errors()  # those of pages before
        page.open()
        page.until(LIVE)
        page.open("?view=findings")
        assert page.errors() == []


def test_a_page_goes_on_at_another_replica_behind_a_balancer(driver: webdriver.Chrome) -> None:
    with (
        fleet_ui("--history-s", "20") as (one, _),
        fleet_ui("--history-s", "20") as (two, _),
        forwarding(one) as balancer,
    ):
        page = Looker(driver, f"http://localhost:{balancer.port}/")
        page.open()
        rows = page.js("document.querySelector('flow-table').length")
        seen = "window.lost = false; new MutationObserver(() => { window.lost ||= !document.querySelector("
        driver.execute_script(
            f"{seen}'connection-state .text').textContent.startsWith('live'); }})"
            ".observe(document.querySelector('connection-state'),"
            "{subtree: true, childList: true, characterData: true})"
        )
        balancer.switch(int(two.rstrip("/").rpartition(":")[2]))
        page.until("window.lost")
        page.until(LIVE)
        page.until(f"document.querySelector('flow-table').length > {rows}")
        assert page.js("document.querySelectorAll('.card').length") > 10


def test_nothing_moves_while_the_page_fills(driver: webdriver.Chrome, shop: str) -> None:
    page = Looker(driver, shop)
    page.open()
    page.open()
    assert driver.execute_async_script(SHIFTS) < 0.02


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?from=yesterday&to=now", "cannot be read"),
        ("?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "cannot be read"),
        ("?compare=x_y", "cannot be read"),
    ],
)
def test_times_that_make_no_sense_stay_told_beside_the_bar_until_others_are_chosen(
    driver: webdriver.Chrome, shop: str, query: str, words: str
) -> None:
    page = Looker(driver, shop)
    page.open(query)
    page.until(LIVE)
    assert words in page.text("time-bar .note")
    assert page.js("!document.querySelector('time-bar .note').hidden")
    page.click("time-bar .compare")
    page.until("document.querySelector('time-bar .note').hidden")


@pytest.mark.parametrize(
    "query",
    [
        "?columns=nothing,%00&sort=nowhere",
        "?opened=~~~&closed=%ff&view=%3Cb%3E&bar=1e99",
        "?group=x,y,z,w",
        "?flow=%00",
    ],
)
def test_an_address_full_of_nonsense_leaves_a_page_that_lives(driver: webdriver.Chrome, shop: str, query: str) -> None:
    page = Looker(driver, shop)
    driver.get(f"{shop}{query}")
    page.until("document.querySelectorAll('.card').length")
    page.until(LIVE)
    page.filter("--verdict DROPPED")
    page.until("document.querySelectorAll('.edge').length && document.querySelectorAll('.edge').length < 4")


def test_a_filter_in_the_address_that_is_wrong_is_told_below_the_box(driver: webdriver.Chrome, shop: str) -> None:
    page = Looker(driver, shop)
    driver.get(f"{shop}?filter=--verdict+MAYBE")
    page.until("document.querySelector('filter-box .note').textContent.includes('MAYBE')")
    page.filter("")
    page.until("document.querySelector('filter-box .note').hidden && document.querySelectorAll('.card').length")


def test_the_map_is_saved_as_png(driver: webdriver.Chrome, shop: str) -> None:
    page = Looker(driver, shop)
    page.open()
    encoded = driver.execute_async_script(
        "const done = arguments[0]; const made = URL.createObjectURL; URL.createObjectURL = (blob) => {"
        "if (blob.type === 'image/png') { const reader = new FileReader(); reader.onload = () =>"
        "done(reader.result.split(',')[1]); reader.readAsDataURL(blob); } return made(blob); };"
        "document.querySelector('[data-map=png]').click()"
    )
    png = base64.b64decode(encoded)
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert width > 1000
    assert height > 500
    assert len(png) > 30_000


def test_five_thousand_services_are_shown_by_island_and_found_in_them(driver: webdriver.Chrome) -> None:
    with fleet_ui("--services", "5000", "--edges", "20000", "--per-second", "5000", "--history-s", "10") as (
        address,
        _,
    ):
        page = Looker(driver, address)
        page.open()
        page.until("document.querySelectorAll('.card').length === 125")
        page.find("#search").send_keys("service-4321", Keys.ENTER)
        page.until("document.activeElement?.dataset.card?.endsWith('/service-4321')")
        assert page.js("document.querySelectorAll('.card').length") > 150
        page.find("#search").clear()
        page.find("#search").send_keys("no-such-service", Keys.ENTER)
        page.until("document.querySelector('#problem').textContent.includes('no-such-service')")
