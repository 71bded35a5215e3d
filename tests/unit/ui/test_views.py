"""What looks wrong, requests and names: the views beside the map."""

from __future__ import annotations

from typing import Any

import pytest

from model.row import Reply
from proto.flow import flow_pb2
from tests.support.ui_flows import SYN, Shop
from ui.health import coverage, health
from ui.query import parse_query
from ui.requests import route_of
from ui.views import VIEWS


def view(shop: Shop, name: str, text: str = "") -> Any:
    return VIEWS[name](shop.hub, parse_query(text), shop.hub.live_span())


def finding(shop: Shop) -> dict[str, Any]:
    (found,) = view(shop, "findings")
    parse_query(found["filter"])
    return dict(found)


def test_syns_that_nobody_answers_are_found() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    shop.add_now(*(shop.row(client, cart, 40000 + n, tcp_flags=SYN) for n in range(4)))
    found = finding(shop)
    assert (found["title"], found["count"]) == ("SYN without answer", 4)
    assert found["filter"] == "--from-pod shop/client-0 --to-pod shop/cart-0 --to-port 80 --tcp-flags SYN"
    shop.add_now(shop.row(cart, client, 80, 40000, is_reply=Reply.TRUE))
    assert view(shop, "findings") == []


@pytest.mark.parametrize(("reason", "title"), [(158, "Service without backend"), (133, "Dropped: Policy denied")])
def test_drops_are_found_by_reason(reason: int, title: str) -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    shop.add_now(shop.row(client, cart, verdict=flow_pb2.DROPPED, drop_reason=reason))
    found = finding(shop)
    assert found["title"] == title
    rows = shop.hub.ring.slice(0, 1)
    assert parse_query(found["filter"]).mask(rows, shop.tables).all()


def test_a_storm_of_names_that_do_not_exist_is_found() -> None:
    shop = Shop()
    client, dns = shop.pod("client"), shop.pod("coredns", "kube-system")
    shop.add_now(*(shop.dns(dns, client, "no.such.name.", 3) for _ in range(25)))
    found = finding(shop)
    assert found["title"] == "NXDOMAIN storm"
    assert "client-0 asks for no.such.name." in found["text"]
    (name,) = view(shop, "dns")
    assert (name["query"], name["rcodes"], name["askers"]) == ("no.such.name", {"NXDOMAIN": 25}, ["client-0"])


def test_requests_are_counted_by_route_with_the_slowest_and_the_failing() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    url = "http://cart/items/{}?x=1"
    answers = [shop.answer(cart, client, 5, method="GET", code=200, url=url.format(n)) for n in range(9)]
    shop.add_now(*answers, shop.answer(cart, client, 900, method="GET", code=500, url=url.format(77)))
    data = view(shop, "l7")
    (route,) = data["routes"]
    assert (route["target"], route["path"], route["codes"], route["bad"]) == (
        "cart-0",
        "/items/*",
        {"200": 9, "500": 1},
        10.0,
    )
    assert (data["slowest"][0]["ms"], data["failing"][0]["code"]) == (900, "500")
    assert view(shop, "l7", "--http-status 404")["routes"] == []


@pytest.mark.parametrize(
    ("url", "route"),
    [("http://a/b/17/c?d", "/b/*/c"), ("/x/deadbeef01/", "/x/*/"), ("http://[", "http://["), ("", "/")],
)
def test_what_varies_in_a_path_becomes_a_star(url: str, route: str) -> None:
    assert route_of(url) == route


async def test_health_tells_of_gaps_by_node_and_as_coverage() -> None:
    shop = Shop()
    await shop.add(*(shop.row(shop.pod("a"), shop.pod("b")) for _ in range(3)), shop.lost(4))
    told = health(shop.hub)
    assert (told["lost"], told["coverage"]) == (4, 42.86)
    assert [(node["name"], node["lost"]) for node in told["nodes"]] == [("kind-worker", 4)]
    assert coverage(0, 0) == 100.0


def test_a_request_that_a_proxy_refused_counts_as_failing() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    flow = flow_pb2.Flow(l7=flow_pb2.Layer7(type=flow_pb2.REQUEST))
    flow.l7.http.MergeFrom(flow_pb2.HTTP(method="GET", url="http://cart/private"))
    refused = shop.l7(flow, client, cart, 40000, 80)
    refused["verdict"] = flow_pb2.DROPPED
    shop.add_now(refused, shop.l7(flow, client, cart, 40000, 80))
    data = view(shop, "l7")
    assert [(route["target"], route["codes"], route["bad"]) for route in data["routes"]] == [
        ("cart-0", {"denied": 1}, 100.0)
    ]
    assert data["failing"][0]["code"] == "denied"
