"""What Kubernetes' controllers do: pods for deployments, nodes and addresses for pods, numbers for label sets.

In:        everything in the resource store.
Out:       an Update: what to write and to delete, so that the store says what users asked for.
Elsewhere: store.py applies it in one transaction; the lab makes namespaces for the pods; agent.py programs the kernel.

`reconcile` is a pure function of the resources and is run again after every change, until it has nothing to say. It
runs in one process only; agents read.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesh import identities, ipam, names, schedule
from mesh.cluster import Cluster
from mesh.envoyconfig import annotated
from mesh.envoyconfig import status as envoyconfig
from mesh.gateway import controller as gateway
from mesh.ingress import controller as ingress
from mesh.names import HASH_LABEL, workload
from mesh.resources.base import Metadata, OwnerReference, Resource, changed
from mesh.resources.cluster import Node
from mesh.resources.deployments import Deployment
from mesh.resources.pods import Pod, PodIp, PodStatus
from mesh.services import assigning as services
from mesh.store import Update


def reconcile(resources: Sequence[Resource], cluster_name: str = "default", now: str | None = None) -> Update:
    """Everything that follows from the resources and is not there yet.

    now      the time; pods that have to go are told so, and whoever runs them removes them. None: they go at once.
    Raises: Failure when addresses or identities have run out.
    """
    cluster = Cluster(resources, now)
    _remove_orphans(cluster)
    ingress.reconcile(cluster)
    gateway.reconcile(cluster)
    annotated.reconcile(cluster)
    for deployment in cluster.deployments():
        _scale(cluster, deployment)
    _place_pods(cluster)
    known = cluster.identities()
    for pod in cluster.pods():
        labels = identities.security_labels(pod, cluster.namespace(pod.namespace), cluster_name)
        identity = identities.allocate(labels, known)
        if identity.key not in cluster.resources:
            cluster.put(identity)
            known.append(identity)
    services.assign(cluster)
    envoyconfig.reconcile(cluster)
    return cluster.update()


def _remove_orphans(cluster: Cluster) -> None:
    """Pods whose deployment is gone, or changed its template."""
    hashes = {(one.namespace, one.name): names.template_hash(one) for one in cluster.deployments()}
    for pod in cluster.pods():
        kind, name = workload(pod)
        if kind == "Deployment" and hashes.get((pod.namespace, name)) != pod.metadata.labels.get(HASH_LABEL):
            cluster.remove(pod.key)


def _scale(cluster: Cluster, deployment: Deployment) -> None:
    """As many pods as there are to be; when there are too many, the last by name go."""
    mine = [one for one in cluster.pods() if one.namespace == deployment.namespace]
    mine = [one for one in mine if workload(one) == ("Deployment", deployment.name) and not one.is_leaving]
    for pod in mine[deployment.spec.replicas :]:
        cluster.remove(pod.key)
    created = deployment.status.created
    for _ in range(deployment.spec.replicas - len(mine)):
        cluster.put(_pod_of(deployment, created))
        created += 1
    if created != deployment.status.created:
        cluster.put(changed(deployment, status=changed(deployment.status, created=created)))


def _pod_of(deployment: Deployment, number: int) -> Pod:
    template, value = deployment.spec.template, names.template_hash(deployment)
    return Pod(
        api_version="v1",
        kind="Pod",
        metadata=Metadata(
            name=names.pod_name(deployment, number),
            namespace=deployment.namespace,
            labels={**template.metadata.labels, HASH_LABEL: value},
            annotations=template.metadata.annotations,
            owner_references=(
                OwnerReference(api_version="apps/v1", kind="ReplicaSet", name=f"{deployment.name}-{value}"),
            ),
        ),
        spec=template.spec,
        status=PodStatus(phase="Pending"),
    )


def _place_pods(cluster: Cluster) -> None:
    """A node and addresses for each pod. A pod may wait for another one, so go round until nothing moves."""
    nodes = cluster.nodes()
    waiting = [one for one in cluster.pods() if not one.status.pod_ips]
    while waiting:
        placed = [pod for pod in waiting if _place(cluster, pod, nodes)]
        if not placed:
            return
        waiting = [pod for pod in waiting if pod not in placed]


def _place(cluster: Cluster, pod: Pod, nodes: Sequence[Node]) -> bool:
    pods = [one for one in cluster.pods() if one.spec.node_name]
    node = schedule.choose_node(pod, nodes, [one for one in pods if not one.is_leaving])
    if node is None:
        return False
    used = {address for one in pods for address in one.ips}
    addresses = node.ips if pod.spec.host_network else ipam.free_pod_addresses(node, used)
    status = changed(
        pod.status,
        pod_ip=addresses[0],
        pod_ips=tuple(PodIp(ip=address) for address in addresses),
        host_ip=node.ips[0] if node.ips else None,
    )
    cluster.put(changed(pod, spec=changed(pod.spec, node_name=node.name), status=status))
    return True
