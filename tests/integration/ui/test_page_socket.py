"""The page's WebSocket and calls, through the web server, without a browser."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from model.encode import Encoder
from model.row import Rows
from proto.flow import flow_pb2
from tests.support.ui_flows import Shop
from ui.app import create_app
from ui.live import MOST_ROWS, Page


class Browser:
    """A page's end of the socket, with a reader that may be slow."""

    def __init__(self, shop: Shop) -> None:
        self.got: list[dict[str, Any]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.page = Page(shop.hub, self._receive)

    async def _receive(self, text: str) -> None:
        await self.open.wait()
        self.got.append(json.loads(text))

    def wish(self, **fields: Any) -> None:
        self.page.message(json.dumps({"type": "subscribe", **fields}))

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.02)

    def rows(self) -> list[list[Any]]:
        return [row for message in self.of("flows") for row in message["rows"]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.got if message["type"] == kind]


@asynccontextmanager
async def browsing(shop: Shop) -> AsyncIterator[Browser]:
    browser = Browser(shop)
    pushing = asyncio.create_task(browser.page.run())
    try:
        yield browser
    finally:
        pushing.cancel()


def some(shop: Shop, count: int) -> list[Rows]:
    client, cart = shop.pod("client"), shop.pod("cart")
    return [shop.row(client, cart, 40000 + n % 20000) for n in range(count)]


async def test_a_page_gets_what_it_asks_for() -> None:
    shop = Shop()
    await shop.add(*some(shop, 5))
    async with browsing(shop) as browser:
        browser.wish(columns=["verdict", "source_port"])
        await browser.until(lambda: browser.of("map") and browser.of("time"))
        assert [row[3:] for row in browser.rows()] == [["FORWARDED", str(40000 + n)] for n in range(5)]
        assert browser.of("map")[0]["edges"][0]["id"] == "shop/client-0>shop/cart-0"
        assert browser.of("accepted")[0]["command"] == "flowscope observe"


async def test_a_wish_that_cannot_be_is_answered_and_the_last_one_stays() -> None:
    shop = Shop()
    await shop.add(*some(shop, 1))
    async with browsing(shop) as browser:
        browser.wish()
        await browser.until(lambda: browser.of("map"))
        for text in ("{", '{"type": "subscribe", "filter": "--nothing"}', '{"type": "subscribe", "range": [5, 1]}'):
            browser.page.message(text)
        await browser.until(lambda: len(browser.of("problem")) == 3)
        assert [problem["control"] for problem in browser.of("problem")] == ["message", "filter", "range"]
        await shop.add(*some(shop, 1))
        await browser.until(lambda: len(browser.rows()) == 2)


async def test_a_pause_loses_nothing() -> None:
    shop = Shop()
    async with browsing(shop) as browser:
        browser.wish()
        await browser.until(lambda: browser.of("flows"))
        browser.wish(paused=True)
        await shop.add(*some(shop, 7))
        await browser.until(lambda: browser.of("map")[1:])
        assert browser.rows() == []
        browser.wish()
        await browser.until(lambda: len(browser.rows()) == 7)


async def test_a_slow_browser_gets_the_newest_and_a_number_not_a_queue() -> None:
    shop = Shop()
    async with browsing(shop) as browser:
        browser.wish()
        await browser.until(lambda: browser.of("flows"))
        browser.open.clear()
        for _ in range(5):
            await shop.add(*some(shop, 300))
            await asyncio.sleep(0.05)
        browser.open.set()
        await browser.until(lambda: sum(one["missed"] for one in browser.of("flows")) + len(browser.rows()) == 1500)
        assert max(len(one["rows"]) for one in browser.of("flows")) == MOST_ROWS


async def test_a_page_goes_on_at_another_replica() -> None:
    one, two = Shop(), Shop()
    two.tables.endpoints.intern(b"")
    rows = some(one, 9)
    await one.add(*rows[:6])
    async with browsing(one) as browser:
        browser.wish(columns=["source_port"])
        await browser.until(lambda: len(browser.rows()) == 6)
        cursor = browser.of("flows")[-1]["cursor"]
    for row in rows:
        await two.hub.add(two.tables.adopt(row, one.tables))
    async with browsing(two) as browser:
        browser.wish(columns=["source_port"], cursor=cursor)
        await browser.until(lambda: browser.rows())
        assert [row[3] for row in browser.rows()] == ["40006", "40007", "40008"]
        assert not browser.of("flows")[0]["restart"]


async def test_a_layout_reaches_the_other_pages() -> None:
    shop = Shop()
    await shop.add(*some(shop, 1))
    async with browsing(shop) as one, browsing(shop) as two:
        one.wish()
        two.wish()
        await two.until(lambda: two.of("map"))
        layout = {"places": {"shop/cart-0": [10, 20]}, "routes": {}, "pinned": ["shop/cart-0"]}
        one.page.message(json.dumps({"type": "layout", "view": "", "layout": layout}))
        await two.until(lambda: any("layout" in message for message in two.of("map")))
        assert [message["layout"]["places"] for message in two.of("map") if "layout" in message] == [
            {"shop/cart-0": [10, 20]}
        ]


@pytest.fixture
def client() -> TestClient:
    shop = Shop()
    shop.add_now(*some(shop, 20), shop.row(shop.pod("client"), shop.pod("cart"), verdict=flow_pb2.DROPPED))
    client = TestClient(create_app(shop.hub, 5))
    client.shop = shop  # type: ignore[attr-defined]
    return client


@pytest.mark.parametrize(
    ("call", "control"),
    [
        ("flows?columns=nothing", "columns"),
        ("flows?columns=time&filter=--x", "filter"),
        ("flows?columns=time&start=9&stop=5", "range"),
        ("flows?columns=time&sort=nothing", "columns"),
        ("groups?by=", "columns"),
        ("groups?by=time,time,time,time", "columns"),
        ("flow?id=no-uuid", "flow"),
        ("export?format=exe", "export"),
    ],
)
def test_a_bad_parameter_is_refused_with_the_control_it_came_from(client: TestClient, call: str, control: str) -> None:
    answer = client.get(f"/api/{call}")
    assert answer.status_code == 400
    assert answer.json()["control"] == control


@pytest.mark.parametrize(
    "call", ["flows?columns=time&before=-1", "flows?columns=time&limit=9999999", "flows?columns=time&start=x"]
)
def test_numbers_that_are_none_are_refused(client: TestClient, call: str) -> None:
    assert client.get(f"/api/{call}").status_code == 422


def test_exports_hold_the_flows_that_match(client: TestClient) -> None:
    lines = client.get("/api/export", params={"format": "json", "filter": "--verdict DROPPED"}).text.splitlines()
    assert [json.loads(line)["flow"]["verdict"] for line in lines] == ["DROPPED"]
    csv = client.get("/api/export?format=csv")
    assert len(csv.text.splitlines()) == 22
    assert "attachment" in csv.headers["content-disposition"]
    assert client.get("/api/export?format=parquet").content[:4] == b"PAR1"


def test_a_flow_is_told_and_values_are_suggested(client: TestClient) -> None:
    shop: Shop = client.shop  # type: ignore[attr-defined]
    uuid = Encoder(shop.tables).flows(shop.hub.ring.slice(3, 4))[0].uuid
    assert client.get(f"/api/flow?id={uuid}").json()["json"]["uuid"] == uuid
    items = client.get("/api/suggest", params={"text": "--to-pod shop/c"}).json()["items"]
    assert [item["text"] for item in items] == ["shop/cart-0", "shop/client-0"]
    assert client.get("/api/suggest", params={"text": "--verd"}).json()["items"][0]["text"] == "--verdict"
    assert client.get("/api/funnel?filter=--port 80").json()["stages"][1]["left"] == 21


def test_broken_messages_do_not_close_the_socket(client: TestClient) -> None:
    with client.websocket_connect("/api/live") as socket:
        socket.send_text("\x00")
        socket.send_text('{"type": "subscribe"}')
        kinds = {socket.receive_json()["type"] for _ in range(7)}
    assert {"hello", "problem", "accepted", "flows", "map"} <= kinds


def test_one_page_too_many_is_told_so(client: TestClient) -> None:
    sockets = [client.websocket_connect("/api/live") for _ in range(6)]
    for socket in sockets[:5]:
        socket.__enter__()
    with sockets[5] as refused:
        message = refused.receive()
    assert (message["code"], "--clients" in message["reason"]) == (1013, True)
    for socket in sockets[:5]:
        socket.close()
