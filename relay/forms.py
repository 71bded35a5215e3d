"""The two forms a stream of flows has: Hubble's messages, and columns.

In:        batches off a node's stream.
Out:       items for the merge; released items as bytes for the client.
Elsewhere: collect.py runs the stream; wire.py handles messages as bytes; the form of columns is in columns.py.

Messages pass through as the node encoded them: the relay then costs 2 us per flow, and encoding stays where it scales,
on the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from model import whole_rows
from proto.observer import observer_pb2
from proto.relay import relay_pb2
from relay.wire import ITEM, gather, items_of, progress_of
from rpc.client import Batch
from rpc.framing import frame

Items = npt.NDArray[np.void]

HUBBLE_PATH: Final = "/observer.Observer/GetFlows"
COLUMNS_PATH: Final = "/flowscope.Columns/GetFlows"

SMALL_BATCH: Final = 32 * 1024
"""Bytes below which copying a batch costs less than handling it alone."""

REMEMBERED_ITEMS: Final = 4096
"""Of one read, to recognise what a node repeats after a break."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one round of reading brought, of several batches."""

    items: Items
    """Of all batches, one behind the other."""
    counts: list[int]
    """Items of each batch."""
    complete_ns: list[int]
    """Of each batch: everything older has been sent, says the node. 0: it says nothing."""
    broken: dict[int, str] = field(default_factory=dict)
    """Batches that are not readable, and what is wrong with them."""


class Form(Protocol):
    """One client's stream in one form. Holds what the pending items point at."""

    dtype: np.dtype[Any]
    path: str
    """What nodes are asked first."""
    send_items: int
    """Items per buffer for the client."""

    def fallback(self, path: str) -> str:
        """What to ask a node that does not know `path`; empty: nothing."""

    def read(self, batches: Sequence[tuple[str, Batch]]) -> Reading:
        """Items of batches, each with the path it came from."""

    def identities(self, items: Items) -> Sequence[Hashable]:
        """One per item; equal for equal flows, also of another stream to the same node."""

    def memory(self, batch: Batch, items: Items) -> Any:
        """Something small that keeps a batch and its items for `remembered`."""

    def remembered(self, memories: Sequence[Any], since_ns: int) -> set[Hashable]:
        """Identities of the items of `memories` that are not older than `since_ns`."""

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

    def read(self, batches: Sequence[tuple[str, Batch]]) -> Reading:
        parts: list[Items] = []
        counts: list[int] = []
        complete_ns: list[int] = []
        for group in groups([batch for _, batch in batches]):
            joined = join(group)
            items = items_of(joined.buffer, joined.ends, self._next)
            of_group = [len(batch) for batch in group]
            progress = progress_of(joined.buffer, items)
            if progress.any():
                owner = np.repeat(np.arange(len(group)), of_group)[progress]
                said = np.zeros(len(group), np.int64)
                np.maximum.at(said, owner, items["ts_ns"][progress])
                complete_ns += said.tolist()
                counts += (np.array(of_group) - np.bincount(owner, minlength=len(group))).tolist()
                items = items[~progress]
            else:
                complete_ns += [0] * len(group)
                counts += of_group
            self._hold(joined.buffer, len(items))
            parts.append(items)
        return Reading(whole_rows.joined(parts), counts, complete_ns)

    def _hold(self, buffer: bytes, count: int) -> None:
        if count:
            self._buffers[self._next] = buffer
            self._left[self._next] = count
            self._next = (self._next + 1) & 0xFFFFFFFF

    def identities(self, items: Items) -> Sequence[Hashable]:
        places = zip(items["buffer"].tolist(), items["start"].tolist(), items["end"].tolist(), strict=True)
        return [self._buffers[number][start:end] for number, start, end in places]

    def memory(self, batch: Batch, items: Items) -> Batch:
        return last_of(batch, REMEMBERED_ITEMS)

    def remembered(self, memories: Sequence[Any], since_ns: int) -> set[Hashable]:
        joined = join(memories)
        items = items_of(joined.buffer, joined.ends, 0)
        items = items[items["ts_ns"] >= since_ns]
        return {
            joined.buffer[start:end] for start, end in zip(items["start"].tolist(), items["end"].tolist(), strict=True)
        }

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


def groups(batches: Sequence[Batch]) -> list[list[Batch]]:
    """Batches in order, small neighbours put together: reading one has a fixed cost of some 50 us."""
    result: list[list[Batch]] = []
    last_small = False
    for batch in batches:
        small = len(batch.buffer) < SMALL_BATCH
        if small and last_small:
            result[-1].append(batch)
        else:
            result.append([batch])
        last_small = small
    return result


def join(batches: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    if len(batches) == 1:
        return batches[0]
    ends: list[int] = []
    size = 0
    for batch in batches:
        ends.extend([size + end for end in batch.ends] if size else batch.ends)
        size += len(batch.buffer)
    return Batch(b"".join([batch.buffer for batch in batches]), ends)


def last_of(batch: Batch, count: int) -> Batch:
    """The last messages of a batch."""
    if len(batch) <= count:
        return batch
    start = batch.ends[-count - 1]
    return Batch(batch.buffer[start:], [end - start for end in batch.ends[-count:]])
