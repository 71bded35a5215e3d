"""The dashboard over a made-up fleet (fleet.py), and a browser that looks at it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[2]
WAIT_S = 60
"""Long: what is waited for comes at once on a quiet machine, and tests share theirs with others."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def fleet_ui(*words: str, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A dashboard process over a fleet; gives its address."""
    listen = f"localhost:{port or free_port()}"
    command = [sys.executable, "-m", "tests.support.fleet", "--listen", listen, *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: json.load(urlopen(f"http://{listen}/healthz"))["flows"] > 0)
        yield f"http://{listen}/", process
    finally:
        process.kill()
        process.wait()


def wait_for(true: Callable[[], Any], limit_s: float = WAIT_S) -> None:
    """Until `true` gives something and raises nothing."""
    end = time.monotonic() + limit_s
    while True:
        try:
            if true():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError("waited in vain")
        time.sleep(0.1)


class Looker:
    """What a person does with the page, in short words."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, query: str = "") -> None:
        """Load the page and wait for its map."""
        self.driver.get(f"{self.address}{query}")
        self.until("document.querySelectorAll('.card').length && document.querySelectorAll('flow-table .row').length")

    def js(self, expression: str) -> Any:
        return self.driver.execute_script(f"return {expression}")

    def until(self, expression: str) -> Any:
        """Until a JavaScript expression is true."""
        return WebDriverWait(self.driver, WAIT_S, poll_frequency=0.1).until(lambda _: self.js(expression), expression)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> None:
        # In one go: rows of a live table are made anew between two calls.
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def event(self, selector: str, kind: str) -> None:
        """Let something happen to an element of the map, which the browser's own pointer may not reach."""
        made = "PointerEvent" if kind.startswith("pointer") else "MouseEvent"
        self.driver.execute_script(
            f"document.querySelector(arguments[0]).dispatchEvent(new {made}(arguments[1], {{bubbles: true}}))",
            selector,
            kind,
        )

    def text(self, selector: str) -> str:
        return str(self.js(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def filter(self, text: str) -> None:
        """Type a filter and press Enter."""
        self.driver.execute_script(
            "const box = document.querySelector('filter-box'); box.value = arguments[0];"
            "box.input.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))",
            text,
        )

    def cells(self, column: str) -> list[str]:
        """Texts of one column, as far as rows are on the screen."""
        found: list[str] = self.js(
            f"[...document.querySelectorAll('flow-table .row .{column}')].map((cell) => cell.textContent.trim())"
        )
        return found

    def places(self) -> dict[str, str]:
        """Where each card stands."""
        found: dict[str, str] = self.js(
            "Object.fromEntries([...document.querySelectorAll('.card')]"
            ".map((card) => [card.dataset.card, card.getAttribute('transform')]))"
        )
        return found

    def errors(self) -> list[str]:
        """What the browser complained about since the last call."""
        log: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]
