"""What clients ask an observer over gRPC: Hubble's Observer service, and the same flows as columns.

In:        requests; the ring, its counters, the bell that rings when rows were added.
Out:       streams of flows, agent and debug events; status, namespaces.
Elsewhere: requests.py checks requests, window.py selects rows, model/encode.py and model/columns.py make bytes,
           rpc/ moves them; Peer.Notify is in peers.py.

A stream takes rows, encodes them and hands over the bytes; then others run. A client that does not read waits in
`call.send` and delays nobody else; when the ring overtakes it, it is told what it missed.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from model import wire
from model.encode import Encoder
from model.encode_few import FewEncoder
from model.mask import FieldMask
from model.ring import Ring
from model.row import Kind, Rows
from observer.bell import Bell
from observer.lost import ring_loss_row
from observer.namespaces import Namespaces
from observer.requests import mask_of, predicate_of, window_of
from observer.window import Matches, Selected, Selection
from proto.flow import flow_pb2
from proto.flowscope import columns_pb2
from proto.observer import observer_pb2
from rpc.call import Call, Service
from rpc.framing import PREFIX, frame, frames
from rpc.status import RpcError, Status

VERSION: Final = "1.19.4"
"""The level of Hubble's API that is served: clients compare their own with it."""

BATCH_ROWS: Final = 2048
"""Rows per step of a stream: about 2 MB of messages and 8 ms at most, so that nobody waits long."""
COLUMN_ROWS: Final = 8192
COLUMN_GAP_S: Final = 0.005
"""A batch of columns carries its dictionaries along, so a follower's batches are not sent faster than this."""

PROGRESS_KEY: Final = "flowscope-progress"
GAP_KEY: Final = "flowscope-gap-ms"
"""Metadata of a relay. It merges by time, so it wants to know that nothing older will come; and with many nodes it can
do with fewer, larger batches of columns."""
PROGRESS_S: Final = 0.1
ON_THE_WAY_NS: Final = 50_000_000
"""An event younger than this may still be on its way from the kernel into the ring."""
LONGEST_GAP_S: Final = 1.0
BATCH_TAG: Final = wire.tag(columns_pb2.ColumnsResponse.BATCH_FIELD_NUMBER, wire.BYTES)
KEPT_ENCODERS: Final = 16

RATE_WINDOW_NS: Final = 60 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all calls look at."""

    ring: Ring
    bell: Bell
    namespaces: Namespaces
    node_name: Callable[[], str]
    node_index: Callable[[], int]
    """Of the node in the ring's tables; changes when they are compacted."""
    started_ns: int
    """Monotonic."""


Encode = Callable[[Rows], bytes | bytearray | memoryview]


class ObserverService(Service):
    """observer.Observer of one node."""

    descriptor = observer_pb2.DESCRIPTOR.services_by_name["Observer"]

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._encoders: OrderedDict[tuple[str, ...], FewEncoder] = OrderedDict()

    async def GetFlows(self, request: observer_pb2.GetFlowsRequest, call: Call) -> None:  # noqa: N802
        """Flows that pass the filters, oldest first, with lost events at their places."""
        selection = _flow_selection(self._shared, request)
        encoder = self._encoder(mask_of(request), tuple(sorted(request.field_mask.paths)))
        await _stream(self._shared, selection, encoder.responses, call, BATCH_ROWS, _flows_progress)

    async def GetAgentEvents(self, request: observer_pb2.GetAgentEventsRequest, call: Call) -> None:  # noqa: N802
        """What the agent told of."""
        await self._events(request, call, Kind.AGENT, self._agent_frames)

    async def GetDebugEvents(self, request: observer_pb2.GetDebugEventsRequest, call: Call) -> None:  # noqa: N802
        """Debug messages of the datapath."""
        await self._events(request, call, Kind.DEBUG, self._debug_frames)

    async def GetNodes(self, request: observer_pb2.GetNodesRequest, call: Call) -> None:  # noqa: N802
        """Only relays know of other nodes."""
        raise RpcError(Status.UNIMPLEMENTED, "GetNodes not implemented")

    async def GetNamespaces(  # noqa: N802
        self, request: observer_pb2.GetNamespacesRequest, call: Call
    ) -> observer_pb2.GetNamespacesResponse:
        """Namespaces seen in the last hour."""
        pairs = self._shared.namespaces.seen()
        return observer_pb2.GetNamespacesResponse(
            namespaces=[observer_pb2.Namespace(cluster=cluster, namespace=name) for cluster, name in pairs]
        )

    async def ServerStatus(  # noqa: N802
        self, request: observer_pb2.ServerStatusRequest, call: Call
    ) -> observer_pb2.ServerStatusResponse:
        """How full the ring is and how fast it fills."""
        ring = self._shared.ring
        return observer_pb2.ServerStatusResponse(
            num_flows=len(ring),
            max_flows=ring.capacity,
            seen_flows=ring.flows_seen,
            uptime_ns=time.monotonic_ns() - self._shared.started_ns,
            version=f"flowscope v{VERSION}",
            flows_rate=flows_rate(ring, time.time_ns()),
        )

    def _encoder(self, mask: FieldMask | None, key: tuple[str, ...]) -> FewEncoder:
        """One encoder per distinct mask, so that all its streams share the templates."""
        encoder = self._encoders.get(key)
        if encoder is None:
            tables = self._shared.ring.tables
            encoder = self._encoders[key] = FewEncoder(Encoder(tables, mask), tables)
            if len(self._encoders) > KEPT_ENCODERS:
                self._encoders.popitem(last=False)
        self._encoders.move_to_end(key)
        return encoder

    async def _events(self, request: Any, call: Call, kind: Kind, encode: Encode) -> None:
        selection = Selection(self._shared.ring, window_of(request), None, kind, send_lost=False)
        await _stream(self._shared, selection, encode, call, BATCH_ROWS)

    def _agent_frames(self, rows: Rows) -> bytes:
        return frames(
            observer_pb2.GetAgentEventsResponse(
                agent_event=flow_pb2.AgentEvent.FromString(aux), node_name=self._shared.node_name(), time=time
            )
            for aux, time in self._aux_and_time(rows)
        )

    def _debug_frames(self, rows: Rows) -> bytes:
        return frames(
            observer_pb2.GetDebugEventsResponse(
                debug_event=flow_pb2.DebugEvent.FromString(aux), node_name=self._shared.node_name(), time=time
            )
            for aux, time in self._aux_and_time(rows)
        )

    def _aux_and_time(self, rows: Rows) -> list[tuple[bytes, Timestamp]]:
        aux = self._shared.ring.tables.aux
        return [
            (aux[index] or b"", Timestamp(seconds=ts_ns // 1_000_000_000, nanos=ts_ns % 1_000_000_000))
            for index, ts_ns in zip(rows["aux"].tolist(), rows["ts_ns"].tolist(), strict=True)
        ]


class ColumnsService(Service):
    """flowscope.Columns: the flows of GetFlows as Arrow record batches. Field masks do not apply."""

    descriptor = columns_pb2.DESCRIPTOR.services_by_name["Columns"]

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def GetFlows(self, request: observer_pb2.GetFlowsRequest, call: Call) -> None:  # noqa: N802
        """As observer.Observer/GetFlows; a request that is refused there is refused here."""
        selection = _flow_selection(self._shared, request)
        mask_of(request)
        gap_s = max(COLUMN_GAP_S, _asked_gap_s(call))
        await _stream(self._shared, selection, self._frame, call, COLUMN_ROWS, _columns_progress, gap_s)

    def _frame(self, rows: Rows) -> bytes:
        # Arrow is the largest library here; who never asks for columns does not pay for it.
        from model.columns import to_arrow_ipc

        # By hand, because each copy of some megabytes stays in the process's memory.
        batch = to_arrow_ipc(rows, self._shared.ring.tables)
        head = BATCH_TAG + wire.varint(len(batch))
        return b"".join((PREFIX.pack(0, len(head) + len(batch)), head, batch))


def flows_rate(ring: Ring, now_ns: int) -> float:
    """Flows per second over the last minute, or since the oldest stored flow when that is later.

    Source: API reference 3.1.
    """
    oldest_ns, count = now_ns - RATE_WINDOW_NS, 0
    first_ns = now_ns
    for _, rows in ring.backwards(8192, 65_536):
        times = rows["ts_ns"][rows["kind"] == Kind.FLOW]
        recent = times >= oldest_ns
        count += int(recent.sum())
        if not recent.all():
            return count / (RATE_WINDOW_NS / 1e9)
        if len(times):
            first_ns = int(times[0])
    return count / max((now_ns - first_ns) / 1e9, 1e-9) if count else 0.0


def _flow_selection(shared: Shared, request: observer_pb2.GetFlowsRequest) -> Selection:
    window, predicate = window_of(request), predicate_of(request)
    matches: Matches | None = None
    if predicate is not None:
        tables, mask = shared.ring.tables, predicate.mask

        def matches(rows: Rows) -> Any:
            return mask(rows, tables)

    return Selection(shared.ring, window, matches)


def _flows_progress(at: Timestamp) -> bytes:
    return frame(observer_pb2.GetFlowsResponse(time=at))


def _columns_progress(at: Timestamp) -> bytes:
    return frame(columns_pb2.ColumnsResponse(time=at))


def _asked_gap_s(call: Call) -> float:
    text = call.metadata.get(GAP_KEY, "")
    return min(int(text) / 1000, LONGEST_GAP_S) if text.isascii() and text.isdecimal() else 0.0


async def _stream(
    shared: Shared,
    selection: Selection,
    encode: Encode,
    call: Call,
    batch_rows: int,
    progress: Callable[[Timestamp], bytes] | None = None,
    gap_s: float = 0.0,
) -> None:
    """Send what `selection` gives until it ends, the client leaves, or the server stops.

    progress  makes the message for a relay that asks (PROGRESS_KEY) to hear when there is nothing to send.
    gap_s     the least time between two batches of a follower that keeps up.
    """
    told = progress if call.metadata.get(PROGRESS_KEY) else None
    await call.start()
    for _ in selection.seek():
        await asyncio.sleep(0)
    sent_s = 0.0
    while True:
        selected = selection.step(batch_rows)
        if data := _encoded(shared, selected, encode):
            sent_s = time.monotonic()
            await call.send(data)
        if selected.ended:
            return
        if selection.behind:
            # Nothing to send may come for long, with a filter that hardly matches.
            await asyncio.sleep(0)
            continue
        if shared.bell.stopped:
            raise RpcError(Status.UNAVAILABLE, "server is stopping")
        if told is None:
            await shared.bell.wait()
        else:
            await _wait_and_tell(shared, call, told)
        if (early_s := sent_s + gap_s - time.monotonic()) > 0:
            await asyncio.sleep(early_s)


async def _wait_and_tell(shared: Shared, call: Call, progress: Callable[[Timestamp], bytes]) -> None:
    """Until there may be new rows; after PROGRESS_S without any, say up to when all has been sent."""
    try:
        async with asyncio.timeout(PROGRESS_S):
            await shared.bell.wait()
    except TimeoutError:
        at = Timestamp()
        at.FromNanoseconds(time.time_ns() - ON_THE_WAY_NS)
        # The bell may ring meanwhile, unheard; so the caller looks again before it waits again.
        await call.send(progress(at))


def _encoded(shared: Shared, selected: Selected, encode: Encode) -> bytes | bytearray | memoryview:
    """The bytes of one step; what the reader missed comes first."""
    data = encode(selected.rows) if len(selected.rows) else b""
    if selected.missed:
        row = ring_loss_row(shared.ring.tables, shared.node_index(), selected.missed, time.time_ns())
        return b"".join((encode(row), data))
    return data
