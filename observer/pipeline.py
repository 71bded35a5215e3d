"""From a source to the ring: one thread reads, the loop decodes and stores.

In:        a source (kernel or recording), records from the socket, the node's state.
Out:       rows in the ring; the bell rings for the streams; counters.
Elsewhere: model/decode.py knows the events; service.py serves what is stored.

The reader thread owns the source. Its only exit is the feed, a bounded queue; whatever finds no room there is counted
and reaches readers as a lost-events row in its place. Everything else happens on the loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any, Final

import orjson
import structlog

from model.decode import Decoded, Decoder
from model.events import EventBatch
from model.row import Rows, join_rows
from model.tables import Node
from observer.batches import join, split
from observer.bell import Bell
from observer.feed import Fed, Feed, QueueLoss
from observer.lost import perf_loss_row, queue_loss_row
from observer.namespaces import Namespaces
from observer.recorder import Recorder
from observer.recording import Gap, Hello, Item, JsonRecords, State
from observer.ring import Ring
from observer.sources import Source
from observer.state import BrokenState, NodeState, parse_state

log = structlog.get_logger(component="pipeline")

TURN_EVENTS: Final = 4096
"""Events decoded before the streams may run: about 4 ms."""
LARGEST_RECORD: Final = 1024 * 1024
"""Bytes of one JSON record."""
STOP_S: Final = 2.0


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
        self._namespaces = namespaces
        self._recorder = recorder
        self._ready = asyncio.Event()
        self._feed = Feed(queue_events, self._call_loop)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self.node = node
        self._name_node()
        ring.before_compaction.append(namespaces.fold)
        ring.after_compaction.append(self._name_node)

    @property
    def dropped(self) -> int:
        """Events that the queue had no room for."""
        return self._feed.dropped

    def set_state(self, state: NodeState) -> None:
        """Enrich with other facts from the next event on."""
        self._decoder.update(state.knowledge)
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
        self._process([records])
        self.bell.ring()

    async def run(self, source: Source) -> None:
        """Read `source` to its end, or until cancelled.

        Raises: whatever made the source fail.
        """
        self._thread = threading.Thread(target=self._read, args=(source,), name="reader", daemon=True)
        self._thread.start()
        try:
            while True:
                await self._ready.wait()
                self._ready.clear()
                while self._feed:
                    self._process(self._feed.take(TURN_EVENTS))
                    self.bell.ring()
                    await asyncio.sleep(0)
                if self._failure is not None:
                    raise self._failure
                if source.ended and not self._thread.is_alive() and not self._feed:
                    return
        finally:
            self._stopping.set()
            await asyncio.to_thread(self._thread.join, STOP_S)
            self.drain()

    def drain(self) -> None:
        """Process what is still queued. Call only when the reader thread has stopped."""
        while self._feed:
            self._process(self._feed.take(TURN_EVENTS))
        self.bell.ring()

    # On the reader thread.

    def _call_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._ready.set)

    def _read(self, source: Source) -> None:
        try:
            while not self._stopping.is_set() and not source.ended:
                if source.patient and not self._feed.wait_for_room(0.1):
                    continue
                item = source.read()
                if item is None:
                    self._feed.settle()
                    continue
                if self._recorder is not None:
                    self._recorder.offer(item)
                self._feed.offer(item)
        except BaseException as error:
            self._failure = error
        finally:
            self._feed.settle()
            source.close()
            self._loop.call_soon_threadsafe(self._wake_when_done)

    # On the loop.

    def _wake_when_done(self) -> None:
        assert self._thread is not None
        if self._thread.is_alive():
            # Its last statement is on the way.
            self._loop.call_later(0.001, self._wake_when_done)
        else:
            self._ready.set()

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
                self._store(self._decoder.decode(batch))

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
        return join_rows(rows)

    def _process_records(self, records: JsonRecords) -> None:
        """Runs of one kind are decoded together, so that the order stays."""
        for agent, group in groupby(self._parsed(records.lines), key=lambda one: isinstance(one.get("type"), int)):
            parsed = list(group)
            decode = self._decoder.decode_agent if agent else self._decoder.decode_accesslog
            self._store(decode(parsed, [records.time_ns] * len(parsed)))

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

    def _store(self, decoded: Decoded) -> None:
        if decoded.errors:
            self.errors.update(decoded.errors)
        self._store_rows(decoded.rows)

    def _store_rows(self, rows: Rows) -> None:
        """Rows just made: their table indices are only good until the ring's next append."""
        if len(rows):
            self._namespaces.note(rows, time.time_ns())
            self._ring.append(rows)

    def _name_node(self) -> None:
        self.node_index = self._ring.tables.nodes.intern(self.node)
        self._decoder.node = self.node_index
