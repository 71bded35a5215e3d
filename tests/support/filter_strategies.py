"""Filters and flows for Hypothesis that have something to do with each other.

In:        Hypothesis.
Out:       `flows` (small vocabulary, each part present or not), `filters`, `filter_lists`.
Elsewhere: tests/support/rows.py draws any flow that the wire can carry; few filters match those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from hypothesis import strategies as st

from model.row import TcpFlag
from proto.flow import flow_pb2

NAMES: Final = ["web-0", "web-1", "db-0", "we", ""]
NAMESPACES: Final = ["shop", "default", "kube-system", ""]
LABELS: Final = [
    "k8s:app=web",
    "k8s:app=db",
    "container:app=web",
    "k8s:tier=",
    "k8s:n=7",
    "reserved:world",
    "reserved.host",
    "$init",
    "app=web",
    "cidr:203.0.113.0/24",
    "cidr:fd00--0/8",
    "k8s:io.kubernetes.pod.namespace=shop",
]
SELECTORS: Final = [
    "app=web",
    "k8s:app==db",
    "app!=web",
    "!app",
    "k8s:app in (web, db),!reserved:world",
    "app notin (web)",
    "tier=",
    "any:tier",
    "n>6",
    "n<7",
    "reserved:world",
    "host",
    "init,app",
    "cidr:203.0.0.0/8",
    "!cidr:203.0.113.0/24",
    "cidr:fd00--0/7",
    "",
    "container:app,app=web",
    "io.kubernetes.pod.namespace=shop",
    "kubernetes.io/arch=amd64",
    "app in ()",
]
ADDRESSES: Final = ["10.0.0.1", "10.0.0.2", "192.168.7.9", "0.0.0.0", "fd00::1", "fd00::", "::", "::ffff:10.0.0.1"]
ODD_ADDRESSES: Final = ["FD00::1", "fd00:0:0::1", "010.0.0.1", "localhost", "10.0.0.1%eth0"]
PREFIXES: Final = ["10.0.0.0/8", "10.0.0.9/24", "0.0.0.0/0", "::/0", "fd00::/127", "192.168.7.9/32", "::ffff:0:0/96"]
PORTS: Final = [0, 53, 80, 443, 8080, 65535]
FQDNS: Final = ["cdn.example.org", "example.org", "CDN.example.org", "a_b.example.org", "www.example.com"]
PATTERNS: Final = ["*.example.org", "example.org.", "CDN.example.org", "*", "www.*", "a*.org"]
NODES: Final = ["worker-0", "east/worker-1", "default/worker-2", "East/worker-3", ""]
NODE_PATTERNS: Final = ["worker-0", "east/", "/worker-*", "*/worker-1", "default/worker-0", "/"]
NODE_LABELS: Final = ["kubernetes.io/arch=amd64", "pool=blue", "app=web"]
URLS: Final = ["http://shop/items/1?x=/y", "/items/2#top", "/a%20b/%ff", "*", "items", "http://shop", "/%zz", "", "/\n"]
REGEXPS: Final = ["items", "^/items/[0-9]$", "#top$", "a b", "^$", "x=", "^api[.]", "."]
QUERIES: Final = ["api.shop.svc.cluster.local.", "example.org.", ""]
TRACES: Final = ["0af7651916cd43dd8448eb211c80319c", ""]
UUIDS: Final = ["8f6ce1f4-0b0b-4c38-9f5d-1d9f26a0b0a1", "not-a-uuid", ""]

Draw = Callable[..., Any]


def filter_of(**fields: Any) -> flow_pb2.FlowFilter:
    """A filter with these fields, whose names may be known only when the test runs."""
    return flow_pb2.FlowFilter(**fields)


def _ends(draw: Draw) -> flow_pb2.Endpoint:
    return flow_pb2.Endpoint(
        identity=draw(st.sampled_from([0, 1, 2, 30001])),
        cluster_name=draw(st.sampled_from(["", "default", "east"])),
        namespace=draw(st.sampled_from(NAMESPACES)),
        pod_name=draw(st.sampled_from(NAMES)),
        labels=draw(st.lists(st.sampled_from(LABELS), max_size=4)),
        workloads=[
            flow_pb2.Workload(name=name, kind=kind)
            for name, kind in draw(
                st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(["", "Job"])), max_size=2)
            )
        ],
    )


@st.composite
def flows(draw: Draw) -> flow_pb2.Flow:
    """A flow that could be a real one, or nearly: parts are missing, addresses are spelled strangely now and then."""

    def often() -> bool:
        return bool(draw(st.booleans()))

    flow = flow_pb2.Flow(
        verdict=draw(st.sampled_from([0, 1, 2, 2, 3, 5, 300])),
        traffic_direction=draw(st.sampled_from([0, 1, 2])),
        node_name=draw(st.sampled_from(NODES)),
        node_labels=sorted(draw(st.sets(st.sampled_from(NODE_LABELS)))),
        source_names=draw(st.lists(st.sampled_from(FQDNS), max_size=2)),
        destination_names=draw(st.lists(st.sampled_from(FQDNS), max_size=2)),
        uuid=draw(st.sampled_from(UUIDS)),
    )
    flow.time.seconds = draw(st.integers(0, 5))
    if often():
        flow.drop_reason_desc = draw(st.sampled_from([0, 133, 181]))
    if often():
        spelled = st.sampled_from(ADDRESSES * 3 + ODD_ADDRESSES + [""])
        flow.IP.source, flow.IP.destination = draw(spelled), draw(spelled)
        flow.IP.ipVersion = flow_pb2.IPv6 if ":" in flow.IP.source + flow.IP.destination else flow_pb2.IPv4
        if draw(st.integers(0, 9)) == 0:
            flow.IP.ipVersion = draw(st.sampled_from([0, 1, 2]))
        flow.IP.encrypted = draw(st.booleans())
        flow.IP.source_xlated = draw(st.sampled_from([*ADDRESSES, "", ""]))
    _fill_l4(draw, flow)
    for end in (flow.source, flow.destination):
        if often():
            end.CopyFrom(_ends(draw))
    for service in (flow.source_service, flow.destination_service):
        if often():
            service.name, service.namespace = draw(st.sampled_from(NAMES)), draw(st.sampled_from(NAMESPACES))
    if often():
        flow.event_type.type = draw(st.sampled_from([0, 1, 4, 129]))
        flow.event_type.sub_type = draw(st.sampled_from([0, 3, 133]))
    if often():
        flow.is_reply.value = draw(st.booleans())
    if often():
        flow.interface.index, flow.interface.name = draw(st.sampled_from([0, 7])), draw(st.sampled_from(["", "eth0"]))
    if often():
        flow.trace_context.parent.trace_id = draw(st.sampled_from(TRACES))
        flow.ip_trace_id.trace_id = draw(st.sampled_from([0, 90210]))
    _fill_l7(draw, flow)
    return flow


def _fill_l4(draw: Draw, flow: flow_pb2.Flow) -> None:
    match draw(st.sampled_from(["", "TCP", "TCP", "UDP", "SCTP", "ICMPv4", "ICMPv6", "VRRP", "IGMP"])):
        case "TCP" | "UDP" | "SCTP" as name:
            layer = getattr(flow.l4, name)
            layer.source_port = draw(st.sampled_from([*PORTS, 65536 + 80]))
            layer.destination_port = draw(st.sampled_from(PORTS))
            layer.SetInParent()
            if name == "TCP" and draw(st.booleans()):
                flow.l4.TCP.flags.SetInParent()
                for flag in draw(st.sets(st.sampled_from(TcpFlag))):
                    setattr(flow.l4.TCP.flags, flag.name, True)
        case "":
            pass
        case name:
            getattr(flow.l4, name).type = draw(st.sampled_from([0, 8]))
            getattr(flow.l4, name).SetInParent()


def _fill_l7(draw: Draw, flow: flow_pb2.Flow) -> None:
    match draw(st.sampled_from(["", "dns", "http", "http", "kafka"])):
        case "dns":
            flow.l7.dns.query = draw(st.sampled_from(QUERIES))
            flow.l7.dns.SetInParent()
        case "http":
            flow.l7.http.code = draw(st.sampled_from([0, 200, 404, 7]))
            flow.l7.http.method = draw(st.sampled_from(["GET", "post", ""]))
            flow.l7.http.url = draw(st.sampled_from(URLS))
            flow.l7.http.headers.add(key="X-Id", value=draw(st.sampled_from(["1", "2"])))
        case "kafka":
            flow.l7.kafka.topic = "orders"


def _names(draw: Draw) -> str:
    form = draw(
        st.sampled_from(["{name}", "{namespace}/{name}", "{namespace}/", "/{name}", "/", "{namespace}/{name}/c"])
    )
    text = form.format(name=draw(st.sampled_from(NAMES[:-1])), namespace=draw(st.sampled_from(NAMESPACES[:-1])))
    return str(text)


def _flags(draw: Draw) -> flow_pb2.TCPFlags:
    return flow_pb2.TCPFlags(**{flag.name: True for flag in draw(st.sets(st.sampled_from(TcpFlag), max_size=2))})


def _event_type(draw: Draw) -> flow_pb2.EventTypeFilter:
    return flow_pb2.EventTypeFilter(
        type=draw(st.sampled_from([0, 1, 4, 129])),
        match_sub_type=draw(st.booleans()),
        sub_type=draw(st.sampled_from([0, 3, 133])),
    )


def _one_of(values: Sequence[Any]) -> Callable[[Draw], Any]:
    return lambda draw: draw(st.sampled_from(values))


SIDE_VALUES: Final[dict[str, Callable[[Draw], Any]]] = {
    "ip": _one_of([*ADDRESSES, *PREFIXES, "FD00::1", "fd00:0:0::1"]),
    "pod": _names,
    "fqdn": _one_of(PATTERNS),
    "label": _one_of(SELECTORS),
    "service": _names,
    "workload": lambda draw: flow_pb2.Workload(
        name=draw(st.sampled_from(NAMES)), kind=draw(st.sampled_from(["", "Job"]))
    ),
    "cluster_name": _one_of(["default", "east"]),
    "port": _one_of([str(port) for port in PORTS]),
    "identity": _one_of([0, 1, 2, 30001]),
}
VALUES: Final[dict[str, Callable[[Draw], Any]]] = {
    **{f"{side}_{name}": value for side in ("source", "destination") for name, value in SIDE_VALUES.items()},
    "uuid": _one_of(UUIDS),
    "source_ip_xlated": SIDE_VALUES["ip"],
    "traffic_direction": _one_of([0, 1, 2]),
    "verdict": _one_of([0, 1, 2, 3, 300]),
    "drop_reason_desc": _one_of([0, 133, 181]),
    "interface": lambda draw: flow_pb2.NetworkInterface(
        index=draw(st.sampled_from([0, 7])), name=draw(st.sampled_from(["", "eth0"]))
    ),
    "event_type": _event_type,
    "http_status_code": _one_of(["200", "4+", "40+", "5+"]),
    "protocol": _one_of(["icmp", "ICMPv4", "icmpv6", "tcp", "UDP", "sctp", "vrrp", "igmp", "dns", "Http", "kafka"]),
    "reply": _one_of([True, False]),
    "dns_query": _one_of(REGEXPS),
    "http_method": _one_of(["get", "POST", ""]),
    "http_path": _one_of(REGEXPS),
    "http_url": _one_of(REGEXPS),
    "http_header": lambda draw: flow_pb2.HTTPHeader(key="X-Id", value=draw(st.sampled_from(["1", "3"]))),
    "tcp_flags": _flags,
    "node_name": _one_of(NODE_PATTERNS),
    "node_labels": _one_of(SELECTORS),
    "ip_version": _one_of([0, 1, 2]),
    "trace_id": _one_of(TRACES),
    "ip_trace_id": _one_of([0, 90210]),
    "encrypted": _one_of([True, False]),
}
"""How to draw one value of each field of flow.FlowFilter."""


@st.composite
def filters(draw: Draw) -> flow_pb2.FlowFilter:
    """A valid filter with up to three fields."""
    chosen = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3, unique=True))
    fields: dict[str, Any] = {name: [VALUES[name](draw) for _ in range(draw(st.integers(1, 3)))] for name in chosen}
    if any(name.startswith("http_") for name in chosen) and "event_type" in chosen:
        fields["event_type"].append(flow_pb2.EventTypeFilter(type=129))
    return flow_pb2.FlowFilter(**fields)


def filter_lists() -> st.SearchStrategy[tuple[list[flow_pb2.FlowFilter], list[flow_pb2.FlowFilter]]]:
    """Whitelist and blacklist."""
    return st.tuples(st.lists(filters(), max_size=3), st.lists(filters(), max_size=2))
