"""What must happen, held against what did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from connectivity.verdicts import (
    EGRESS_DENIED,
    OK,
    Attempt,
    Expectation,
    Result,
    client_problems,
    flow_problems,
)
from proto.flow import flow_pb2
from proto.flow.flow_pb2 import Flow

CLIENT, SERVER = "10.244.1.2", "10.244.1.3"
ATTEMPT = Attempt(
    exit_code=0,
    output="",
    protocol="tcp",
    client=frozenset({CLIENT}),
    peers=frozenset({SERVER}),
    name="",
    port=20001,
    started_ns=1_000,
)


def packet(flags: str, back: bool = False, **fields: Any) -> Flow:
    source, destination = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    flow = Flow(verdict=flow_pb2.FORWARDED, **fields)
    flow.time.FromNanoseconds(2_000)
    flow.IP.source, flow.IP.destination = source, destination
    ports = (8080, 20001) if back else (20001, 8080)
    flow.l4.TCP.source_port, flow.l4.TCP.destination_port = ports
    for flag in flags.split():
        setattr(flow.l4.TCP.flags, flag, True)
    return flow


WHOLE = [packet("SYN"), packet("SYN ACK", back=True), packet("ACK FIN")]


def http(verdict: flow_pb2.Verdict) -> Flow:
    flow = Flow(verdict=verdict)
    flow.time.FromNanoseconds(2_000)
    flow.IP.source, flow.IP.destination = CLIENT, SERVER
    flow.l7.type = flow_pb2.REQUEST
    flow.l7.http.method = "GET"
    return flow


def test_a_whole_connection_is_what_an_allowed_request_needs() -> None:
    assert flow_problems(OK, ATTEMPT, WHOLE) == []


@pytest.mark.parametrize(("missing", "problem"), [(0, "no SYN was"), (1, "no SYN, ACK"), (2, "no FIN or RST")])
def test_a_part_that_is_missing_is_named(missing: int, problem: str) -> None:
    (found,) = flow_problems(OK, ATTEMPT, [*WHOLE[:missing], *WHOLE[missing + 1 :]])
    assert problem in found


def test_flows_from_before_do_not_count() -> None:
    assert len(flow_problems(OK, replace(ATTEMPT, started_ns=3_000), WHOLE)) == 3


def test_a_drop_of_an_allowed_request_is_a_problem() -> None:
    drop = packet("ACK", drop_reason_desc=flow_pb2.POLICY_DENIED)
    drop.verdict = flow_pb2.DROPPED
    (found,) = flow_problems(OK, ATTEMPT, [*WHOLE, drop])
    assert "POLICY_DENIED" in found


def test_a_drop_of_somebody_else_who_asks_the_same_peer_is_none_of_this() -> None:
    behind_a_node_port = replace(ATTEMPT, port_kept=False)
    drop = packet("SYN", drop_reason_desc=flow_pb2.POLICY_DENIED)
    drop.verdict = flow_pb2.DROPPED
    drop.IP.source = "192.0.2.2"
    assert flow_problems(OK, behind_a_node_port, [*WHOLE, drop]) == []
    drop.IP.source = CLIENT
    assert len(flow_problems(OK, behind_a_node_port, [*WHOLE, drop])) == 1


def test_a_drop_needs_its_reason_and_its_side() -> None:
    drop = packet("SYN", drop_reason_desc=flow_pb2.POLICY_DENIED, traffic_direction=flow_pb2.INGRESS)
    drop.verdict = flow_pb2.DROPPED
    assert flow_problems(replace(EGRESS_DENIED, at="INGRESS"), ATTEMPT, [drop]) == []
    assert "EGRESS" in flow_problems(EGRESS_DENIED, ATTEMPT, [drop])[0]
    assert "POLICY_DENY " in flow_problems(Expectation(result=Result.DROPPED, reason=181), ATTEMPT, [drop])[0]
    assert flow_problems(EGRESS_DENIED, ATTEMPT, WHOLE) == ["no flow tells of the drop"]


def test_a_balancer_that_is_kept_from_its_backend_is_seen_by_the_drop() -> None:
    """Its connections have ports of their own."""
    expected = Expectation(result=Result.NOT_BALANCED, reason=181)
    balanced = replace(ATTEMPT, port=1, port_kept=False, exit_code=22)
    drop = packet("SYN", drop_reason_desc=flow_pb2.POLICY_DENY)
    drop.verdict = flow_pb2.DROPPED
    assert flow_problems(expected, balanced, [drop]) == []
    assert flow_problems(expected, balanced, WHOLE) == ["no flow tells of the drop"]


def test_a_proxy_must_have_said_what_is_expected() -> None:
    allowed, denied = http(flow_pb2.FORWARDED), http(flow_pb2.DROPPED)
    expected = Expectation(result=Result.HTTP_DENIED, http=True)
    assert flow_problems(expected, ATTEMPT, [*WHOLE, denied]) == []
    assert flow_problems(expected, ATTEMPT, [*WHOLE, allowed]) == ["no http-request DROPPED was observed"]
    assert flow_problems(Expectation(http=True), ATTEMPT, [*WHOLE, allowed]) == []


def test_names_must_have_gone_through_the_proxy() -> None:
    named = replace(ATTEMPT, name="one.example.")
    expected = Expectation(dns=True)
    assert len(flow_problems(expected, named, WHOLE)) == 2
    question, answer = http(flow_pb2.FORWARDED), http(flow_pb2.FORWARDED)
    for flow, kind in ((question, flow_pb2.REQUEST), (answer, flow_pb2.RESPONSE)):
        flow.l7.Clear()
        flow.l7.type, flow.l7.dns.query = kind, "one.example."
    assert flow_problems(expected, named, [*WHOLE, question, answer]) == []


@pytest.mark.parametrize(
    ("result", "code", "fits"),
    [(Result.OK, 0, True), (Result.OK, 28, False), (Result.DROPPED, 28, True), (Result.DROPPED, 0, False),
     (Result.HTTP_DENIED, 22, True), (Result.NAME_REFUSED, 6, True), (Result.TLS_DENIED, 35, True),
     (Result.TLS_DENIED, 0, False), (Result.NOT_BALANCED, 22, True), (Result.NOT_BALANCED, 0, False)],
)  # fmt: skip
def test_exit_codes_of_clients(result: Result, code: int, fits: bool) -> None:
    assert (client_problems(Expectation(result=result), replace(ATTEMPT, exit_code=code)) == []) is fits


def test_peers_that_have_to_prove_themselves_may_lose_packets_first_and_nothing_else() -> None:
    proved = Expectation(authenticated=True)
    waiting = packet("SYN", drop_reason_desc=flow_pb2.AUTH_REQUIRED)
    waiting.verdict = flow_pb2.DROPPED
    judged = packet("SYN", auth_type=flow_pb2.SPIRE)
    assert flow_problems(proved, ATTEMPT, [waiting, judged, *WHOLE]) == []
    assert flow_problems(OK, ATTEMPT, [waiting, judged, *WHOLE])
    assert flow_problems(proved, ATTEMPT, WHOLE) == ["no policy verdict tells that the peers were authenticated"]
    denied = packet("SYN", drop_reason_desc=flow_pb2.POLICY_DENIED)
    denied.verdict = flow_pb2.DROPPED
    assert flow_problems(proved, ATTEMPT, [denied, judged, *WHOLE])
