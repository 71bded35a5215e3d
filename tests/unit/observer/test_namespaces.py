"""observer/namespaces.py: what was seen in the last hour, also when the ring has forgotten it."""

from __future__ import annotations

import time

from model.ring import Ring
from model.row import Rows, empty_rows
from model.tables import Tables
from observer.namespaces import REMEMBERED_NS, Namespaces
from proto.flow import flow_pb2

HOUR = REMEMBERED_NS


def endpoint(tables: Tables, namespace: str, pod: str = "p") -> int:
    return tables.endpoints.intern(flow_pb2.Endpoint(namespace=namespace, pod_name=pod).SerializeToString())


def between(tables: Tables, source: str, destination: str = "") -> Rows:
    row = empty_rows(1)
    row["src"], row["dst"] = endpoint(tables, source), endpoint(tables, destination)
    return row


def names(namespaces: Namespaces, later_ns: int = 0) -> list[str]:
    return [name for _, name in namespaces.seen(time.time_ns() + later_ns)]


def test_source_and_destination_count_sorted_and_once() -> None:
    ring = Ring(7)
    namespaces = Namespaces(ring, "west")
    for _ in range(2):
        ring.append(between(ring.tables, "shop", "bank"))
    assert namespaces.seen() == [("west", "bank"), ("west", "shop")]


def test_an_hour_later_a_namespace_is_forgotten() -> None:
    ring = Ring(7)
    namespaces = Namespaces(ring)
    ring.append(between(ring.tables, "shop"))
    assert names(namespaces) == ["shop"]
    assert names(namespaces, HOUR + 10**9) == []
    ring.append(between(ring.tables, "shop"))
    assert names(namespaces) == ["shop"]


def test_what_the_ring_has_forgotten_is_still_known() -> None:
    ring = Ring(1)
    namespaces = Namespaces(ring)
    for name in ("one", "two", "three"):
        ring.append(between(ring.tables, name))
        namespaces.keep_up()
    assert names(namespaces) == ["one", "three", "two"]


def test_compacted_tables_do_not_confuse_it() -> None:
    ring = Ring(1)
    namespaces = Namespaces(ring)
    for name in ("one", "two"):
        ring.append(between(ring.tables, name))
        namespaces.keep_up()
    ring.compact()
    assert ring.tables.size() < 10
    assert names(namespaces) == ["one", "two"]


def test_many_endpoints_are_no_problem() -> None:
    ring = Ring(8191)
    namespaces = Namespaces(ring)
    rows = empty_rows(5000)
    rows["src"] = [endpoint(ring.tables, f"ns-{number % 7}", str(number)) for number in range(5000)]
    ring.append(rows)
    namespaces.keep_up()
    assert len(names(namespaces)) == 7
