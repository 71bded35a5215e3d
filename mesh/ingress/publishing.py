"""Doors to resources: the service that has the address, the CiliumEnvoyConfig that answers, the secrets it needs.

In:        Publications: what is to be there.
Out:       Service, CiliumEnvoyConfig and Secret resources in the cluster, those that are no longer wanted removed.
Elsewhere: controller.py and mesh/gateway/ say what is wanted.

Resources that we make carry a label; what a user has made under the same name is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mesh.cluster import Cluster
from mesh.envoyconfig.documents import USE_ORIGINAL_SOURCE, CiliumEnvoyConfig, EnvoyConfigSpec
from mesh.ingress.render import config_spec
from mesh.ingress.routes import Door
from mesh.ingress.secrets import SECRETS_NAMESPACE, Secret
from mesh.ingress.translate import SpeaksHttp2
from mesh.resources.base import Key, Metadata, Resource, changed
from mesh.resources.cluster import Namespace
from mesh.resources.services import Service, ServicePort, ServiceSpec

_HTTP2: Final = frozenset({"kubernetes.io/h2c", "h2c", "grpc"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """One load balancer."""

    namespace: str
    service: str
    config: str
    """Name of the CiliumEnvoyConfig."""
    doors: tuple[Door, ...]
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    service_type: str = "LoadBalancer"
    balancer_class: str = ""
    external_policy: str = ""
    node_ports: tuple[tuple[int, int], ...] = ()
    """Wanted node ports by port."""
    secrets: tuple[tuple[Key, str], ...] = ()
    """Secrets with the names of their copies in the secrets namespace."""

    @property
    def key(self) -> Key:
        return Key("Service", self.namespace, self.service)


def publish(cluster: Cluster, label: str, publications: Sequence[Publication]) -> None:
    """Put what the publications want, remove what else carries `label`."""
    wanted: set[Key] = set()
    for one in publications:
        for resource in (_service(cluster, label, one), _config(label, one), *_copies(cluster, label, one)):
            wanted.add(resource.key)
            existing = cluster.resources.get(resource.key)
            if existing is None or label in existing.metadata.labels:
                _put(cluster, resource, existing)
    for key, existing in list(cluster.resources.items()):
        if key not in wanted and label in existing.metadata.labels and isinstance(existing, _MADE):
            cluster.remove(key)


_MADE: Final = (Service, CiliumEnvoyConfig, Secret)


def _put(cluster: Cluster, resource: Resource, existing: Resource | None) -> None:
    if resource.namespace == SECRETS_NAMESPACE and cluster.namespace(SECRETS_NAMESPACE) is None:
        cluster.put(Namespace(api_version="v1", kind="Namespace", metadata=Metadata(name=SECRETS_NAMESPACE)))
    if existing is not None:
        metadata = changed(
            existing.metadata, labels=resource.metadata.labels, annotations=resource.metadata.annotations
        )
        resource = changed(resource, metadata=metadata)
    if existing is None or existing.dump() != resource.dump():
        cluster.put(resource)


def _service(cluster: Cluster, label: str, one: Publication) -> Service:
    existing = cluster.resources.get(one.key)
    before = existing if isinstance(existing, Service) else None
    old_ports = {port.port: port for port in before.spec.ports} if before else {}
    asked = dict(one.node_ports)
    ports = tuple(_port(door, old_ports.get(door.port), asked.get(door.port, 0)) for door in one.doors)
    fields: dict[str, object] = {"type": one.service_type, "ports": ports}
    if one.balancer_class:
        fields["load_balancer_class"] = one.balancer_class
    if one.external_policy:
        fields["external_traffic_policy"] = one.external_policy
    metadata = Metadata(
        name=one.service,
        namespace=one.namespace,
        labels={**dict(one.labels), label: "true"},
        annotations=dict(one.annotations),
    )
    if before is not None:
        return changed(before, metadata=metadata, spec=changed(before.spec, **fields))
    spec = ServiceSpec.model_validate(fields)
    return Service(api_version="v1", kind="Service", metadata=metadata, spec=spec)


def _port(door: Door, before: ServicePort | None, asked: int) -> ServicePort:
    if before is not None and asked in {0, before.node_port}:
        return before
    fields: dict[str, object] = {"name": door.name, "port": door.port, "protocol": "TCP"}
    return ServicePort.model_validate(fields | ({"node_port": asked} if asked else {}))


def _config(label: str, one: Publication) -> CiliumEnvoyConfig:
    return CiliumEnvoyConfig(
        api_version="cilium.io/v2",
        kind="CiliumEnvoyConfig",
        metadata=Metadata(
            name=one.config,
            namespace=one.namespace,
            labels={label: "true"},
            annotations={USE_ORIGINAL_SOURCE: "false"},
        ),
        spec=EnvoyConfigSpec.model_validate(config_spec(one.doors, one.namespace, one.service)),
    )


def _copies(cluster: Cluster, label: str, one: Publication) -> list[Secret]:
    found = []
    for key, name in one.secrets:
        secret = cluster.resources.get(key)
        if isinstance(secret, Secret):
            metadata = Metadata(name=name, namespace=SECRETS_NAMESPACE, labels={label: "true"})
            found.append(changed(secret, metadata=metadata))
    return found


def speaks_http2(cluster: Cluster) -> SpeaksHttp2:
    """By the appProtocol of the service's port."""

    def look(namespace: str, name: str, port: str) -> bool:
        service = cluster.resources.get(Key("Service", namespace, name))
        ports = service.spec.ports if isinstance(service, Service) else ()
        found = next((one for one in ports if port in {str(one.port), one.name}), None)
        return found is not None and found.app_protocol in _HTTP2

    return look
