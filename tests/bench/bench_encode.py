"""Rows into bytes and back, on one core: messages, masked messages, Arrow batches.

In:        golden/bench through the decoder, repeated; made-up traffic where every flow is a new connection.
Out:       flows per second, bytes per flow.
Elsewhere: bench_observer.py measures the same within an observer, over gRPC.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from model.arrow_table import rows_to_arrow_table
from model.columns import from_arrow_ipc, to_arrow_ipc
from model.decode import Decoder
from model.encode import Encoder
from model.ingest import rows_from_responses, rows_from_wire
from model.knowledge import Knowledge
from model.mask import FieldMask
from model.row import Rows
from model.tables import Node, Tables
from model.whole_rows import joined, take
from proto.observer import observer_pb2
from tests.conftest import GOLDEN
from tests.support.batches import make_batch, read_golden
from tests.support.rows import make_rows

RUNS = 7
FLOWS = 65_536
MESSAGES = 2048
"""Flows encoded at once, as the observer does."""
COLUMNS = 8192
"""Rows of one Arrow batch."""
COMPACT_MASK = (
    *("time", "verdict", "ethernet", "IP", "l4", "source.identity", "source.namespace", "source.pod_name"),
    *("destination.identity", "destination.namespace", "destination.pod_name", "Type", "node_name", "l7"),
    *("event_type", "source_service", "destination_service", "is_reply", "Summary", "ip_trace_id"),
)
"""What the command line asks for when it prints lines."""


def run() -> dict[str, object]:
    """All figures."""
    rows, tables = golden_rows(FLOWS)
    new_rows, new_tables = make_rows(FLOWS, endpoints=10_000, connections=10 * FLOWS, nodes=3)
    return {
        **encoding(rows, tables),
        "encode_all_new_connections_flows_per_s": per_s(lambda: encode(Encoder(new_tables), new_rows), FLOWS),
        "encode_10_000_endpoints_again_flows_per_s": encode_again_per_s(Encoder(new_tables), new_rows),
        **columns(rows, tables),
        **reading(rows, tables),
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def encoding(rows: Rows, tables: Tables) -> dict[str, object]:
    mask = FieldMask.parse(COMPACT_MASK)
    full, masked = Encoder(tables).responses(rows[:MESSAGES]), Encoder(tables, mask).responses(rows[:MESSAGES])
    return {
        "encode_flows_per_s": encode_again_per_s(Encoder(tables), rows),
        "encode_message_bytes": round(len(full.buffer) / MESSAGES),
        "encode_masked_flows_per_s": encode_again_per_s(Encoder(tables, mask), rows),
        "encode_masked_message_bytes": round(len(masked.buffer) / MESSAGES),
        "encode_first_batch_flows_per_s": per_s(lambda: Encoder(tables).responses(rows[:MESSAGES]), MESSAGES),
    }


def columns(rows: Rows, tables: Tables) -> dict[str, object]:
    batches = [to_arrow_ipc(part, tables) for part in parts(rows, COLUMNS)]
    received = Tables()
    return {
        "to_arrow_rows_per_s": per_s(lambda: [to_arrow_ipc(part, tables) for part in parts(rows, COLUMNS)], FLOWS),
        "from_arrow_rows_per_s": per_s(lambda: [from_arrow_ipc(batch, received) for batch in batches], FLOWS),
        "arrow_row_bytes": round(sum(map(len, batches)) / FLOWS),
        "to_table_rows_per_s": per_s(lambda: rows_to_arrow_table(rows, tables), FLOWS),
    }


def reading(rows: Rows, tables: Tables) -> dict[str, object]:
    """Messages into rows: as other servers write them, fields by number and random UUIDs."""
    count = 4096
    encoded = Encoder(tables).responses(rows[:count])
    responses = [observer_pb2.GetFlowsResponse.FromString(encoded.payload(at)) for at in range(count)]
    for number, response in enumerate(responses, 1):
        response.flow.uuid = f"c0ffee00-0000-4000-8000-{number:012x}"
    messages = [response.SerializeToString(deterministic=True) for response in responses]
    received = Tables()
    return {
        "read_messages_per_s": per_s(lambda: rows_from_wire(messages, received), count),
        "read_messages_one_by_one_per_s": per_s(
            lambda: rows_from_responses(map(observer_pb2.GetFlowsResponse.FromString, messages), Tables()), count
        ),
    }


def golden_rows(count: int) -> tuple[Rows, Tables]:
    """The recorded mix, as often as it takes, each flow with its own time, number and source port."""
    events, records = read_golden(GOLDEN / "bench", "bench-mix")
    knowledge = Knowledge.from_json(json.loads((GOLDEN / "events" / "getters.json").read_text()))
    tables = Tables()
    node = tables.nodes.intern(Node("kind-worker", ("kubernetes.io/os=linux",), boot=1 << 63, version="0.1.0"))
    decoder = Decoder(tables, knowledge, node)
    mix = joined(
        [
            decoder.decode(make_batch(events, range(len(events)))).rows,
            decoder.decode_accesslog(records, [0] * len(records)).rows,
        ]
    )
    rows = take(mix, np.random.default_rng(1).integers(0, len(mix), count))
    rows["ts_ns"] = 1_768_471_200_000_000_000 + np.arange(count) * 10_000
    rows["seq"] = np.arange(count)
    ephemeral = rows["sport"] >= 32768
    rows["sport"][ephemeral] = 32768 + np.arange(count)[ephemeral] % 28_000
    return rows, tables


def encode(encoder: Encoder, rows: Rows) -> None:
    for part in parts(rows, MESSAGES):
        encoder.responses(part)


def encode_again_per_s(encoder: Encoder, rows: Rows) -> int:
    encode(encoder, rows)
    return per_s(lambda: encode(encoder, rows), len(rows))


def parts(rows: Rows, size: int) -> Iterator[Rows]:
    return (rows[at : at + size] for at in range(0, len(rows), size))


def per_s(work: Callable[[], object], count: int) -> int:
    """Median rate of several runs, in process time: the machine may have other work."""
    taken = []
    for _ in range(RUNS):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return round(count / statistics.median(taken))
