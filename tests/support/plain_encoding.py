"""What a row means as a message, written the plain way: one row at a time, by the words of row.py and the API.

In:        one row and its tables.
Out:       GetFlowsResponse messages to compare with those of model/encode.py.
Elsewhere: rows to try it on are made by rows.py.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

import numpy as np

from model.encode import Encoded
from model.flow_id import flow_uuid
from model.mask import FieldMask
from model.row import L4, Bit, Kind, Reply, TcpFlag
from model.summary import summary_text
from model.tables import Tables
from proto.flow import flow_pb2
from proto.observer import observer_pb2

PATHS = [
    *(field.name for field in flow_pb2.Flow.DESCRIPTOR.fields),
    *(f"{side}.{field}" for side in ("source", "destination") for field in ("identity", "labels", "workloads")),
    *(f"IP.{field}" for field in ("source", "destination", "ipVersion", "encrypted", "source_xlated")),
    *("l4.TCP", "l4.TCP.flags", "l4.TCP.flags.SYN", "l4.TCP.source_port", "l4.UDP.destination_port", "l4.ICMPv4.code"),
    *("l4.VRRP.vrid", "time.seconds", "time.nanos", "ethernet.source", "ethernet.destination", "event_type.type"),
    *("l7.dns.query", "l7.http", "is_reply.value", "emitter.version", "interface.name", "source_service.name"),
]
"""Every field as a whole and a choice of deep paths."""


def decoded(encoded: Encoded) -> list[observer_pb2.GetFlowsResponse | None]:
    """The messages, read as a gRPC client reads them; None for rows without one."""
    messages: list[observer_pb2.GetFlowsResponse | None] = []
    start = 0
    for end in encoded.ends.tolist():
        frame = bytes(encoded.buffer[start:end])
        if frame:
            compressed, length = struct.unpack(">BI", frame[:5])
            assert (compressed, length) == (0, len(frame) - 5)
        messages.append(observer_pb2.GetFlowsResponse.FromString(frame[5:]) if frame else None)
        start = end
    assert start == len(encoded.buffer)
    return messages


def plain_response(row: np.void, tables: Tables, mask: FieldMask | None = None) -> observer_pb2.GetFlowsResponse:
    """The answer for one FLOW or LOST row of our own."""
    response = observer_pb2.GetFlowsResponse()
    if row["kind"] == Kind.LOST:
        response.lost_events.ParseFromString(tables.aux[int(row["aux"])] or b"")
        response.lost_events.SetInParent()
        response.time.FromNanoseconds(int(row["ts_ns"]))
        response.time.SetInParent()
        node = tables.nodes[int(row["node"])]
        response.node_name = node.name if node else ""
        return response
    flow = plain_flow(row, tables)
    if mask:
        flow = mask.apply(flow)
    response.flow.CopyFrom(flow)
    response.node_name = flow.node_name
    if flow.HasField("time"):
        response.time.CopyFrom(flow.time)
    return response


def plain_flow(row: np.void, tables: Tables) -> flow_pb2.Flow:
    """The flow of one FLOW row of our own."""
    value: dict[str, Any] = dict(zip(row.dtype.names or (), row.item(), strict=True))
    bits, aux = value["bits"], tables.aux[value["aux"]] or b""
    node = tables.nodes[value["node"]]
    flow = flow_pb2.Flow()
    flow.time.FromNanoseconds(value["ts_ns"])
    flow.uuid = flow_uuid(node, value["seq"])
    flow.emitter.name = "Hubble"
    if node:
        flow.emitter.version = node.version
        flow.node_name = node.name
        flow.node_labels.extend(node.labels)
    for field, name in (("verdict", "verdict"), ("flow_type", "Type"), ("direction", "traffic_direction")):
        setattr(flow, name, value[field])
    for field, name in (("obs_point", "trace_observation_point"), ("match_type", "policy_match_type")):
        setattr(flow, name, value[field])
    flow.trace_reason = value["trace_reason"]
    flow.drop_reason = flow.drop_reason_desc = value["drop_reason"]
    flow.proxy_port = value["proxy_port"]
    if bits & Bit.HAS_EVENT_TYPE:
        flow.event_type.SetInParent()
        flow.event_type.type, flow.event_type.sub_type = value["event_type"], value["sub_type"]
    if value["is_reply"] != Reply.ABSENT:
        flow.is_reply.value = flow.reply = value["is_reply"] == Reply.TRUE
    if bits & Bit.HAS_ETHERNET:
        flow.ethernet.source = ":".join(f"{byte:02x}" for byte in value["smac"])
        flow.ethernet.destination = ":".join(f"{byte:02x}" for byte in value["dmac"])
    _add_layers(flow, value)
    _add_names(flow, value, tables)
    if not bits & Bit.SUMMARY_IN_AUX:
        fields = ("flow_type", "ip_version", "l4", "sport", "dport", "tcp_flags", "bits")
        flow.Summary = summary_text(**{field: value[field] for field in fields}, aux=aux)
    flow.MergeFromString(aux)
    return flow


def _add_layers(flow: flow_pb2.Flow, value: dict[str, Any]) -> None:
    version, l4 = value["ip_version"], value["l4"]
    if version:
        flow.IP.source = _address(value["src_ip_hi"], value["src_ip_lo"], version)
        flow.IP.destination = _address(value["dst_ip_hi"], value["dst_ip_lo"], version)
        flow.IP.ipVersion = version
        flow.IP.encrypted = bool(value["bits"] & Bit.ENCRYPTED)
    if l4 in (L4.TCP, L4.UDP, L4.SCTP):
        layer: Any = {L4.TCP: flow.l4.TCP, L4.UDP: flow.l4.UDP, L4.SCTP: flow.l4.SCTP}[l4]
        layer.SetInParent()
        layer.source_port, layer.destination_port = value["sport"], value["dport"]
        if l4 == L4.TCP and value["bits"] & Bit.HAS_TCP_FLAGS:
            flow.l4.TCP.flags.SetInParent()
            for flag in TcpFlag:
                setattr(flow.l4.TCP.flags, flag.name, bool(value["tcp_flags"] & flag))
    if l4 in (L4.ICMPV4, L4.ICMPV6):
        icmp = flow.l4.ICMPv4 if l4 == L4.ICMPV4 else flow.l4.ICMPv6
        icmp.SetInParent()
        icmp.type, icmp.code = value["sport"], value["dport"]


def _add_names(flow: flow_pb2.Flow, value: dict[str, Any], tables: Tables) -> None:
    for index, endpoint in ((value["src"], flow.source), (value["dst"], flow.destination)):
        if index:
            endpoint.SetInParent()
            endpoint.ParseFromString(tables.endpoints[index] or b"")
    flow.source_names.extend(tables.names[value["src_names"]] or ())
    flow.destination_names.extend(tables.names[value["dst_names"]] or ())
    for index, target in ((value["src_svc"], flow.source_service), (value["dst_svc"], flow.destination_service)):
        service = tables.services[index]
        if service:
            target.SetInParent()
            target.name, target.namespace = service.name, service.namespace
    iface = tables.ifaces[value["iface"]]
    if iface:
        flow.interface.SetInParent()
        flow.interface.index, flow.interface.name = iface.index, iface.name


def _address(high: int, low: int, version: int) -> str:
    if version == 1:
        return str(ipaddress.IPv4Address(low))
    address = ipaddress.IPv6Address(high << 64 | low)
    return str(address.ipv4_mapped or address)
