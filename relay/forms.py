"""The two forms a stream of flows has: Hubble's messages, and columns.

In:        batches off a node's stream.
Out:       items for the merge; released items as bytes for the client.
Elsewhere: collect.py runs the stream; wire.py handles messages as bytes; the form of columns is in columns.py.

Messages pass through as the node encoded them: the relay then costs 2 us per flow, and encoding stays where it scales,
on the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from proto.observer import observer_pb2
from proto.relay import relay_pb2
from relay.wire import ITEM, gather, items_of, progress_of
from rpc.client import Batch
from rpc.framing import frame

Items = npt.NDArray[np.void]

HUBBLE_PATH: Final = "/observer.Observer/GetFlows"
COLUMNS_PATH: Final = "/flowscope.Columns/GetFlows"


@dataclass(frozen=True, slots=True)
class Fragment:
    """What one read of a node's stream brought."""

    items: Items
    buffer: bytes = b""
    """What the items point into, if anything."""
    complete_ns: int = 0
    """Everything older has been sent, says the node; 0: it says nothing."""


class Form(Protocol):
    """One client's stream in one form. Holds what the pending items point at."""

    dtype: np.dtype[Any]
    path: str
    """What nodes are asked first."""
    send_items: int
    """Items per buffer for the client."""

    def fallback(self, path: str) -> str:
        """What to ask a node that does not know `path`; empty: nothing."""

    def read(self, path: str, batch: Batch) -> Fragment:
        """Items of a batch that came from `path`. Raises: RpcError when it is not readable."""

    def identities(self, fragment: Fragment) -> Sequence[Hashable]:
        """One per item; equal for equal flows, also of another stream to the same node."""

    def mark_late(self, items: Items, late: int) -> Items:
        """The first `late` items come out behind newer ones; returns the items, marked where the form can."""

    def encode(self, items: Items) -> bytes:
        """For the client, with gRPC prefixes."""

    def drop(self, items: Items) -> None:
        """These are done with."""

    def tidy(self, live: Callable[[], list[Items]]) -> None:
        """Forget what none of the `live` items points at, if that is worth the work."""

    def status(self, event: relay_pb2.NodeStatusEvent, node_name: str, time_ns: int) -> bytes:
        """News of nodes for the client, with gRPC prefix."""


class MessagesForm:
    """Hubble's messages, as bytes all the way."""

    dtype = ITEM
    path = HUBBLE_PATH
    send_items = 2048  # about 2 MB

    def __init__(self) -> None:
        self._buffers: dict[int, bytes] = {}
        self._left: dict[int, int] = {}
        """Items of each buffer that are not dropped."""
        self._next = 0

    def fallback(self, path: str) -> str:
        return ""

    def read(self, path: str, batch: Batch) -> Fragment:
        number = self._next
        self._next = (self._next + 1) & 0xFFFFFFFF
        items = items_of(batch.buffer, batch.ends, number)
        complete_ns = 0
        progress = progress_of(batch.buffer, items)
        if progress.any():
            complete_ns = int(items["ts_ns"][progress].max())
            items = items[~progress]
        if len(items):
            self._buffers[number] = batch.buffer
            self._left[number] = len(items)
        return Fragment(items, batch.buffer, complete_ns)

    def identities(self, fragment: Fragment) -> Sequence[Hashable]:
        places = zip(fragment.items["start"].tolist(), fragment.items["end"].tolist(), strict=True)
        return [fragment.buffer[start:end] for start, end in places]

    def mark_late(self, items: Items, late: int) -> Items:
        return items  # a Hubble client knows no such mark; the trailers tell how many there were

    def encode(self, items: Items) -> bytes:
        return gather(items, self._buffers)

    def drop(self, items: Items) -> None:
        numbers, counts = np.unique(items["buffer"], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self._left[number] -= count
            if not self._left[number]:
                del self._left[number], self._buffers[number]

    def tidy(self, live: Callable[[], list[Items]]) -> None:
        return

    def status(self, event: relay_pb2.NodeStatusEvent, node_name: str, time_ns: int) -> bytes:
        response = observer_pb2.GetFlowsResponse(node_status=event, node_name=node_name)
        response.time.FromNanoseconds(time_ns)
        return frame(response)
