"""Keeps what follows from Ingress resources: a LoadBalancer service, a CiliumEnvoyConfig, copies of secrets, addresses.

In:        the cluster's resources.
Out:       the same cluster with those resources put, changed and removed.
Elsewhere: mesh/controller.py calls `reconcile` in each round; mesh/services/ gives the services their addresses;
           mesh/gateway/ does the same for Gateways with the functions of publishing.py.

Source: spec/mesh.md section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from mesh.cluster import Cluster
from mesh.ingress import publishing
from mesh.ingress.documents import (
    CLASS,
    CONTROLLER,
    Balancer,
    BalancerAddress,
    BalancerPort,
    Ingress,
    IngressClass,
    IngressStatus,
)
from mesh.ingress.publishing import Publication
from mesh.ingress.translate import HTTP, HTTPS, doors, number_of, secret_copy
from mesh.resources.base import Key, changed
from mesh.resources.services import NODE_PORTS, Service

SHARED_NAMESPACE: Final = "kube-system"
SHARED_NAME: Final = "cilium-ingress"
LABEL: Final = "cilium.io/ingress"
_COPIED: Final = (
    "lbipam.cilium.io",
    "nodeipam.cilium.io",
    "service.beta.kubernetes.io",
    "service.kubernetes.io",
    "cloud.google.com",
)
"""Annotations with these prefixes go on to the service."""
_SERVICE_TYPES: Final = {"NodePort": "NodePort"}


def reconcile(cluster: Cluster) -> None:
    """Bring services, configurations, secrets and addresses in line with the Ingress resources of our class."""
    ingresses = sorted(
        (one for one in cluster.resources.values() if isinstance(one, Ingress)),
        key=lambda one: (one.namespace, one.name),
    )
    mine = [one for one in ingresses if is_ours(one, cluster)]
    shared = [one for one in mine if _is_shared(one)]
    publications = {one.key: _dedicated(one, cluster) for one in mine if one not in shared}
    if shared:
        together = _shared(shared, cluster)
        publications |= {one.key: together for one in shared}
    publishing.publish(cluster, LABEL, list(publications.values()))
    for ingress in ingresses:
        publication = publications.get(ingress.key)
        _tell_address(cluster, ingress, publication)


def is_ours(ingress: Ingress, cluster: Cluster) -> bool:
    """By class name, by the older annotation, or because our class is the default one."""
    name = ingress.spec.ingress_class_name or ingress.metadata.annotations.get("kubernetes.io/ingress.class")
    if name:
        named = cluster.resources.get(Key("IngressClass", "", name))
        return named.spec.controller == CONTROLLER if isinstance(named, IngressClass) else name == CLASS
    classes = [one for one in cluster.resources.values() if isinstance(one, IngressClass)]
    return any(one.is_default and one.spec.controller == CONTROLLER for one in classes)


class Names(NamedTuple):
    """What is made of an Ingress."""

    namespace: str
    service: str
    config: str


def names_of(ingress: Ingress) -> Names:
    """Where an Ingress of our class is reached, and what says how it is served."""
    if _is_shared(ingress):
        return Names(SHARED_NAMESPACE, SHARED_NAME, SHARED_NAME)
    name = f"cilium-ingress-{ingress.name}"
    return Names(ingress.namespace, name, f"cilium-ingress-{ingress.namespace}-{ingress.name}")


def _is_shared(ingress: Ingress) -> bool:
    return ingress.annotation("loadbalancer-mode") == "shared"


def _dedicated(ingress: Ingress, cluster: Cluster) -> Publication:
    names = names_of(ingress)
    return Publication(
        namespace=names.namespace,
        service=names.service,
        config=names.config,
        doors=doors([ingress], publishing.speaks_http2(cluster)),
        annotations=tuple(
            (key, value)
            for key, value in ingress.metadata.annotations.items()
            if key.partition("/")[0].endswith(_COPIED)
        ),
        service_type=_SERVICE_TYPES.get(ingress.annotation("service-type"), "LoadBalancer"),
        balancer_class=ingress.annotation("loadbalancer-class"),
        external_policy="Local" if ingress.annotation("service-external-traffic-policy") == "Local" else "",
        node_ports=tuple(
            (port, number)
            for port, name in ((HTTP, "insecure-node-port"), (HTTPS, "secure-node-port"))
            if (number := number_of(ingress.annotation(name))) in range(NODE_PORTS[0], NODE_PORTS[1] + 1)
        ),
        secrets=_secrets([ingress]),
    )


def _shared(ingresses: Sequence[Ingress], cluster: Cluster) -> Publication:
    return Publication(
        namespace=SHARED_NAMESPACE,
        service=SHARED_NAME,
        config=SHARED_NAME,
        doors=doors(ingresses, publishing.speaks_http2(cluster)),
        secrets=_secrets(ingresses),
    )


def _secrets(ingresses: Sequence[Ingress]) -> tuple[tuple[Key, str], ...]:
    return tuple(
        (Key("Secret", one.namespace, tls.secret_name), secret_copy(one.namespace, tls.secret_name))
        for one in ingresses
        for tls in one.spec.tls
        if tls.secret_name
    )


def _tell_address(cluster: Cluster, ingress: Ingress, publication: Publication | None) -> None:
    service = cluster.resources.get(publication.key) if publication else None
    addresses: tuple[BalancerAddress, ...] = ()
    if isinstance(service, Service):
        ports = tuple(BalancerPort(port=one.port, protocol=one.protocol) for one in service.spec.ports)
        addresses = tuple(BalancerAddress(ip=ip, ports=ports) for ip in service.balancer_ips)
    if ingress.status.load_balancer.ingress != addresses:
        cluster.put(changed(ingress, status=IngressStatus(load_balancer=Balancer(ingress=addresses))))
