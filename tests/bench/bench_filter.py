"""How many flows per second a predicate scans, on one core over a full ring.

A scan is one call of FlowPredicate.mask over 65,535 rows. `scan`: the predicate has seen the tables, as that of a
follower has. `first_scan`: a new predicate on tables that earlier requests have asked about. `very_first_scan`: nobody
has asked before. Compared with the same predicate asked flow by flow, as messages.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from model.encode import Encoder
from model.filters import compile_filters
from model.row import Rows
from model.tables import Tables
from proto.flow import flow_pb2
from tests.support.rows import make_endpoint, make_rows

FlowFilter = flow_pb2.FlowFilter

RING_FLOWS: Final = 65_535
REPEATS: Final = 9
WANTED: Final = 8
"""Number of the endpoint that the pod filter asks for."""


def cel(text: str) -> FlowFilter:
    return FlowFilter(experimental=FlowFilter.Experimental(cel_expression=[text]))


def pod() -> str:
    endpoint = make_endpoint(WANTED)
    return f"{endpoint.namespace}/{endpoint.pod_name}"


POD_AND_VERDICT: Final = [FlowFilter(source_pod=[pod()], verdict=["DROPPED"])]
LABEL: Final = [FlowFilter(source_label=["k8s:app.kubernetes.io/name in (app-01, app-02),!reserved:world"])]
THREE_ORED: Final = [
    FlowFilter(source_pod=["ns-08/"]),
    FlowFilter(destination_label=["app.kubernetes.io/name=app-03"]),
    FlowFilter(protocol=["udp"], destination_port=["53"]),
]

FIELDS: Final[dict[str, FlowFilter]] = {
    "uuid": FlowFilter(uuid=["01234567-89ab-8cde-8f00-000000000007"]),
    "event_type": FlowFilter(event_type=[flow_pb2.EventTypeFilter(type=4, match_sub_type=True)]),
    "verdict": FlowFilter(verdict=["DROPPED"]),
    "drop_reason_desc": FlowFilter(drop_reason_desc=["POLICY_DENIED"]),
    "reply": FlowFilter(reply=[False]),
    "encrypted": FlowFilter(encrypted=[True]),
    "source_identity": FlowFilter(source_identity=[20_003, 2]),
    "protocol": FlowFilter(protocol=["tcp", "dns"]),
    "source_ip": FlowFilter(source_ip=["10.244.1.0/24", "10.244.0.9", "fd00::/120"]),
    "source_ip_xlated": FlowFilter(source_ip_xlated=["10.0.0.0/8"]),
    "destination_pod": FlowFilter(destination_pod=["ns-01/", "/app-07"]),
    "source_workload": FlowFilter(source_workload=[flow_pb2.Workload(name="app-05", kind="Deployment")]),
    "destination_service": FlowFilter(destination_service=["ns-03/app"]),
    "source_fqdn": FlowFilter(source_fqdn=["*.example.org"]),
    "dns_query": FlowFilter(dns_query=[r"^app-0[1-5]\."]),
    "destination_label": FlowFilter(destination_label=["app.kubernetes.io/name=app-03", "!app.kubernetes.io/name"]),
    "node_labels": FlowFilter(node_labels=["kubernetes.io/arch=amd64"]),
    "destination_port": FlowFilter(destination_port=["443", "8080"]),
    "http_method": FlowFilter(http_method=["get"]),
    "http_path": FlowFilter(http_path=["^/items/1"]),
    "http_url": FlowFilter(http_url=["items"]),
    "http_header": FlowFilter(http_header=[flow_pb2.HTTPHeader(key="X-Request-Id", value="request-7")]),
    "http_status_code": FlowFilter(http_status_code=["5+"]),
    "tcp_flags": FlowFilter(tcp_flags=[flow_pb2.TCPFlags(SYN=True), flow_pb2.TCPFlags(FIN=True)]),
    "node_name": FlowFilter(node_name=["*/worker-*"]),
    "source_cluster_name": FlowFilter(source_cluster_name=["default"]),
    "ip_version": FlowFilter(ip_version=["IPv6"]),
    "trace_id": FlowFilter(trace_id=["0af7651916cd43dd8448eb211c80319c"]),
    "ip_trace_id": FlowFilter(ip_trace_id=[90210]),
    "traffic_direction": FlowFilter(traffic_direction=["EGRESS"]),
    "interface": FlowFilter(interface=[flow_pb2.NetworkInterface(name="lxc00000000000a")]),
    "cel_ports_and_verdict": cel("_flow.l4.TCP.destination_port == uint(443) && _flow.verdict == Verdict.DROPPED"),
    "cel_labels": cel("_flow.source.labels.exists(l, l.endsWith('app-03'))"),
    "cel_http": cel("_flow.l7.http.method == 'GET' && _flow.l7.http.url.contains('items')"),
}
"""One filter for each field, with values that some flows have."""


def run() -> dict[str, object]:
    """The figures."""
    few, many = ring(1_000), ring(10_000)
    rows, tables = few
    figures: dict[str, object] = {
        "flows_in_ring": RING_FLOWS,
        "pod_and_verdict_share_percent": 100 * float(compile_filters(POD_AND_VERDICT).mask(rows, tables).mean()),
    }
    for name, filters in (("pod_and_verdict", POD_AND_VERDICT), ("label", LABEL), ("three_ored", THREE_ORED)):
        figures[f"scan_{name}_flows_per_s"] = scan(filters, rows, tables)
        figures[f"first_scan_{name}_flows_per_s"] = first_scan(filters, rows, tables)
        figures[f"very_first_scan_{name}_flows_per_s"] = first_scan(filters, *ring(1_000), repeats=1)
        figures[f"speedup_over_messages_{name}"] = figures[f"scan_{name}_flows_per_s"] / by_message(filters, *few)  # type: ignore[operator]
    for name, (one_rows, one_tables) in (("1000", few), ("10000", many)):
        scans = {field: scan([one], one_rows, one_tables) for field, one in FIELDS.items()}
        slowest = min(scans, key=scans.__getitem__)
        figures[f"scan_by_field_{name}_endpoints_flows_per_s"] = {field: round(speed) for field, speed in scans.items()}
        figures[f"scan_slowest_field_{name}_endpoints"] = slowest
        figures[f"scan_slowest_field_{name}_endpoints_flows_per_s"] = scans[slowest]
    new = {field: first_scan([one], *many, repeats=3) for field, one in FIELDS.items()}
    figures["first_scan_by_field_10000_endpoints_flows_per_s"] = {field: round(speed) for field, speed in new.items()}
    return figures


def ring(endpoints: int) -> tuple[Rows, Tables]:
    """A full ring in which one flow in a hundred is a dropped one of the wanted pod."""
    rows, tables = make_rows(RING_FLOWS, endpoints=endpoints, connections=2 * endpoints)
    wanted = np.arange(0, RING_FLOWS, 100)
    rows["src"][wanted] = tables.endpoints.intern(make_endpoint(WANTED).SerializeToString(deterministic=True))
    rows["verdict"][wanted] = flow_pb2.DROPPED
    return rows, tables


def speed(call: Callable[[], object], count: int, repeats: int) -> float:
    """Flows per second, median."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return count / statistics.median(seconds)


def scan(filters: list[FlowFilter], rows: Rows, tables: Tables) -> float:
    predicate = compile_filters(filters)
    predicate.mask(rows, tables)
    return speed(lambda: predicate.mask(rows, tables), len(rows), REPEATS)


def first_scan(filters: list[FlowFilter], rows: Rows, tables: Tables, repeats: int = REPEATS) -> float:
    return speed(lambda: compile_filters(filters).mask(rows, tables), len(rows), repeats)


def by_message(filters: list[FlowFilter], rows: Rows, tables: Tables) -> float:
    flows = Encoder(tables).flows(rows[:2_000])
    predicate = compile_filters(filters)
    return speed(lambda: [predicate.matches(flow) for flow in flows], len(flows), 5)
