"""What follows from a resource: backends of a service, policies of a pod, what agents say about them.

In:        a resource and the View of all others.
Out:       (title, text or lines) pairs for `describe`.
Elsewhere: mesh/backends.py and mesh/policy/ decide; here it is only told. A kind gets facts by an entry in FACTS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from cli.mesh import cells, ingress
from cli.mesh.doubts import pending
from cli.mesh.view import NONE, View, field, listed
from mesh import identities
from mesh.backends import Directory
from mesh.envoyconfig.documents import EnvoyConfig
from mesh.envoyconfig.translate import selects
from mesh.ingress.controller import is_ours, names_of
from mesh.ingress.documents import Ingress, IngressBackend
from mesh.policy.documents.kinds import PolicyDocument, policies_among
from mesh.policy.peers import Identity
from mesh.policy.translate import Context, rules_of
from mesh.resources.base import Key, Resource
from mesh.resources.cluster import CiliumIdentity, Node
from mesh.resources.deployments import Deployment
from mesh.resources.pods import Pod
from mesh.resources.services import Service

Fact = tuple[str, str | Sequence[str]]


def facts_about(one: Resource, view: View) -> Iterator[Fact]:
    """What is known about a resource besides itself."""
    tell = FACTS.get(one.kind)
    if tell is not None:
        yield from tell(one, view)


def _pod(pod: Pod, view: View) -> Iterator[Fact]:
    yield "Node", pod.spec.node_name or "none will do: see its node selector, affinity, and the nodes' taints"
    yield "Status", f"{cells.pod_status(pod, view)}, {cells.pod_ready(pod, view)} ready"
    yield "Restarts", str(view.restarts.get((pod.namespace, pod.name), 0))
    yield "IPs", listed(pod.ips)
    endpoint = _endpoint(pod, view)
    if endpoint:
        yield "Endpoint", str(endpoint["id"])
    identity = _identity(pod, view)
    if identity is not None:
        yield "Identity", str(identity.number)
        yield "Identity Labels", identity.labels
        yield "Policies", [f"{one.kind} {_title(one)}" for one in _policies_of(identity, view)]
    yield "Services", [one.name for one in view.cluster.services() if one.namespace == pod.namespace and _of(one, pod)]
    if pod.spec.node_name and pod.status.pod_ips:
        yield "Conditions", _conditions(pod, view, attached=bool(endpoint))


def _conditions(pod: Pod, view: View, *, attached: bool) -> list[str]:
    """As far as it got."""
    agent = view.agents.get(pod.spec.node_name)
    if agent is None:
        programmed = "Unknown (no agent of its node has reported here)"
    else:
        programmed = "True" if pod.metadata.uid in agent.get("pods", ()) else "False (not in the node's kernel)"
    return [
        "PodScheduled: True",
        f"NetworkReady: {'True' if pod.status.network else 'False (its network is being made)'}",
        f"EndpointKnown: {'True' if attached else 'False (not in state.json of its node)'}",
        f"DatapathReady: {programmed}",
        f"Ready: {pod.status.ready}",
    ]


def _endpoint(pod: Pod, view: View) -> dict[str, Any]:
    for one in view.states.get(pod.spec.node_name, {}).get("local_endpoints", ()):
        if (one.get("namespace"), one.get("pod")) == (pod.namespace, pod.name):
            return dict(one)
    return {}


def _identity(pod: Pod, view: View) -> Identity | None:
    """The number that stands for the pod's labels, from its node or from the store."""
    endpoint = _endpoint(pod, view)
    if endpoint:
        return Identity(endpoint["identity"], tuple(endpoint["labels"]))
    wanted = identities.security_labels(pod, view.cluster.namespace(pod.namespace), "default")
    for one in view.cluster.identities():
        if one.security_labels == wanted:
            return Identity(identities.number(one), tuple(identities.as_text(wanted)))
    return None


def _policies_of(identity: Identity, view: View) -> list[PolicyDocument]:
    """Policies whose subject the identity is."""
    context = Context()
    return [
        one
        for one in policies_among(view.resources)
        if any(rule.subject.selects(identity) for rule in rules_of(one, context))
    ]


def _of(service: Service, pod: Pod) -> bool:
    return bool(service.spec.selector) and service.spec.selector.items() <= pod.metadata.labels.items()


def _service(service: Service, view: View) -> Iterator[Fact]:
    yield "Type", service.spec.type
    yield "IPs", listed(service.spec.cluster_ips or (service.spec.cluster_ip,))
    reason = pending(service)
    yield "External IPs", cells.external_ip(service, view) + (f" ({reason})" if reason else "")
    yield "Ports", cells.service_ports(service, view)
    backends = Directory(view.resources).of(service)
    yield (
        "Endpoints",
        [
            f"{_at(one.address, target)} ({port.name or port.port}/{port.protocol})"
            + ("" if one.ready else " terminating" if one.terminating else " not ready")
            for one in backends
            for port, target in one.ports
        ],
    )


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _deployment(deployment: Deployment, view: View) -> Iterator[Fact]:
    ready, wanted = cells.ready_pods(deployment, view), deployment.spec.replicas
    yield "Replicas", f"{wanted} desired, {len(view.pods_of(deployment))} total, {ready} available"
    yield "Pods", [f"{one.name} ({cells.pod_status(one, view)})" for one in view.pods_of(deployment)]
    yield "Conditions", [f"Available: {ready >= wanted}"]


def _node(node: Node, view: View) -> Iterator[Fact]:
    yield "Status", cells.node_status(node, view)
    yield "Addresses", listed(node.ips)
    pods = [one for one in view.cluster.pods() if one.spec.node_name == node.name]
    yield "Pods", [f"{one.namespace}/{one.name} ({cells.pod_status(one, view)})" for one in pods]
    parts = view.agents.get(node.name, {}).get("parts", {})
    yield "Conditions", [f"{name}: {one.get('state')} ({one.get('message', '')})" for name, one in parts.items()]


def _policy(policy: PolicyDocument, view: View) -> Iterator[Fact]:
    rules = rules_of(policy, Context())
    selected = [
        f"{pod.namespace}/{pod.name}"
        for pod in view.cluster.pods()
        if (identity := _identity(pod, view)) is not None and any(rule.subject.selects(identity) for rule in rules)
    ]
    yield "Selects", selected
    problems = [one for one in _problems(view, "policy") if str(policy.key) in one]
    done = [
        f"{name}: its kernel has the policies of revision {agent['revision']}" for name, agent in view.agents.items()
    ]
    yield "Conditions", problems or done


def _envoy_config(config: EnvoyConfig, view: View) -> Iterator[Fact]:
    problems = [one for one in _problems(view, "envoy-config") if f" {config.key}: " in f" {one}"]
    here = [one.name for one in view.cluster.nodes() if one.name in view.agents and selects(config, one)]
    done = [f"{name}: its Envoy has the resources of revision {view.agents[name]['revision']}" for name in here]
    yield "Conditions", problems or done


def _ingress(one: Ingress, view: View) -> Iterator[Fact]:
    yield "Class", ingress.ingress_class(one, view) or NONE
    yield "Address", ingress.ingress_addresses(one, view) or f"<pending>{_why_pending(one, view)}"
    if one.spec.default_backend:
        yield "Default", _backend(one, one.spec.default_backend, view)
    yield "TLS", [f"{entry.secret_name or NONE} for {listed(entry.hosts)}" for entry in one.spec.tls]
    yield (
        "Rules",
        [
            f"{rule.host or '*'}  {path.path or '/'} ({path.path_type})  {_backend(one, path.backend, view)}"
            for rule in one.spec.rules
            for path in (rule.http.paths if rule.http else ())
        ],
    )
    names = names_of(one)
    yield (
        "Conditions",
        [each for each in _problems(view, "envoy-config") if f"{names.namespace}/{names.config}: " in each],
    )


def _why_pending(one: Ingress, view: View) -> str:
    if not is_ours(one, view.cluster):
        return " (no controller here serves its class)"
    names = names_of(one)
    service = view.cluster.resources.get(Key("Service", names.namespace, names.service))
    reason = pending(service) if isinstance(service, Service) else ""
    return f" ({reason})" if reason else ""


def _backend(one: Ingress, backend: IngressBackend, view: View) -> str:
    """`name:port`, and what is wrong with it."""
    name = f"{backend.service.name}:{backend.service.port}"
    key = Key("Service", one.namespace, backend.service.name)
    return name if key in view.cluster.resources else f"{name} (there is no {key})"


def _problems(view: View, part: str) -> list[str]:
    """What agents have against resources, each with the node in front."""
    return [
        f"{name}: {problem}"
        for name, agent in view.agents.items()
        for problem in agent.get("parts", {}).get(part, {}).get("problems", ())
    ]


def _one_identity(one: CiliumIdentity, view: View) -> Iterator[Fact]:
    number = identities.number(one)
    pods = [pod for pod in view.cluster.pods() if (found := _identity(pod, view)) and found.number == number]
    yield "Pods", [f"{pod.namespace}/{pod.name}" for pod in pods]


def _secret(secret: Resource, _view: View) -> Iterator[Fact]:
    sizes = {name: value for where in ("data", "stringData") for name, value in (field(secret, where) or {}).items()}
    yield "Data", [f"{name}: {len(value)} characters" for name, value in sizes.items()]


def _title(one: Resource) -> str:
    return f"{one.namespace}/{one.name}" if one.namespace else one.name


FACTS: Final[dict[str, Callable[[Any, View], Iterator[Fact]]]] = {
    "Pod": _pod,
    "Service": _service,
    "Deployment": _deployment,
    "Node": _node,
    "CiliumNetworkPolicy": _policy,
    "CiliumClusterwideNetworkPolicy": _policy,
    "NetworkPolicy": _policy,
    "CiliumEnvoyConfig": _envoy_config,
    "CiliumClusterwideEnvoyConfig": _envoy_config,
    "CiliumIdentity": _one_identity,
    "Ingress": _ingress,
    "Secret": _secret,
}
"""What to tell about which kind."""
