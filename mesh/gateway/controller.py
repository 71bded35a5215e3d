"""Keeps what follows from Gateways: a service, a CiliumEnvoyConfig, copies of secrets, and conditions.

In:        the cluster's resources.
Out:       the same cluster with those resources put, changed and removed.
Elsewhere: mesh/controller.py calls `reconcile` in each round; mesh/services/ gives the services their addresses.

Source: spec/mesh.md section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from mesh.cluster import Cluster
from mesh.gateway.attaching import ROUTE_KINDS, Answer, Attachment, attach, parents
from mesh.gateway.documents import (
    CONTROLLER,
    AnyRoute,
    Gateway,
    GatewayAddress,
    GatewayClass,
    GatewayClassStatus,
    GatewayStatus,
    GRPCRoute,
    HTTPRoute,
    Listener,
    ListenerStatus,
    ParentRef,
    ParentStatus,
    RouteKind,
    RouteStatus,
)
from mesh.gateway.rules import References, granted, routes_of
from mesh.ingress import publishing
from mesh.ingress.publishing import Publication
from mesh.ingress.routes import Certificate, Door, Host, Route, merged
from mesh.ingress.secrets import Secret
from mesh.ingress.translate import secret_copy
from mesh.resources.base import Condition, Key, changed
from mesh.resources.services import Service

LABEL: Final = "io.cilium.gateway/owning-gateway"


@dataclass(slots=True)
class _Listening:
    """A listener and what has become of it."""

    listener: Listener
    problem: tuple[str, str, str] = ("", "", "")
    """Condition, reason, message."""
    secrets: list[Key] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)

    @property
    def works(self) -> bool:
        return not self.problem[0]


def reconcile(cluster: Cluster) -> None:
    """Bring services, configurations, secrets and conditions in line with the Gateways of our classes."""
    classes = [
        one
        for one in cluster.resources.values()
        if isinstance(one, GatewayClass) and one.spec.controller_name == CONTROLLER
    ]
    for each in classes:
        accepted = GatewayClassStatus(conditions=(_condition("Accepted", True, "Accepted"),))
        if each.status.conditions != accepted.conditions:
            cluster.put(changed(each, status=accepted))
    ours = {one.name for one in classes}
    gateways = [
        one for one in cluster.resources.values() if isinstance(one, Gateway) and one.spec.gateway_class_name in ours
    ]
    listening = {one.key: _listen(one, cluster) for one in gateways}
    rules = _attach_routes(cluster, gateways, listening)
    publications = {one.key: _publication(one, listening[one.key], rules) for one in gateways}
    publishing.publish(cluster, LABEL, list(publications.values()))
    for one in gateways:
        _tell(cluster, one, listening[one.key], cluster.resources.get(publications[one.key].key))


def _listen(gateway: Gateway, cluster: Cluster) -> list[_Listening]:
    found: list[_Listening] = []
    protocols: dict[int, str] = {}
    taken: set[tuple[int, str]] = set()
    for listener in gateway.spec.listeners:
        one = _Listening(listener)
        found.append(one)
        if listener.protocol not in ROUTE_KINDS:
            one.problem = ("Accepted", "UnsupportedProtocol", f"{listener.protocol} is not supported")
        elif protocols.setdefault(listener.port, listener.protocol) != listener.protocol:
            one.problem = ("Conflicted", "ProtocolConflict", f"port {listener.port} speaks {protocols[listener.port]}")
        elif (listener.port, listener.hostname) in taken:
            one.problem = ("Conflicted", "HostnameConflict", "an earlier listener has the same port and host name")
        elif listener.protocol == "HTTPS":
            _find_certificates(one, gateway, cluster)
        taken.add((listener.port, listener.hostname))
    return found


def _find_certificates(one: _Listening, gateway: Gateway, cluster: Cluster) -> None:
    refs = one.listener.tls.certificate_refs if one.listener.tls else ()
    if not refs:
        one.problem = ("ResolvedRefs", "InvalidCertificateRef", "HTTPS needs tls.certificateRefs")
    for ref in refs:
        key = Key("Secret", ref.namespace or gateway.namespace, ref.name)
        secret = cluster.resources.get(key)
        if key.namespace != gateway.namespace and not granted(cluster, "Gateway", gateway.namespace, key):
            one.problem = ("ResolvedRefs", "RefNotPermitted", f"no ReferenceGrant allows {key}")
        elif not isinstance(secret, Secret) or not {"tls.crt", "tls.key"} <= secret.keys:
            one.problem = ("ResolvedRefs", "InvalidCertificateRef", f"there is no {key} with tls.crt and tls.key")
        else:
            one.secrets.append(key)


def _attach_routes(
    cluster: Cluster, gateways: Sequence[Gateway], listening: dict[Key, list[_Listening]]
) -> dict[Key, tuple[Route, ...]]:
    """Routes to listeners, and to each route what its parents say; gives the rules of each route."""
    routes: list[AnyRoute] = [one for one in cluster.resources.values() if isinstance(one, HTTPRoute | GRPCRoute)]
    rules: dict[Key, tuple[Route, ...]] = {}
    for route in sorted(routes, key=lambda one: (one.namespace, one.name, one.kind)):
        references = References(cluster, route)
        rules[route.key] = routes_of(route, references)
        told = []
        for ref, gateway in parents(route, gateways):
            usable = [one.listener for one in listening[gateway.key] if one.works]
            answer = attach(route, ref, gateway, usable, cluster)
            for one in listening[gateway.key]:
                one.attachments += [each for each in answer.attachments if each.listener is one.listener]
            told.append(_parent_status(ref, answer, references.problem))
        # What other controllers have said stays.
        others = [one for one in route.status.parents if one.controller_name != CONTROLLER]
        status = RouteStatus(parents=(*others, *told))
        if route.status.parents != status.parents:
            cluster.put(changed(route, status=status))
    return rules


def _parent_status(ref: ParentRef, answer: Answer, problem: tuple[str, str]) -> ParentStatus:
    reason, message = problem
    return ParentStatus(
        parent_ref=ref,
        controller_name=CONTROLLER,
        conditions=(
            _condition("Accepted", answer.accepted, answer.reason, answer.message),
            _condition("ResolvedRefs", not reason, reason or "ResolvedRefs", message),
        ),
    )


def _publication(gateway: Gateway, listening: Iterable[_Listening], rules: dict[Key, tuple[Route, ...]]) -> Publication:
    by_port: dict[int, list[_Listening]] = {}
    for one in listening:
        if one.works:
            by_port.setdefault(one.listener.port, []).append(one)
    secrets = [key for group in by_port.values() for one in group for key in one.secrets]
    infrastructure = gateway.spec.infrastructure
    addresses = ",".join(one.value for one in gateway.spec.addresses if one.type == "IPAddress" and one.value)
    annotations = {**infrastructure.annotations, **({"lbipam.cilium.io/ips": addresses} if addresses else {})}
    name = f"cilium-gateway-{gateway.name}"
    return Publication(
        namespace=gateway.namespace,
        service=name,
        config=name,
        doors=tuple(_door(port, group, rules) for port, group in sorted(by_port.items())),
        labels=(*infrastructure.labels.items(), ("gateway.networking.k8s.io/gateway-name", gateway.name)),
        annotations=tuple(annotations.items()),
        secrets=tuple((key, secret_copy(key.namespace, key.name)) for key in dict.fromkeys(secrets)),
    )


def _door(port: int, group: Sequence[_Listening], rules: dict[Key, tuple[Route, ...]]) -> Door:
    attachments = [each for one in group for each in one.attachments]
    hosts = [Host(name=host, routes=rules[one.route.key]) for one in attachments for host in one.hosts]
    return Door(
        name=f"port-{port}",
        port=port,
        hosts=merged(hosts),
        certificates=tuple(
            Certificate(
                secret=secret_copy(key.namespace, key.name),
                hosts=(one.listener.hostname,) if one.listener.hostname else (),
            )
            for one in group
            for key in one.secrets
        ),
    )


def _tell(cluster: Cluster, gateway: Gateway, listening: Sequence[_Listening], service: object) -> None:
    addresses = service.balancer_ips if isinstance(service, Service) else ()
    works = any(one.works for one in listening)
    status = GatewayStatus(
        addresses=tuple(GatewayAddress(value=one) for one in addresses),
        conditions=(
            _condition("Accepted", works, "Accepted" if works else "ListenersNotValid"),
            _condition(
                "Programmed",
                works and bool(addresses),
                "Programmed" if works and addresses else "AddressNotAssigned" if works else "Invalid",
            ),
        ),
        listeners=tuple(_listener_status(one) for one in listening),
    )
    if gateway.status.model_dump() != status.model_dump():
        cluster.put(changed(gateway, status=status))


def _listener_status(one: _Listening) -> ListenerStatus:
    condition, reason, message = one.problem
    conflicted = condition == "Conflicted"
    conflict = (reason, message) if conflicted else ("NoConflicts", "")
    return ListenerStatus(
        name=one.listener.name,
        attached_routes=len({each.route.key for each in one.attachments}),
        supported_kinds=tuple(RouteKind(kind=kind) for kind in ROUTE_KINDS.get(one.listener.protocol, ())),
        conditions=(
            _condition(
                "Accepted",
                condition not in {"Accepted", "Conflicted"},
                reason if condition in {"Accepted", "Conflicted"} else "Accepted",
                message if condition == "Accepted" else "",
            ),
            _condition(
                "ResolvedRefs",
                condition != "ResolvedRefs",
                reason if condition == "ResolvedRefs" else "ResolvedRefs",
                message if condition == "ResolvedRefs" else "",
            ),
            _condition("Programmed", one.works, "Programmed" if one.works else "Invalid"),
            _condition("Conflicted", conflicted, *conflict),
        ),
    )


def _condition(kind: str, true: bool, reason: str, message: str = "") -> Condition:
    status: Literal["True", "False"] = "True" if true else "False"
    return Condition(type=kind, status=status, reason=reason, message=message)
