"""Small rows for tests of whatever handles rows without looking into them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.row import Kind, Rows, empty_rows
from model.tables import Tables
from proto.flow import flow_pb2


def flow_rows(times: Sequence[int], verdicts: Sequence[int] | None = None) -> Rows:
    """One flow per time (ns); `verdicts` is the field that the tests filter by."""
    rows = empty_rows(len(times))
    rows["ts_ns"] = times
    rows["verdict"] = 1 if verdicts is None else verdicts
    rows["flow_type"] = flow_pb2.L3_L4
    return rows


def lost_row(tables: Tables, count: int, ts_ns: int = 0) -> Rows:
    """One lost-events row of a perf ring."""
    event = flow_pb2.LostEvent(source=flow_pb2.PERF_EVENT_RING_BUFFER, num_events_lost=count)
    rows = empty_rows(1)
    rows["kind"] = Kind.LOST
    rows["ts_ns"] = ts_ns
    rows["aux"] = tables.aux.intern(event.SerializeToString(deterministic=True))
    return rows


def kinds_row(kind: Kind, ts_ns: int = 0) -> Rows:
    """One row of another kind without content."""
    rows = empty_rows(1)
    rows["kind"] = kind
    rows["ts_ns"] = ts_ns
    return rows


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows one behind the other."""
    return np.concatenate(parts) if parts else empty_rows(0)
