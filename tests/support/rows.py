"""Rows to test with: realistic ones by the thousand, and odd ones from Hypothesis.

In:        a seed, or Hypothesis.
Out:       `make_rows` (numpy, resembles a cluster's traffic), strategies `tables_and_rows`, `flows`, `responses`.
Elsewhere: golden data (shared/golden) is real input with the output that it must become.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from model.row import L4, Bit, Kind, Reply, Rows, TcpFlag, empty_rows
from model.tables import Interface, Node, Service, Tables
from proto.flow import flow_pb2
from proto.observer import observer_pb2

EPOCH_NS: Final = 1_768_471_200_000_000_000
"""2026-01-15T10:00:00Z."""

TRACE: Final = 4
DROP: Final = 1
POLICY_VERDICT: Final = 5
L7: Final = 129


def make_rows(
    count: int,
    *,
    endpoints: int = 1000,
    connections: int = 500,
    nodes: int = 1,
    seed: int = 0,
    tables: Tables | None = None,
    start_ns: int = EPOCH_NS,
    step_ns: int = 10_000,
) -> tuple[Rows, Tables]:
    """`count` rows in order of time that resemble a cluster's traffic, and the tables that they point into.

    About 70 % traces, 10 % drops, 15 % policy verdicts, 3 % HTTP, 2 % DNS; TCP mostly, some UDP and ICMP, one row in
    eight IPv6. Flows belong to one of `connections` pairs of `endpoints`; each flow has its own source port.
    With `tables`, more rows for the same tables (use the same numbers of endpoints and nodes).
    """
    random = np.random.default_rng(seed)
    tables = tables or Tables()
    pods = np.array([tables.endpoints.intern(_pod(number)) for number in range(endpoints)], np.uint32)
    node_ids = np.array([tables.nodes.intern(make_node(number)) for number in range(nodes)], np.uint32)
    ifaces = np.array([tables.ifaces.intern(Interface(i + 10, f"lxc{i:012x}")) for i in range(20)], np.uint32)
    services = np.array([tables.services.intern(Service(f"app-{i:02}", f"ns-{i % 20:02}")) for i in range(100)], "u4")
    names = tables.names.intern(("cdn.example.org", "www.example.org"))
    allowed = tables.aux.intern(_allowed_by_policy().SerializeToString(deterministic=True))
    dropped_at = tables.aux.intern(
        flow_pb2.Flow(file=flow_pb2.FileInfo(name="bpf_lxc.c", line=1234)).SerializeToString(deterministic=True)
    )
    http = np.array([tables.aux.intern(_http(number)) for number in range(50)], np.uint32)
    dns = np.array([tables.aux.intern(_dns(number)) for number in range(50)], np.uint32)

    pairs = random.integers(0, endpoints, (connections, 2))
    connection = random.integers(0, connections, count)
    source, destination = pairs[connection, 0], pairs[connection, 1]
    sort = random.choice(5, count, p=[0.70, 0.10, 0.15, 0.03, 0.02])
    trace, drop, verdict = sort == 0, sort == 1, sort == 2
    is_http, is_dns = sort == 3, sort == 4
    l7 = is_http | is_dns
    six = connection % 8 == 7

    rows = empty_rows(count)
    rows["ts_ns"] = start_ns + np.arange(count) * step_ns
    rows["node"] = node_ids[random.integers(0, nodes, count)]
    rows["seq"] = np.arange(count)
    for side, who in (("src", source), ("dst", destination)):
        rows[side] = pods[who]
        rows[f"{side}_ip_hi"] = np.where(six, 0xFD00_0000_0000_0000, 0)
        rows[f"{side}_ip_lo"] = np.where(six, 0, 0x0AF4_0000) + who + 2
    rows["src_names"] = np.where(connection % 16 == 5, names, 0)
    rows["dst_svc"] = np.where(connection % 4 == 0, services[destination % 100], 0)
    rows["iface"] = np.where(trace, ifaces[destination % 20], 0)
    rows["ip_version"] = np.where(six, 2, 1)
    rows["l4"] = np.where(is_dns | (connection % 10 == 3), L4.UDP, L4.TCP)
    icmp = (connection % 50 == 11) & ~l7
    rows["l4"][icmp] = np.where(six[icmp], L4.ICMPV6, L4.ICMPV4)
    rows["sport"] = random.integers(32768, 61000, count)
    rows["dport"] = np.array([80, 443, 5432, 8080, 9090], np.uint16)[destination % 5]
    rows["dport"][is_dns] = 53
    rows["sport"][icmp] = np.where(six[icmp], 128, 8)
    rows["dport"][icmp] = 0
    flagged = (rows["l4"] == L4.TCP) & ~l7
    flags = np.array([TcpFlag.SYN, TcpFlag.ACK, TcpFlag.ACK | TcpFlag.PSH, TcpFlag.ACK | TcpFlag.FIN], np.uint16)
    rows["tcp_flags"] = np.where(flagged, flags[random.integers(0, 4, count)], 0)
    rows["bits"] = (
        Bit.HAS_EVENT_TYPE
        + flagged * int(Bit.HAS_TCP_FLAGS)
        + ~l7 * int(Bit.HAS_ETHERNET)
        + l7 * int(Bit.SUMMARY_IN_AUX)
    )
    for field, who in (("smac", source), ("dmac", destination)):
        mac = np.zeros((count, 6), np.uint8)
        mac[:, :4] = (0x0A, 0x58, 0x0A, 0xF4)
        mac[:, 4], mac[:, 5] = who >> 8, who & 0xFF
        rows[field] = np.where(l7[:, None], 0, mac)
    rows["kind"] = Kind.FLOW
    rows["flow_type"] = np.where(l7, flow_pb2.L7, flow_pb2.L3_L4)
    points = np.array([flow_pb2.TO_ENDPOINT, flow_pb2.FROM_ENDPOINT, flow_pb2.TO_STACK, flow_pb2.TO_NETWORK], np.uint8)
    point = points[random.choice(4, count, p=[0.5, 0.3, 0.1, 0.1])].astype(np.int32)
    rows["event_type"] = np.select([trace, drop, verdict, l7], [TRACE, DROP, POLICY_VERDICT, L7])
    rows["sub_type"] = np.select([trace, drop], [np.where(point == flow_pb2.TO_ENDPOINT, 0, point), 133], 0)
    rows["obs_point"] = np.where(trace, point, 0)
    rows["verdict"] = np.where(drop, flow_pb2.DROPPED, flow_pb2.FORWARDED)
    rows["drop_reason"] = np.where(drop, flow_pb2.POLICY_DENIED, 0)
    rows["trace_reason"] = np.where(trace, random.integers(1, 4, count), 0)
    replies = np.where(rows["trace_reason"] == flow_pb2.REPLY, Reply.TRUE, Reply.FALSE)
    rows["is_reply"] = np.select([trace, verdict, l7], [replies, Reply.FALSE, Reply.FALSE], Reply.ABSENT)
    rows["direction"] = random.integers(1, 3, count)
    rows["match_type"] = np.where(verdict, 2, 0)
    rows["aux"][drop] = dropped_at
    rows["aux"][verdict] = allowed
    rows["aux"][is_http] = http[connection[is_http] % 50]
    rows["aux"][is_dns] = dns[connection[is_dns] % 50]
    return rows, tables


def make_node(number: int) -> Node:
    """The node of that number; node 0 is in cluster `default`."""
    name = f"worker-{number}" if number == 0 else f"east/worker-{number}"
    labels = ("kubernetes.io/arch=amd64", f"kubernetes.io/hostname=worker-{number}")
    return Node(name, labels, boot=0x0123_4567_89AB_CDEF ^ (number << 20), version="0.1.0")


def make_endpoint(number: int) -> flow_pb2.Endpoint:
    """A pod of a made-up shop: 20 namespaces, 7 labels; one in twenty is the world outside."""
    if number % 20 == 19:
        return flow_pb2.Endpoint(identity=2, labels=["reserved:world"])
    namespace, app = f"ns-{number % 20:02}", f"app-{number % 100:02}"
    return flow_pb2.Endpoint(
        ID=1000 + number if number % 5 == 0 else 0,
        identity=20_000 + number % 100,
        cluster_name="default",
        namespace=namespace,
        labels=[
            "k8s:app.kubernetes.io/component=backend",
            f"k8s:app.kubernetes.io/instance={app}",
            f"k8s:app.kubernetes.io/name={app}",
            f"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name={namespace}",
            "k8s:io.cilium.k8s.policy.cluster=default",
            f"k8s:io.cilium.k8s.policy.serviceaccount={app}",
            f"k8s:io.kubernetes.pod.namespace={namespace}",
        ],
        pod_name=f"{app}-7d9c6f5b8-{number:05x}",
        workloads=[flow_pb2.Workload(name=app, kind="Deployment")] if number % 5 == 0 else [],
    )


def _pod(number: int) -> bytes:
    return make_endpoint(number).SerializeToString(deterministic=True)


def _allowed_by_policy() -> flow_pb2.Flow:
    policy = flow_pb2.Policy(name="allow-shop", namespace="ns-00", kind="CiliumNetworkPolicy", revision=3)
    return flow_pb2.Flow(ingress_allowed_by=[policy])


def _http(number: int) -> bytes:
    url = f"http://app-{number:02}/items/{number}"
    flow = flow_pb2.Flow(Summary=f"HTTP/1.1 GET {url}")
    flow.l7.type = flow_pb2.REQUEST
    flow.l7.http.CopyFrom(flow_pb2.HTTP(method="GET", url=url, protocol="HTTP/1.1"))
    flow.l7.http.headers.add(key="X-Request-Id", value=f"request-{number}")
    return flow.SerializeToString(deterministic=True)


def _dns(number: int) -> bytes:
    query = f"app-{number:02}.ns-{number % 20:02}.svc.cluster.local."
    flow = flow_pb2.Flow(Summary=f"DNS Query {query} A")
    flow.l7.type = flow_pb2.REQUEST
    flow.l7.dns.CopyFrom(flow_pb2.DNS(query=query, observation_source="proxy", qtypes=["A"]))
    return flow.SerializeToString(deterministic=True)


# What Hypothesis draws. Small alphabets and numbers that are often equal: values then meet each other in tables.

_TEXTS = st.one_of(st.sampled_from(["", "a", "ns-1/pod", "käse", "FORWARDED"]), st.text(max_size=8))
_U64 = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))


@st.composite
def auxiliaries(draw: st.DrawFn, kind: int, l4: int) -> bytes:
    """What may stand in the aux table for one row of that kind."""
    if kind == Kind.LOST:
        event = draw(messages(flow_pb2.LostEvent))
        return bytes(event.SerializeToString(deterministic=True))
    if kind == Kind.AGENT:
        return bytes(draw(messages(flow_pb2.AgentEvent)).SerializeToString(deterministic=True))
    if kind == Kind.DEBUG:
        return bytes(draw(messages(flow_pb2.DebugEvent)).SerializeToString(deterministic=True))
    fields = ("l7", "tunnel", "file", "auth_type", "trace_context", "ip_trace_id", "socket_cookie", "cgroup_id")
    lists = ("egress_allowed_by", "ingress_denied_by", "policy_log", "sock_xlate_point", "debug_capture_point")
    flow = draw(messages(flow_pb2.Flow, only=frozenset(fields + lists)))
    if l4 == L4.VRRP:
        flow.l4.VRRP.CopyFrom(draw(messages(flow_pb2.VRRP)))
        flow.l4.VRRP.SetInParent()
    if l4 == L4.IGMP:
        flow.l4.IGMP.CopyFrom(draw(messages(flow_pb2.IGMP)))
        flow.l4.IGMP.SetInParent()
    return bytes(flow.SerializeToString(deterministic=True))


@st.composite
def tables_and_rows(
    draw: st.DrawFn, *, max_rows: int = 6, kinds: tuple[int, ...] = (Kind.FLOW, Kind.FLOW, Kind.FLOW, Kind.LOST)
) -> tuple[Tables, Rows]:
    """Tables and rows of our own observers (never Bit.FOREIGN) that keep to what row.py says, odd values included."""
    tables = Tables()
    endpoints = draw(st.lists(messages(flow_pb2.Endpoint), max_size=4))
    indices = {
        "endpoints": [tables.endpoints.intern(e.SerializeToString(deterministic=True)) for e in endpoints],
        "names": [tables.names.intern(tuple(v)) for v in draw(st.lists(st.lists(_TEXTS, min_size=1), max_size=2))],
        "services": [tables.services.intern(v) for v in draw(st.lists(st.builds(Service, _TEXTS, _TEXTS), max_size=3))],
        "ifaces": [
            tables.ifaces.intern(v)
            for v in draw(st.lists(st.builds(Interface, st.integers(0, 2**32 - 1), _TEXTS), max_size=3))
        ],
        "nodes": [
            tables.nodes.intern(v)
            for v in draw(st.lists(st.builds(Node, _TEXTS, st.tuples(_TEXTS), _U64, _TEXTS), max_size=3))
        ],
    }
    rows = empty_rows(draw(st.integers(0, max_rows)))
    for row in rows:
        _fill_row(draw, tables, indices, row, draw(st.sampled_from(kinds)))
    return tables, rows


def _fill_row(draw: st.DrawFn, tables: Tables, indices: dict[str, list[int]], row: np.void, kind: int) -> None:
    row["kind"] = kind
    row["ts_ns"] = draw(st.integers(0, 2**63 - 2))
    row["seq"] = draw(st.integers(0, 2**58 - 1))
    row["node"] = draw(st.sampled_from([0, *indices["nodes"]]))
    l4 = draw(st.sampled_from(L4))
    row["aux"] = tables.aux.intern(draw(auxiliaries(kind, l4)))
    if kind == Kind.FLOW and l4 not in (L4.VRRP, L4.IGMP) and draw(st.booleans()):
        row["aux"] = 0
    if kind != Kind.FLOW:
        row["event_type"] = {Kind.AGENT: 130, Kind.DEBUG: 2}.get(Kind(kind), 0)
        return
    for field, table in (("src", "endpoints"), ("dst", "endpoints"), ("src_names", "names"), ("dst_names", "names")):
        row[field] = draw(st.sampled_from([0, *indices[table]]))
    for field, table in (("src_svc", "services"), ("dst_svc", "services"), ("iface", "ifaces")):
        row[field] = draw(st.sampled_from([0, *indices[table]]))
    row["l4"] = l4
    row["ip_version"] = draw(st.sampled_from([0, 1, 2]))
    for side in ("src", "dst"):
        if row["ip_version"] == 2:
            row[f"{side}_ip_hi"] = draw(_U64)
        if row["ip_version"]:
            row[f"{side}_ip_lo"] = draw(_U64 if row["ip_version"] == 2 else st.integers(0, 2**32 - 1))
    bits = draw(st.sampled_from([0, Bit.HAS_EVENT_TYPE]))
    if row["ip_version"]:
        bits |= draw(st.sampled_from([0, Bit.ENCRYPTED]))
    if draw(st.booleans()):
        bits |= Bit.HAS_ETHERNET
        row["smac"] = list(draw(st.binary(min_size=6, max_size=6)))
        row["dmac"] = list(draw(st.binary(min_size=6, max_size=6)))
    if l4 == L4.TCP and draw(st.booleans()):
        bits |= Bit.HAS_TCP_FLAGS
        row["tcp_flags"] = draw(st.integers(0, 0x1FF))
    row["bits"] = bits | draw(st.sampled_from([0, Bit.SUMMARY_IN_AUX]))
    if L4.NONE < l4 <= L4.SCTP:
        top = 255 if l4 in (L4.ICMPV4, L4.ICMPV6) else 65535
        row["sport"] = draw(st.integers(0, top))
        row["dport"] = draw(st.integers(0, top))
    if bits & Bit.HAS_EVENT_TYPE:
        row["event_type"] = draw(st.one_of(st.sampled_from([1, 3, 4, 5, 7, 129]), st.integers(-(2**31), 2**31 - 1)))
        row["sub_type"] = draw(st.one_of(st.sampled_from([0, 3, 133]), st.integers(-(2**31), 2**31 - 1)))
    row["drop_reason"] = draw(st.one_of(st.sampled_from([0, 133, 181]), st.integers(0, 2**31 - 1)))
    row["proxy_port"] = draw(st.integers(0, 65535))
    row["is_reply"] = draw(st.sampled_from(Reply))
    row["flow_type"] = draw(st.integers(0, 3))
    row["verdict"] = draw(st.integers(0, 8))
    for field in ("direction", "obs_point", "trace_reason", "match_type"):
        row[field] = draw(st.one_of(st.integers(0, 3), st.integers(0, 255)))


def messages(message: type[Message], *, only: frozenset[str] | None = None, depth: int = 4) -> st.SearchStrategy[Any]:
    """Any message of that type: each field absent or any value, repeated ones short. `only` limits the top fields."""
    fields: list[Any] = [field for field in message.DESCRIPTOR.fields if only is None or field.name in only]
    if not fields:
        return st.builds(message)
    return st.lists(st.sampled_from(fields), unique=True).flatmap(
        lambda chosen: st.tuples(*(_values(field, depth) for field in chosen)).map(
            lambda values: _build(message, zip(chosen, values, strict=True))
        )
    )


def flows() -> st.SearchStrategy[flow_pb2.Flow]:
    """Any flow that the wire can carry, nonsense included."""
    return messages(flow_pb2.Flow)


def responses() -> st.SearchStrategy[observer_pb2.GetFlowsResponse]:
    """Any answer of a foreign server that is a flow or lost events."""
    outer = messages(observer_pb2.GetFlowsResponse, only=frozenset({"node_name", "time"}))

    def combine(parts: tuple[Any, Any, bool]) -> observer_pb2.GetFlowsResponse:
        event, response, usual = parts
        if isinstance(event, flow_pb2.Flow):
            response.flow.CopyFrom(event)
            if usual:
                response.node_name = event.node_name
                response.ClearField("time")
                if event.HasField("time"):
                    response.time.CopyFrom(event.time)
        else:
            response.lost_events.CopyFrom(event)
        return observer_pb2.GetFlowsResponse.FromString(response.SerializeToString())

    events = st.one_of(flows(), flows(), messages(flow_pb2.LostEvent))
    return st.tuples(events, outer, st.booleans()).map(combine)


_SCALARS: Final = {
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_INT32: st.one_of(st.integers(0, 5), st.integers(-(2**31), 2**31 - 1)),
    FieldDescriptor.CPPTYPE_INT64: st.one_of(st.integers(0, 5), st.integers(-(2**63), 2**63 - 1)),
    FieldDescriptor.CPPTYPE_UINT32: st.one_of(st.integers(0, 5), st.integers(0, 70000), st.integers(0, 2**32 - 1)),
    FieldDescriptor.CPPTYPE_UINT64: _U64,
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_ENUM: st.one_of(st.integers(0, 5), st.integers(-(2**31), 2**31 - 1)),
}
_ADDRESSES = st.one_of(
    _TEXTS,
    st.sampled_from(["10.0.0.1", "0.0.0.0", "fd00::1", "FD00::1", "::", "::ffff:1.2.3.4", "::1.2.3.4", "010.0.0.1"]),
    st.ip_addresses().map(str),
)
_MACS = st.one_of(_TEXTS, st.sampled_from(["0a:58:0a:f4:00:01", "0A:58:0A:F4:00:01"]))
_UUIDS = st.one_of(
    _TEXTS, st.uuids().map(str), st.uuids().map(str).map(str.upper), st.just("0" * 8 + "-0000" * 3 + "-" + "0" * 12)
)
_SHAPED: Final = {
    "flow.IP.source": _ADDRESSES,
    "flow.IP.destination": _ADDRESSES,
    "flow.Ethernet.source": _MACS,
    "flow.Ethernet.destination": _MACS,
    "flow.Flow.uuid": _UUIDS,
}


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        nested = GetMessageClass(field.message_type)
        if nested.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
            one = _timestamps(nested)
        else:
            one = messages(nested, depth=depth - 1, only=None if depth > 0 else frozenset())
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        binary = field.type == FieldDescriptor.TYPE_BYTES
        one = st.binary(max_size=5) if binary else _SHAPED.get(field.full_name, _TEXTS)
    else:
        one = _SCALARS[field.cpp_type]
    return st.lists(one, max_size=3) if field.is_repeated else one


def _timestamps(message: type[Message]) -> st.SearchStrategy[Any]:
    usual = st.tuples(st.integers(0, 2**33), st.integers(0, 999_999_999))
    odd = st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
    return st.one_of(usual, usual, odd).map(lambda pair: message(seconds=pair[0], nanos=pair[1]))


def _build(message: type[Message], values: Iterable[tuple[FieldDescriptor, Any]]) -> Message:
    built = message()
    for field, value in values:
        if field.is_repeated:
            getattr(built, field.name).extend(value)
        elif field.message_type is not None:
            getattr(built, field.name).CopyFrom(value)
        else:
            setattr(built, field.name, value)
    return built
