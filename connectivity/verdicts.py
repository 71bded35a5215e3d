"""What must happen to a request, held against what its client got and what was observed.

In:        an Expectation, an Attempt, the flows of that time.
Out:       problems in words; none means that both agree with the expectation.
Elsewhere: suite/ decides what is expected; actions.py makes attempts; telescope.py collects flows. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from proto.flow import flow_pb2
from proto.flow.flow_pb2 import Flow

DEFAULT_DENY: Final = 133
POLICY_DENY: Final = 181
AUTH_REQUIRED: Final = 189

CURL_NO_NAME: Final = 6
CURL_REFUSED: Final = 7
CURL_HTTP_ERROR: Final = 22
CURL_TIMEOUT: Final = 28
CURL_TLS_FAILED: Final = 35
CURL_RECEIVE_FAILED: Final = 56


class Result(Enum):
    """How a request may end, and the exit codes by which its client tells."""

    OK = (0,)
    DROPPED = (CURL_TIMEOUT, CURL_REFUSED, 1)
    """No answer. 1 is how ping says so."""
    HTTP_DENIED = (CURL_HTTP_ERROR,)
    """The proxy said no."""
    NAME_REFUSED = (CURL_NO_NAME,)
    """The name was not resolved."""
    TLS_DENIED = (CURL_TLS_FAILED, CURL_RECEIVE_FAILED)
    """The proxy ended the connection when it had read the server's name."""
    NOT_BALANCED = (CURL_HTTP_ERROR, CURL_TIMEOUT)
    """A load balancer answered that it does not reach its backend, or was still trying: what it sent was dropped."""

    @property
    def codes(self) -> tuple[int, ...]:
        """Exit codes of curl or ping."""
        codes: tuple[int, ...] = self.value
        return codes


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What must happen."""

    result: Result = Result.OK
    reason: int = 0
    """Of a drop (spec/drop_reasons.json); 0: any."""
    at: str = ""
    """EGRESS or INGRESS: which side's policy drops; empty: any."""
    http: bool = False
    """A proxy sees the request, so there are http flows."""
    authenticated: bool = False
    """Both sides prove who they are first; packets that come before are dropped, and sent again."""
    dns: bool = False
    """The name goes through the DNS proxy, so there are dns flows."""


OK: Final = Expectation()
EGRESS_DENIED: Final = Expectation(result=Result.DROPPED, reason=DEFAULT_DENY, at="EGRESS")
INGRESS_DENIED: Final = Expectation(result=Result.DROPPED, reason=DEFAULT_DENY, at="INGRESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a client did and got."""

    exit_code: int
    output: str
    protocol: str
    """tcp or icmp."""
    client: frozenset[str]
    """Addresses of the client."""
    peers: frozenset[str]
    """Addresses of who is behind the target; empty: not known before."""
    name: str
    """What had to be resolved; empty: an address was given."""
    port: int
    """Of the client, no other attempt has it; 0 with ICMP."""
    started_ns: int
    port_kept: bool = True
    """Whether packets have the client's port all the way: not behind source translation or a proxy that answers."""


def client_problems(expected: Expectation, attempt: Attempt) -> list[str]:
    """What the client got, other than expected."""
    if attempt.exit_code in expected.result.codes:
        return []
    wanted = " or ".join(map(str, expected.result.codes))
    said = f": {attempt.output}" if attempt.output else ""
    return [f"the client ended with {attempt.exit_code} instead of {wanted} ({expected.result.name}){said}"]


def flow_problems(expected: Expectation, attempt: Attempt, flows: Iterable[Flow]) -> list[str]:
    """What the flows lack, or show and must not, for this attempt."""
    around = [flow for flow in flows if flow.time.ToNanoseconds() >= attempt.started_ns]
    problems = _dns_problems(expected, attempt, around) if expected.dns and attempt.name else []
    if expected.result is Result.NAME_REFUSED:
        return problems
    mine = [flow for flow in around if _belongs(flow, attempt)]
    if expected.result in (Result.DROPPED, Result.NOT_BALANCED):
        return problems + _drop_problems(expected, mine)
    dropped = [flow for flow in mine if flow.verdict == flow_pb2.DROPPED and _is_surely_its(flow, attempt)]
    if expected.authenticated:
        dropped = [flow for flow in dropped if flow.drop_reason_desc != AUTH_REQUIRED]
        problems += _proof_problems(mine)
    if dropped:
        problems.append(f"dropped, which must not be: {_drop_text(dropped[0])}")
    problems += _tcp_problems(attempt, mine) if attempt.protocol == "tcp" else _echo_problems(attempt, mine)
    return problems + (_http_problems(expected, attempt, around) if expected.http else [])


def _belongs(flow: Flow, attempt: Attempt) -> bool:
    if flow.HasField("l7"):
        return False
    source, destination = flow.IP.source, flow.IP.destination
    if attempt.protocol == "icmp":
        there = source in attempt.client and destination in attempt.peers
        # The other side may be pinging, too.
        back = flow.is_reply.value and source in attempt.peers and destination in attempt.client
        return (flow.l4.HasField("ICMPv4") or flow.l4.HasField("ICMPv6")) and (there or back)
    tcp = flow.l4.TCP
    if attempt.port_kept:
        return attempt.port in (tcp.source_port, tcp.destination_port)
    return flow.l4.HasField("TCP") and bool({source, destination} & attempt.peers)


def _is_surely_its(flow: Flow, attempt: Attempt) -> bool:
    """Whether nobody else can have sent it: others ask the same peers at the same time."""
    return attempt.port_kept or bool({flow.IP.source, flow.IP.destination} & attempt.client)


def _dns_problems(expected: Expectation, attempt: Attempt, flows: Sequence[Flow]) -> list[str]:
    about = [flow for flow in flows if flow.l7.dns.query.startswith(attempt.name.rstrip(".") + ".")]
    asked = [
        flow for flow in about if flow.l7.type == flow_pb2.REQUEST and flow.IP.source in attempt.client
    ]  # fmt: skip
    refused = expected.result is Result.NAME_REFUSED
    wanted = flow_pb2.DROPPED if refused else flow_pb2.FORWARDED
    problems = []
    if not any(flow.verdict == wanted for flow in asked):
        problems.append(f"no dns-request {flow_pb2.Verdict.Name(wanted)} for {attempt.name}")
    if not refused and not any(flow.l7.type == flow_pb2.RESPONSE for flow in about):
        problems.append(f"no dns-response for {attempt.name}")
    return problems


def _drop_problems(expected: Expectation, flows: Sequence[Flow]) -> list[str]:
    drops = [flow for flow in flows if flow.verdict == flow_pb2.DROPPED]
    if not drops:
        return ["no flow tells of the drop"]
    fitting = [
        flow
        for flow in drops
        if (not expected.reason or flow.drop_reason_desc == expected.reason)
        and (not expected.at or flow_pb2.TrafficDirection.Name(flow.traffic_direction) in (expected.at, _UNKNOWN))
    ]
    if fitting:
        return []
    wanted = flow_pb2.DropReason.Name(expected.reason) if expected.reason else "a drop"
    return [f"expected {wanted} at {expected.at or 'either side'}, seen {_drop_text(drops[0])}"]


def _proof_problems(flows: Sequence[Flow]) -> list[str]:
    proofs = (flow for flow in flows if flow.auth_type == flow_pb2.SPIRE and flow.verdict == flow_pb2.FORWARDED)
    return [] if any(proofs) else ["no policy verdict tells that the peers were authenticated"]


_UNKNOWN: Final = "TRAFFIC_DIRECTION_UNKNOWN"


def _drop_text(flow: Flow) -> str:
    direction = flow_pb2.TrafficDirection.Name(flow.traffic_direction)
    reason = flow_pb2.DropReason.Name(flow.drop_reason_desc)
    return f"{reason} at {direction}, {flow.IP.source} -> {flow.IP.destination}"


def _tcp_problems(attempt: Attempt, flows: Sequence[Flow]) -> list[str]:
    problems = []
    if not any(_is_syn(flow) for flow in flows):
        problems.append("no SYN was observed")
    if not any(_tells_of_answer(flow, attempt) for flow in flows):
        problems.append("no SYN, ACK came back")
    if attempt.port_kept and not any(flow.l4.TCP.flags.FIN or flow.l4.TCP.flags.RST for flow in flows):
        problems.append("no FIN or RST was observed")
    return problems


def _tells_of_answer(flow: Flow, attempt: Attempt) -> bool:
    """A SYN, ACK; or what only a client sends that got one: answers of a node's proxy to the outside are not told."""
    tcp = flow.l4.TCP
    return tcp.flags.ACK and (tcp.flags.SYN or (not attempt.port_kept and tcp.source_port == attempt.port))


def _is_syn(flow: Flow) -> bool:
    return flow.l4.TCP.flags.SYN and not flow.l4.TCP.flags.ACK


def _echo_problems(attempt: Attempt, flows: Sequence[Flow]) -> list[str]:
    problems = []
    if not any(flow.IP.source in attempt.client for flow in flows):
        problems.append("no echo request was observed")
    if not any(flow.IP.destination in attempt.client for flow in flows):
        problems.append("no echo reply was observed")
    return problems


def _http_problems(expected: Expectation, attempt: Attempt, flows: Sequence[Flow]) -> list[str]:
    denied = expected.result is Result.HTTP_DENIED
    wanted = flow_pb2.DROPPED if denied else flow_pb2.FORWARDED
    requests = [flow for flow in flows if flow.l7.HasField("http") and flow.l7.type == flow_pb2.REQUEST]
    mine = [flow for flow in requests if flow.IP.source in attempt.client or flow.IP.destination in attempt.peers]
    if any(flow.verdict == wanted for flow in mine):
        return []
    return [f"no http-request {flow_pb2.Verdict.Name(wanted)} was observed"]
