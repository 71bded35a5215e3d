"""From a packet to the screen: the same flows in the page's table and an arrow for them on its map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.conftest import Lab
from tests.support.browser import chromium

pytestmark = [pytest.mark.kernel, pytest.mark.browser]

WAIT_S = 20


@pytest.fixture(scope="module")
def page(lab: Lab) -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        driver.get(f"http://{lab.ui}/")
        yield driver


def until(page: webdriver.Chrome, true: Callable[[webdriver.Chrome], Any]) -> Any:
    return WebDriverWait(page, WAIT_S, poll_frequency=0.2).until(true)


def table(page: webdriver.Chrome) -> list[list[str]]:
    """Cells of the rows that are on the screen, newest first, read in one go."""
    rows: list[list[str]] = page.execute_script(
        "return [...document.querySelectorAll('flow-table .row')].sort((a, b) => a.dataset.index - b.dataset.index)"
        ".map((row) => [...row.children].map((cell) => cell.textContent.trim()))"
    )
    return rows


def request(lab: Lab, server: str) -> None:
    answer = lab.exec("client2", "curl", "-s", "-o", "/dev/null", "-m", "5", f"{server}:8080/")
    assert answer.returncode == 0, answer.stderr


def test_a_request_s_flows_appear_in_the_table(lab: Lab, page: webdriver.Chrome) -> None:
    request(lab, "echo-same-node")

    def summaries(page: webdriver.Chrome) -> set[str]:
        return {
            row[5]
            for row in table(page)
            if len(row) == 6 and "cilium-test/client2-" in row[2] and "cilium-test/echo-same-node-" in row[3]
        }

    wanted = {"TCP Flags: SYN", "TCP Flags: ACK", "TCP Flags: ACK, PSH", "TCP Flags: ACK, FIN"}
    until(page, lambda page: wanted <= summaries(page))


def test_the_map_has_an_arrow_from_the_client_to_the_server(lab: Lab, page: webdriver.Chrome) -> None:
    request(lab, "echo-other-node")
    edge = "cilium-test/client2>cilium-test/echo-other-node"

    def arrow(page: webdriver.Chrome) -> bool:
        edges = page.execute_script("return [...document.querySelectorAll('.edge')].map(e => e.dataset.edge)")
        return edge in edges

    until(page, arrow)
    label = page.execute_script(f"return document.querySelector('[data-edge=\"{edge}\"] text').textContent")
    assert label.startswith("8080 TCP")


def test_the_verdict_filter_hides_what_was_forwarded(lab: Lab, page: webdriver.Chrome) -> None:
    dropped = page.find_element(By.CSS_SELECTOR, "filter-box [data-verdict=DROPPED]")
    dropped.click()
    until(page, lambda page: not any("FORWARDED" in cell for row in table(page) for cell in row))
    assert "verdict+DROPPED" in page.current_url
    dropped.click()
    request(lab, "echo-same-node")
    until(page, lambda page: any("FORWARDED" in cell for row in table(page) for cell in row))


def test_the_page_says_that_all_nodes_are_seen_and_logs_no_error(page: webdriver.Chrome) -> None:
    until(page, lambda page: "4 of 4 nodes" in page.find_element(By.CSS_SELECTOR, "connection-state .text").text)
    log: list[dict[str, str]] = page.get_log("browser")  # type: ignore[no-untyped-call]
    assert [entry for entry in log if entry["level"] == "SEVERE"] == []
