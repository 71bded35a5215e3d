"""Who asks whom.

In:        a ClusterView.
Out:       pairs of client and target; a scenario's name is that of its function.
Elsewhere: tests.py joins scenarios with policies and expectations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from connectivity.cluster import NAMESPACE, OTHER_NAMESPACE, ClusterView, Party, Target
from mesh.resources.services import Service

Pairs = Iterator[tuple[Party, Target]]
ECHO_PORT = 8080


def echo_target(pod: Party, path: str = "/", address: str = "") -> Target:
    """An echo pod by its own address."""
    host = address or pod.ipv4
    return Target(
        name=f"{pod.name} ({host}:{ECHO_PORT}{path})",
        kind="pod",
        host=host,
        port=ECHO_PORT,
        path=path,
        peers=pod.addresses,
        labels=pod.labels,
        node=pod.node,
    )


def ping_target(party: Party, address: str = "") -> Target:
    """Somebody to be pinged."""
    host = address or party.ipv4
    return Target(
        name=f"{party.name} ({host})",
        kind="host" if not party.labels else "pod",
        host=host,
        scheme="icmp",
        peers=party.addresses,
        labels=party.labels,
        node=party.node,
    )


def pod_to_pod(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        for echo in cluster.echoes():
            yield client, echo_target(echo)


def pod_to_pod_ipv6(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        for echo in cluster.echoes():
            for address in echo.addresses[1:]:
                yield client, echo_target(echo, address=address)


def pod_to_pod_with_endpoints(cluster: ClusterView) -> Pairs:
    """Several paths of each echo pod: public, and one that a policy may keep for some."""
    for client in cluster.clients():
        for echo in cluster.echoes():
            for path in ("/public", "/private", "/"):
                yield client, echo_target(echo, path)


def pod_to_pod_with_methods(cluster: ClusterView) -> Pairs:
    """Each echo pod is asked twice, with the methods GET and HEAD."""
    for client in cluster.clients():
        for echo in cluster.echoes():
            asked = echo_target(echo)
            for method, option in (("GET", "--get"), ("HEAD", "--head")):
                yield client, replace(asked, name=f"{method} {asked.name}", options=(option,))


def client_to_client(cluster: ClusterView) -> Pairs:
    clients = cluster.clients()
    for client in clients:
        for other in clients:
            if client is not other:
                yield client, ping_target(other)


def pod_to_service(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        for service in cluster.services():
            yield client, service_target(cluster, service)


def service_target(cluster: ClusterView, service: Service, path: str = "/", kind: str = "service") -> Target:
    """A service by its name."""
    pods = cluster.pods(service.name)
    host = f"{service.name}.{NAMESPACE}.svc.cluster.local."
    return Target(
        name=f"{NAMESPACE}/{service.name}:{ECHO_PORT}{path}",
        kind=kind,
        host=host,
        port=ECHO_PORT,
        path=path,
        peers=tuple(address for pod in pods for address in pod.addresses),
        labels=pods[0].labels if pods else {},
    )


def nodeport_targets(cluster: ClusterView) -> Iterator[Target]:
    """Every echo service on every node."""
    for service in cluster.services():
        pods = cluster.pods(service.name)
        for node in cluster.nodes():
            for port in service.spec.ports:
                if port.node_port:
                    yield Target(
                        name=f"{NAMESPACE}/{service.name} ({node.ipv4}:{port.node_port})",
                        kind="nodeport",
                        host=node.ipv4,
                        port=port.node_port,
                        peers=tuple(address for pod in pods for address in pod.addresses),
                        labels=pods[0].labels if pods else {},
                        node=node.name,
                    )


def pod_to_local_nodeport(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        for target in nodeport_targets(cluster):
            if target.node == client.node:
                yield client, target


def pod_to_remote_nodeport(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        for target in nodeport_targets(cluster):
            if target.node != client.node:
                yield client, target


def outside_to_nodeport(cluster: ClusterView) -> Pairs:
    for target in nodeport_targets(cluster):
        yield cluster.outside(), target


def host_to_nodeport(cluster: ClusterView) -> Pairs:
    """A node asks itself and the others."""
    node = cluster.nodes()[0]
    for target in nodeport_targets(cluster):
        yield node, target


def pod_to_host(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        for node in cluster.nodes():
            yield client, ping_target(node)


def host_to_pod(cluster: ClusterView) -> Pairs:
    for node in cluster.nodes():
        for echo in cluster.echoes():
            yield node, echo_target(echo)


def pod_to_itself(cluster: ClusterView) -> Pairs:
    """Through its own service, of which it is the only backend."""
    for service in cluster.services():
        for pod in cluster.pods(service.name):
            yield pod, service_target(cluster, service)


def world_target(cluster: ClusterView, scheme: str, path: str = "/", host: str = "") -> Target:
    """Something outside, by name unless an address is given."""
    port = 443 if scheme == "https" else 80
    host = host or f"{cluster.world.name}."
    return Target(
        name=f"{scheme}://{host.rstrip('.')}:{port}{path}", kind="world", host=host, port=port, scheme=scheme, path=path
    )


def pod_to_world(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        yield client, world_target(cluster, "http")
        yield client, world_target(cluster, "https")
        yield client, world_target(cluster, "https", "/index.html")


def pod_to_cidr(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        for address in (cluster.world.address, cluster.world.other_address):
            yield client, replace(world_target(cluster, "http", host=address), peers=(address,))


def ingress_target(cluster: ClusterView, path: str = "/") -> Target:
    """The echo pods behind the Ingress of ../policies/ingress.yaml."""
    host = cluster.balancer_address("cilium-ingress-ingress-service")
    return Target(
        name=f"{NAMESPACE}/ingress-service ({host}{path})",
        kind="ingress",
        host=host or "0.0.0.0",
        port=80,
        path=path,
        # A proxy that refuses a request asks nobody else.
        peers=(*(address for pod in cluster.echoes() for address in pod.addresses), host),
    )


def pod_to_ingress_service(cluster: ClusterView) -> Pairs:
    for client in cluster.clients():
        yield client, ingress_target(cluster)


def outside_to_ingress_service(cluster: ClusterView) -> Pairs:
    yield cluster.outside(), ingress_target(cluster)


def pod_to_l7_service(cluster: ClusterView) -> Pairs:
    """Services behind the CiliumEnvoyConfig of ../policies/l7-lb.yaml, at a path that only its rewriting knows."""
    for client in cluster.clients():
        for service in cluster.services():
            yield client, service_target(cluster, service, "/foo", kind="l7-service")


def pod_to_world_tls(cluster: ClusterView) -> Pairs:
    """The same server, by its name and by another one."""
    strange = "other.example"
    for client in cluster.clients():
        yield client, world_target(cluster, "https")
        yield (
            client,
            replace(
                world_target(cluster, "https", host=strange),
                options=("--resolve", f"{strange}:443:{cluster.world.address}"),
            ),
        )


def outside_to_nodeport_by_source(cluster: ClusterView) -> Pairs:
    """Two clients outside; each echo pod on its own node, so that it sees who asks."""
    for address in (cluster.world.address, cluster.world.other_address):
        client = replace(cluster.outside(), addresses=(address,))
        for echo in cluster.echoes():
            for target in nodeport_targets(cluster):
                if target.node == echo.node and target.labels["name"] == echo.labels["name"]:
                    yield client, replace(target, options=("--interface", address))


def pod_to_other_namespace(cluster: ClusterView) -> Pairs:
    """Echo pods here and there."""
    there = cluster.pods("echo", namespace=OTHER_NAMESPACE)
    for client in cluster.clients():
        for echo in (*cluster.echoes(), *there):
            yield client, echo_target(echo)


def pod_from_other_namespace(cluster: ClusterView) -> Pairs:
    """Clients here and there."""
    there = cluster.pods("client", namespace=OTHER_NAMESPACE)
    for client in (*cluster.clients(), *there):
        for echo in cluster.echoes():
            yield client, echo_target(echo)
