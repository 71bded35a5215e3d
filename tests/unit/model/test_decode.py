"""Batches of events into rows: the fast path agrees with the careful one, and nothing stops the reader."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.decode import DecodeError, Decoder, resolve
from model.decode import decoder as decoder_module
from model.decode.columns import decode_columns
from model.decode.packet_columns import Windows
from model.events import EventBatch, LostSamples
from model.knowledge import Knowledge
from model.row import IPV4, L4, ROW, Bit, Kind, Reply, Rows
from model.tables import Node, Tables
from proto.flow import flow_pb2
from tests.support.packets import drop, ethernet, ipv4, ipv6, policy_verdict, records, tcp, trace, udp


def batch_of(records: list[bytes], lost: tuple[LostSamples, ...] = ()) -> EventBatch:
    lengths = np.array([len(record) for record in records], np.int64)
    return EventBatch(
        data=np.frombuffer(b"".join(records), np.uint8),
        offsets=np.cumsum(lengths) - lengths,
        lengths=lengths,
        cpus=np.arange(len(records), dtype=np.uint16),
        times_ns=np.arange(len(records), dtype=np.int64) + 1_000,
        lost=lost,
    )


STATE: dict[str, Any] = {
    "node_name": "worker",
    "local_endpoints": [
        {
            "id": 100, "ipv4": "10.244.0.10", "ipv6": "fd00:10:244::10", "identity": 20000, "namespace": "shop",
            "pod": "web-0", "labels": ["k8s:app=web", "k8s:io.cilium.k8s.policy.cluster=east"],
            "workload_kind": "StatefulSet", "workload_name": "web",
            "dns": [
                {"ip": "93.184.216.34", "names": ["www.example.com."]},
                {"ip": "2001:db8::1", "names": ["six.example"]},
            ],
            "policy": [
                {"direction": "ingress", "identity": 0, "proto": 6, "port": 8080, "revision": 3, "log": ["seen"],
                 "rules": [["k8s:io.cilium.k8s.policy.name=allow-8080", "k8s:io.cilium.k8s.policy.namespace=shop"]]},
                {"direction": "egress", "identity": 20370, "proto": 0, "port": 0,
                 "rules": [["k8s:io.cilium.k8s.policy.name=to-db"]]},
            ],
        },
        {"id": 780, "ipv4": "10.244.0.50", "identity": 20740, "namespace": "shop", "pod": "cart-0"},
    ],
    "ipcache": [
        {"prefix": "10.244.1.30", "identity": 20370, "namespace": "shop", "pod": "db-0"},
        {"prefix": "fd00:10:244:1::24", "identity": 20370, "namespace": "shop", "pod": "db-0"},
        {"prefix": "0.0.0.0/0", "identity": 2},
        {"prefix": "8.8.0.0/16", "identity": 16777220},
    ],
    "identities": [
        {"id": 20370, "labels": ["k8s:app=db"]},
        {"id": 16777220, "labels": ["reserved:world", "cidr:8.0.0.0/8", "cidr:8.8.0.0/16", "cidr:0.0.0.0/0"]},
    ],
    "reserved_identities": [{"id": 2, "labels": ["reserved:world"]}],
    "services": [
        {"ip": "10.96.0.10", "port": 53, "proto": "UDP", "namespace": "kube-system", "name": "kube-dns"},
        {"ip": "10.96.0.27", "port": 80, "proto": "TCP", "namespace": "shop", "name": "cart"},
    ],
    "links": {"100": "lxc100", "2": "eth0"},
}  # fmt: skip
KNOWLEDGE = Knowledge.from_json(STATE)


def new_decoder(knowledge: Knowledge = KNOWLEDGE) -> tuple[Decoder, Tables]:
    tables = Tables()
    return Decoder(tables, knowledge, tables.nodes.intern(Node("worker"))), tables


def endpoint(tables: Tables, index: int) -> flow_pb2.Endpoint:
    return flow_pb2.Endpoint.FromString(tables.endpoints[index] or b"")


def aux(tables: Tables, rows: Rows, at: int = 0) -> flow_pb2.Flow:
    return flow_pb2.Flow.FromString(tables.aux[int(rows["aux"][at])] or b"")


WEB_TO_DB = ethernet(ipv4(tcp()))
DB_TO_WEB = ethernet(ipv4(tcp(), src="10.244.1.30", dst="10.244.0.10"))


@pytest.fixture(autouse=True, scope="module")
def columns_for_any_number_of_events() -> Iterator[None]:
    """Few events are decoded one by one; here the columns are meant."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "FEW", 0)
        yield


@settings(max_examples=300)
@given(st.lists(records(), max_size=12))
@example([ethernet(ipv4(tcp())), b"", trace(ethernet(ipv6(udp(), 17), 0x86DD), version=2)])
def test_events_decoded_by_column_are_those_decoded_one_at_a_time(events: list[bytes]) -> None:
    decoder, _ = new_decoder()
    together = decoder.decode(batch_of(events))
    alone, errors = [], 0
    for number, record in enumerate(events):
        try:
            alone.append(decoder.decode_event(record, cpu=number, ts_ns=1_000 + number))
        except DecodeError:
            errors += 1
    assert together.rows.tobytes() == b"".join(row.tobytes() for row in alone)
    assert sum(together.errors.values()) == errors


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=300), max_size=8))
def test_random_bytes_are_counted_and_never_raise(events: list[bytes]) -> None:
    decoder, _ = new_decoder()
    decoded = decoder.decode(batch_of(events))
    assert len(decoded.rows) + sum(decoded.errors.values()) == len(events)


@pytest.mark.parametrize(
    "record",
    [
        trace(WEB_TO_DB),
        trace(ethernet(ipv4(tcp(options=bytes.fromhex("0101080a0000000100000002"))))),
        trace(ethernet(ipv4(tcp(options=bytes.fromhex("020405b40402080a000000010000000001030307"))))),
        trace(ethernet(ipv6(udp(), 17), 0x86DD)),
        trace(ethernet(b"\0" * 46, 0x0806)),
        trace(ipv4(tcp()), flags=2),
        trace(ethernet(ipv4(b"\x08\0\0\0\0\0\0\0", 1)), orig=b"\x0a\xf4\x01\x1e" + bytes(12)),
        trace(ethernet(ipv4(tcp(), fragment=0x2000))),
        drop(WEB_TO_DB),
        drop(WEB_TO_DB, version=1),
        policy_verdict(DB_TO_WEB),
    ],
)
def test_usual_events_do_not_need_the_slow_path(record: bytes) -> None:
    decoder, _ = new_decoder()
    batch = batch_of([record])
    rows = np.zeros(1, ROW)
    windows = Windows(batch.data)
    assert decode_columns(decoder._resolver, 1, windows, batch.offsets, batch.lengths, batch.times_ns, rows).all()


def test_a_row_says_who_talks_to_whom() -> None:
    decoder, tables = new_decoder()
    (row,) = decoder.decode(batch_of([trace(WEB_TO_DB, point=3, reason=1, ifindex=2)])).rows
    assert (row["ip_version"], row["l4"], row["sport"], row["dport"]) == (IPV4, L4.TCP, 43210, 8080)
    assert row["bits"] == Bit.HAS_ETHERNET | Bit.HAS_TCP_FLAGS | Bit.HAS_EVENT_TYPE
    source, destination = endpoint(tables, row["src"]), endpoint(tables, row["dst"])
    assert (source.ID, source.identity, source.cluster_name, source.pod_name) == (100, 20000, "east", "web-0")
    assert [(w.name, w.kind) for w in source.workloads] == [("web", "StatefulSet")]
    assert (destination.ID, destination.pod_name, list(destination.labels)) == (0, "db-0", ["k8s:app=db"])
    assert (row["direction"], row["is_reply"]) == (flow_pb2.EGRESS, Reply.FALSE)
    assert tables.ifaces[int(row["iface"])].name == "eth0"  # type: ignore[union-attr]


def test_of_nested_cidr_labels_only_the_longest_is_shown() -> None:
    decoder, tables = new_decoder()
    rows = decoder.decode(batch_of([trace(ethernet(ipv4(tcp(), dst="8.8.8.8")))])).rows
    assert list(endpoint(tables, rows["dst"][0]).labels) == ["cidr:8.8.0.0/16", "reserved:world"]


def test_names_are_those_that_the_other_side_resolved() -> None:
    decoder, tables = new_decoder()
    to_world = trace(ethernet(ipv4(tcp(), dst="93.184.216.34")))
    from_world = trace(ethernet(ipv4(tcp(), src="93.184.216.34", dst="10.244.0.10")))
    by_other = trace(ethernet(ipv4(tcp(), src="10.244.0.50", dst="93.184.216.34")))
    rows = decoder.decode(batch_of([to_world, from_world, by_other])).rows
    names = tables.names.values
    assert [names[i] for i in rows["dst_names"].tolist()] == [("www.example.com",), None, None]
    assert [names[i] for i in rows["src_names"].tolist()] == [None, ("www.example.com",), None]


def test_delivery_with_an_unchanged_original_address_is_ingress() -> None:
    """The ingress program fills orig_ip in every event; only another address means that the packet was translated."""
    same, other = bytes([10, 244, 1, 30]) + bytes(12), bytes([10, 244, 0, 50]) + bytes(12)
    decoder, tables = new_decoder()
    rows = decoder.decode(batch_of([trace(DB_TO_WEB, orig=same), trace(DB_TO_WEB, orig=other)])).rows
    assert rows["direction"].tolist() == [flow_pb2.INGRESS, flow_pb2.EGRESS]
    assert rows["aux"][0] == 0
    assert aux(tables, rows, 1).IP.source_xlated == "10.244.1.30"


def test_a_verdict_names_the_rules_that_decided() -> None:
    decoder, tables = new_decoder()
    by_port, by_identity = 0x01 | 3 << 3, 0x02 | 1 << 3
    events = [
        policy_verdict(DB_TO_WEB, flags=by_port),
        policy_verdict(WEB_TO_DB, flags=by_identity, verdict=-181),
        policy_verdict(DB_TO_WEB, flags=by_port, verdict=-133),
    ]
    rows = decoder.decode(batch_of(events)).rows
    allowed, denied, unexplained = (aux(tables, rows, at) for at in range(3))
    assert [policy.name for policy in allowed.ingress_allowed_by] == ["allow-8080"]
    assert list(allowed.policy_log) == ["seen"]
    assert [policy.name for policy in denied.egress_denied_by] == ["to-db"]
    assert unexplained == flow_pb2.Flow()
    assert rows["verdict"].tolist() == [flow_pb2.FORWARDED, flow_pb2.DROPPED, flow_pb2.DROPPED]


def test_what_the_kernel_lost_stands_in_its_place() -> None:
    decoder, tables = new_decoder()
    lost = (LostSamples(at=2, cpu=1, count=7, time_ns=5), LostSamples(at=0, cpu=0, count=3, time_ns=4))
    rows = decoder.decode(batch_of([trace(WEB_TO_DB), b"\xff", trace(WEB_TO_DB)], lost)).rows
    assert rows["kind"].tolist() == [Kind.LOST, Kind.FLOW, Kind.LOST, Kind.FLOW]
    event = flow_pb2.LostEvent.FromString(tables.aux[int(rows["aux"][2])] or b"")
    assert (event.source, event.num_events_lost, event.cpu.value) == (flow_pb2.PERF_EVENT_RING_BUFFER, 7, 1)


def test_only_losses_make_a_batch_too() -> None:
    decoder, _ = new_decoder()
    lost = (LostSamples(at=0, cpu=0, count=3, time_ns=4),)
    assert decoder.decode(batch_of([], lost)).rows["kind"].tolist() == [Kind.LOST]


def test_new_knowledge_is_used_from_the_next_event_on() -> None:
    decoder, tables = new_decoder(Knowledge())
    before = decoder.decode(batch_of([trace(WEB_TO_DB)])).rows
    decoder.update(KNOWLEDGE)
    after = decoder.decode(batch_of([trace(WEB_TO_DB)])).rows
    assert endpoint(tables, before["src"][0]).pod_name == ""
    assert endpoint(tables, after["src"][0]).pod_name == "web-0"


def test_indices_are_good_after_the_tables_were_compacted() -> None:
    decoder, tables = new_decoder()
    decoder.decode(batch_of([trace(DB_TO_WEB), drop(DB_TO_WEB), policy_verdict(DB_TO_WEB)]))
    kept = decoder.decode(batch_of([trace(WEB_TO_DB)])).rows
    tables.compact([kept])
    decoder.node = tables.nodes.intern(Node("worker"))
    rows = decoder.decode(batch_of([trace(WEB_TO_DB), drop(DB_TO_WEB)])).rows
    assert rows["src"][0] == kept["src"][0]
    assert endpoint(tables, rows["src"][0]).pod_name == "web-0"
    assert endpoint(tables, rows["dst"][1]).pod_name == "web-0"
    assert aux(tables, rows, 1).file.name == "bpf_lxc.c"


def test_more_addresses_than_are_remembered_are_still_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_KEYS", 512)
    decoder, tables = new_decoder()
    hosts = [f"8.8.{n >> 8}.{n & 255}" for n in range(1200)]
    for _ in range(2):
        rows = decoder.decode(batch_of([trace(ethernet(ipv4(tcp(), dst=host))) for host in hosts])).rows
        assert [endpoint(tables, index).identity for index in rows["dst"].tolist()] == [16777220] * len(hosts)


def test_few_events_become_the_same_rows_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of([trace(WEB_TO_DB), b"\xff", drop(DB_TO_WEB)])
    by_column = new_decoder()[0].decode(batch)
    monkeypatch.setattr(decoder_module, "FEW", 3)
    one_by_one = new_decoder()[0].decode(batch)
    assert one_by_one.rows.tobytes() == by_column.rows.tobytes()
    assert one_by_one.errors == by_column.errors


def test_an_empty_batch_is_no_rows() -> None:
    decoder, _ = new_decoder()
    assert len(decoder.decode(batch_of([])).rows) == 0


def test_records_anywhere_in_the_buffer_are_read_whole() -> None:
    """Perf rings hand out records between other bytes, the last one up to the very end of the buffer."""
    decoder, _ = new_decoder()
    record = trace(WEB_TO_DB)
    data = np.frombuffer(b"\xee" * 3 + record + b"\xee" * 500 + record, np.uint8)
    batch = EventBatch(
        data=data,
        offsets=np.array([3, len(data) - len(record)]),
        lengths=np.full(2, len(record)),
        cpus=np.zeros(2, np.uint16),
        times_ns=np.zeros(2, np.int64),
    )
    first, second = decoder.decode(batch).rows
    assert first.tobytes() == second.tobytes() == decoder.decode_event(record, cpu=0, ts_ns=0)[0].tobytes()


def test_the_recorded_mix_takes_the_fast_path_only(golden: Path) -> None:
    index = [json.loads(line) for line in _unzipped(golden / "bench" / "bench-mix.index.jsonl.gz")]
    data = np.fromfile(golden / "bench" / "bench-mix.bin", np.uint8)
    perf = [entry for entry in index if entry["kind"] == "perf"]
    knowledge = Knowledge.from_json(json.loads((golden / "events" / "getters.json").read_text()))
    decoder, _ = new_decoder(knowledge)
    offsets = np.array([entry["offset"] for entry in perf])
    lengths = np.array([entry["length"] for entry in perf])
    rows = np.zeros(len(perf), ROW)
    done = decode_columns(decoder._resolver, 1, Windows(data), offsets, lengths, np.zeros(len(perf), np.int64), rows)
    assert done.all()


def _unzipped(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().splitlines()
