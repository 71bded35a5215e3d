"""The rows of the table: newest first, page by page, sorted, counted; and the story of one."""

from __future__ import annotations

import json

import pytest
import yaml
from google.protobuf.json_format import MessageToDict

from model.encode import Encoder
from model.row import Reply
from model.vocabulary import DROP_REASONS
from proto.flow import flow_pb2
from tests.support.ui_flows import NS, SYN, Shop
from ui.cells import COLUMNS, records
from ui.cursor import Cursor
from ui.flows import Span, everything, funnel, group_by, newest, sort_by
from ui.query import parse_query
from ui.story import find, story_of

ALL = parse_query("")


def filled(count: int = 10, capacity: int = 4095) -> Shop:
    shop = Shop(capacity)
    client, cart = shop.pod("client"), shop.pod("cart")
    for n in range(count):
        verdict = flow_pb2.DROPPED if n % 5 == 0 else flow_pb2.FORWARDED
        shop.add_now(shop.row(client, cart, 40000 + n, 80, ago_s=count - n, verdict=verdict))
    return shop


def test_older_pages_join_the_newer_without_gap_or_overlap() -> None:
    shop = filled(25, 15)
    first = newest(shop.hub.ring, ALL, Span(), 10)
    second = newest(shop.hub.ring, ALL, Span(), 10, before=int(first.positions[0]))
    assert (first.more, second.more) == (True, False)
    assert [*second.rows["sport"], *first.rows["sport"]] == list(range(40010, 40025))


def test_a_span_and_a_filter_choose_rows() -> None:
    shop = filled(10)
    span = Span(shop.now_ns - 6 * NS, shop.now_ns - 2 * NS)
    assert newest(shop.hub.ring, ALL, span, 99).rows["sport"].tolist() == [40004, 40005, 40006, 40007]
    assert newest(shop.hub.ring, parse_query("--verdict DROPPED"), Span(), 99).rows["sport"].tolist() == [40000, 40005]


def test_every_column_has_words_for_every_kind_of_flow() -> None:
    shop = filled(3)
    cart, client = shop.pod("cart"), shop.pod("client")
    shop.add_now(shop.answer(cart, client, 3, code=200, url="/x"), shop.dns(cart, client, "a.b.", 3), shop.lost(9))
    found = newest(shop.hub.ring, ALL, Span(), 99)
    rows = records(found.rows, found.positions.tolist(), shop.tables, list(COLUMNS))
    assert all(isinstance(cell, str) for row in rows if row[1] for cell in row[2:])
    assert rows[-1][1:] == [None, "9 events lost here (perf event ring buffer)"]
    assert rows[0][1] == Encoder(shop.tables).flows(found.rows[:1])[0].uuid


def test_groups_count_what_looks_the_same() -> None:
    shop = filled(10)
    found = group_by(everything(shop.hub.ring, ALL, Span()), shop.tables, ("destination_pod", "verdict"))
    assert found["groups"] == [[8, 0, "cart-0", "FORWARDED"], [2, 2, "cart-0", "DROPPED"]]
    by_type = group_by(everything(shop.hub.ring, ALL, Span()), shop.tables, ("type",))
    assert sum(group[0] for group in by_type["groups"]) == 10


def test_sorting_is_by_number_where_there_are_numbers() -> None:
    shop = Shop()
    client, cart = shop.pod("client"), shop.pod("cart")
    shop.add_now(*(shop.row(client, cart, dport=port) for port in (900, 80, 5432)))
    found = sort_by(everything(shop.hub.ring, ALL, Span()), shop.tables, "destination_port", True, 2)
    assert found.rows["dport"].tolist() == [5432, 900]


def test_the_funnel_says_how_many_flows_each_condition_left() -> None:
    shop = filled(10)
    stages = funnel(shop.hub.ring, parse_query("--verdict DROPPED and --port 81"), Span())
    assert [(stage["condition"], stage["left"]) for stage in stages] == [
        ("flows in this span", 10), ("--verdict DROPPED", 2), ("--port 81", 0),
    ]  # fmt: skip


def test_a_flow_is_found_by_its_uuid_with_all_its_fields() -> None:
    shop = filled(10)
    flow = Encoder(shop.tables).flows(shop.hub.ring.slice(4, 5))[0]
    story = story_of(shop.hub, flow.uuid)
    assert story is not None
    assert story["json"] == MessageToDict(flow, preserving_proto_field_name=True)
    assert find(shop.hub.ring, "00000000-0000-0000-0000-000000000000") is None


def test_the_life_of_a_connection_has_both_directions_and_no_other() -> None:
    shop = Shop()
    client, cart, other = shop.pod("client"), shop.pod("cart"), shop.pod("other")
    shop.add_now(
        shop.row(client, cart, 40000, 80, ago_s=30, tcp_flags=SYN),
        shop.row(client, cart, 40000, 80, ago_s=3, tcp_flags=SYN),
        shop.row(other, cart, 40000, 80, ago_s=2),
        shop.row(cart, client, 80, 40000, ago_s=1, is_reply=Reply.TRUE),
    )
    answer = Encoder(shop.tables).flows(shop.hub.ring.slice(3, 4))[0]
    story = story_of(shop.hub, answer.uuid)
    assert story is not None
    assert [event["forth"] for event in story["connection"]["events"]] == [True, False]


def dropped() -> tuple[Shop, dict[str, object]]:
    shop = Shop()
    client, cart = shop.pod("client", "web"), shop.pod("cart")
    shop.add_now(
        shop.row(cart, client, 80, 39000, ago_s=60, is_reply=Reply.TRUE),
        shop.row(client, cart, dport=80, verdict=flow_pb2.DROPPED, drop_reason=133, direction=flow_pb2.INGRESS),
    )
    uuid = Encoder(shop.tables).flows(shop.hub.ring.slice(1, 2))[0].uuid
    story = story_of(shop.hub, uuid)
    assert story is not None
    return shop, story["why"]


def test_a_drop_is_explained_with_a_rule_that_would_allow_it() -> None:
    shop, why = dropped()
    assert why["reason"] == DROP_REASONS[133]
    assert "No rule allows it" in str(why["verdict"])
    assert why["worked"] == {"ms": (shop.now_ns - 60 * NS) // 1_000_000}
    rule = yaml.safe_load(str(why["rule"]))
    assert rule["metadata"]["namespace"] == "shop"
    assert rule["spec"]["podSelector"] == {"matchLabels": {"app": "cart"}}
    assert rule["spec"]["ingress"] == [
        {
            "from": [
                {
                    "podSelector": {"matchLabels": {"app": "client"}},
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "web"}},
                }
            ],
            "ports": [{"port": 80, "protocol": "TCP"}],
        }
    ]


def test_the_policy_that_decided_is_named() -> None:
    shop = Shop()
    policy = flow_pb2.Policy(name="deny", namespace="shop", kind="NetworkPolicy")
    aux = shop.tables.aux.intern(flow_pb2.Flow(ingress_denied_by=[policy]).SerializeToString())
    shop.add_now(shop.row(shop.pod("a"), shop.pod("b"), verdict=flow_pb2.DROPPED, drop_reason=181, aux=aux))
    story = story_of(shop.hub, Encoder(shop.tables).flows(shop.hub.ring.slice(0, 1))[0].uuid)
    assert story is not None
    assert story["why"]["policies"] == ["NetworkPolicy shop/deny"]
    assert story["why"]["rule"] == ""


@pytest.mark.parametrize("replica", ["same", "another"])
def test_a_cursor_resumes_behind_what_was_seen_on_any_replica(replica: str) -> None:
    shop = filled(10)
    cursor = Cursor()
    cursor.note(shop.hub.ring.slice(0, 6), shop.tables)
    told = json.loads(json.dumps(cursor.message()))
    # Another replica got an older history, has other positions, and interned in another order.
    ring = shop.hub.ring
    rows, tables = ring.slice(0, 10), shop.tables
    if replica == "another":
        two = Shop()
        two.pod("first")
        two.hub.ring.append(two.tables.adopt(rows, tables))
        ring, tables = two.hub.ring, two.tables
    resumed = Cursor.parse(told)
    assert resumed is not None
    position = resumed.position(ring)
    assert position is not None
    rest = ring.slice(position, ring.head)
    assert rest["sport"][resumed.unseen(rest, tables)].tolist() == list(range(40006, 40010))


@pytest.mark.parametrize("broken", [{}, {"t": "x", "seq": {}}, {"t": "5", "seq": []}, {"t": "-1", "seq": {}}, None])
def test_a_broken_cursor_begins_anew(broken: dict[str, object] | None) -> None:
    assert Cursor.parse(broken) is None
