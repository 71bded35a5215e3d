"""The controller's part of services: cluster addresses, node ports, the service of the Kubernetes API.

In:        services and nodes.
Out:       what the store lacks, put into the cluster.
Elsewhere: balancers.py gives addresses of pools, announcing.py chooses nodes; mesh/controller.py runs all of it.

What a service has it keeps. What it does not have is searched from a place that follows from its name, so that a lab
that is made anew looks the same.
"""

from __future__ import annotations

from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from mesh import ipam
from mesh.cluster import Cluster
from mesh.resources.base import Condition, Key, Metadata, changed
from mesh.resources.services import NODE_PORTS, Service, ServicePort, ServiceSpec
from mesh.services.announcing import elect
from mesh.services.balancers import assign_balancers
from mesh.services.kinds import SERVICE_NAME, EndpointPort, EndpointSlice, SliceEndpoint

CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
"""Label of the nodes where the Kubernetes API is served."""
API: Final = "kubernetes"
API_PORTS: Final = (443, 6443)
"""Of its service, and of the nodes behind it."""
PORTS_ALLOCATED: Final = "flowscope.io/NodePortsAllocated"


def assign(cluster: Cluster) -> None:
    """Everything that services lack. Raises: Failure when cluster addresses have run out."""
    _serve_api(cluster)
    _give_cluster_ips(cluster)
    _give_node_ports(cluster)
    assign_balancers(cluster)
    elect(cluster)


def _serve_api(cluster: Cluster) -> None:
    """`kubernetes` in `default`, as the API server makes it for itself."""
    nodes = [one for one in cluster.nodes() if CONTROL_PLANE in one.metadata.labels and one.ips]
    if not nodes:
        return
    if Key("Service", "default", API) not in cluster.resources:
        labels = {"component": "apiserver", "provider": API}
        port = ServicePort(name="https", port=API_PORTS[0], target_port=API_PORTS[1])
        spec = ServiceSpec(cluster_ip=str(ipam.SERVICE_CIDRS[0][1]), ports=(port,))
        metadata = Metadata(name=API, namespace="default", labels=labels)
        cluster.put(Service(api_version="v1", kind="Service", metadata=metadata, spec=spec))
    wanted = EndpointSlice(
        api_version="discovery.k8s.io/v1",
        kind="EndpointSlice",
        metadata=Metadata(name=API, namespace="default", labels={SERVICE_NAME: API}),
        address_type="IPv4",
        endpoints=tuple(SliceEndpoint(addresses=(one.ips[0],), node_name=one.name) for one in nodes),
        ports=(EndpointPort(name="https", port=API_PORTS[1]),),
    )
    present = cluster.resources.get(wanted.key)
    if not isinstance(present, EndpointSlice) or present.endpoints != wanted.endpoints:
        cluster.put(changed(wanted, metadata=present.metadata) if present else wanted)


def _give_cluster_ips(cluster: Cluster) -> None:
    """One address of each family that the service is to be reached by."""
    used = {address for one in cluster.services() for address in (one.spec.cluster_ip, *one.spec.cluster_ips)}
    for service in cluster.services():
        spec = service.spec
        if service.headless or spec.type == "ExternalName":
            continue
        present: dict[int, str] = {ip_address(one).version: one for one in (*spec.cluster_ips, spec.cluster_ip) if one}
        missing = [family for family in service.families if family not in present]
        name = f"{service.namespace}/{service.name}"
        fresh = ipam.free_service_addresses(name, missing, used) if missing else ()
        used.update(fresh)
        present |= dict(zip(missing, fresh, strict=True))
        addresses = tuple(present[family] for family in service.families)
        if (spec.cluster_ip, spec.cluster_ips) != (addresses[0], addresses):
            cluster.put(changed(service, spec=changed(spec, cluster_ip=addresses[0], cluster_ips=addresses)))


def has_node_ports(service: Service) -> bool:
    """Whether the service is to be reached at a port of every node."""
    spec = service.spec
    return spec.type == "NodePort" or (spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports)


def _give_node_ports(cluster: Cluster) -> None:
    ports_of_all = (port for one in cluster.services() for port in one.spec.ports)
    used: set[tuple[int, str]] = {(port.node_port, port.protocol) for port in ports_of_all if port.node_port}
    for service in cluster.services():
        if not has_node_ports(service):
            continue
        ports = []
        for port in service.spec.ports:
            number = port.node_port or _free_node_port(f"{service.namespace}/{service.name}:{port.port}", port, used)
            used.add((number, port.protocol))
            ports.append(changed(port, node_port=number) if number and number != port.node_port else port)
        found = changed(service, spec=changed(service.spec, ports=tuple(ports)))
        found = _told(found, lacks=any(not port.node_port for port in ports))
        if found != service:
            cluster.put(found)


def _free_node_port(name: str, port: ServicePort, used: set[tuple[int, str]]) -> int:
    """A port that no service has; 0 when there is none. TCP and UDP of one port get the same number if they can."""
    first, last = NODE_PORTS
    count = last - first + 1
    start = int.from_bytes(sha256(name.encode()).digest()[:4], "big")
    numbers = (first + (start + step) % count for step in range(count))
    return next((number for number in numbers if (number, port.protocol) not in used), 0)


def _told(service: Service, lacks: bool) -> Service:
    """The service with, or without, the condition that says that node ports have run out."""
    others = tuple(one for one in service.status.conditions if one.type != PORTS_ALLOCATED)
    if not lacks and others == service.status.conditions:
        return service
    message = f"all node ports from {NODE_PORTS[0]} to {NODE_PORTS[1]} are taken; delete services"
    problem = Condition(type=PORTS_ALLOCATED, status="False", reason="out_of_ports", message=message)
    return changed(service, status=changed(service.status, conditions=(*others, problem) if lacks else others))
