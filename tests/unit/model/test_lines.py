"""Envoy's lines into rows: they say what the same record says in JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decode import Decoded, Decoder, Redaction
from model.decode.lines import FIELDS, SEPARATOR, is_line, join_lines, read_lines
from model.knowledge import Knowledge
from model.row import ROW
from model.tables import Node, Tables
from proto.flow import flow_pb2
from tests.support.lines import record_of

START = 1_800_000_000_000_000_000
STATE: dict[str, Any] = {
    "local_endpoints": [
        {
            "id": 5,
            "ipv4": "10.0.0.1",
            "identity": 7,
            "namespace": "ns",
            "pod": "a",
            "dns": [{"ip": "10.0.0.2", "names": ["b."]}],
        }
    ],
    "ipcache": [{"prefix": "10.0.0.2/32", "identity": 9}],
    "services": [
        {"ip": "10.0.0.2", "port": 80, "proto": "TCP", "namespace": "ns", "name": "b"},
        {"ip": "10.0.0.1", "port": 40000, "proto": "TCP", "namespace": "ns", "name": "a"},
    ],
}


def line(**fields: Any) -> bytes:
    usual = {
        "time": START + 3_500_000, "began": START, "client_port": 40000, "request_id": "r1", "url": "http://b/",
        "type": "Request", "verdict": "Forwarded", "observation_point": "Egress", "protocol": "HTTP/1.1",
        "client": "10.0.0.1", "server": "10.0.0.2", "server_port": 80, "method": "GET",
    }  # fmt: skip
    told = usual | ({"code": 200} if fields.get("type") == "Response" else {}) | fields
    return SEPARATOR.join(str(told.get(name, "")) for name in FIELDS).encode("utf-8", "surrogateescape")


class Reader:
    def __init__(self, redaction: Redaction | None = None) -> None:
        self.tables = Tables()
        node = self.tables.nodes.intern(Node("n"))
        self.decoder = Decoder(self.tables, Knowledge.from_json(STATE), node, redaction=redaction)

    def read(self, *texts: bytes) -> Decoded:
        lines = read_lines(texts)
        return self.decoder.decode_lines(lines, lines.times_ns)

    def flows(self, decoded: Decoded) -> list[tuple[Any, ...]]:
        """All that rows say, whatever the indices and the form of numbers in aux."""
        told = []
        for row in decoded.rows:
            fields = {name: row[name].tolist() for name in ROW.names or () if name != "aux"}
            for name, table in (
                ("src", "endpoints"),
                ("dst", "endpoints"),
                ("src_names", "names"),
                ("dst_names", "names"),
                ("src_svc", "services"),
                ("dst_svc", "services"),
            ):
                fields[name] = self.tables.table(table)[fields[name]]
            told.append((fields, flow_pb2.Flow.FromString(self.tables.aux[int(row["aux"])] or b"")))
        return told


def test_a_request_and_its_response() -> None:
    reader = Reader()
    (asked, asked_aux), (answered, answered_aux) = reader.flows(
        reader.read(line(time=START), line(type="Response", user_agent=""))
    )
    assert (asked["ts_ns"], asked["sport"], asked["dport"]) == (START, 40000, 80)
    assert (answered["ts_ns"], answered["sport"], answered["dport"]) == (START + 3_500_000, 80, 40000)
    assert asked_aux.Summary == "HTTP/1.1 GET http://b/"
    assert answered_aux.Summary == "HTTP/1.1 200 3ms (GET http://b/)"
    assert answered_aux.l7.latency_ns == 3_500_000
    assert [(one.key, one.value) for one in answered_aux.l7.http.headers] == [("X-Request-Id", "r1")]
    assert asked["dst_names"] == ("b",)


def test_requests_that_chose_the_same_id_have_latencies_of_their_own() -> None:
    reader = Reader()
    answers = [line(type="Response", began=START + ms * 1_000_000, time=START + 9_000_000) for ms in (1, 5)]
    flows = reader.flows(reader.read(*answers))
    assert [aux.l7.latency_ns for _, aux in flows] == [8_000_000, 4_000_000]


def test_a_trace_is_known_of_both() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    reader = Reader()
    flows = reader.flows(reader.read(line(traceparent=trace), line(type="Response", traceparent=trace)))
    assert {aux.trace_context.parent.trace_id for _, aux in flows} == {trace[3:35]}


def test_a_refused_connection_is_about_no_request() -> None:
    told = line(type="Connection", verdict="Denied", url="", method="", protocol="", request_id="")
    reader = Reader()
    [(refused, aux)] = reader.flows(reader.read(told))
    assert (refused["verdict"], refused["sport"], refused["dport"]) == (flow_pb2.DROPPED, 40000, 80)
    assert aux == flow_pb2.Flow(l7=flow_pb2.Layer7(type=flow_pb2.REQUEST))


SEPARATOR_BYTE = SEPARATOR.encode()


@pytest.mark.parametrize(
    "bad",
    [
        line(time="x"),
        line(time=-1),
        line(time=2**70),
        line(client_port=70000),
        line(server_port=70000),
        line(server_port="x"),
        line(type="Response", code="x"),
        line(type="Sample"),
        line() + SEPARATOR_BYTE + b"more",
        line().rpartition(SEPARATOR_BYTE)[0],
        SEPARATOR_BYTE,
    ],
)
def test_what_cannot_be_read_is_counted_and_the_rest_is_read(bad: bytes) -> None:
    reader = Reader()
    lines = read_lines([line(), bad, line()])
    decoded = reader.decoder.decode_lines(lines, lines.times_ns)
    assert len(decoded.rows) == 2
    assert 3 - len(lines) + sum(decoded.errors.values()) == 1


def test_nothing_is_read_from_nothing() -> None:
    assert len(Reader().read().rows) == 0


def test_joined_and_taken_lines_are_the_same_lines() -> None:
    reader = Reader()
    texts = [line(request_id=f"r{number}", time=START + number) for number in range(6)]
    parts = [read_lines(texts[:2]), read_lines(texts[2:])]
    whole = join_lines(parts).take(np.array([5, 0]))
    decoded = reader.decoder.decode_lines(whole, whole.times_ns)
    assert reader.flows(decoded) == reader.flows(reader.read(texts[5], texts[0]))


TEXTS = st.text(
    st.characters(exclude_characters=SEPARATOR + "\r\n", exclude_categories=["Cs"])
    | st.integers(0xDC80, 0xDCFF).map(chr),  # bytes that are no UTF-8
    max_size=8,
)
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "192.0.2.1", "fd00::1", "fd00:0::1", ""])
MADE = st.fixed_dictionaries(
    {
        "time": st.integers(START, START + 10**10),
        "began": st.integers(START - 10**10, START + 10**9),
        "client_port": st.sampled_from([0, 80, 40000, 65535]),
        "request_id": TEXTS | st.just("a" * 200),
        "url": TEXTS | st.just("http://u:secret@h/?token=1") | st.just("http://h/" + "x" * 300),
        "verdict": st.sampled_from(["Forwarded", "Denied", "odd"]),
        "observation_point": st.sampled_from(["Egress", "Ingress", ""]),
        "protocol": st.sampled_from(["HTTP/1.1", "HTTP/2", ""]),
        "client": ADDRESSES,
        "server": ADDRESSES,
        "server_port": st.sampled_from([0, 80, 8080]),
        "method": st.sampled_from(["GET", "%s{}%d", ""]),
        "user_agent": TEXTS,
        "traceparent": TEXTS | st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    }
)
HIDES = st.sampled_from(
    [None, Redaction(query=True, headers=True), Redaction(headers=True, deny=frozenset({"user-agent"}))]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(MADE, st.sampled_from([None, 200, 503, 0])), max_size=6), HIDES)
def test_lines_say_what_the_same_records_say_in_json(
    told: list[tuple[dict[str, Any], int | None]], redaction: Redaction | None
) -> None:
    texts = [
        line(**fields)
        if code is None
        else line(
            **fields | {"request_id": fields["request_id"] or "r", "type": "Response", "user_agent": "", "code": code}
        )
        for fields, code in told
    ]
    reader = Reader(redaction)
    decoded = reader.read(*texts)
    assert not decoded.errors
    for flow, text in zip(reader.flows(decoded), texts, strict=True):
        records = [record_of(text)]
        if records[0]["type"] == "Response":
            # In JSON, the request tells when it began and which trace it belongs to.
            own = dict(zip(FIELDS, text.decode("utf-8", "replace").split(SEPARATOR), strict=True))
            asked = {name: own[name] for name in ("request_id", "traceparent")}
            records.insert(0, record_of(line(time=own["began"], **asked)))
        other = Reader(redaction)
        wanted = other.decoder.decode_accesslog(records, [flow[0]["ts_ns"]] * len(records))
        assert flow == other.flows(wanted)[-1]


@settings(max_examples=300)
@given(
    st.lists(
        st.binary(max_size=60) | st.lists(st.binary(max_size=6), max_size=20).map(SEPARATOR.encode().join), max_size=4
    )
)
def test_no_bytes_stop_it(texts: list[bytes]) -> None:
    reader = Reader()
    chosen = [one for one in texts if is_line(one)]
    lines = read_lines(chosen)
    decoded = reader.decoder.decode_lines(lines, lines.times_ns)
    assert len(decoded.rows) + sum(decoded.errors.values()) == len(lines) <= len(chosen)
    reader.flows(decoded)
