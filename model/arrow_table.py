"""Flows as a table for people: one named column per question, for pandas, Parquet and CSV.

In:        rows and their tables.
Out:       a pyarrow.Table; text that repeats is a dictionary column (pandas: categorical).
Elsewhere: columns.py is the form in which rows travel between our own programs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from model.address_text import address_text, mac_text
from model.flow_id import uuid_bytes, uuid_halves
from model.flow_parts import split_aux
from model.key_index import distinct
from model.row import L4, NO_LATER_NS, Bit, Kind, Reply, Rows
from model.summary import summaries, tcp_flags_text
from model.tables import Tables
from model.whole_rows import take
from proto.flow import flow_pb2

if TYPE_CHECKING:
    import pyarrow as pa

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_PORT_LAYERS: Final = (L4.TCP, L4.UDP, L4.SCTP)
_LAYER_NAMES: Final = [None, *(layer.name for layer in flow_pb2.Layer4.DESCRIPTOR.fields)]
"""By L4."""
_SIDES: Final = (("source", "src"), ("destination", "dst"))


def rows_to_arrow_table(rows: Rows, tables: Tables, *, join_lists: bool = False) -> pa.Table:
    """The FLOW rows as a table; other kinds are left out. What a flow does not have is null.

    `join_lists` makes lists of text (labels, names) one text each, joined by commas: CSV knows no lists.
    """
    import pyarrow as pa

    rows = take(rows, rows["kind"] == Kind.FLOW)
    times = rows["ts_ns"]
    unknown = ((rows["bits"] & Bit.FOREIGN) != 0) & ((times <= 0) | (times == NO_LATER_NS))
    columns: dict[str, Any] = {"time": pa.array(times, mask=unknown).cast(pa.timestamp("ns", "UTC"))}
    columns |= _event_columns(rows, tables)
    for side, prefix in _SIDES:
        columns |= _side_columns(rows, tables, side, prefix)
    columns |= _layer_columns(rows, tables)
    columns |= _aux_columns(rows, tables)
    summary, texts = summaries(rows, tables)
    columns["summary"] = _by_entry(texts, summary)
    columns["uuid"] = _uuids(rows, tables)
    if join_lists:
        columns = {name: _joined(column) for name, column in columns.items()}
    return pa.table(columns)


def _event_columns(rows: Rows, tables: Tables) -> dict[str, Any]:
    nodes, node = _used(rows["node"])
    ifaces, iface = _used(rows["iface"])
    node_values = [tables.nodes[index] for index in nodes]
    iface_values = [tables.ifaces[index] for index in ifaces]
    has_type = (rows["bits"] & Bit.HAS_EVENT_TYPE) != 0
    return {
        "node_name": _by_entry([value.name if value else None for value in node_values], node),
        "node_labels": _lists([value.labels if value else () for value in node_values], node),
        "type": _enum(rows["flow_type"], flow_pb2.FlowType.Name),
        "verdict": _enum(rows["verdict"], flow_pb2.Verdict.Name),
        "drop_reason": _enum(rows["drop_reason"], flow_pb2.DropReason.Name, none=0),
        "event_type": _numbers(rows["event_type"], has_type),
        "event_sub_type": _numbers(rows["sub_type"], has_type),
        "observation_point": _enum(rows["obs_point"], flow_pb2.TraceObservationPoint.Name, none=0),
        "trace_reason": _enum(rows["trace_reason"], flow_pb2.TraceReason.Name, none=0),
        "direction": _enum(rows["direction"], flow_pb2.TrafficDirection.Name, none=0),
        "is_reply": _numbers(rows["is_reply"] == Reply.TRUE, rows["is_reply"] != Reply.ABSENT),
        "policy_match_type": _numbers(rows["match_type"], rows["match_type"] != 0),
        "interface": _by_entry([value.name if value else None for value in iface_values], iface),
        "interface_index": _numbers(
            np.array([value.index if value else 0 for value in iface_values], "u4")[iface], rows["iface"] != 0
        ),
        "proxy_port": _numbers(rows["proxy_port"], rows["proxy_port"] != 0),
    }


def _side_columns(rows: Rows, tables: Tables, side: str, prefix: str) -> dict[str, Any]:
    used, entry = _used(rows[prefix])
    endpoints = [flow_pb2.Endpoint.FromString(tables.endpoints[index] or b"") for index in used]
    workloads = [next(iter(endpoint.workloads), flow_pb2.Workload()) for endpoint in endpoints]
    used_names, names = _used(rows[f"{prefix}_names"])
    used_services, service = _used(rows[f"{prefix}_svc"])
    services = [tables.services[index] for index in used_services]
    has_port = np.isin(rows["l4"], _PORT_LAYERS)
    known = np.array([index != 0 for index in used], np.bool_)[entry]
    identities = np.array([endpoint.identity for endpoint in endpoints], np.uint32)[entry]
    return {
        f"{side}_namespace": _by_entry([endpoint.namespace for endpoint in endpoints], entry),
        f"{side}_pod": _by_entry([endpoint.pod_name for endpoint in endpoints], entry),
        f"{side}_workload": _by_entry([workload.name for workload in workloads], entry),
        f"{side}_workload_kind": _by_entry([workload.kind for workload in workloads], entry),
        f"{side}_cluster": _by_entry([endpoint.cluster_name for endpoint in endpoints], entry),
        f"{side}_identity": _numbers(identities, known),
        f"{side}_labels": _lists([list(endpoint.labels) for endpoint in endpoints], entry),
        f"{side}_names": _lists([tables.names[index] or () for index in used_names], names),
        f"{side}_service": _by_entry([value.name if value else None for value in services], service),
        f"{side}_service_namespace": _by_entry([value.namespace if value else None for value in services], service),
        f"{side}_ip": _addresses(rows, prefix),
        f"{side}_port": _numbers(rows["sport" if prefix == "src" else "dport"], has_port),
    }


def _layer_columns(rows: Rows, tables: Tables) -> dict[str, Any]:
    icmp = (rows["l4"] == L4.ICMPV4) | (rows["l4"] == L4.ICMPV6)
    flagged = (rows["bits"] & Bit.HAS_TCP_FLAGS) != 0
    ethernet = (rows["bits"] & Bit.HAS_ETHERNET) != 0
    flags = np.where(flagged, rows["tcp_flags"], 0).astype(np.int64)
    used_flags, flag_entry = np.unique(flags, return_inverse=True)
    return {
        "ip_version": _numbers(rows["ip_version"] * 2 + 2, rows["ip_version"] != 0),
        "protocol": _by_entry(_LAYER_NAMES, rows["l4"].astype(np.int64)),
        "tcp_flags": _by_entry([tcp_flags_text(value) for value in used_flags.tolist()], flag_entry),
        "icmp_type": _numbers(rows["sport"], icmp),
        "icmp_code": _numbers(rows["dport"], icmp),
        "encrypted": _numbers((rows["bits"] & Bit.ENCRYPTED) != 0, rows["ip_version"] != 0),
        "source_mac": _macs(rows["smac"], ethernet),
        "destination_mac": _macs(rows["dmac"], ethernet),
    }


def _aux_columns(rows: Rows, tables: Tables) -> dict[str, Any]:
    used, entry = _used(rows["aux"])
    flows = [flow_pb2.Flow.FromString(split_aux(tables.aux[index] or b"")[0]) for index in used]
    columns: dict[str, Any] = {}
    for name, value in _AUX_TEXTS.items():
        columns[name] = _by_entry([value(flow) for flow in flows], entry)
    for name, number in _AUX_NUMBERS.items():
        numbers = np.array([number(flow) or 0 for flow in flows], np.int64)[entry]
        columns[name] = _numbers(numbers, numbers != 0)
    for name, texts in _AUX_LISTS.items():
        columns[name] = _lists([list(texts(flow)) for flow in flows], entry)
    return columns


def _policies(kind: str) -> Callable[[flow_pb2.Flow], list[str]]:
    def names(flow: flow_pb2.Flow) -> list[str]:
        policies = [*getattr(flow, f"egress_{kind}_by"), *getattr(flow, f"ingress_{kind}_by")]
        return [f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name for policy in policies]

    return names


def _l7_type(flow: flow_pb2.Flow) -> str | None:
    return _name(flow_pb2.L7FlowType.Name, flow.l7.type) if flow.HasField("l7") else None


_AUX_TEXTS: Final[dict[str, Callable[[flow_pb2.Flow], str | None]]] = {
    "source_ip_translated": lambda flow: flow.IP.source_xlated,
    "l7_type": _l7_type,
    "http_method": lambda flow: flow.l7.http.method,
    "http_url": lambda flow: flow.l7.http.url,
    "http_protocol": lambda flow: flow.l7.http.protocol,
    "dns_query": lambda flow: flow.l7.dns.query,
    "dns_source": lambda flow: flow.l7.dns.observation_source,
    "kafka_api_key": lambda flow: flow.l7.kafka.api_key,
    "kafka_topic": lambda flow: flow.l7.kafka.topic,
    "trace_id": lambda flow: flow.trace_context.parent.trace_id,
    "drop_file": lambda flow: flow.file.name,
}
_AUX_NUMBERS: Final[dict[str, Callable[[flow_pb2.Flow], int]]] = {
    "http_code": lambda flow: flow.l7.http.code,
    "latency_ns": lambda flow: min(flow.l7.latency_ns, 2**63 - 1),
    "dns_rcode": lambda flow: flow.l7.dns.rcode,
    "dns_ttl": lambda flow: flow.l7.dns.ttl,
    "drop_line": lambda flow: flow.file.line,
}
"""0 is null."""
_AUX_LISTS: Final[dict[str, Callable[[flow_pb2.Flow], Sequence[str]]]] = {
    "dns_ips": lambda flow: flow.l7.dns.ips,
    "dns_cnames": lambda flow: flow.l7.dns.cnames,
    "dns_qtypes": lambda flow: flow.l7.dns.qtypes,
    "policies_allowed_by": _policies("allowed"),
    "policies_denied_by": _policies("denied"),
}


def _addresses(rows: Rows, prefix: str) -> Any:
    keys = np.stack([rows[f"{prefix}_ip_hi"], rows[f"{prefix}_ip_lo"], rows["ip_version"].astype(np.uint64)], axis=1)
    # Foreign flows say 0 for an address that is not known.
    unknown = (rows["ip_version"] == 0) | (((rows["bits"] & Bit.FOREIGN) != 0) & ((keys[:, 0] | keys[:, 1]) == 0))
    keys[unknown] = 0
    examples, entry = distinct(keys)
    return _by_entry([address_text(*key) if key[2] else None for key in keys[examples].tolist()], entry)


def _macs(macs: npt.NDArray[np.uint8], present: Bools) -> Any:
    keys = np.zeros((len(macs), 8), np.uint8)
    keys[:, :6] = macs
    keys[:, 6] = present
    examples, entry = distinct(keys.view(np.uint64))
    return _by_entry([mac_text(key[:6].tobytes()) if key[6] else None for key in keys[examples]], entry)


def _uuids(rows: Rows, tables: Tables) -> Any:
    import pyarrow as pa

    high, low = uuid_halves(rows, tables)
    text = uuid_bytes(high, low)
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(text.shape[1])
    uuids = pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text)))
    elsewhere = np.flatnonzero((high | low) == 0)
    if not len(elsewhere):
        return uuids
    texts = uuids.to_pylist()
    for at in elsewhere.tolist():
        flow = flow_pb2.Flow.FromString(split_aux(tables.aux[int(rows["aux"][at])] or b"")[0])
        texts[at] = flow.uuid or None
    return pa.array(texts, pa.string())


def _used(indices: npt.NDArray[np.uint32]) -> tuple[list[int], I64]:
    """The distinct indices, and which of them each row has."""
    used, entry = np.unique(indices, return_inverse=True)
    return used.tolist(), entry


def _by_entry(values: Sequence[str | None], entry: I64) -> Any:
    """A dictionary column of text; rows say which of `values` they have. None and "" are null."""
    import pyarrow as pa

    numbers: dict[str, int] = {}
    by_value = [numbers.setdefault(value, len(numbers)) if value else -1 for value in values]
    indices = np.array(by_value, np.int32)[entry]
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=indices < 0), pa.array(list(numbers), pa.string()))


def _joined(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_list(column.type):
        return column
    texts = pa.ListArray.from_arrays(column.offsets, column.values.dictionary_decode())
    return pc.binary_join(texts, ",")


def _enum(column: npt.NDArray[Any], name: Callable[[Any], str], *, none: int | None = None) -> Any:
    used, entry = np.unique(column, return_inverse=True)
    return _by_entry([None if number == none else _name(name, number) for number in used.tolist()], entry)


def _name(name: Callable[[Any], str], number: int) -> str:
    try:
        return name(number)
    except ValueError:
        return str(number)


def _numbers(values: npt.NDArray[Any], present: Bools) -> Any:
    import pyarrow as pa

    return pa.array(np.ascontiguousarray(values), mask=~present)


def _lists(values: Sequence[Sequence[str]], entry: I64) -> Any:
    """A column of lists of text; rows say which of `values` they have."""
    import pyarrow as pa

    numbers: dict[str, int] = {}
    flat = np.array([numbers.setdefault(text, len(numbers)) for value in values for text in value], np.int32)
    lengths = np.array([len(value) for value in values], np.int64)
    firsts = np.cumsum(lengths) - lengths
    sizes = lengths[entry]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    items = flat[np.repeat(firsts[entry] - offsets[:-1], sizes) + np.arange(offsets[-1])]
    texts = pa.DictionaryArray.from_arrays(pa.array(items), pa.array(list(numbers), pa.string()))
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), texts)
