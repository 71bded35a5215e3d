"""Everything that the dashboard does with a pointer, with the keyboard alone; and what people with other eyes need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.support.browser import chromium
from tests.support.page import Looker, fleet_ui

pytestmark = pytest.mark.browser

EDGE = "[data-edge='shop/cart>data/redis']"
FOCUSED = "document.activeElement.closest('{}') !== null"


@pytest.fixture(scope="module")
def page() -> Iterator[Looker]:
    with fleet_ui() as (address, _), chromium() as driver:
        yield Looker(driver, address)


def press(page: Looker, *keys: str, held: str = "") -> None:
    actions = ActionChains(page.driver)
    if held:
        actions.key_down(held)
    actions.send_keys(*keys)
    if held:
        actions.key_up(held)
    actions.perform()


def focus(page: Looker, selector: str) -> None:
    """As Tab would; the page then shows what it shows for the keyboard."""
    press(page, Keys.SHIFT)
    page.driver.execute_script("document.querySelector(arguments[0]).focus({focusVisible: true})", selector)


def tab_until(page: Looker, selector: str, most: int = 80) -> None:
    for _ in range(most):
        if page.js(FOCUSED.format(selector)):
            return
        press(page, Keys.TAB)
    raise AssertionError(f"Tab never came to {selector}")


def test_tab_reaches_every_part_in_the_order_of_the_page(page: Looker) -> None:
    page.open()
    for selector in (
        "a.skip", "filter-box input", "filter-box [data-verdict=DROPPED]", "theme-toggle button", "time-bar .live",
        "time-bar .compare", "time-bar select", "time-bar svg", "[role=tab][data-view=findings]", "service-map .port",
    ):  # fmt: skip
        tab_until(page, selector)
    for selector in (".island", ".edge", ".card"):
        assert page.js(f"[...document.querySelectorAll('{selector}')].every((one) => one.tabIndex === 0)")
    assert page.js("[...document.querySelectorAll('flow-table .scroll, #pause, #group, #command')].length") == 4


def test_letters_go_where_the_docs_say(page: Looker) -> None:
    page.open()
    focus(page, "service-map .port")
    press(page, "/")
    page.until(FOCUSED.format("filter-box"))
    focus(page, "service-map .port")
    press(page, "m")
    page.until("document.activeElement.id === 'search'")
    press(page, "postgres", Keys.ENTER)
    page.until("document.activeElement.dataset.card === 'data/postgres'")
    focus(page, "service-map .port")
    before = page.js("document.querySelector('.drawing').style.transform")
    press(page, "f")
    page.until(f"document.querySelector('.drawing').style.transform !== '{before}'")
    for key in (Keys.ARROW_LEFT, Keys.ARROW_DOWN, "+", "-"):
        before = page.js("document.querySelector('.drawing').style.transform")
        press(page, key)
        page.until(f"document.querySelector('.drawing').style.transform !== '{before}'")
    press(page, " ")
    page.until("document.querySelector('#pause').getAttribute('aria-pressed') === 'true'")
    press(page, " ")
    page.until("document.querySelector('#pause').getAttribute('aria-pressed') === 'false'")


def test_the_map_is_walked_opened_and_arranged_by_keys(page: Looker) -> None:
    page.open()
    focus(page, EDGE)
    page.until("document.querySelectorAll('.spark rect').length > 5")
    press(page, Keys.ENTER)
    page.until("document.querySelector('detail-panel h2').textContent === 'cart → redis'")
    assert page.js(f'document.querySelector("{EDGE}").classList.contains("chosen")')
    press(page, Keys.ESCAPE)
    page.until("document.querySelector('detail-panel').hidden")
    focus(page, "[data-card='shop/payment']")
    before = page.places()["shop/payment"]
    press(page, Keys.ARROW_DOWN, held=Keys.ALT)
    page.until("document.querySelector(\"[data-card='shop/payment']\").classList.contains('pinned')")
    assert page.places()["shop/payment"] != before
    press(page, Keys.DELETE)
    page.until("!document.querySelector(\"[data-card='shop/payment']\").classList.contains('pinned')")
    focus(page, "[data-island='ns/data']")
    press(page, Keys.ENTER)
    page.until("document.querySelector(\"[data-card='island:ns/data']\")")
    focus(page, "[data-card='island:ns/data']")
    press(page, Keys.ENTER)
    page.until("document.querySelector(\"[data-card='data/redis']\")")


def test_the_table_is_walked_and_its_columns_moved_by_keys(page: Looker) -> None:
    page.open("?filter=--verdict+DROPPED")
    page.click("#pause")
    focus(page, "flow-table .scroll")
    press(page, "j")
    page.until("location.search.includes('flow=')")
    first = page.js("new URL(location.href).searchParams.get('flow')")
    press(page, Keys.ARROW_DOWN)
    page.until(f"new URL(location.href).searchParams.get('flow') !== '{first}'")
    press(page, "k")
    page.until(f"new URL(location.href).searchParams.get('flow') === '{first}'")
    press(page, Keys.ESCAPE)
    title = "[data-column=verdict]"
    focus(page, f"{title} button")
    press(page, Keys.ARROW_RIGHT, held=Keys.ALT)
    page.until("location.search.includes('columns=time%2Csource%2Cverdict')")
    width = page.js(f"document.querySelector('{title}').offsetWidth")
    focus(page, f"{title} button")
    press(page, Keys.ARROW_RIGHT, held=Keys.SHIFT)
    page.until(f"document.querySelector('{title}').offsetWidth > {width}")
    press(page, Keys.ENTER)
    page.until(f"document.querySelector('{title}').getAttribute('aria-sort') === 'ascending'")


def test_a_span_is_chosen_and_moved_by_keys(page: Looker) -> None:
    page.open()
    focus(page, "time-bar svg")
    press(page, Keys.ARROW_LEFT)
    page.until("location.search.includes('from=')")
    first = page.js("new URL(location.href).searchParams.get('from')")
    press(page, Keys.ARROW_LEFT)
    page.until(f"new URL(location.href).searchParams.get('from') < '{first}'")
    press(page, Keys.ESCAPE)
    page.until("!location.search.includes('from=')")


def test_a_verdict_has_a_shape_wherever_it_has_a_colour(page: Looker) -> None:
    page.open("?filter=--verdict+DROPPED")
    assert page.js("[...document.querySelectorAll('flow-table .row .mark')].every((one) => one.textContent === '✕')")
    page.open()
    assert "✕" in page.text("[data-edge='shop/recommendation>data/postgres'] .label")
    audit = page.js(
        "getComputedStyle(document.querySelector(\"[data-edge='monitoring/prometheus>data/postgres'] .line\"))"
        ".strokeDasharray"
    )
    assert audit != "none"
    marks = page.js("[...document.querySelectorAll('.chips .mark')].map((one) => one.textContent)")
    assert len(set(marks)) == 3


NAMES = """(() => {
  const named = (one) => one.ariaLabel || one.getAttribute('aria-labelledby') || one.title || one.textContent.trim()
    || (one.labels && one.labels.length) || one.placeholder;
  return [...document.querySelectorAll('button, a[href], input, select, [tabindex="0"], [role=button]')]
    .filter((one) => !named(one)).map((one) => one.outerHTML.slice(0, 80));
})()"""


def test_everything_that_can_be_used_has_a_name_for_a_screen_reader(page: Looker) -> None:
    page.open()
    page.event(f"{EDGE} .hit", "click")
    page.until("!document.querySelector('detail-panel').hidden")
    assert page.js(NAMES) == []


CONTRAST = """(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
  const over = (top, under) => top.slice(0, 3).map((part, i) => part * top[3] + under[i] * (1 - top[3]));
  const ground = (node) => { const layers = [];
    for (let one = node; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]); };
  const light = (rgb) => rgb.map((part) => part / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => { const [high, low] = [light(a), light(b)].sort((x, y) => y - x); return (high + 0.05) / (low + 0.05); };
  const bad = new Map();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || !node.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (node.closest('svg, script, noscript, option')) continue;
    const style = getComputedStyle(node);
    const under = ground(node);
    const found = ratio(over(rgba(style.color), under), under);
    if (found < 4.5) bad.set(`${node.tagName}.${node.className} "${walk.currentNode.textContent.trim().slice(0, 20)}"`, found.toFixed(2));
  }
  return [...bad];
})()"""  # noqa: E501


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_every_text_on_the_page_stands_out_from_what_is_behind_it(page: Looker, theme: str) -> None:
    page.open()
    page.driver.execute_script("localStorage.setItem('flowscope-theme', arguments[0])", theme)
    for query in (
        "?filter=--verdict+DROPPED+--to-port+5432", "?view=findings", "?view=l7", "?view=dns", "?view=health",
        "?group=verdict,drop_reason",
    ):  # fmt: skip
        page.driver.get(f"{page.address}{query}")
        page.until("document.querySelectorAll('flow-table .row, group-view td').length > 2")
        if "filter" in query:
            page.click("#pause")
            page.click("flow-table .row")
            page.until("document.querySelector('detail-panel .why')")
        else:
            page.until("document.querySelector('.view:not(.none) :is(li, td), service-map .card')")
        assert page.js(CONTRAST) == []
