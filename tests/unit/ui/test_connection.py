"""The life of a connection over proxies and translation, put together from rows of many nodes."""

from __future__ import annotations

from typing import Any

import pytest

from model.row import L4, Reply, Rows, TcpFlag
from model.tables import Node, Service
from model.whole_rows import joined
from proto.flow import flow_pb2
from tests.support.ui_flows import Shop
from ui.connection import MOST_EVENTS, connection

SYN, ACK, FIN = int(TcpFlag.SYN), int(TcpFlag.ACK), int(TcpFlag.FIN)
CLIENT, SERVER, VIP, EDGE, OUTSIDE = 0x0A00_0103, 0x0A00_0202, 0x0A60_0001, 0xAC12_0005, 0xAC12_0001
TO_PROXY, TO_ENDPOINT = int(flow_pb2.TO_PROXY), int(flow_pb2.TO_ENDPOINT)
TO_OVERLAY, TO_NETWORK = int(flow_pb2.TO_OVERLAY), int(flow_pb2.TO_NETWORK)


class World(Shop):
    """Rows of connections from `client` or from outside to `cart`; times in ms."""

    def __init__(self) -> None:
        super().__init__()
        self.client, self.cart = self.pod("client"), self.pod("cart")
        self.world = self.end(identity=2, labels=["reserved:world"])
        self.ingress = self.end(identity=8, labels=["reserved:ingress"])
        self.far = self.tables.nodes.intern(Node("kind-worker2", (), 0x1234_5678_9ABC_DEF1))
        self.added: list[Rows] = []

    def seen(self, ms: float, a: int, b: int, sport: int, dport: int, point: int, **fields: Any) -> Rows:
        """A packet between two addresses; answers say is_reply=Reply.TRUE."""
        ends = {
            CLIENT: self.client, SERVER: self.cart, OUTSIDE: self.world, EDGE: self.world, VIP: self.world,
        }  # fmt: skip
        given = {"tcp_flags": ACK, "obs_point": point, "src_ip_lo": a, "dst_ip_lo": b, **fields}
        src, dst = given.pop("src", None) or ends[a], given.pop("dst", None) or ends[b]
        row = self.row(src, dst, sport, dport, ago_s=60 - ms / 1000, **given)
        self.added.append(row)
        return row

    def asked(self, ms: float, a: int, b: int, sport: int, verdict: int = flow_pb2.FORWARDED) -> Rows:
        """A request that a proxy saw."""
        record = flow_pb2.Flow(l7=flow_pb2.Layer7(type=flow_pb2.REQUEST, http=flow_pb2.HTTP(method="GET", url="/")))
        aux = self.tables.aux.intern(record.SerializeToString(deterministic=True))
        fields = {"flow_type": flow_pb2.L7, "event_type": 129, "aux": aux, "verdict": verdict, "tcp_flags": 0}
        return self.seen(ms, a, b, sport, 8080, 0, **fields)

    def translated(self, address: str) -> int:
        flow = flow_pb2.Flow(IP=flow_pb2.IP(source_xlated=address))
        return self.tables.aux.intern(flow.SerializeToString(deterministic=True))

    def told(self, row: Rows) -> dict[str, Any]:
        if self.added:
            self.hub.ring.append(joined(self.added))
        self.added = []
        return connection(self.hub.ring, row)

    def proxied(self, ms: float, down: int, up: int, source: int = CLIENT, **upstream: Any) -> tuple[Rows, Rows]:
        """A request through the proxy of the client's node; the SYNs of both legs."""
        first = self.seen(ms, source, SERVER, down, 8080, TO_PROXY, tcp_flags=SYN, proxy_port=10000)
        self.seen(
            ms + 0.1, SERVER, source, 8080, down, TO_ENDPOINT, is_reply=Reply.TRUE, aux=self.translated("10.96.0.1")
        )
        self.asked(ms + 0.2, source, SERVER, down)
        second = self.seen(
            ms + 0.3, CLIENT, SERVER, up, 8080, TO_OVERLAY, tcp_flags=SYN, is_reply=Reply.ABSENT, **upstream
        )
        self.seen(ms + 0.4, CLIENT, SERVER, up, 8080, TO_ENDPOINT, node=self.far, **upstream)
        back = {"is_reply": Reply.TRUE, "dst": upstream.get("src")}
        self.seen(ms + 0.5, SERVER, CLIENT, 8080, up, TO_PROXY, **back)
        self.seen(ms + 0.7, source, SERVER, down, 8080, TO_PROXY, tcp_flags=ACK | FIN, proxy_port=10000)
        return first, second


def words(told: dict[str, Any]) -> list[str]:
    return [" ".join(str(one[name]) for name in ("kind", "node", "text") if one.get(name)) for one in told["way"]]


def legs(told: dict[str, Any]) -> list[int]:
    return [event["leg"] for event in told["events"]]


PROXIED = [
    "end shop/client-0:41000",
    "service 10.96.0.1:8080",
    "proxy kind-worker shop/client-0:52000",
    "end shop/cart-0:8080",
]


@pytest.mark.parametrize("clicked", [0, 1])
def test_a_proxy_s_own_connection_is_a_part_of_its_client_s(clicked: int) -> None:
    world = World()
    told = world.told(world.proxied(0, 41000, 52000)[clicked])
    assert words(told) == PROXIED
    assert legs(told) == [0, 0, 0, 1, 1, 1, 0]
    assert [event["node"] for event in told["events"]] == ["kind-worker"] * 4 + ["kind-worker2"] + ["kind-worker"] * 2
    assert [event["forth"] for event in told["events"]] == [True, False, True, True, True, False, True]


@pytest.mark.parametrize("clicked", [0, 1])
def test_of_many_connections_of_a_proxy_the_nearest_in_time_is_told_and_the_others_are_counted(clicked: int) -> None:
    world = World()
    world.proxied(-2, 41001, 52001)
    pair = world.proxied(0, 41000, 52000)
    world.proxied(2, 41002, 52002)
    told = world.told(pair[clicked])
    assert words(told) == PROXIED
    [proxy] = [one for one in told["way"] if one["kind"] == "proxy"]
    assert proxy["others"] == 2


def test_a_connection_that_the_proxy_leaves_open_is_told_as_far_as_it_served() -> None:
    world = World()
    first, _ = world.proxied(0, 41000, 52000)
    late = world.seen(30_000, CLIENT, SERVER, 52000, 8080, TO_OVERLAY, tcp_flags=ACK | FIN, is_reply=Reply.ABSENT)
    assert len(world.told(first)["events"]) == 7
    assert world.told(late)["events"][-1]["summary"] == "TCP Flags: ACK, FIN"


def test_a_request_that_the_proxy_refuses_goes_no_further() -> None:
    world = World()
    first = world.seen(0, CLIENT, SERVER, 41000, 8080, TO_PROXY, tcp_flags=SYN, proxy_port=10000)
    world.asked(1, CLIENT, SERVER, 41000, verdict=flow_pb2.DROPPED)
    # Another connection of the same pod, which no proxy saw.
    world.seen(1, CLIENT, SERVER, 41009, 8080, TO_OVERLAY, tcp_flags=SYN)
    world.seen(2, SERVER, CLIENT, 8080, 41009, TO_ENDPOINT, is_reply=Reply.TRUE)
    told = world.told(first)
    assert words(told) == ["end shop/client-0:41000", "proxy kind-worker", "end shop/cart-0:8080"]
    assert told["way"][-1]["seen"] is False


def test_ingress_leads_from_the_outside_through_its_proxy_to_a_pod() -> None:
    world = World()
    service = world.tables.services.intern(Service("web", "shop"))
    first = world.seen(0, OUTSIDE, VIP, 41000, 80, TO_PROXY, tcp_flags=SYN, proxy_port=10004, dst_svc=service)
    world.asked(1, OUTSIDE, SERVER, 41000)
    up = world.seen(2, EDGE, SERVER, 52000, 8080, TO_ENDPOINT, tcp_flags=SYN, src=world.ingress)
    world.seen(3, SERVER, EDGE, 8080, 52000, int(flow_pb2.TO_HOST), is_reply=Reply.TRUE, dst=world.ingress)
    for row in (first, up):
        told = world.told(row)
        assert words(told) == [
            "end 172.18.0.1:41000", "service shop/web", "proxy kind-worker 172.18.0.5:52000", "end shop/cart-0:8080",
        ]  # fmt: skip
        assert legs(told) == [0, 0, 1, 1]


@pytest.mark.parametrize("clicked", [0, 1])
def test_a_node_s_port_leads_over_the_node_s_address_to_a_pod_elsewhere(clicked: int) -> None:
    world = World()
    behind = world.seen(0, EDGE, SERVER, 3885, 8080, TO_OVERLAY, tcp_flags=SYN)
    world.seen(1, EDGE, SERVER, 3885, 8080, TO_ENDPOINT, node=world.far, tcp_flags=SYN)
    world.seen(2, SERVER, EDGE, 8080, 3885, TO_OVERLAY, node=world.far, is_reply=Reply.TRUE)
    answer = world.seen(
        3, SERVER, OUTSIDE, 32133, 41000, TO_NETWORK, is_reply=Reply.TRUE, aux=world.translated("172.18.0.5")
    )
    told = world.told((behind, answer)[clicked])
    assert words(told) == [
        "end 172.18.0.1:41000", "node 172.18.0.5:32133", "nat kind-worker 172.18.0.5:3885", "end shop/cart-0:8080",
    ]  # fmt: skip
    assert legs(told) == [1, 1, 1, 0]


def test_a_long_life_is_cut_around_the_flow_and_says_how_much_is_left_out() -> None:
    world = World()
    rows = [world.seen(n, CLIENT, SERVER, 41000, 8080, TO_ENDPOINT) for n in range(MOST_EVENTS + 100)]
    told = world.told(rows[0])
    assert (len(told["events"]), told["left_out"]) == (MOST_EVENTS, 100)
    assert len(told["way"]) == 2


def test_echoes_have_no_ports_and_one_leg() -> None:
    world = World()
    first = world.seen(0, CLIENT, SERVER, 8, 0, TO_ENDPOINT, l4=L4.ICMPV4, tcp_flags=0)
    world.seen(1, SERVER, CLIENT, 0, 0, TO_ENDPOINT, l4=L4.ICMPV4, tcp_flags=0, is_reply=Reply.TRUE)
    assert len(world.told(first)["events"]) == 2
