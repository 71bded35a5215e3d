"""L7 records into rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decode import Decoded, Decoder, Redaction
from model.knowledge import Knowledge
from model.row import Kind
from model.tables import Node, Tables
from proto.flow import flow_pb2


def new_decoder(**options: Any) -> tuple[Decoder, Tables]:
    tables = Tables()
    return Decoder(tables, Knowledge(), tables.nodes.intern(Node("worker")), **options), tables


def http(kind: str = "Request", timestamp: str = "2026-01-15T10:00:00Z", **fields: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "timestamp": timestamp,
        "observation_point": "Ingress",
        "source_endpoint": {"ipv4": "10.0.0.1", "port": 40000, "identity": 7, "labels": ["k8s:app=a"]},
        "destination_endpoint": {"ipv4": "10.0.0.2", "port": 80, "id": 5, "identity": 8},
        "ip_version": "ipv4",
        "verdict": "Forwarded",
        "transport_protocol": 6,
        "http": {"method": "GET", "url": "http://b/", "protocol": "HTTP/1.1", "headers": {}} | fields,
    }


def parts(decoded: Decoded, tables: Tables, at: int = -1) -> flow_pb2.Flow:
    return flow_pb2.Flow.FromString(tables.aux[int(decoded.rows["aux"][at])] or b"")


def decode(*records: Any, **options: Any) -> flow_pb2.Flow:
    decoder, tables = new_decoder(**options)
    decoded = decoder.decode_accesslog(records, range(len(records)))
    assert not decoded.errors
    return parts(decoded, tables)


def test_a_response_knows_how_long_it_took() -> None:
    headers = {"X-Request-Id": ["r1"]}
    flow = decode(
        http(headers=headers),
        http("Response", "2026-01-15T10:00:01.5Z", headers=headers, code=200),
    )
    assert flow.l7.latency_ns == 1_500_000_000
    assert flow.Summary == "HTTP/1.1 200 1500ms (GET http://b/)"


def test_of_too_many_waiting_requests_the_oldest_are_forgotten() -> None:
    decoder, tables = new_decoder()
    requests = [http(headers={"X-Request-Id": [f"r{n}"]}) for n in range(10_001)]
    decoder.decode_accesslog(requests, [0] * len(requests))
    answers = [http("Response", "2026-01-15T10:00:01Z", headers={"X-Request-Id": [name]}) for name in ("r0", "r1")]
    decoded = decoder.decode_accesslog(answers, [0, 0])
    assert [parts(decoded, tables, at).l7.latency_ns for at in (0, 1)] == [0, 1_000_000_000]


@pytest.mark.parametrize(
    ("header", "trace_id"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", ""),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", ""),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", ""),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", ""),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", ""),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", ""),
        ("nonsense", ""),
    ],
)
def test_a_trace_id_is_taken_from_valid_headers_only(header: str, trace_id: str) -> None:
    assert decode(http(headers={"Traceparent": [header]})).trace_context.parent.trace_id == trace_id


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://bob:secret@host/login?next=/#top", "http://bob:HUBBLE_REDACTED@host/login?next=/#top"),
        ("http://bob:@host", "http://bob:HUBBLE_REDACTED@host"),
        ("http://bob@host/", "http://bob@host/"),
        ("http://host/a:b@c", "http://host/a:b@c"),
        ("http://a:b:c@d@host/", "http://a:HUBBLE_REDACTED@host/"),
        ("/mail:me@there", "/mail:me@there"),
    ],
)
def test_passwords_in_urls_are_never_shown(url: str, shown: str) -> None:
    flow = decode(http(url=url))
    assert flow.l7.http.url == shown
    assert flow.Summary == f"HTTP/1.1 GET {shown}"


def test_query_and_headers_are_hidden_on_request() -> None:
    record = http(url="http://b/x?token=1#frag", headers={"Authorization": ["Bearer x"], "Accept": ["*/*"]})
    everything = decode(record, redaction=Redaction(query=True, headers=True))
    assert everything.l7.http.url == "http://b/x"
    assert {header.value for header in everything.l7.http.headers} == {"HUBBLE_REDACTED"}
    denied = decode(record, redaction=Redaction(headers=True, deny=frozenset({"authorization"})))
    assert [header.value for header in denied.l7.http.headers] == ["*/*", "HUBBLE_REDACTED"]
    allowed = decode(record, redaction=Redaction(headers=True, allow=frozenset({"authorization"})))
    assert [header.value for header in allowed.l7.http.headers] == ["HUBBLE_REDACTED", "Bearer x"]


def test_another_spelling_of_an_address_is_shown_as_told() -> None:
    record = http() | {"ip_version": "ipv6"}
    record["source_endpoint"] = {"ipv6": "fd00:0::1", "port": 1}
    record["destination_endpoint"] = {"ipv6": "fd00::2", "port": 2}
    flow = decode(record)
    assert (flow.IP.source, flow.IP.destination) == ("fd00:0::1", "fd00::2")


def test_half_a_surrogate_pair_does_not_break_a_flow() -> None:
    assert decode(http(method="\ud800")).l7.http.method == "?"


def test_a_protocol_without_a_message_is_shown_by_its_fields() -> None:
    record = http() | {"http": None, "l7": {"proto": "memcached", "fields": {"b": "2", "a": "1"}}}
    assert decode(record).Summary == "memcached Fields: map[a:1 b:2]"


def test_labels_of_an_address_may_change() -> None:
    decoder, tables = new_decoder()
    records = [http(), http()]
    records[1]["source_endpoint"] = records[1]["source_endpoint"] | {"labels": ["k8s:app=new"]}
    rows = decoder.decode_accesslog(records, [0, 0]).rows
    ends = [flow_pb2.Endpoint.FromString(tables.endpoints[index] or b"") for index in rows["src"].tolist()]
    assert [list(end.labels) for end in ends] == [["k8s:app=a"], ["k8s:app=new"]]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(http())), JSON, st.sampled_from(["method", "url", "headers", "code"]), JSON)
def test_a_record_with_anything_in_its_fields_is_a_flow_or_an_error(
    field: str, value: Any, inner: str, inner_value: Any
) -> None:
    record = http("Response", **{inner: inner_value}) | {field: value}
    decoder, tables = new_decoder()
    decoded = decoder.decode_accesslog([record, value], [1, 2])
    assert len(decoded.rows) + sum(decoded.errors.values()) == 2
    for at in range(len(decoded.rows)):
        parts(decoded, tables, at)


def dns_answer(**more: Any) -> dict[str, Any]:
    record = http("Response") | {"dns": {"Query": "a.", "IPs": ["192.0.2.1"], "TTL": 3, "QTypes": [1]}} | more
    del record["http"]
    return record


def test_a_proxy_may_tell_the_latency_of_a_dns_answer() -> None:
    assert decode(dns_answer(latency_ns=1_500_000)).l7.latency_ns == 1_500_000
    assert decode(dns_answer()).l7.latency_ns == 0


def test_what_a_proxy_could_not_send_is_a_gap_in_the_stream() -> None:
    decoder, tables = new_decoder()
    decoded = decoder.decode_accesslog([http(), {"type": "Lost", "count": 7}, {"type": "Lost"}], [1, 2, 3])
    assert decoded.errors == {"decode_error": 1}
    assert decoded.rows["kind"].tolist() == [Kind.FLOW, Kind.LOST]
    event = flow_pb2.LostEvent.FromString(tables.aux[int(decoded.rows["aux"][1])] or b"")
    assert (event.num_events_lost, event.source) == (7, flow_pb2.OBSERVER_EVENTS_QUEUE)
