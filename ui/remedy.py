"""The rule that would have let a refused flow through, and no more than it, as YAML for `flowscope mesh apply`.

In:        a flow that no rule allows: a packet, an HTTP request, or a DNS question.
Out:       a NetworkPolicy where its language is enough, a CiliumNetworkPolicy otherwise; "" where there is none.
Elsewhere: why.py decides which flows can be helped that way.
Source:    Kubernetes API, networking.k8s.io/v1; Cilium API, cilium.io/v2 (requests, ICMP, names and nodes as peers).
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from proto.flow import flow_pb2
from ui.cards import NOISE

NAMESPACE: Final = "k8s:io.kubernetes.pod.namespace"
ENTITIES: Final = frozenset({"host", "remote-node", "kube-apiserver", "ingress", "health"})
"""Peers that addresses do not pick in a policy, though they have some."""
APP_LABEL: Final = re.compile(r"^(app|app\.kubernetes\.io/name|k8s-app|name|component|tier|role|kind)$")
SPECIAL: Final = re.compile(r"[\\.^$*+?()\[\]{}|]")
"""What stands for something else in a regular expression; paths of HTTP rules are such."""
ORIGIN: Final = re.compile(r"^[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)
NAME: Final = re.compile(r"[-A-Za-z0-9_.]{1,255}")
MOST_REGEX: Final = 2_048

Peer = tuple[str, Any]
"""Word behind `to` or `from`, and what follows it."""


def remedy(flow: flow_pb2.Flow, ingress: bool) -> str:
    """The policy, for the side on which the flow was refused."""
    here, there = (flow.destination, flow.source) if ingress else (flow.source, flow.destination)
    selector = selector_of(here)
    if not here.namespace or not selector:
        return ""
    spec = _kubernetes(flow, here, there, ingress) or _cilium(flow, here, there, ingress)
    if not spec:
        return ""
    cilium = "toPorts" in spec or "icmps" in spec or not {"from", "to"} & spec.keys()
    side = "ingress" if ingress else "egress"
    body: dict[str, Any] = {"endpointSelector" if cilium else "podSelector": {"matchLabels": selector}}
    if not cilium:
        body["policyTypes"] = [side.capitalize()]
    policy = {
        "apiVersion": "cilium.io/v2" if cilium else "networking.k8s.io/v1",
        "kind": "CiliumNetworkPolicy" if cilium else "NetworkPolicy",
        "metadata": {"name": _policy_name(flow, here, there, ingress), "namespace": here.namespace},
        "spec": {**body, side: [spec]},
    }
    return yaml.safe_dump(policy, sort_keys=False)


def _kubernetes(
    flow: flow_pb2.Flow, here: flow_pb2.Endpoint, there: flow_pb2.Endpoint, ingress: bool
) -> dict[str, Any]:
    """The rule of a NetworkPolicy; empty where that would allow more, or nothing."""
    port = _port(flow)
    if flow.Type == flow_pb2.L7 or not port or _entity(there):
        return {}
    peer: dict[str, Any]
    if there.namespace and (labels := selector_of(there)):
        peer = {"podSelector": {"matchLabels": labels}}
        if there.namespace != here.namespace:
            peer["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": there.namespace}}
    elif cidr := _cidr(flow, ingress):
        peer = {"ipBlock": {"cidr": cidr}}
    else:
        return {}
    return {"from" if ingress else "to": [peer], "ports": [port]}


def _cilium(flow: flow_pb2.Flow, here: flow_pb2.Endpoint, there: flow_pb2.Endpoint, ingress: bool) -> dict[str, Any]:
    """The rule of a CiliumNetworkPolicy; empty where it cannot say what the flow is."""
    peer = _peer(flow, here, there, ingress)
    if peer is None:
        return {}
    rule = {("from" if ingress else "to") + peer[0]: [peer[1]]}
    kind = flow.l4.WhichOneof("protocol") or ""
    if kind in ("ICMPv4", "ICMPv6"):
        return {**rule, "icmps": [{"fields": [{"family": f"IP{kind[4:]}", "type": getattr(flow.l4, kind).type}]}]}
    port = _port(flow)
    if not port:
        return {}
    # Quoted, because a port of this kind of policy is text: it may be a name.
    ports: dict[str, Any] = {"ports": [{**port, "port": str(port["port"])}]}
    if flow.Type == flow_pb2.L7:
        requests = _requests(flow, ingress)
        if not requests:
            return {}
        ports["rules"] = requests
    return {**rule, "toPorts": [ports]}


def _requests(flow: flow_pb2.Flow, ingress: bool) -> dict[str, Any]:
    """The rules for this request; empty where none can be written down."""
    kind = flow.l7.WhichOneof("record")
    if kind == "http" and flow.l7.http.method:
        path = ORIGIN.sub("", flow.l7.http.url)
        wanted = {"method": flow.l7.http.method, "path": path if path.startswith("/") else f"/{path}"}
        escaped = {name: SPECIAL.sub(r"\\\g<0>", text) for name, text in wanted.items()}
        return {"http": [escaped]} if max(map(len, escaped.values())) <= MOST_REGEX else {}
    if kind == "dns" and not ingress and NAME.fullmatch(name := flow.l7.dns.query.rstrip(".")):
        return {"dns": [{"matchName": name}]}
    return {}


def _peer(flow: flow_pb2.Flow, here: flow_pb2.Endpoint, there: flow_pb2.Endpoint, ingress: bool) -> Peer | None:
    if there.namespace and (labels := selector_of(there)):
        elsewhere = {} if there.namespace == here.namespace else {NAMESPACE: there.namespace}
        return "Endpoints", {"matchLabels": {**labels, **elsewhere}}
    if entity := _entity(there):
        return "Entities", entity
    if not ingress and flow.destination_names and NAME.fullmatch(flow.destination_names[0].rstrip(".")):
        return "FQDNs", {"matchName": flow.destination_names[0].rstrip(".")}
    cidr = _cidr(flow, ingress)
    return ("CIDR", cidr) if cidr else None


def _port(flow: flow_pb2.Flow) -> dict[str, Any]:
    protocol = flow.l4.WhichOneof("protocol") or ""
    if protocol not in ("TCP", "UDP", "SCTP"):
        return {}
    return {"port": getattr(flow.l4, protocol).destination_port, "protocol": protocol}


def _cidr(flow: flow_pb2.Flow, ingress: bool) -> str:
    address = flow.IP.source if ingress else flow.IP.destination
    return f"{address}/{128 if ':' in address else 32}" if address else ""


def _entity(there: flow_pb2.Endpoint) -> str:
    names = {label.removeprefix("reserved:") for label in there.labels if label.startswith("reserved:")}
    return min(names & ENTITIES, default="")


def selector_of(endpoint: flow_pb2.Endpoint) -> dict[str, str]:
    """Labels that pick this workload and little else."""
    labels = {}
    for label in endpoint.labels:
        source, _, rest = label.partition(":")
        key, _, value = rest.partition("=")
        if source == "k8s" and not NOISE.search(rest):
            labels[key] = value
    telling = {key: value for key, value in labels.items() if APP_LABEL.match(key)}
    return dict(sorted((telling or labels).items()))


def _policy_name(flow: flow_pb2.Flow, here: flow_pb2.Endpoint, there: flow_pb2.Endpoint, ingress: bool) -> str:
    source, target = (there, here) if ingress else (here, there)
    kind = flow.l7.WhichOneof("record") if flow.Type == flow_pb2.L7 else ""
    words = "-".join(one for one in ("allow", _word(source), "to", _word(target), kind) if one)
    return re.sub(r"[^a-z0-9]+", "-", words.lower())[:63].strip("-")


def _word(endpoint: flow_pb2.Endpoint) -> str:
    if endpoint.workloads:
        return endpoint.workloads[0].name
    # A node knows the workloads of its own pods only; a label tells more than a pod's random name.
    named = [value for key, value in selector_of(endpoint).items() if key.endswith(("name", "app", "run")) and value]
    reserved = [label.removeprefix("reserved:") for label in endpoint.labels if label.startswith("reserved:")]
    return next(iter([*named, endpoint.pod_name, *reserved]), "") or "peer"
