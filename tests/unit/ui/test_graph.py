"""The map drawn from flows: who is on a card, which way an arrow points, what it counts."""

from __future__ import annotations

from typing import Any

from model.row import L4, Reply, Rows, empty_rows
from model.tables import Tables
from proto.flow import flow_pb2
from ui.graph import OUTSIDE, Card, Cartographer, card_of


def endpoint(tables: Tables, **fields: Any) -> int:
    return tables.endpoints.intern(flow_pb2.Endpoint(**fields).SerializeToString(deterministic=True))


def row(source: int, target: int, sport: int, dport: int, **fields: int) -> Rows:
    one = empty_rows(1)
    one["src"], one["dst"], one["sport"], one["dport"] = source, target, sport, dport
    one["l4"], one["verdict"] = L4.TCP, flow_pb2.FORWARDED
    for name, value in fields.items():
        one[name] = value
    return one


def drawn(tables: Tables, *rows: Rows) -> Any:
    every = empty_rows(len(rows))
    for index, one in enumerate(rows):
        every[index] = one[0]
    return Cartographer(tables).draw(every)


def test_a_pod_is_on_the_card_of_its_workload_on_every_node() -> None:
    known = flow_pb2.Endpoint(
        namespace="shop", pod_name="cart-6f7c9d8b5-x2k4q", workloads=[flow_pb2.Workload(name="cart", kind="Deployment")]
    )
    remote = flow_pb2.Endpoint(namespace="shop", pod_name="cart-6f7c9d8b5-x2k4q")
    assert card_of(known) == card_of(remote) == Card("shop/cart", "cart", "shop")
    assert card_of(flow_pb2.Endpoint(namespace="shop", pod_name="silo-0")).name == "silo-0"


def test_reserved_identities_are_outside() -> None:
    assert card_of(flow_pb2.Endpoint(identity=2)) == Card("reserved:world", "world", OUTSIDE)


def test_a_reply_counts_on_the_arrow_of_its_connection() -> None:
    tables = Tables()
    client = endpoint(tables, namespace="shop", pod_name="client-0")
    server = endpoint(tables, namespace="shop", pod_name="server-0")
    request = row(client, server, 40000, 80, is_reply=Reply.FALSE)
    reply = row(server, client, 80, 40000, is_reply=Reply.TRUE)
    (edge,) = drawn(tables, request, reply).edges
    assert (edge.source, edge.target, edge.port, edge.protocol) == ("shop/client-0", "shop/server-0", 80, "TCP")
    assert (edge.flows, edge.dropped, edge.verdict) == (2, 0, "FORWARDED")


def test_an_arrow_has_the_worst_verdict_and_counts_its_drops() -> None:
    tables = Tables()
    client = endpoint(tables, namespace="shop", pod_name="client-0")
    server = endpoint(tables, namespace="shop", pod_name="server-0")
    rows = [
        row(client, server, 40000 + n, 80, verdict=flow_pb2.DROPPED if n == 1 else flow_pb2.FORWARDED) for n in range(4)
    ]
    (edge,) = drawn(tables, *rows).edges
    assert (edge.flows, edge.dropped, edge.verdict) == (4, 1, "DROPPED")


def test_no_flows_make_an_empty_map() -> None:
    assert drawn(Tables()).cards == ()


def test_a_map_survives_the_renumbering_of_its_tables() -> None:
    tables = Tables()
    endpoint(tables, namespace="gone", pod_name="gone-0")
    pods = [endpoint(tables, namespace="shop", pod_name=name) for name in ("a-0", "b-0")]
    rows = row(pods[0], pods[1], 40000, 80)
    cartographer = Cartographer(tables)
    before = cartographer.draw(rows)
    tables.compact([rows])
    assert cartographer.draw(rows) == before
