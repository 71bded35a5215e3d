"""Why a packet was dropped, in words, and what would have let it through.

In:        the hub, a row and its flow.
Out:       JSON-ready: the reason in words, who decided, a rule that would allow it, when the pair last worked.
Elsewhere: remedy.py writes the rule; story.py shows it; findings.py looks at many flows.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from model.row import Kind, Reply, Rows
from model.vocabulary import DROP_REASONS
from proto.flow import flow_pb2
from ui.hub import Hub
from ui.remedy import remedy
from ui.rollup import arrow_keys

DENIED: Final = 133
DENIED_BY_RULE: Final = 181
CHUNK: Final = 16_384

WORDS: Final[dict[int, str]] = {
    132: "The packet's source address is not the one that its sender was given: it is misconfigured, or spoofing.",
    133: "Policies select this endpoint, and none of them allows this connection; all else is refused.",
    136: "The packet is larger than the path allows and must not be fragmented.",
    137: "The protocol above IP is not one that connections can be tracked for.",
    140: "A part of the datapath program is missing: the endpoint was being regenerated, or loading failed.",
    151: "The address belongs to no endpoint any more, or there is no route to it.",
    152: "The address belongs to this node, but no endpoint here has it.",
    155: "The table of connections is full: raise its size, or look for what opens so many.",
    158: "The service has no backend that is ready to take the connection.",
    166: "The frame is neither IPv4, IPv6 nor ARP.",
    169: "The kernel's routing table has no way to the destination.",
    181: "A policy forbids this connection expressly.",
    189: "The connection must be authenticated first, and is not.",
    195: "The endpoint was not ready yet when the packet came.",
}
"""What the common reasons mean to a person; others have the words of the vocabulary."""

REQUEST_DENIED: Final = (
    "The connection was let through, but not this request: a policy names the requests that may pass here "
    "(method, path, name, ...), and this is none of them. The proxy of the node refused it."
)

TO_ENDPOINT: Final = 101


def why(hub: Hub, row: Rows, flow: flow_pb2.Flow) -> dict[str, Any] | None:
    """None for a flow that was not refused."""
    if flow.verdict not in (flow_pb2.DROPPED, flow_pb2.ERROR):
        return None
    reason = int(flow.drop_reason_desc)
    of_request = flow.Type == flow_pb2.L7
    ingress = flow.traffic_direction == flow_pb2.INGRESS
    deciders = [*flow.ingress_denied_by, *flow.egress_denied_by]
    denied = reason in (DENIED, DENIED_BY_RULE)
    name = DROP_REASONS.get(reason, "")
    return {
        "reason": "Request denied" if of_request else name or flow_pb2.DropReason.Name(flow.drop_reason_desc),
        "words": REQUEST_DENIED
        if of_request
        else WORDS.get(reason, f"The datapath says: {name or 'no reason given'}."),
        "where": f"{'On the way into' if ingress else 'On the way out of'} "
        f"{_name(flow.destination if ingress else flow.source)}, seen on {flow.node_name or 'an unnamed node'}.",
        "policies": [_policy(one) for one in deciders],
        "verdict": (
            ""
            if not denied
            else "These policies decided."
            if deciders
            else "No rule allows it; the default is to refuse."
        ),
        "rule": remedy(flow, ingress) if of_request or reason == DENIED else "",
        "worked": last_worked(hub, row, of_request),
    }


def last_worked(hub: Hub, row: Rows, of_request: bool) -> dict[str, Any] | None:
    """The newest sign that the same pair talked, within what is held: an answer, or a delivery.

    `of_request`: an answer to a request; packets go to and fro for those that are refused, too.
    """
    ring, key = hub.ring, arrow_keys(row, hub.cards)[0]
    for _, rows in ring.backwards(CHUNK, CHUNK):
        good = np.isin(rows["verdict"], (flow_pb2.FORWARDED, flow_pb2.REDIRECTED)) & (rows["kind"] == Kind.FLOW)
        if of_request:
            good &= (rows["is_reply"] == Reply.TRUE) & (rows["flow_type"] == flow_pb2.L7)
        else:
            good &= (rows["is_reply"] == Reply.TRUE) | (rows["obs_point"] == TO_ENDPOINT)
        hits = np.flatnonzero(good)
        hits = hits[arrow_keys(rows[hits], hub.cards) == key] if len(hits) else hits
        if len(hits):
            return {"ms": int(rows["ts_ns"][hits[-1]]) // 1_000_000}
    return None


def _name(endpoint: flow_pb2.Endpoint) -> str:
    if endpoint.workloads:
        return f"{endpoint.namespace}/{endpoint.workloads[0].name}"
    if endpoint.pod_name:
        return f"{endpoint.namespace}/{endpoint.pod_name}"
    return f"identity {endpoint.identity}" if endpoint.identity else "an unknown endpoint"


def _policy(policy: flow_pb2.Policy) -> str:
    name = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
    return f"{policy.kind} {name}".strip()
