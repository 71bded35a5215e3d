"""observer/namespaces.py: what was seen in the last hour, also when the ring has forgotten it."""

from __future__ import annotations

from model.ring import Ring
from model.row import empty_rows
from model.tables import Tables
from observer.namespaces import REMEMBERED_NS, Namespaces
from proto.flow import flow_pb2

HOUR = REMEMBERED_NS
NOW = 10 * HOUR


def endpoint(tables: Tables, namespace: str, pod: str = "p") -> int:
    return tables.endpoints.intern(flow_pb2.Endpoint(namespace=namespace, pod_name=pod).SerializeToString())


def test_source_and_destination_count_sorted_and_once() -> None:
    tables = Tables()
    seen = Namespaces(tables, "west")
    rows = empty_rows(3)
    rows["src"] = [endpoint(tables, "shop"), endpoint(tables, "shop", "other"), endpoint(tables, "")]
    rows["dst"] = [endpoint(tables, "bank"), 0, 0]
    seen.note(rows, NOW)
    assert seen.seen(NOW) == [("west", "bank"), ("west", "shop")]


def test_an_hour_later_a_namespace_is_forgotten() -> None:
    tables = Tables()
    seen = Namespaces(tables)
    rows = empty_rows(1)
    rows["src"] = endpoint(tables, "shop")
    seen.note(rows, NOW)
    assert seen.seen(NOW + HOUR) == [("", "shop")]
    assert seen.seen(NOW + HOUR + 1) == []


def test_a_sighting_refreshes() -> None:
    tables = Tables()
    seen = Namespaces(tables)
    rows = empty_rows(1)
    rows["src"] = endpoint(tables, "shop")
    seen.note(rows, NOW)
    seen.fold()
    seen.note(rows, NOW + HOUR)
    assert seen.seen(NOW + 2 * HOUR) == [("", "shop")]


def test_compacted_tables_do_not_confuse_it() -> None:
    ring = Ring(1)
    seen = Namespaces(ring.tables)
    ring.before_compaction.append(seen.fold)
    for name in ("one", "two"):
        row = empty_rows(1)
        row["src"] = endpoint(ring.tables, name)
        seen.note(row, NOW)
        ring.append(row)
    ring.compact()
    assert len(ring.tables.endpoints) == 2
    assert [name for _, name in seen.seen(NOW)] == ["one", "two"]


def test_many_endpoints_are_no_problem() -> None:
    tables = Tables()
    seen = Namespaces(tables)
    rows = empty_rows(5000)
    rows["src"] = [endpoint(tables, f"ns-{number % 7}", str(number)) for number in range(5000)]
    seen.note(rows, NOW)
    assert len(seen.seen(NOW)) == 7
