"""Lost events as rows, so that readers get a gap as data, in its place in the stream.

In:        who lost how many events, and when.
Out:       one row of Kind.LOST.
Elsewhere: losses of perf rings become rows in model/decode.py; the CLI and the UI show them.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from model.row import Kind, Rows, empty_rows
from model.tables import Tables
from proto.flow import flow_pb2


def queue_loss_row(tables: Tables, node: int, events: int, first_ns: int, last_ns: int) -> Rows:
    """The queue before the decoder was full. `cpu` is present with value 0, as Hubble has it."""
    event = flow_pb2.LostEvent(
        source=flow_pb2.OBSERVER_EVENTS_QUEUE,
        num_events_lost=events,
        first=_timestamp(first_ns),
        last=_timestamp(last_ns),
    )
    event.cpu.SetInParent()
    return _row(tables, node, event, last_ns)


def ring_loss_row(tables: Tables, node: int, events: int, now_ns: int) -> Rows:
    """A reader was overtaken by the ring's writer."""
    event = flow_pb2.LostEvent(
        source=flow_pb2.HUBBLE_RING_BUFFER,
        num_events_lost=events,
        first=_timestamp(now_ns),
        last=_timestamp(now_ns),
    )
    return _row(tables, node, event, now_ns)


def perf_loss_row(tables: Tables, node: int, cpu: int, events: int, now_ns: int) -> Rows:
    """The kernel could not store events of one CPU."""
    event = flow_pb2.LostEvent(source=flow_pb2.PERF_EVENT_RING_BUFFER, num_events_lost=events)
    event.cpu.value = cpu
    return _row(tables, node, event, now_ns)


def _row(tables: Tables, node: int, event: flow_pb2.LostEvent, ts_ns: int) -> Rows:
    row = empty_rows(1)
    row["kind"] = Kind.LOST
    row["ts_ns"] = ts_ns
    row["node"] = node
    row["aux"] = tables.aux.intern(event.SerializeToString(deterministic=True))
    return row


def _timestamp(ns: int) -> Timestamp:
    return Timestamp(seconds=ns // 1_000_000_000, nanos=ns % 1_000_000_000)
