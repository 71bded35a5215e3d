"""Events into rows, on one core: the recorded mix, the path for unusual events beside it, and what a flow takes.

In:        golden/bench (2,000 events of 1,000 pods with 7 labels each) repeated, each request with an id of its own.
Out:       events per second, nanoseconds per event, bytes per flow.
Elsewhere: bench_observer.py measures the same within an observer.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from model.decode import Decoder
from model.events import EventBatch
from model.knowledge import Knowledge
from model.ring import Ring
from model.row import ROW
from model.tables import Node, Tables
from tests.conftest import GOLDEN
from tests.support.batches import make_batch, read_golden
from tests.support.packets import ethernet, ipv4, tcp, trace

RUNS = 7
REPEATS = 100
"""Of the mix: 200,000 events."""
DRAIN = 4096
"""Events per batch, as the observer takes them."""
RING = 65_535

Records = list[dict[str, Any]]


def run() -> dict[str, object]:
    """All figures."""
    events, records = read_golden(GOLDEN / "bench", "bench-mix")
    knowledge = Knowledge.from_json(json.loads((GOLDEN / "events" / "getters.json").read_text()))
    batches = in_drains(events * REPEATS)
    requests = [with_own_ids(records, number) for number in range(REPEATS)]
    count = len(events) * REPEATS
    decoder, _ = new_decoder(knowledge)
    per_event_ns = median_ns(lambda: decode(decoder, batches)) / count
    per_record_ns = median_ns(lambda: [decoder.decode_accesslog(some, [0] * len(some)) for some in requests]) / (
        len(records) * REPEATS
    )
    return {
        "decode_enrich_store_events_per_s": round(mixed_per_s(knowledge, batches, requests)),
        "perf_event_ns": round(per_event_ns),
        "l7_record_ns": round(per_record_ns),
        "perf_event_one_at_a_time_ns": round(one_at_a_time_ns(knowledge, events)),
        "perf_event_of_10000_addresses_ns": round(many_addresses_ns(knowledge, 10_000)),
        "perf_event_in_batches_of_100_ns": round(
            median_ns(lambda: decode(decoder, in_drains(events, 100))) / len(events)
        ),
        **memory(knowledge, batches, requests),
    }


def new_decoder(knowledge: Knowledge, tables: Tables | None = None) -> tuple[Decoder, Tables]:
    tables = Tables() if tables is None else tables
    return Decoder(tables, knowledge, tables.nodes.intern(Node("kind-worker"))), tables


def in_drains(events: list[bytes], size: int = DRAIN) -> list[EventBatch]:
    return [
        make_batch(events[at : at + size], range(at, min(at + size, len(events)))) for at in range(0, len(events), size)
    ]


def with_own_ids(records: Records, number: int) -> Records:
    """The records as if they came again: nothing about a request repeats but its text."""
    records = copy.deepcopy(records)
    for at, record in enumerate(records):
        headers = (record.get("http") or {}).get("headers") or {}
        if "X-Request-Id" in headers:
            headers["X-Request-Id"] = [f"{number:08x}-aaaa-4bbb-8ccc-{at:012x}"]
    return records


def decode(decoder: Decoder, batches: list[EventBatch]) -> None:
    for batch in batches:
        decoder.decode(batch)


def median_ns(work: Callable[[], object]) -> float:
    """CPU time of one run, the first one not counted."""
    work()

    def once() -> int:
        begun = time.process_time_ns()
        work()
        return time.process_time_ns() - begun

    return statistics.median(once() for _ in range(RUNS))


def mixed_per_s(knowledge: Knowledge, batches: list[EventBatch], requests: list[Records]) -> float:
    """The whole mix through decoder and ring, with the ring's compactions of its tables."""
    ring = Ring(RING)
    decoder, _ = new_decoder(knowledge, ring.tables)
    node = Node("kind-worker")
    ring.after_compaction.append(lambda: setattr(decoder, "node", ring.tables.nodes.intern(node)))
    turns = [(batch, requests[at :: len(batches)]) for at, batch in enumerate(batches)]
    count = sum(map(len, batches)) + sum(map(len, requests))

    def once() -> None:
        for batch, some in turns:
            ring.append(decoder.decode(batch).rows)
            for records in some:
                ring.append(decoder.decode_accesslog(records, [0] * len(records)).rows)

    return count / median_ns(once) * 1e9


def one_at_a_time_ns(knowledge: Knowledge, events: list[bytes]) -> float:
    decoder, _ = new_decoder(knowledge)

    def once() -> None:
        for event in events:
            decoder.decode_event(event, cpu=0, ts_ns=0)

    return median_ns(once) / len(events)


def many_addresses_ns(knowledge: Knowledge, addresses: int) -> float:
    """Events of a scan: every one has another address of the world."""
    events = [trace(ethernet(ipv4(tcp(), dst=f"93.1.{n >> 8 & 255}.{n & 255}"))) for n in range(addresses)]
    batches = in_drains(events)
    decoder, _ = new_decoder(knowledge)
    return median_ns(lambda: decode(decoder, batches)) / addresses


def memory(knowledge: Knowledge, batches: list[EventBatch], requests: list[Records]) -> dict[str, object]:
    """Bytes of a full ring per flow, with the values that its flows share."""
    turns = [(batch, requests[at :: len(batches)]) for at, batch in enumerate(batches)]
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ring = Ring(RING)
    decoder, _ = new_decoder(knowledge, ring.tables)
    for batch, some in turns:
        ring.append(decoder.decode(batch).rows)
        for records in some:
            ring.append(decoder.decode_accesslog(records, [0] * len(records)).rows)
        if len(ring) >= RING:
            break
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {
        "row_bytes": ROW.itemsize,
        "bytes_per_flow_of_full_ring": round(taken / RING, 1),
        "table_values": ring.tables.size(),
    }
