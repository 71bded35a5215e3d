"""What the interned values of one set of tables say, read once and shared by all predicates.

In:        Tables, which only grow until they are compacted.
Out:       facets: for each index of a table the number of the distinct value that predicates judge there, such as the
           pod name of an endpoint. There are fewer pod names and label sets than endpoints, and far fewer than flows.
Elsewhere: scan.py turns judgements of values into answers per row.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from model.row import L4
from model.tables import Interface, Node, Service, Table, Tables
from proto.flow import flow_pb2

EndpointReader = Callable[[flow_pb2.Endpoint | None], Hashable]

ENDPOINT_FACETS: Final[dict[str, EndpointReader]] = {
    "identity": lambda endpoint: None if endpoint is None else endpoint.identity,
    "pod": lambda endpoint: ("", "") if endpoint is None else (endpoint.namespace, endpoint.pod_name),
    "cluster": lambda endpoint: "" if endpoint is None else endpoint.cluster_name,
    "labels": lambda endpoint: () if endpoint is None else tuple(endpoint.labels),
    "workloads": lambda endpoint: () if endpoint is None else tuple((w.name, w.kind) for w in endpoint.workloads),
}
"""What predicates ask about an endpoint; None is a flow without one."""

COLUMN_TABLES: Final = {
    "src": "endpoints",
    "dst": "endpoints",
    "src_names": "names",
    "dst_names": "names",
    "src_svc": "services",
    "dst_svc": "services",
    "iface": "ifaces",
    "node": "nodes",
}
"""The table that a column of the row points into."""

IN_AUX: Final = frozenset(
    {
        "aggregate",
        "auth_type",
        "cgroup_id",
        "debug_capture_point",
        "drop_reason",
        "egress_allowed_by",
        "egress_denied_by",
        "emitter",
        "ethernet",
        "extensions",
        "file",
        "ingress_allowed_by",
        "ingress_denied_by",
        "ip_trace_id",
        "l7",
        "policy_log",
        "reply",
        "sock_xlate_point",
        "socket_cookie",
        "Summary",
        "time",
        "trace_context",
        "tunnel",
        "uuid",
    }
)
"""Fields of flow.Flow that filters do not look for in the row."""


class Facet:
    """One question about the values of a table: `values[ids[i]]` is the answer for index i."""

    def __init__(self, read: Callable[[Any], Hashable]) -> None:
        self.values: list[Any] = []
        self._read = read
        self._index: dict[Hashable, int] = {}
        self._ids = np.zeros(0, np.intp)

    def ids(self, values: list[Any]) -> npt.NDArray[np.intp]:
        """Number of the distinct answer by table index; `values` are all values of the table."""
        known = len(self._ids)
        if known < len(values):
            more = np.fromiter(map(self._number, values[known:]), np.intp, len(values) - known)
            self._ids = np.concatenate((self._ids, more))
        return self._ids

    def _number(self, value: Any) -> int:
        answer = self._read(value)
        number = self._index.get(answer)
        if number is None:
            number = self._index[answer] = len(self.values)
            self.values.append(answer)
        return number


class Facts:
    """Facets of all tables. Dropped as a whole when the tables' indices change their meaning."""

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self._facets: dict[tuple[str, str], Facet] = {}
        self._odd = np.full(0, -1, np.int8)

    def facet(self, table: str, question: str) -> Facet:
        """The facet of `table` for `question`: an entry of ENDPOINT_FACETS, or "" for the value itself."""
        facet = self._facets.get((table, question))
        if facet is None:
            read = _endpoint_reader(ENDPOINT_FACETS[question]) if table == "endpoints" else _itself
            facet = self._facets[table, question] = Facet(read)
        return facet

    def odd(self, tables: Tables, indices: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Which of these aux entries tell something that the row has a field for: the row alone is not to be trusted.

        Only flows that came as messages have such entries (model/ingest.py), and few of them.
        """
        self._odd = grown(self._odd, len(tables.aux))
        answers = self._odd.take(indices)
        if len(answers) and answers.min() < 0:
            for index in distinct(indices[answers < 0], len(tables.aux)).tolist():
                self._odd[index] = tells_differently(partial_flow(tables.aux[index]))
            answers = self._odd.take(indices)
        return answers.view(np.bool_)


_facts: WeakKeyDictionary[Tables, Facts] = WeakKeyDictionary()


def facts_of(tables: Tables) -> Facts:
    """The facts about `tables` as they are now."""
    facts = _facts.get(tables)
    if facts is None or facts.generation != tables.generation:
        facts = _facts[tables] = Facts(tables.generation)
    return facts


def values_of(tables: Tables, table: str) -> list[Any]:
    """All values of one table, index 0 being None."""
    values: Table[Any] = getattr(tables, table)
    return values.values


def flow_fact(flow: flow_pb2.Flow, column: str, question: str) -> Hashable:
    """The answer that a whole flow message gives where a row has `column`."""
    match column:
        case "src":
            return ENDPOINT_FACETS[question](flow.source if flow.HasField("source") else None)
        case "dst":
            return ENDPOINT_FACETS[question](flow.destination if flow.HasField("destination") else None)
        case "src_names":
            return tuple(flow.source_names)
        case "dst_names":
            return tuple(flow.destination_names)
        case "src_svc":
            return Service(flow.source_service.name, flow.source_service.namespace)
        case "dst_svc":
            return Service(flow.destination_service.name, flow.destination_service.namespace)
        case "iface":
            return Interface(flow.interface.index, flow.interface.name) if flow.HasField("interface") else None
        case "node":
            return Node(flow.node_name, tuple(flow.node_labels))
    raise KeyError(column)


def partial_flow(data: bytes | None) -> flow_pb2.Flow:
    """An aux entry of a flow as the message that it is a part of; empty when it is none or not readable."""
    flow = flow_pb2.Flow()
    if data:
        try:
            flow.ParseFromString(data)
        except DecodeError:
            flow.Clear()
    return flow


def tells_differently(partial: flow_pb2.Flow) -> bool:
    """Whether an aux entry has fields that belong into the row."""
    for field, _ in partial.ListFields():
        if field.name == "IP":
            told = {inner.name for inner, _ in partial.IP.ListFields()}
            if told - {"source_xlated"}:
                return True
        elif field.name == "l4":
            if partial.l4.WhichOneof("protocol") not in {L4.VRRP.name, L4.IGMP.name}:
                return True
        elif field.name not in IN_AUX:
            return True
    return False


def grown(answers: npt.NDArray[np.int8], size: int) -> npt.NDArray[np.int8]:
    """`answers` with room for `size` entries, the new ones -1: not asked yet."""
    if len(answers) >= size:
        return answers
    # Twice the size at a time: aux grows with nearly every batch that has L7 flows.
    larger = np.full(max(size, 2 * len(answers)), -1, np.int8)
    larger[: len(answers)] = answers
    return larger


def distinct(indices: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.intp]:
    """The distinct values among `indices`, all below `size`. Faster than a sort for table indices."""
    seen = np.zeros(size, np.bool_)
    seen[indices] = True
    return np.flatnonzero(seen)


def _endpoint_reader(read: EndpointReader) -> Callable[[bytes | None], Hashable]:
    def read_bytes(data: bytes | None) -> Hashable:
        return read(None if data is None else flow_pb2.Endpoint.FromString(data))

    return read_bytes


def _itself(value: Hashable) -> Hashable:
    return value
