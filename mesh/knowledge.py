"""What one node's observer has to know: state.json.

In:        the resources, the endpoint ids of this node, its network devices.
Out:       one JSON object: local endpoints, ipcache, identities, services, links.
Elsewhere: model/knowledge.py reads it; agent.py writes it after the kernel has learned the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh import identities, ipam
from mesh.cluster import Cluster
from mesh.names import workload
from mesh.resources.cluster import Namespace, Node
from mesh.resources.pods import Pod
from mesh.services.frontends import Named

HOST_ENDPOINT_ID: Final = 1
"""Endpoint id of the node itself; pods get the ones above."""


def node_state(
    cluster: Cluster,
    node: Node,
    endpoint_ids: Mapping[str, int],
    links: Mapping[int, str],
    cluster_name: str = "default",
    services: Iterable[Named] = (),
) -> dict[str, Any]:
    """Everything the observer of `node` needs to name what it sees.

    endpoint_ids  by uid of the pods that are endpoints of this node.
    links         names of the node's network devices by ifindex.
    services      what the node's kernel translates.
    """
    facts = Identities(cluster, cluster_name)
    return {
        "node_name": node.name if cluster_name == "default" else f"{cluster_name}/{node.name}",
        "node_labels": dict(node.metadata.labels),
        "local_endpoints": [_host(node)]
        + [_endpoint(pod, endpoint_ids[pod.metadata.uid], facts) for pod in local_pods(cluster.pods(), node.name)
           if pod.metadata.uid in endpoint_ids],
        "ipcache": ipcache(cluster, node.name, facts),
        "identities": [
            {"id": identities.number(one), "labels": identities.as_text(one.security_labels)}
            for one in cluster.identities()
        ],
        "reserved_identities": [
            {"id": number, "labels": list(labels)} for number, labels in identities.RESERVED.items()
        ],
        "services": [_service(one) for one in services if not one.entry.frontend.internal],
        "links": {str(index): name for index, name in sorted(links.items())},
        "cgroups": [],
    }  # fmt: skip


class Identities:
    """The identity of each pod, found by its labels."""

    def __init__(self, cluster: Cluster, cluster_name: str) -> None:
        self._cluster_name = cluster_name
        self._namespaces = {one.name: one for one in cluster.resources.values() if isinstance(one, Namespace)}
        self._numbers = {
            tuple(sorted(one.security_labels.items())): identities.number(one) for one in cluster.identities()
        }

    def labels(self, pod: Pod) -> dict[str, str]:
        """Security labels of a pod."""
        return identities.security_labels(pod, self._namespaces.get(pod.namespace), self._cluster_name)

    def number(self, pod: Pod) -> int:
        """Identity of a pod; 0 (unknown) until the controller has given one."""
        return self._numbers.get(tuple(self.labels(pod).items()), identities.UNKNOWN)


def local_pods(pods: Iterable[Pod], node: str) -> list[Pod]:
    """Pods of a node that have a network of their own."""
    return [one for one in pods if one.spec.node_name == node and one.status.pod_ips and not one.spec.host_network]


def ipcache(cluster: Cluster, here: str, facts: Identities) -> list[dict[str, Any]]:
    """Who owns each address, as node `here` sees it: pods, nodes, routers and ingress addresses, then the world.

    `host_ip` is present where the address lives on another node.
    """
    entries = []
    nodes = {one.name: one for one in cluster.nodes()}
    for pod in cluster.pods():
        node = nodes.get(pod.spec.node_name)
        if pod.spec.host_network or node is None:
            continue
        for address in pod.ips:
            entry: dict[str, Any] = {"prefix": address, "identity": facts.number(pod)}
            entry |= {"namespace": pod.namespace, "pod": pod.name, "host_ip": _ipv4_of(node)}
            entries.append(entry)
    for node in nodes.values():
        identity = identities.HOST if node.name == here else identities.REMOTE_NODE
        for address in (*node.ips, *ipam.router_addresses(node)):
            entries.append({"prefix": address, "identity": identity, "host_ip": _ipv4_of(node)})
        for address in ipam.ingress_addresses(node):
            entries.append({"prefix": address, "identity": identities.INGRESS, "host_ip": _ipv4_of(node)})
    entries += [{"prefix": prefix, "identity": identities.WORLD} for prefix in ("0.0.0.0/0", "::/0")]
    return entries


def _ipv4_of(node: Node) -> str:
    """Where to tunnel to."""
    return node.ips[0] if node.ips else ""


def _host(node: Node) -> dict[str, Any]:
    by_family = {"ipv4" if ipam.is_ipv4(address) else "ipv6": address for address in reversed(node.ips)}
    return {
        "id": HOST_ENDPOINT_ID,
        **by_family,
        "identity": identities.HOST,
        "labels": list(identities.RESERVED[identities.HOST]),
    }


def _endpoint(pod: Pod, number: int, facts: Identities) -> dict[str, Any]:
    by_family = {"ipv4" if ipam.is_ipv4(address) else "ipv6": address for address in pod.ips}
    kind, name = workload(pod)
    return {
        "id": number,
        **by_family,
        "identity": facts.number(pod),
        "namespace": pod.namespace,
        "pod": pod.name,
        "labels": identities.as_text(facts.labels(pod)),
        "workload_kind": kind,
        "workload_name": name,
    }


def _service(named: Named) -> dict[str, Any]:
    frontend, service = named.entry.frontend, named.service
    return {
        "ip": str(frontend.address),
        "port": frontend.port,
        "proto": named.protocol,
        "namespace": service.namespace,
        "name": service.name,
    }
