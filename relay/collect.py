"""One client's stream: every node asked, answers merged by time, what happens to nodes said in between.

In:        the client's request; the nodes (peers.py).
Out:       the client's stream, as messages or as columns (forms.py).
Elsewhere: merge.py orders; node_errors.py puts errors together; the nodes filter and mask.

One task reads all nodes' streams. It takes from a node only while few of its flows wait, so HTTP/2's windows hold the
node back, whose own ring then reports what it had to drop: a slow client costs bounded memory here and learns what it
missed.
Source: api.md, sections 6.2 to 6.4. Where this differs: the merge waits for the slowest node instead of keeping 100
flows; a node that comes back goes on where it broke off instead of repeating its history; NODE_GONE is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import structlog

from proto.observer import observer_pb2
from proto.relay import relay_pb2
from relay.config import RelayConfig
from relay.forms import Form, Items, Reading
from relay.merge import Merge
from relay.node_errors import NodeErrors
from relay.peers import PeerConnection, Peers
from relay.source import Resume, Source
from rpc.call import Call
from rpc.client import Batch
from rpc.http2 import STREAM_WINDOW
from rpc.status import RpcError, Status

log = structlog.get_logger(component="relay")

PROGRESS: Final = ("flowscope-progress", "1")
"""Metadata that asks a node of ours to say, when it has nothing to send, up to when it has sent all."""

GAP: Final = "flowscope-gap-ms"
GAP_PER_NODE_MS: Final = 2
"""Metadata that asks a node of ours to let so many ms pass between two batches of columns of a follower. A batch costs
0.3 ms to read, however few rows it has, so this bounds what batches cost to a sixth of a core."""

LATE_FLOWS: Final = "flowscope-late-flows"
"""Trailing metadata: how many flows came out behind newer ones."""

SMALL_ROUND: Final = 1024
ROUND_SHARE: Final = 4
LONGEST_REST_S: Final = 0.02
"""A round that moved little is followed by a rest of ROUND_SHARE times its own length, so that hundreds of nodes that
trickle cost a fifth of a core at most, and a flow some milliseconds."""

LEAST_SHARE_ITEMS: Final = 1024
LEAST_SHARE_BYTES: Final = 256 * 1024
"""Of one node, this much may wait in the merge, however many nodes share the client's memory."""

POLL_S: Final = 0.05
"""How often a silent node is looked at while flows of others wait for it."""

_NOT_FORWARDED: Final = frozenset({"content-type", "te", "user-agent", "host", "connection"})


class Collector:
    """The stream of one client. `run` once."""

    def __init__(
        self, request: observer_pb2.GetFlowsRequest, call: Call, peers: Peers, config: RelayConfig, form: Form
    ) -> None:
        self._request = request
        self._call = call
        self._peers = peers
        self._config = config
        self._form = form
        self._relay_name = config.node_name
        self._drain_ns = round(config.sort_buffer_drain_timeout_s * 1e9)
        self._disorder_ns = round(config.sort_disorder_s * 1e9)
        self._merge = Merge(form.dtype, self._disorder_ns)
        self._errors = NodeErrors(config.error_window_s)
        self._sources: dict[str, Source] = {}
        self._resumes: dict[str, Resume] = {}
        self._ended: set[str] = set()
        """Nodes whose stream ended normally; they are not asked again."""
        self._dirty: set[Source] = set()
        """Sources with something to take."""
        self._news = asyncio.Event()
        self._statuses: deque[tuple[int, relay_pb2.NodeStatusEvent]] = deque()
        """Waiting for their place between the flows, by time."""
        self._next_check_s = 0.0
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Serve the call to its end. Raises: ClientGone."""
        self._peers.on_removed.add(self._node_removed)
        try:
            await self._begin()
            while True:
                started = time.perf_counter()
                self._news.clear()
                self._pull()
                sent = await self._release()
                if self._finished():
                    break
                await self._rest(sent, time.perf_counter() - started)
            await self._finish()
        finally:
            self._peers.on_removed.discard(self._node_removed)
            for source in self._sources.values():
                self._detach(source)

    # Beginning

    async def _begin(self) -> None:
        usable = self._peers.usable()
        asked = [one.peer.name for one in usable]
        others = [one.peer.name for one in self._peers if not one.usable]
        for connection in usable:
            self._attach(connection)
        for state, names in ((relay_pb2.NODE_CONNECTED, asked), (relay_pb2.NODE_UNAVAILABLE, others)):
            if names:
                await self._send_status(relay_pb2.NodeStatusEvent(state_change=state, node_names=names))
        self._next_check_s = time.monotonic() + self._config.peer_check_s

    def _attach(self, connection: PeerConnection) -> None:
        source = Source(connection.peer.name, self._merge.add(), time.monotonic(), self._form.path)
        source.resume = self._resumes.get(source.node)
        self._sources[source.node] = source
        source.attaching = asyncio.create_task(self._open(source, connection), name=f"attach {source.node}")

    async def _open(self, source: Source, connection: PeerConnection) -> None:
        """Start the node's stream; what it delivers, or why it failed, is found by `_pull`."""
        assert connection.channel is not None
        window = self._config.client_buffer_mib * 2**20 // (4 * max(len(self._peers), 1))
        metadata = forwarded(self._call.metadata)
        if self._request.follow:
            metadata += [PROGRESS, (GAP, str(GAP_PER_NODE_MS * len(self._peers)))]
        stream = connection.channel.stream(
            source.path, self._request_for(source), metadata=metadata, window=min(window, STREAM_WINDOW)
        )

        def arrived() -> None:
            self._dirty.add(source)
            self._news.set()

        try:
            await stream.open(arrived)
        except RpcError as error:
            self._failed(source, error)
            self._news.set()
        else:
            source.stream = stream
            arrived()
        finally:
            source.attaching = None

    def _request_for(self, source: Source) -> observer_pb2.GetFlowsRequest:
        if source.resume is None:
            return self._request
        request = observer_pb2.GetFlowsRequest()
        request.CopyFrom(self._request)
        request.number, request.first = 0, False
        request.since.FromNanoseconds(source.resume.since_ns)
        return request

    # Reading

    def _pull(self) -> None:
        """Take what has arrived, from nodes of which no more than their share waits already."""
        shares = max(len(self._sources), 1)
        most_items = max(LEAST_SHARE_ITEMS, self._config.sort_buffer_len_max // shares)
        most_bytes = max(LEAST_SHARE_BYTES, self._config.client_buffer_mib * 2**20 // shares)
        bound = self._merge.bound()
        read: list[tuple[Source, Batch]] = []
        ended: list[Source] = []
        for source in list(self._dirty):
            source.settle(bound)
            if source.waiting_items >= most_items or source.waiting_bytes >= most_bytes:
                if self._merge.progress(source.handle) <= bound:
                    # All wait for this node, and its share is full of flows that lie closer together than its disorder
                    # may be: take it at its word.
                    self._merge.promise(source.handle, source.waiting[-1][0])
                continue
            self._dirty.discard(source)
            if source.stream is None:
                continue
            batch = source.stream.take()
            if batch is not None:
                read.append((source, batch))
            if source.stream.ended:
                ended.append(source)
        if read:
            self._read(read)
        for source in ended:
            if self._sources.get(source.node) is source:
                self._stream_ended(source)

    def _read(self, read: list[tuple[Source, Batch]]) -> None:
        reading = self._form.read([(source.path, batch) for source, batch in read])
        if any(source.resume for source, _ in read):
            reading = self._without_seen([source.resume for source, _ in read], reading)
        handles = [source.handle for source, _ in read]
        self._merge.push(handles, reading.counts, reading.items)
        now_s = time.monotonic()
        first = 0
        for (source, batch), count, complete_ns in zip(read, reading.counts, reading.complete_ns, strict=True):
            source.quiet_since_s = now_s
            source.took(self._merge.progress(source.handle) + self._disorder_ns, len(batch.buffer), count)
            if complete_ns:
                self._merge.promise(source.handle, complete_ns)
            if count and self._request.follow:
                items = reading.items[first : first + count]
                memory = self._form.memory(batch, items)
                times = items["ts_ns"]
                source.remember(int(times[0]), int(times.max()), memory, self._disorder_ns)
            first += count
        for index, problem in reading.broken.items():
            source = read[index][0]
            self._detach(source)
            self._failed(source, RpcError(Status.INTERNAL, f"the node sends what cannot be read: {problem}"))

    def _without_seen(self, resumes: list[Resume | None], reading: Reading) -> Reading:
        """After a break, a node repeats a little of what it sent before."""
        keep = np.ones(len(reading.items), bool)
        counts = list(reading.counts)
        first = 0
        for index, (resume, count) in enumerate(zip(resumes, reading.counts, strict=True)):
            items = reading.items[first : first + count]
            if resume is not None:
                old = np.flatnonzero(items["ts_ns"] <= resume.newest_ns)
                again = [one in resume.seen for one in self._form.identities(items[old])]
                keep[first + old] = ~np.array(again, bool)
                counts[index] -= sum(again)
            first += count
        self._form.drop(reading.items[~keep])
        return replace(reading, items=reading.items[keep], counts=counts)

    def _stream_ended(self, source: Source) -> None:
        assert source.stream is not None
        try:
            source.stream.check()
        except RpcError as error:
            fallback = self._form.fallback(source.path)
            if error.code is Status.UNIMPLEMENTED and fallback:
                self._ask_again(source, fallback)
                return
            self._failed(source, error)
            return
        self._ended.add(source.node)
        self._drop(source)

    def _ask_again(self, source: Source, path: str) -> None:
        """The node does not know our own service: ask for what every Hubble node serves."""
        connection = next((one for one in self._peers if one.peer.name == source.node and one.channel), None)
        if connection is None:
            self._failed(source, RpcError(Status.UNAVAILABLE, "the node is gone"))
            return
        source.path, source.stream = path, None
        source.attaching = asyncio.create_task(self._open(source, connection), name=f"attach {source.node}")

    def _failed(self, source: Source, error: RpcError) -> None:
        if source.newest_ns:
            since_ns = source.newest_ns - self._disorder_ns
            seen = self._form.remembered([memory for _, memory in source.memories], since_ns)
            self._resumes[source.node] = Resume(since_ns, source.newest_ns, frozenset(seen))
        self._drop(source)
        self.counts["failed"] += 1
        if error.code is not Status.CANCELLED:
            message = error.message if error.code is Status.UNKNOWN else str(error)
            self._queue_status(self._errors.add(source.node, message, time.monotonic()))

    def _drop(self, source: Source) -> None:
        """No more from this source; what waits in the merge stays there."""
        self._merge.end(source.handle)
        self._dirty.discard(source)
        if self._sources.get(source.node) is source:
            del self._sources[source.node]

    def _detach(self, source: Source) -> None:
        if source.attaching is not None:
            source.attaching.cancel()
        if source.stream is not None:
            source.stream.cancel()

    def _node_removed(self, name: str) -> None:
        source = self._sources.get(name)
        if source is not None:
            self._detach(source)
            self._drop(source)
        self._resumes.pop(name, None)
        self._ended.discard(name)
        if self._request.follow:
            self._queue_status(relay_pb2.NodeStatusEvent(state_change=relay_pb2.NODE_GONE, node_names=[name]))
        self._news.set()

    # Sending

    async def _release(self) -> int:
        """Send what is due; returns how many flows went out."""
        self._pass_over_silent()
        bound = self._merge.bound()
        sent = 0
        while self._statuses and self._statuses[0][0] <= bound:
            at_ns, event = self._statuses.popleft()
            sent += await self._send_up_to(at_ns)
            await self._send_status(event)
        return sent + await self._send_up_to(bound)

    async def _send_up_to(self, bound: int) -> int:
        released = self._merge.release(bound)
        items = released.items
        if not len(items):
            return 0
        if released.late:
            self.counts["late"] += released.late
            items = self._form.mark_late(items, released.late)
        for start in range(0, len(items), self._form.send_items):
            await self._call.send(self._form.encode(items[start : start + self._form.send_items]))
        self._form.drop(items)
        self._form.tidy(self._live)
        self.counts["flows"] += len(items)
        return len(items)

    def _live(self) -> list[Items]:
        kept = [memory for source in self._sources.values() for _, memory in source.memories]
        return [self._merge.pending(), *kept]

    def _pass_over_silent(self) -> None:
        """A source that says nothing for the drain timeout no longer holds back what is older than that."""
        if not self._merge.size() and not self._statuses:
            return
        now_s = time.monotonic()
        for source in self._sources.values():
            if source not in self._dirty and now_s - source.quiet_since_s >= self._config.sort_buffer_drain_timeout_s:
                self._merge.promise(source.handle, time.time_ns() - self._drain_ns)

    def _queue_status(self, event: relay_pb2.NodeStatusEvent | None) -> None:
        if event is not None:
            self._statuses.append((time.time_ns(), event))
            self._news.set()

    async def _send_status(self, event: relay_pb2.NodeStatusEvent) -> None:
        await self._call.send(self._form.status(event, self._relay_name, time.time_ns()))

    # Between rounds

    def _finished(self) -> bool:
        return not self._sources and not self._merge.size()

    async def _rest(self, sent: int, took_s: float) -> None:
        """Until there is something to do; a little longer when the last round moved little."""
        if self._call.stopping:
            raise RpcError(Status.UNAVAILABLE, "server is stopping")
        if self._request.follow:
            self._check_nodes()
        self._queue_status(self._errors.due(time.monotonic()))
        if sent >= SMALL_ROUND:
            return
        if not self._news.is_set():
            timeout = POLL_S if self._merge.size() or self._statuses else self._config.peer_check_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._news.wait()
        await asyncio.sleep(min(took_s * ROUND_SHARE, LONGEST_REST_S))

    def _check_nodes(self) -> None:
        """Attach nodes that came, or came back."""
        if time.monotonic() < self._next_check_s:
            return
        self._next_check_s = time.monotonic() + self._config.peer_check_s
        for connection in self._peers.usable():
            name = connection.peer.name
            if name not in self._sources and name not in self._ended and connection.connected:
                self._attach(connection)

    async def _finish(self) -> None:
        self._queue_status(self._errors.flush())
        while self._statuses:
            await self._send_status(self._statuses.popleft()[1])
        if self.counts["late"]:
            self._call.trailers[LATE_FLOWS] = str(self.counts["late"])
            log.info("flows came late", late=self.counts["late"], flows=self.counts["flows"])


def forwarded(metadata: Mapping[str, str]) -> list[tuple[str, str]]:
    """What of the client's metadata the nodes get: all but what belongs to its connection."""
    return [
        (key, value)
        for key, value in metadata.items()
        if key not in _NOT_FORWARDED and not key.startswith(("grpc-", "flowscope-", ":"))
    ]
