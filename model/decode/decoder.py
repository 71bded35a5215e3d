"""Batches of monitor events into rows.

In:        EventBatch, L7 records, agent notifications; tables to intern into; what the node knows.
Out:       `Decoded`: rows in the order of the events, and what became none, counted by kind.
Elsewhere: columns.py and event.py decode; seq is assigned by the owner of the ring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from google.protobuf.wrappers_pb2 import Int32Value

from model.decode.accesslog import AccessLogDecoder
from model.decode.agent_events import agent_event
from model.decode.columns import CHUNK, decode_columns
from model.decode.errors import DecodeError, ErrorClass
from model.decode.event import EventDecoder
from model.decode.http_parts import Redaction
from model.decode.lines import LineDecoder, Lines
from model.decode.packet_columns import Windows
from model.decode.resolve import Resolver
from model.draft import Draft
from model.events import EventBatch, LostSamples
from model.knowledge import Knowledge
from model.layouts import MessageType
from model.row import ROW, Kind, Rows
from model.tables import Tables
from model.whole_rows import joined, take
from proto.flow import flow_pb2

FEW: Final = 16
"""Up to so many events at once are decoded one by one: columns cost 200 µs however short they are, an event 12 µs."""
_LOST: Final = "Lost"


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a batch."""

    rows: Rows
    errors: Counter[str] = field(default_factory=Counter)
    """Events that became no row, by ErrorClass."""


class Decoder:
    """Decodes for one node into one set of tables. Like the tables, it has one owner."""

    def __init__(self, tables: Tables, knowledge: Knowledge, node: int, *, redaction: Redaction | None = None) -> None:
        self._tables = tables
        self._resolver = Resolver(tables, knowledge)
        self._events = EventDecoder(self._resolver)
        self._records = AccessLogDecoder(self._resolver, redaction or Redaction())
        self._lines = LineDecoder(self._records, self._resolver, redaction or Redaction())
        self.node = node

    @property
    def node(self) -> int:
        """Index of this node in Tables.nodes. Set it again when the tables have been compacted."""
        return self._node

    @node.setter
    def node(self, index: int) -> None:
        self._node = self._events.node = self._records.node = index
        self._lines.forget()

    def update(self, knowledge: Knowledge) -> None:
        """Know this from now on."""
        self._resolver.update(knowledge)
        self._forget_records()

    def decode(self, batch: EventBatch) -> Decoded:
        """Rows of one drain of the perf rings; what the kernel lost stands at its place among them."""
        self._refresh()
        errors: Counter[str] = Counter()
        rows = np.zeros(len(batch), ROW)
        done = np.zeros(len(batch), bool)
        windows = Windows(batch.data)
        for start in range(0, len(batch) if len(batch) > FEW else 0, CHUNK):
            own = slice(start, start + CHUNK)
            done[own] = decode_columns(
                self._resolver,
                self._node,
                windows,
                batch.offsets[own],
                batch.lengths[own],
                batch.times_ns[own],
                rows[own],
            )
        for index in np.flatnonzero(~done).tolist():
            done[index] = self._decode_one(batch, index, rows, errors)
        return Decoded(self._with_lost(rows, done, batch.lost), errors)

    def _decode_one(self, batch: EventBatch, index: int, rows: Rows, errors: Counter[str]) -> bool:
        cpu, ts_ns = int(batch.cpus[index]), int(batch.times_ns[index])
        try:
            row = self._events.decode(batch.record(index), cpu=cpu, ts_ns=ts_ns)
        except DecodeError as error:
            errors[error.error_class] += 1
            return False
        rows[index] = np.frombuffer(row, ROW)[0]
        return True

    def _with_lost(self, rows: Rows, done: npt.NDArray[np.bool_], lost: Sequence[LostSamples]) -> Rows:
        """The rows that are done, with a row per gap before the row at its index."""
        if not lost:
            return rows if done.all() else take(rows, done)
        parts, start = [], 0
        for gap in sorted(lost, key=lambda gap: gap.at):
            end = min(gap.at, len(rows))
            parts += [take(rows[start:end], done[start:end]), self._lost(gap)]
            start = end
        return joined([*parts, take(rows[start:], done[start:])])

    def decode_accesslog(self, records: Sequence[Mapping[str, Any]], times_ns: Sequence[int]) -> Decoded:
        """Rows of L7 records. `times_ns`: when each was read; a record's own timestamp only serves latencies.

        A record of type Lost says that its sender found no room for `count` others.
        """
        self._refresh()
        errors: Counter[str] = Counter()
        rows: list[bytes] = []
        for record, ts_ns in zip(records, times_ns, strict=True):
            try:
                lost = isinstance(record, dict) and record.get("type") == _LOST
                rows.append(self._told_loss(record, ts_ns) if lost else self._records.decode(record, ts_ns))
            except DecodeError as error:
                errors[error.error_class] += 1
        return Decoded(_rows(rows), errors)

    def decode_lines(self, lines: Lines, times_ns: npt.NDArray[np.int64]) -> Decoded:
        """Rows of what our own Envoy tells. `times_ns`: when each is to have been."""
        self._refresh()
        rows = self._lines.decode(lines, times_ns)
        lacking = len(lines) - len(rows)
        return Decoded(rows, Counter({ErrorClass.DECODE_ERROR: lacking}) if lacking else Counter())

    def decode_event(self, record: bytes, *, cpu: int, ts_ns: int) -> Rows:
        """The row of one event, decoded on its own. Raises: DecodeError."""
        self._refresh()
        return _rows([self._events.decode(record, cpu=cpu, ts_ns=ts_ns)])

    def decode_agent(self, records: Sequence[Mapping[str, Any]], times_ns: Sequence[int]) -> Decoded:
        """Rows of agent notifications: objects with `type` (the monitor's number), `message`, and perhaps `shape`."""
        self._refresh()
        errors: Counter[str] = Counter()
        rows: list[bytes] = []
        for record, ts_ns in zip(records, times_ns, strict=True):
            try:
                event = agent_event(int(record["type"]), record["message"], record.get("shape"))
            except (TypeError, ValueError, KeyError, AttributeError):
                errors[ErrorClass.INVALID_AGENT_MESSAGE_TYPE] += 1
                continue
            draft = self._draft(Kind.AGENT, ts_ns, event.SerializeToString(deterministic=True))
            draft.event_type, draft.sub_type = MessageType.AGENT, event.type
            rows.append(draft.pack())
        return Decoded(_rows(rows), errors)

    def lost_events(self, event: flow_pb2.LostEvent, *, ts_ns: int) -> Rows:
        """The row of a gap."""
        self._refresh()
        return _rows([self._draft(Kind.LOST, ts_ns, event.SerializeToString(deterministic=True)).pack()])

    def _told_loss(self, record: Mapping[str, Any], ts_ns: int) -> bytes:
        try:
            event = flow_pb2.LostEvent(source=flow_pb2.OBSERVER_EVENTS_QUEUE, num_events_lost=int(record["count"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DecodeError(ErrorClass.DECODE_ERROR, f"record of a loss: {error}") from error
        return self._draft(Kind.LOST, ts_ns, event.SerializeToString(deterministic=True)).pack()

    def _refresh(self) -> None:
        if self._resolver.refresh():
            self._forget_records()

    def _forget_records(self) -> None:
        self._records.forget()
        self._lines.forget()

    def _draft(self, kind: Kind, ts_ns: int, aux: bytes) -> Draft:
        return Draft(ts_ns=ts_ns, node=self._node, kind=kind, aux=self._tables.aux.intern(aux))

    def _lost(self, lost: LostSamples) -> Rows:
        event = flow_pb2.LostEvent(
            source=flow_pb2.PERF_EVENT_RING_BUFFER, num_events_lost=lost.count, cpu=Int32Value(value=lost.cpu)
        )
        return _rows([self._draft(Kind.LOST, lost.time_ns, event.SerializeToString(deterministic=True)).pack()])


def _rows(packed: list[bytes]) -> Rows:
    return np.frombuffer(bytearray(b"".join(packed)), ROW)
