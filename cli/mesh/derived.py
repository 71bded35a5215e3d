"""Resources that nobody stores because they follow from others.

In:        a View.
Out:       ReplicaSets of deployments; Endpoints of services; CiliumEndpoints, from what agents wrote about pods.
Elsewhere: mesh/controller.py decides what a deployment's pods are called; kinds.py shows these like all others.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cli.mesh.view import View
from mesh import names
from mesh.backends import Directory
from mesh.names import HASH_LABEL
from mesh.resources.base import Key, Metadata, OwnerReference, Resource
from mesh.services.kinds import EndpointAddress, EndpointPort, Endpoints, EndpointSubset


class Derived(Resource):
    """A resource for reading only."""

    spec: dict[str, Any] = Field(default_factory=dict)
    status: dict[str, Any] = Field(default_factory=dict)


def replica_sets(view: View) -> list[Resource]:
    """One for each deployment: older ones are not kept."""
    found: list[Resource] = []
    for one in view.cluster.deployments():
        value, pods = names.template_hash(one), view.pods_of(one)
        template = one.spec.template.model_dump(mode="json", by_alias=True, exclude_unset=True)
        found.append(
            Derived(
                api_version="apps/v1",
                kind="ReplicaSet",
                metadata=Metadata(
                    name=f"{one.name}-{value}",
                    namespace=one.namespace,
                    labels={**one.spec.template.metadata.labels, HASH_LABEL: value},
                    creation_timestamp=one.metadata.creation_timestamp,
                    owner_references=(
                        OwnerReference(api_version="apps/v1", kind="Deployment", name=one.name, uid=one.metadata.uid),
                    ),
                ),
                spec={
                    "replicas": one.spec.replicas,
                    "selector": {"matchLabels": {**one.spec.selector.match_labels, HASH_LABEL: value}},
                    "template": template,
                },
                status={"replicas": len(pods), "readyReplicas": sum(pod.status.ready for pod in pods)},
            )
        )
    return found


def endpoints(view: View) -> list[Resource]:
    """CiliumEndpoints: what the kernels of the nodes know about pods."""
    found: list[Resource] = []
    pods = {(pod.namespace, pod.name): pod for pod in view.cluster.pods()}
    for node, state in view.states.items():
        ready = set(view.agents[node].get("pods", ()))
        for one in state.get("local_endpoints", ()):
            pod = pods.get((one.get("namespace", ""), one.get("pod", "")))
            if pod is None:
                continue
            addresses = {("ipv6" if ":" in address else "ipv4"): address for address in pod.ips}
            found.append(
                Derived(
                    api_version="cilium.io/v2",
                    kind="CiliumEndpoint",
                    metadata=Metadata(
                        name=pod.name,
                        namespace=pod.namespace,
                        labels=pod.metadata.labels,
                        creation_timestamp=pod.metadata.creation_timestamp,
                        owner_references=(
                            OwnerReference(api_version="v1", kind="Pod", name=pod.name, uid=pod.metadata.uid),
                        ),
                    ),
                    status={
                        "id": one["id"],
                        "identity": {"id": one["identity"], "labels": one["labels"]},
                        "networking": {"addressing": [addresses], "node": pod.status.host_ip or ""},
                        "state": "ready" if pod.metadata.uid in ready else "waiting-to-regenerate",
                    },
                )
            )
    return found


def service_endpoints(view: View) -> list[Resource]:
    """Endpoints of services that select pods; users write those of the others."""
    directory = Directory(view.resources)
    found: list[Resource] = []
    for service in view.cluster.services():
        key = Key("Endpoints", service.namespace, service.name)
        if not service.spec.selector or key in view.cluster.resources:
            continue
        subsets = [
            EndpointSubset(
                addresses=(EndpointAddress(ip=one.address, node_name=one.node),),
                ports=tuple(
                    EndpointPort(port=number, name=port.name, protocol=port.protocol) for port, number in one.ports
                ),
            )
            for one in directory.ready(service)
        ]
        metadata = Metadata(
            name=service.name,
            namespace=service.namespace,
            labels=service.metadata.labels,
            creation_timestamp=service.metadata.creation_timestamp,
        )
        found.append(Endpoints(api_version="v1", kind="Endpoints", metadata=metadata, subsets=tuple(subsets)))
    return found
