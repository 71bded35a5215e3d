"""From a source to the ring: read, decode, store.

In:        a source (kernel or recording), records from the socket, the node's state.
Out:       rows in the ring; the bell rings for the streams; counters.
Elsewhere: model/decode knows the events; service.py serves what is stored.

The source has one owner at a time. While events come in a rush, that is the reader thread: its only exit is the feed, a
bounded queue; whatever finds no room there is counted and reaches readers as a lost-events row in its place. While they
trickle, the loop takes them itself, because handing every few events from a thread to the loop costs more than all the
rest. Everything behind the feed always happens on the loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import structlog

from model.decode import Decoded, Decoder
from model.decode.few import FewDecoder
from model.decode.lines import Lines, is_line, join_lines, lines_of, read_lines
from model.events import EventBatch
from model.ring import Ring
from model.row import Rows, empty_rows
from model.tables import Node
from model.whole_rows import joined, take
from observer.batches import join, split
from observer.bell import Bell
from observer.feed import Fed, Feed, QueueLoss
from observer.lost import perf_loss_row, queue_loss_row
from observer.namespaces import Namespaces
from observer.order import Order
from observer.recorder import Recorder
from observer.recording import Gap, Hello, Item, JsonRecords, State
from observer.sources import Source
from observer.state import BrokenState, NodeState, parse_state

log = structlog.get_logger(component="pipeline")

TURN_EVENTS: Final = 2048
"""Events decoded before the streams may run; each of them then sends about as many."""
LARGEST_RECORD: Final = 1024 * 1024
"""Bytes of one JSON record."""
STOP_S: Final = 2.0

TICK_S: Final = 0.0048
"""Time between two looks at the source while events trickle: an event waits half of it on average, and each look costs
about the same however few events it finds."""
BUSY_TICK_S: Final = 0.0025
BUSY_EVENTS: Final = 16
"""Events of one look that make the next one come sooner."""
RUSH_TICK_S: Final = 0.002
"""For the reader thread, unless a ring fills up sooner."""
QUIET_TICK_S: Final = 0.02
QUIET_AFTER_S: Final = 1.0
RUSH_EVENTS: Final = 200
"""Events of one look that make the loop hand the source to the reader thread: 80,000 a second."""
CALM_EVENTS_PER_S: Final = 20_000
"""The reader thread gives the source back after a second with fewer."""


class Pipeline:
    """Reads, decodes, stores. Lives on the loop it is made on."""

    def __init__(
        self,
        ring: Ring,
        decoder: Decoder,
        node: Node,
        namespaces: Namespaces,
        *,
        queue_events: int,
        recorder: Recorder | None = None,
    ) -> None:
        self.bell = Bell()
        self.errors: Counter[str] = Counter()
        """Events and records that became nothing, by kind of problem."""
        self._loop = asyncio.get_running_loop()
        self._ring = ring
        self._decoder = decoder
        self._few = FewDecoder(decoder, ring.tables)
        self._namespaces = namespaces
        self._recorder = recorder
        self._order = Order(time.time_ns)
        self._release: asyncio.TimerHandle | None = None
        self._ready = asyncio.Event()
        self._feed = Feed(queue_events, self._call_loop)
        self.node = node
        self._name_node()
        ring.after_compaction.append(self._name_node)

    @property
    def dropped(self) -> int:
        """Events that the queue had no room for."""
        return self._feed.dropped

    def set_state(self, state: NodeState) -> None:
        """Enrich with other facts from the next event on."""
        self._decoder.update(state.knowledge)
        self._few.forget()
        if self._recorder is not None:
            self._recorder.offer(State(state.text))

    def set_node(self, node: Node) -> None:
        """The node's name or labels changed."""
        if node != self.node:
            self.node = node
            self._name_node()

    def receive(self, records: JsonRecords) -> None:
        """Take records from the socket."""
        if self._recorder is not None:
            self._recorder.offer(records)
        lines, others = lines_of(records.lines)
        if lines:
            self._order.add_lines(self._read(lines), records.time_ns)
        parsed = list(self._parsed(others))
        agents = [one for one in parsed if _is_agents(one)]
        if agents:
            self._store_rows(self._decoded_records(agents, [records.time_ns] * len(agents)))
            self.bell.ring()
        self._order.add([one for one in parsed if not _is_agents(one)], records.time_ns)
        if self._order.is_holding:
            self._release_later()
        else:
            self._release_all()

    async def run(self, source: Source) -> None:
        """Read `source` to its end, which only a recording has, or until cancelled; closes it.

        Raises: whatever made the source fail.
        """
        try:
            while not source.ended:
                if not source.patient:
                    await self._read_on_loop(source)
                if not source.ended:
                    await self._read_on_thread(source)
            log.info("replay ended", flows=self._ring.flows_seen)
        finally:
            source.close()
            self._release_all()

    async def _read_on_loop(self, source: Source) -> None:
        """Take events until they come in a rush."""
        heard_s = time.monotonic()
        while not source.ended:
            begun_s = time.monotonic()
            items = source.take()
            events = sum(len(item) for item in items if isinstance(item, EventBatch))
            if items:
                heard_s = begun_s
                if self._recorder is not None:
                    for item in items:
                        self._recorder.offer(item)
                self._process_live(items, source)
                self.bell.ring()
                if events >= RUSH_EVENTS:
                    return
            tick_s = BUSY_TICK_S if events >= BUSY_EVENTS else TICK_S
            if begun_s - heard_s >= QUIET_AFTER_S:
                tick_s = QUIET_TICK_S
            await asyncio.sleep(max(0.0, begun_s + tick_s - time.monotonic()))

    async def _read_on_thread(self, source: Source) -> None:
        """Let the reader thread take events until they trickle, and process what it feeds."""
        reader = _Reader(source, self._feed, self._recorder, self._call_loop)
        reader.start()
        try:
            while reader.is_alive() or self._feed:
                await self._ready.wait()
                self._ready.clear()
                while self._feed:
                    self._process_live(self._feed.take(TURN_EVENTS), source)
                    self.bell.ring()
                    await asyncio.sleep(0)
                if reader.done:
                    reader.join()
        finally:
            reader.stopping.set()
            await asyncio.to_thread(reader.join, STOP_S)
            while self._feed:
                self._process(self._feed.take(TURN_EVENTS))
                self._feed.settle()
            self.bell.ring()
        if reader.failure is not None:
            raise reader.failure

    def _call_loop(self) -> None:
        """From any thread: there is something to do."""
        self._loop.call_soon_threadsafe(self._ready.set)

    def _process_live(self, items: Iterable[Fed], source: Source) -> None:
        """As `_process`, but what has to wait for records of proxies does."""
        if source.patient:
            self._process(items)
            return
        for item in items:
            if not (isinstance(item, EventBatch) and self._order.holds(item)):
                self._process([item])
        self._release_later()

    def _release_later(self) -> None:
        wait_s = self._order.wait_s()
        if self._release is None and wait_s is not None:
            self._release = self._loop.call_later(wait_s, self._release_due)

    def _release_all(self) -> None:
        if self._release is not None:
            self._release.cancel()
        self._release_due(everything=True)

    def _release_due(self, everything: bool = False) -> None:
        """Store what has waited long enough, in order of time."""
        self._release = None
        batches, records, lines = self._order.due(everything)
        self._release_later()
        parts = [self._decoded_events(batch) for batch in split(join(batches), TURN_EVENTS)] if batches else []
        if records:
            times_ns, parsed = zip(*records, strict=True)
            parts.append(self._decoded_records(parsed, times_ns))
        if lines:
            line_times = np.concatenate([times_ns for times_ns, _ in lines])
            parts.append(self._decoded_lines(join_lines([one for _, one in lines]), line_times))
        if parts:
            rows = joined(parts)
            in_order = not (records or lines)
            self._store_rows(rows if in_order else take(rows, np.argsort(rows["ts_ns"], kind="stable")))
            self.bell.ring()

    def _process(self, items: Iterable[Fed]) -> None:
        together: list[EventBatch] = []
        for item in items:
            if isinstance(item, EventBatch):
                together.append(item)
                continue
            self._process_events(together)
            together = []
            self._process_other(item)
        self._process_events(together)

    def _process_events(self, batches: list[EventBatch]) -> None:
        if batches:
            for batch in split(join(batches), TURN_EVENTS):
                self._store_rows(self._decoded_events(batch))

    def _decoded_events(self, batch: EventBatch) -> Rows:
        try:
            decoded = self._few.decode(batch)
        except Exception:
            # A mistake of ours must not end the observation of a node.
            log.exception("events could not be decoded", events=len(batch))
            self.errors["internal_error"] += len(batch)
            return empty_rows(0)
        return self._counted(decoded)

    def _process_other(self, item: Item | QueueLoss) -> None:
        match item:
            case QueueLoss():
                self._store_rows(self._loss_rows(item))
            case Gap():
                times = item.time_ns, item.time_ns
                self._store_rows(queue_loss_row(self._ring.tables, self.node_index, item.events, *times))
            case JsonRecords():
                self._process_records(item)
            case State():
                try:
                    self.set_state(parse_state(item.text))
                except BrokenState as error:
                    log.warning("state in the recording is broken; keeping what is known", error=str(error))
            case Hello() | EventBatch():
                pass

    def _loss_rows(self, loss: QueueLoss) -> Rows:
        tables, node = self._ring.tables, self.node_index
        rows = [perf_loss_row(tables, node, cpu, count, loss.last_ns) for cpu, count in loss.perf]
        if loss.events:
            rows.append(queue_loss_row(tables, node, loss.events, loss.first_ns, loss.last_ns))
        return joined([empty_rows(0), *rows])

    def _process_records(self, records: JsonRecords) -> None:
        """Runs of one kind are decoded together, so that the order stays."""
        for are_lines, texts in groupby(records.lines, key=is_line):
            if are_lines:
                lines = self._read(list(texts))
                self._store_rows(self._decoded_lines(lines, np.full(len(lines), records.time_ns, np.int64)))
                continue
            for _, group in groupby(self._parsed(texts), key=_is_agents):
                parsed = list(group)
                self._store_rows(self._decoded_records(parsed, [records.time_ns] * len(parsed)))

    def _decoded_records(self, parsed: Sequence[dict[str, Any]], times_ns: Sequence[int]) -> Rows:
        """Rows of records of one kind."""
        decode = self._decoder.decode_agent if _is_agents(parsed[0]) else self._decoder.decode_accesslog
        try:
            decoded = decode(parsed, times_ns)
        except Exception:
            log.exception("records could not be decoded", records=len(parsed))
            self.errors["internal_error"] += len(parsed)
            return empty_rows(0)
        return self._counted(decoded)

    def _decoded_lines(self, lines: Lines, times_ns: npt.NDArray[np.int64]) -> Rows:
        try:
            decoded = self._decoder.decode_lines(lines, times_ns)
        except Exception:
            log.exception("lines could not be decoded", lines=len(lines))
            self.errors["internal_error"] += len(lines)
            return empty_rows(0)
        return self._counted(decoded)

    def _read(self, texts: Sequence[bytes]) -> Lines:
        lines = read_lines(texts)
        if len(lines) < len(texts):
            self.errors["malformed_record"] += len(texts) - len(lines)
        return lines

    def _parsed(self, lines: Iterable[bytes]) -> Iterable[dict[str, Any]]:
        for line in lines:
            try:
                if len(line) > LARGEST_RECORD:
                    raise ValueError("too long")
                record = orjson.loads(line)
            except ValueError:
                self.errors["malformed_record"] += 1
                continue
            if isinstance(record, dict):
                yield record
            else:
                self.errors["malformed_record"] += 1

    def _counted(self, decoded: Decoded) -> Rows:
        if decoded.errors:
            self.errors.update(decoded.errors)
        return decoded.rows

    def _store_rows(self, rows: Rows) -> None:
        """Rows just made: their table indices are only good until the ring's next append."""
        if len(rows):
            self._ring.append(rows)
            self._namespaces.keep_up()

    def _name_node(self) -> None:
        self.node_index = self._ring.tables.nodes.intern(self.node)
        self._decoder.node = self.node_index
        self._few.forget()


def _is_agents(record: Mapping[str, Any]) -> bool:
    """Whether a record is a notification of the agent's, whose types are numbers."""
    return isinstance(record.get("type"), int)


class _Reader(threading.Thread):
    """Owns the source while events come in a rush."""

    def __init__(self, source: Source, feed: Feed, recorder: Recorder | None, wake: Callable[[], None]) -> None:
        super().__init__(name="reader", daemon=True)
        self.stopping = threading.Event()
        self.done = False
        """Takes nothing any more."""
        self.failure: BaseException | None = None
        self._source = source
        self._feed = feed
        self._recorder = recorder
        self._wake = wake

    def run(self) -> None:
        try:
            rush = True
            while rush and not self.stopping.is_set() and not self._source.ended:
                rush = self._read_for_a_second() or self._source.patient
        except BaseException as error:
            self.failure = error
        finally:
            self._feed.settle()
            self.done = True
            self._wake()

    def _read_for_a_second(self) -> bool:
        """Take what comes; returns whether it was a rush."""
        events, end_s = 0, time.monotonic() + 1.0
        while time.monotonic() < end_s:
            if self.stopping.is_set() or self._source.ended:
                return True
            self._source.wait(RUSH_TICK_S)
            items = self._source.take()
            if not items:
                self._feed.settle()
            for item in items:
                self._hand_over(item)
                events += len(item) if isinstance(item, EventBatch) else 0
        return events >= CALM_EVENTS_PER_S

    def _hand_over(self, item: Item) -> None:
        if self._source.patient:
            while not self._feed.wait_for_room(0.1) and not self.stopping.is_set():
                pass
        if self._recorder is not None:
            self._recorder.offer(item)
        self._feed.offer(item)
