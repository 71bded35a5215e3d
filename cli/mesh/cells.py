"""What tables say about pods, services, deployments and nodes.

In:        one resource and the View of all others.
Out:       a cell's value.
Elsewhere: kinds.py puts cells into columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cli.mesh.view import NONE, UNKNOWN, View, duration, field, listed
from mesh.resources.base import Resource
from mesh.resources.cluster import Node
from mesh.resources.deployments import Deployment
from mesh.resources.pods import Pod
from mesh.resources.selectors import LabelSelector
from mesh.resources.services import Service

if TYPE_CHECKING:
    from mesh.auth.documents import CertificateSigningRequest

_ROLE: Final = "node-role.kubernetes.io/"
_TERMS: Final = {
    "Exists": "{key}",
    "DoesNotExist": "!{key}",
    "In": "{key} in ({values})",
    "NotIn": "{key} notin ({values})",
}


def pod_ready(pod: Pod, _view: View) -> str:
    """Ready containers of all."""
    count = len(pod.spec.containers)
    return f"{count if pod.status.ready else 0}/{count}"


def pod_status(pod: Pod, _view: View) -> str:
    """The phase in kubectl's words."""
    if pod.is_leaving:
        return "Terminating"
    if pod.status.phase == "Pending" and pod.spec.node_name:
        return "ContainerCreating"
    return {"Succeeded": "Completed", "Failed": "Error"}.get(pod.status.phase, pod.status.phase)


def cluster_ip(service: Service, _view: View) -> str:
    """The address inside the cluster; `None` for headless services, as kubectl says."""
    return service.spec.cluster_ip or NONE


def external_ip(service: Service, _view: View) -> str:
    """Addresses for the outside; `<pending>` while a load balancer has none."""
    if service.spec.type == "ExternalName":
        return service.spec.external_name
    balancer = field(service, "status", "loadBalancer", "ingress") or ()
    given = [one.get("ip") or one.get("hostname", "") for one in balancer]
    addresses = [*given, *(field(service, "spec", "externalIPs") or ())]
    if service.spec.type == "LoadBalancer" and not addresses:
        return "<pending>"
    return listed(addresses)


def service_ports(service: Service, _view: View) -> str:
    """`80:31643/TCP`: port, port of the nodes, protocol."""
    return listed(
        [f"{one.port}{f':{one.node_port}' if one.node_port else ''}/{one.protocol}" for one in service.spec.ports]
    )


def ready_pods(deployment: Deployment, view: View) -> int:
    """How many pods of a deployment are ready."""
    return sum(pod.status.ready for pod in view.pods_of(deployment))


def containers(resource: Resource, what: str) -> str:
    """Names or images of the containers of a pod template."""
    return listed([one[what] for one in field(resource, "spec", "template", "spec", "containers") or ()])


def as_selector(selector: LabelSelector) -> str:
    """A selector as `-l` takes it."""
    terms = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    terms += [
        _TERMS[one.operator].format(key=one.key, values=",".join(one.values)) for one in selector.match_expressions
    ]
    return listed(terms)


def node_status(node: Node, view: View) -> str:
    """Ready once its agent has programmed the kernel; Unknown where we cannot look."""
    return "Ready" if node.name in view.agents else "NotReady" if view.place.lab else "Unknown"


def node_roles(node: Node, _view: View) -> str:
    """From labels, as kubectl."""
    return listed(sorted(key.removeprefix(_ROLE) for key in node.metadata.labels if key.startswith(_ROLE)))


def node_version(node: Node, view: View) -> str:
    """Of its agent."""
    version = view.agents.get(node.name, {}).get("version")
    return f"v{version}" if version else UNKNOWN


def endpoint_addresses(endpoints: Resource, _view: View) -> str:
    """Addresses with ports; of many the first three, as kubectl does."""
    found = [
        f"{address['ip']}:{port['port']}" if ":" not in address["ip"] else f"[{address['ip']}]:{port['port']}"
        for subset in field(endpoints, "subsets") or ()
        for address in subset.get("addresses", ())
        for port in subset.get("ports", ())
    ]
    return listed(found[:3]) + (f" + {len(found) - 3} more..." if len(found) > 3 else "")


def wanted_duration(request: CertificateSigningRequest, _view: View) -> str:
    """How long a certificate is to hold."""
    seconds = request.spec.expiration_seconds
    return duration(seconds) if seconds is not None else NONE


def signing_condition(request: CertificateSigningRequest, _view: View) -> str:
    """In kubectl's words."""
    words = [one.type for one in request.status.conditions] + (["Issued"] if request.status.certificate else [])
    return ",".join(words) or "Pending"


def pool_conflict(pool: Resource, _view: View) -> str:
    """Whether a pool overlaps another, which then has the addresses."""
    from mesh.services.pools import CONFLICT

    told = field(pool, "status", "conditions") or ()
    return str(any(one["type"] == CONFLICT and one["status"] == "True" for one in told))
