"""Interned tables: the text behind the small integers of a row.

In:        values seen by decoders and by readers of the wire.
Out:       an index per distinct value, stable until `compact`; index 0 always means "absent".
Elsewhere: row.py says which field points at which table.

Text repeats far more often than it changes, so a predicate or an encoding is worked out once per distinct value and
looked up per row. What was interned stays as it was seen: a flow still names its pod after the pod is gone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from model.row import Rows
from model.whole_rows import copied

V = TypeVar("V", bound=Hashable)


class Table(Generic[V]):
    """Append-only list of values. Those interned are distinct. `values[0]` is None: absent."""

    __slots__ = ("_index", "values")

    def __init__(self) -> None:
        self.values: list[V | None] = [None]
        self._index: dict[V, int] = {}

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> V | None:
        return self.values[index]

    def __contains__(self, value: object) -> bool:
        return value in self._index

    def intern(self, value: V) -> int:
        """The index of `value`, which is added when it is new."""
        index = self._index.get(value)
        if index is None:
            index = len(self.values)
            self.values.append(value)
            self._index[value] = index
        return index

    def intern_all(self, values: Iterable[V | None]) -> npt.NDArray[np.uint32]:
        """The indices of `values`; None gives 0. As `intern`, without a call for each."""
        known, index = self.values, self._index
        found = []
        for value in values:
            at = 0 if value is None else index.get(value)
            if at is None:
                at = index[value] = len(known)  # type: ignore[index]  # None has its index above
                known.append(value)
            found.append(at)
        return np.array(found, np.uint32)

    def append_all(self, values: Sequence[V]) -> npt.NDArray[np.uint32]:
        """The indices of `values`, each of its own: for what nobody will say again, so that none is looked for."""
        start = len(self.values)
        self.values += values
        return np.arange(start, len(self.values), dtype=np.uint32)

    def keep(self, used: Iterable[int]) -> npt.NDArray[np.uint32]:
        """Forget all values but those at `used` (sorted, distinct); returns new index by old index."""
        old, where = self.values, [index for index in used if index]
        self.values = [None, *map(old.__getitem__, where)]
        moved = np.zeros(len(old), np.uint32)
        moved[where] = np.arange(1, len(self.values))
        places = moved[np.fromiter(self._index.values(), np.uint32, len(self._index))].tolist()
        self._index = {value: at for value, at in zip(self._index, places, strict=True) if at}
        return moved


@dataclass(frozen=True, slots=True)
class Node:
    """The node that saw a flow."""

    name: str
    """As in flow.Flow.node_name: `cluster/node`, or `node` in cluster `default`."""
    labels: tuple[str, ...] = ()
    """Sorted `key=value`."""
    boot: int = 0
    """64 random bits drawn when the node's observer started; with a row's seq they name a flow (flow_id.py)."""
    version: str = ""
    """flow.Emitter.version of its flows: the observer's version."""


@dataclass(frozen=True, slots=True)
class Service:
    """flow.Service."""

    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Interface:
    """flow.NetworkInterface."""

    index: int
    name: str


TABLE_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "endpoints": ("src", "dst"),
    "names": ("src_names", "dst_names"),
    "services": ("src_svc", "dst_svc"),
    "ifaces": ("iface",),
    "nodes": ("node",),
    "aux": ("aux",),
}
"""Which fields of a row point into which table."""


class Tables:
    """All tables that a set of rows points into. One owner (a ring, a file, a merge); not thread-safe.

    endpoints  bytes: a serialised flow.Endpoint (deterministic). b"" is a present but empty message.
    names      DNS names, sorted, without trailing dot.
    services   Service.
    ifaces     Interface.
    nodes      Node.
    aux        bytes. For Kind.FLOW a serialised partial flow.Flow whose fields complete those of the row: L7, tunnel,
               policies, file, auth_type, source_xlated, socket fields, VRRP/IGMP, trace context, a Summary that is not
               derived, uuid and emitter of foreign flows. Protobuf merges repeated fields of one message, so an encoder
               may append these bytes as they are (Protocol Buffers encoding guide, "last one wins").
               For other kinds: the serialised flow.LostEvent, flow.AgentEvent or flow.DebugEvent.
    """

    def __init__(self) -> None:
        self.endpoints: Table[bytes] = Table()
        self.names: Table[tuple[str, ...]] = Table()
        self.services: Table[Service] = Table()
        self.ifaces: Table[Interface] = Table()
        self.nodes: Table[Node] = Table()
        self.aux: Table[bytes] = Table()
        self.generation = 0
        """Grows when indices change their meaning; whoever caches by index drops the cache then."""

    def table(self, name: str) -> Table[Hashable]:
        """One of the tables by its name in TABLE_FIELDS."""
        table: Table[Hashable] = getattr(self, name)
        return table

    def size(self) -> int:
        """Values held in all tables."""
        return sum(len(self.table(name)) for name in TABLE_FIELDS)

    def compact(self, live: Sequence[Rows]) -> None:
        """Drop what no row of `live` points at and renumber those rows in place."""
        for name, fields in TABLE_FIELDS.items():
            used = np.zeros(len(self.table(name)), np.bool_)
            for rows in live:
                for field in fields:
                    used[rows[field]] = True
            moved = self.table(name).keep(np.flatnonzero(used).tolist())
            for rows in live:
                for field in fields:
                    rows[field] = moved[rows[field]]
        self.generation += 1

    def adopt(self, rows: Rows, other: Tables) -> Rows:
        """Rows of `other`, renumbered for these tables (a copy)."""
        rows = copied(rows)
        for name, fields in TABLE_FIELDS.items():
            theirs, ours = other.table(name), self.table(name)
            used = np.unique(np.concatenate([rows[field] for field in fields]))
            moved = np.zeros(len(theirs), np.uint32)
            moved[used] = ours.intern_all(theirs.values[index] for index in used.tolist())
            for field in fields:
                rows[field] = moved[rows[field]]
        return rows
