"""The map: who is on a card, which way an arrow points, what it counts, what is closed, what changed."""

from __future__ import annotations

from typing import Any

import pytest

from model.row import Bit, Reply, TcpFlag
from model.tables import Node
from proto.flow import flow_pb2
from tests.support.ui_flows import SYN, Shop
from ui.cards import NODES, OUTSIDE, Cards, card_of
from ui.facts import bin_ms, latency_bin
from ui.picture import FEW_CARDS, MANY_CARDS, Openness, Picture, compare
from ui.query import parse_query
from ui.views import VIEWS

ACK = int(TcpFlag.ACK)


def drawn(shop: Shop, openness: Openness | None = None, text: str = "", window_s: float = 60) -> Picture:
    return shop.hub.picture(parse_query(text), shop.hub.live_span(window_s), openness or Openness())


def test_a_pod_is_on_the_card_of_its_workload_on_every_node() -> None:
    workload = flow_pb2.Workload(name="cart", kind="Deployment")
    known = flow_pb2.Endpoint(namespace="shop", pod_name="cart-6f7c9d8b5-x2k4q", workloads=[workload])
    remote = flow_pb2.Endpoint(namespace="shop", pod_name="cart-6f7c9d8b5-x2k4q")
    assert card_of(known).id == card_of(remote).id == "shop/cart"
    assert card_of(flow_pb2.Endpoint(namespace="shop", pod_name="silo-0")).name == "silo-0"


def test_hosts_are_an_island_and_the_world_is_outside() -> None:
    assert card_of(flow_pb2.Endpoint(identity=6)).group == NODES
    assert card_of(flow_pb2.Endpoint(identity=2)).group == OUTSIDE
    assert card_of(flow_pb2.Endpoint(namespace="nodes", pod_name="x-0")).group == "ns/nodes"


def test_the_world_is_told_apart_by_dns_name_and_hosts_by_node() -> None:
    shop = Shop()
    client = shop.pod("client")
    world, host = shop.end(identity=2, labels=["reserved:world"]), shop.end(identity=1)
    names = shop.tables.names.intern(("example.com",))
    shop.add_now(shop.row(client, world, dst_names=names), shop.row(client, world), shop.row(host, client))
    assert set(drawn(shop).cards) == {"shop/client-0", "dns:example.com", "reserved:world", "node:kind-worker"}


def test_an_answer_counts_on_the_arrow_of_its_connection() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    shop.add_now(shop.row(client, cart), shop.row(cart, client, 80, 40000, is_reply=Reply.TRUE))
    (edge,) = drawn(shop, window_s=2).edges.values()
    assert (edge["source"], edge["target"]) == ("shop/client-0", "shop/cart-0")
    assert edge["ports"] == [{"port": 80, "l4": "TCP", "l7": "", "rate": 1.0, "drop": 0.0}]


def test_what_a_proxy_sends_for_a_pod_is_on_the_pod_s_card() -> None:
    shop = Shop()
    client, dns = shop.pod("client"), shop.pod("dns")
    sent, stranger = shop.end(identity=306), shop.end(identity=999)
    shop.add_now(shop.row(sent, dns, dport=53), shop.row(client, dns, dport=53), shop.row(stranger, dns, dport=53))
    assert set(drawn(shop).cards) == {"shop/client-0", "shop/dns-0", "identity:999"}


def between_hosts(shop: Shop) -> None:
    """A connection of two hosts as each saw it: what it sends and gets, without a table of connections."""
    there = shop.tables.nodes.intern(Node("other", (), 0xABC))
    host, remote = shop.end(identity=1, labels=["reserved:host"]), shop.end(identity=6, labels=["reserved:remote-node"])
    ends = {"src_ip_lo": 0xC6336401, "dst_ip_lo": 0xC6336402}
    back = {"src_ip_lo": 0xC6336402, "dst_ip_lo": 0xC6336401, "tcp_flags": SYN | ACK}
    unsaid = {"is_reply": Reply.ABSENT}
    shop.add_now(
        *(shop.row(remote, host, node=there, tcp_flags=SYN, **ends, **unsaid) for _ in range(4)),
        *(shop.row(host, remote, 80, 40000, node=there, **back, **unsaid) for _ in range(4)),
    )
    shop.hub.catch_up()
    shop.add_now(
        *(shop.row(host, remote, tcp_flags=SYN, **ends, **unsaid) for _ in range(4)),
        *(shop.row(remote, host, 80, 40000, **back, **unsaid) for _ in range(4)),
    )


def test_hosts_alone_are_drawn_with_the_names_that_they_have_for_themselves() -> None:
    shop = Shop()
    between_hosts(shop)
    picture = drawn(shop)
    assert list(picture.islands) == [NODES]
    # What came before the other host was heard of stays with those that nobody has named.
    assert set(picture.cards) == {"node:kind-worker", "node:other", "reserved:remote-node"}
    assert "node:kind-worker>node:other" in picture.edges


def test_hosts_that_answer_are_no_finding_though_nothing_says_what_is_an_answer() -> None:
    shop = Shop()
    between_hosts(shop)
    assert VIEWS["findings"](shop.hub, parse_query(""), shop.hub.live_span(60)) == []


def test_a_dropped_answer_without_direction_points_from_the_ephemeral_port() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    shop.add_now(shop.row(cart, client, 80, 40000, is_reply=Reply.ABSENT, verdict=flow_pb2.DROPPED))
    assert list(drawn(shop).edges) == ["shop/client-0>shop/cart-0"]


def test_an_arrow_has_the_worst_verdict_the_share_of_drops_and_the_padlock() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    verdicts = (flow_pb2.FORWARDED, flow_pb2.DROPPED, flow_pb2.AUDIT, flow_pb2.FORWARDED)
    shop.add_now(*(shop.row(client, cart, verdict=verdict, bits=Bit.ENCRYPTED) for verdict in verdicts))
    (edge,) = drawn(shop).edges.values()
    assert (edge["verdict"], edge["drop"], edge["encrypted"], edge["idle"]) == ("DROPPED", 25.0, True, False)


def test_an_arrow_whose_peers_have_proved_who_they_are_has_the_padlock_too() -> None:
    shop = Shop()
    client, cart, db = shop.pod("client"), shop.pod("cart"), shop.pod("db")
    proved = shop.tables.aux.intern(flow_pb2.Flow(auth_type=flow_pb2.SPIRE).SerializeToString(deterministic=True))
    judged = {"event_type": 5, "aux": proved}
    shop.add_now(
        shop.row(client, cart, **judged, verdict=flow_pb2.DROPPED),
        shop.row(client, cart, **judged),
        shop.row(cart, client, 80, 40000, is_reply=Reply.TRUE),
        shop.row(cart, db, **judged, verdict=flow_pb2.DROPPED),
    )
    edges = drawn(shop).edges
    assert edges["shop/client-0>shop/cart-0"]["authenticated"]
    assert not edges["shop/client-0>shop/cart-0"]["encrypted"]
    assert not edges["shop/cart-0>shop/db-0"]["authenticated"], "it has been asked for, and not come"


def test_errors_and_latency_come_from_the_answers() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    answers = [shop.answer(cart, client, 10, code=200) for _ in range(9)]
    shop.add_now(*answers, shop.answer(cart, client, 200, code=503))
    (edge,) = drawn(shop).edges.values()
    assert (edge["answers"], edge["bad"]) == (10, 10.0)
    assert edge["p50"] == pytest.approx(10, rel=0.15)
    assert edge["p99"] == pytest.approx(200, rel=0.15)
    assert edge["ports"][0]["l7"] == "HTTP"


def test_old_flows_leave_the_map_and_quiet_arrows_are_idle() -> None:
    shop = Shop()
    client, cart, db = shop.pod("client"), shop.pod("cart"), shop.pod("db")
    shop.add_now(shop.row(client, db, ago_s=100), shop.row(client, cart, ago_s=30))
    edges = drawn(shop).edges
    assert [(name, edge["idle"]) for name, edge in edges.items()] == [("shop/client-0>shop/cart-0", True)]


def test_a_filter_narrows_the_map() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    shop.add_now(shop.row(client, cart), shop.row(cart, client, dport=81, verdict=flow_pb2.DROPPED))
    assert list(drawn(shop, text="--verdict DROPPED").edges) == ["shop/cart-0>shop/client-0"]


def test_a_closed_island_is_one_card_with_the_sum_of_its_arrows() -> None:
    shop = Shop()
    client, pods = shop.pod("client", "web"), [shop.pod(f"cart{n}") for n in range(3)]
    shop.add_now(*(shop.row(client, pod) for pod in pods), shop.row(pods[0], pods[1]))
    picture = drawn(shop, Openness(closed=frozenset({"ns/shop"})))
    assert picture.islands["ns/shop"]["closed"]
    assert set(picture.cards) == {"web/client-0", "island:ns/shop"}
    assert list(picture.edges) == ["web/client-0>island:ns/shop"]


def test_large_islands_start_closed_and_stay_open_when_a_person_opened_them() -> None:
    assert Openness().is_closed("ns/a", FEW_CARDS + 1, MANY_CARDS + 1)
    assert not Openness().is_closed("ns/a", FEW_CARDS, MANY_CARDS + 1)
    assert not Openness(opened=frozenset({"ns/a"})).is_closed("ns/a", 500, 5000)


def test_comparing_tells_new_gone_and_changed_arrows() -> None:
    def edge(rate: float) -> dict[str, Any]:
        return {"rate": rate, "drop": 0.0, "bad": 0.0, "p99": 0.0, "idle": False}

    before = Picture(edges={"a": edge(1), "b": edge(1), "c": edge(1)}, keys={"c": {1}})
    now = compare(Picture(edges={"a": edge(1.5), "b": edge(9), "d": edge(1)}), before)
    assert {name: one["change"] for name, one in now.edges.items()} == {
        "a": "same",
        "b": "changed",
        "c": "gone",
        "d": "new",
    }


def test_the_map_survives_the_renumbering_of_its_tables() -> None:
    shop = Shop()
    shop.pod("gone")
    client, cart = shop.pod("client"), shop.pod("cart")
    shop.add_now(shop.row(client, cart))
    before = drawn(shop).edges
    shop.hub.ring.compact()
    shop.add_now(shop.row(shop.pod("client"), shop.pod("cart")))
    assert list(drawn(shop, text="--port 80").edges) == list(before)


def test_counts_add_up_however_rows_are_batched() -> None:
    one, many = Shop(), Shop()
    for shop in (one, many):
        client, cart = shop.pod("client"), shop.pod("cart")
        rows = [shop.row(client, cart, tcp_flags=SYN, ago_s=n % 3) for n in range(60)]
        if shop is one:
            shop.add_now(*rows)
        for row in rows if shop is many else ():
            shop.add_now(row)
            shop.hub.rollup()
    spans = [shop.hub.live_span() for shop in (one, many)]
    sums = [shop.hub.rollup().totals(*span).counts.tolist() for shop, span in zip((one, many), spans, strict=True)]
    assert sums[0] == sums[1]
    assert sums[0][0][0] == 60


def test_the_histogram_counts_forwarded_dropped_and_lost_in_their_second() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    shop.add_now(shop.row(client, cart), shop.row(client, cart, verdict=flow_pb2.DROPPED), shop.lost(7))
    start, stop = shop.hub.live_span(10)
    bins = shop.hub.rollup().bands(start, stop, 10)
    assert [sum(counts[band] for counts in bins) for band in range(4)] == [1, 1, 0, 7]


@pytest.mark.parametrize("ms", [0.002, 0.5, 7, 900, 40_000])
def test_a_latency_bin_is_near_its_latency(ms: float) -> None:
    import numpy as np

    assert bin_ms(np.array([latency_bin(int(ms * 1e6))]))[0] == pytest.approx(ms, rel=0.2)


def test_a_scan_of_names_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.cards.MOST_CARDS", 5)
    shop = Shop()
    cards = Cards(shop.tables)
    numbers = {cards.number(card_of(flow_pb2.Endpoint(namespace="x", pod_name=f"p{n}-0"))) for n in range(50)}
    assert len(numbers) == 6
