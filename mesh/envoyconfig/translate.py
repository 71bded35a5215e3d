"""From CiliumEnvoyConfig resources to what one node's Envoy and kernel get.

In:        EnvoyConfig resources, services, pods and secrets; the node's Place.
Out:       a Translation: messages by type, redirects of services to listeners, and what cannot be done.
Elsewhere: mesh/envoy/ writes the messages to Envoy's files; the agent hands the redirects to bpf/service_maps.py.

Everything is a pure function, done again in each round. Where resources contradict each other, the one that comes first
by kind, namespace and name wins, and the other has a problem.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.envoyconfig import clusters, listeners, messages, naming
from mesh.envoyconfig.clusters import Endpoints, ServiceName
from mesh.envoyconfig.documents import EnvoyConfig
from mesh.envoyconfig.listeners import Place
from mesh.envoyconfig.naming import Names
from mesh.ingress.secrets import SECRETS_NAMESPACE, Secret
from mesh.resources.base import Key, Resource
from mesh.resources.cluster import Node
from mesh.resources.services import Service


@dataclass(frozen=True, slots=True)
class EnvoyResources:
    """Envoy's messages, each type sorted by name; names are unique in their type."""

    listeners: tuple[Any, ...] = ()
    routes: tuple[Any, ...] = ()
    clusters: tuple[Any, ...] = ()
    endpoints: tuple[Any, ...] = ()
    secrets: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """Traffic of a service that goes to a listener."""

    namespace: str
    service: str
    ports: tuple[int, ...]
    """Of the service; none: all."""
    listener: str
    """Full name."""
    proxy_port: int


@dataclass(frozen=True, slots=True)
class Translation:
    resources: EnvoyResources = EnvoyResources()
    redirects: tuple[Redirect, ...] = ()
    problems: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)
    """By resource: what of it does not take effect, and why."""


def translate(resources: Iterable[Resource], node: Node, place: Place) -> Translation:
    """Everything for `node` that follows from the resources of the cluster."""
    known = list(resources)
    configs = sorted((one for one in known if isinstance(one, EnvoyConfig)), key=lambda one: _order(one.key))
    mine = [one for one in configs if selects(one, node)]
    if not mine:
        return Translation()
    work = _Work(place, known)
    for config in mine:
        work.add(config)
    return work.done()


def _order(key: Key) -> tuple[bool, str, str]:
    """Resources of a namespace before those of the whole cluster."""
    return not key.namespace, key.namespace, key.name


def selects(config: EnvoyConfig, node: Node) -> bool:
    """Whether the resource is for this node."""
    selector = config.spec.node_selector
    return selector is None or selector.matches(node.metadata.labels)


class _Work:
    """One translation, while it grows."""

    def __init__(self, place: Place, resources: Sequence[Resource]) -> None:
        self._place = place
        self._services = {(one.namespace, one.name): one for one in resources if isinstance(one, Service)}
        self._endpoints = Endpoints(self._services.values(), resources)
        self._secrets = {(one.namespace, one.name): one for one in resources if isinstance(one, Secret)}
        self._found: dict[str, dict[str, Any]] = {kind: {} for kind in messages.KINDS}
        self._owners: dict[tuple[str, str], Key] = {}
        self._redirects: dict[tuple[str, str, int], tuple[Redirect, Key]] = {}
        self._problems: dict[Key, list[str]] = {}

    def add(self, config: EnvoyConfig) -> None:
        names = Names(config.namespace, config.name)
        own: list[Any] = []
        for raw in config.spec.resources:
            message: Any = messages.parse(raw)
            written = _name(message)
            naming.complete(message, names, self._place.source)
            kind = message.DESCRIPTOR.full_name
            if kind == messages.LISTENER:
                outside = message.HasField("address") or self._may_come_from_outside(
                    config, written, self._place.port(message.name)
                )
                listeners.complete(message, self._place, keeps_source=config.keeps_source, from_outside=outside)
                own.append(message)
            elif kind == messages.CLUSTER:
                clusters.complete(message, written, self._place)
            self._put(config.key, kind, message)
        self._redirect(config, names, own)
        self._learn_backends(config)

    def _may_come_from_outside(self, config: EnvoyConfig, listener: str, port: int) -> bool:
        """Whether one of the services that go to the listener at `port` is reached by others than pods and nodes.

        A service with just that port is one whose clients cannot be told from the node's own processes.
        """
        sent = [one for one in config.spec.services if one.listener in ("", listener)]
        services = [self._services.get((config.namespace_of(one), one.name)) for one in sent]
        return any(
            one is None
            or one.spec.type != "ClusterIP"
            or bool(one.spec.external_ips)
            or port in {each.port for each in one.spec.ports}
            for one in services
        )

    def _put(self, owner: Key, kind: str, message: Any) -> None:
        name = _name(message)
        before = self._found[kind].setdefault(name, message)
        first = self._owners.setdefault((kind, name), owner)
        if before is not message and before != message:
            what = kind.rpartition(".")[2]
            self._problem(owner, f"{what} {name} is already defined differently by {first}")

    def _problem(self, owner: Key, text: str) -> None:
        self._problems.setdefault(owner, []).append(text)

    def _redirect(self, config: EnvoyConfig, names: Names, own: Sequence[Any]) -> None:
        by_name = {one.name: one for one in own}
        for one in config.spec.services:
            namespace = config.namespace_of(one)
            listener = by_name.get(names.own(one.listener)) if one.listener else next(iter(own), None)
            if listener is None:
                wanted = f"listener {one.listener!r}" if one.listener else "listener"
                self._problem(config.key, f"service {namespace}/{one.name}: the resource has no {wanted}")
                continue
            redirect = Redirect(
                namespace=namespace,
                service=one.name,
                ports=tuple(sorted(one.ports)),
                listener=listener.name,
                proxy_port=listeners.port_of(listener),
            )
            for port in redirect.ports or (0,):
                self._claim(config.key, redirect, port)

    def _claim(self, owner: Key, redirect: Redirect, port: int) -> None:
        """One service goes to one listener; a claim of all ports (0) and one of a single port exclude each other."""
        service = (redirect.namespace, redirect.service)
        for (*other, taken), (_, first) in self._redirects.items():
            if tuple(other) == service and first != owner and (0 in (port, taken) or port == taken):
                self._problem(
                    owner, f"service {redirect.namespace}/{redirect.service} is already redirected by {first}"
                )
                return
        self._redirects.setdefault((*service, port), (redirect, owner))

    def _learn_backends(self, config: EnvoyConfig) -> None:
        """Endpoints under the names that a cluster of any resource may use."""
        for service in config.spec.services:
            self._publish(ServiceName(config.namespace_of(service), service.name))
        for backend in config.spec.backend_services:
            namespace = config.namespace_of(backend)
            for port in backend.number or ("",):
                self._publish(ServiceName(namespace, backend.name, port))

    def _publish(self, name: ServiceName) -> None:
        self._found[messages.ENDPOINTS].setdefault(str(name), self._endpoints.assignment(str(name)))

    def done(self) -> Translation:
        self._complete_routes()
        self._complete_endpoints()
        self._complete_secrets()
        ports: dict[tuple[str, str, str], list[int]] = {}
        redirects: dict[tuple[str, str, str], Redirect] = {}
        for (namespace, service, port), (redirect, _) in self._redirects.items():
            ports.setdefault((namespace, service, redirect.listener), []).append(port)
            redirects[namespace, service, redirect.listener] = redirect
        return Translation(
            EnvoyResources(*(tuple(found[name] for name in sorted(found)) for found in self._found.values())),
            tuple(
                Redirect(
                    namespace=one.namespace,
                    service=one.service,
                    ports=() if 0 in ports[key] else tuple(sorted(ports[key])),
                    listener=one.listener,
                    proxy_port=one.proxy_port,
                )
                for key, one in sorted(redirects.items())
            ),
            {key: tuple(texts) for key, texts in self._problems.items()},
        )

    def _complete_routes(self) -> None:
        """A listener without its routes would never start to listen."""
        for name, listener in self._found[messages.LISTENER].items():
            for wanted in sorted(_route_names(listener) - self._found[messages.ROUTES].keys()):
                self._found[messages.ROUTES][wanted] = messages.new(messages.ROUTES, name=wanted)
                self._problem(
                    self._owners[messages.LISTENER, name],
                    f"listener {name}: the resource has no RouteConfiguration {wanted.rpartition('/')[2]!r}",
                )

    def _complete_endpoints(self) -> None:
        """Every EDS cluster finds its assignment, so that Envoy does not wait for one; of services only listed ones."""
        published = self._found[messages.ENDPOINTS]
        listed = {name.partition(":")[0] for name in published}
        for name, cluster in self._found[messages.CLUSTER].items():
            if not cluster.HasField("eds_cluster_config"):
                continue
            wanted = cluster.eds_cluster_config.service_name
            if wanted in published:
                continue
            if wanted.partition(":")[0] in listed:
                published[wanted] = self._endpoints.assignment(wanted)
                continue
            published[wanted] = messages.new(messages.ENDPOINTS, cluster_name=wanted)
            self._problem(
                self._owners[messages.CLUSTER, name],
                f"cluster {name}: {wanted} is neither in services nor in backendServices, so it has no endpoints",
            )

    def _complete_secrets(self) -> None:
        """Secrets of the cluster that something refers to."""
        wanted: dict[str, Key] = {}
        for kind in (messages.LISTENER, messages.CLUSTER):
            for name, message in self._found[kind].items():
                for secret_name in _secret_names(message):
                    wanted.setdefault(secret_name, self._owners[kind, name])
        for name, owner in wanted.items():
            if name in self._found[messages.SECRET]:
                continue
            namespace, _, plain_name = name.partition("/")
            secret = self._secrets.get((namespace, plain_name))
            allowed = {SECRETS_NAMESPACE, owner.namespace}
            if secret is None or namespace not in allowed:
                self._problem(owner, f"there is no secret {name} (in {' or '.join(sorted(allowed - {''}))})")
            elif message := tls_secret(name, secret):
                self._found[messages.SECRET][name] = message
            else:
                self._problem(owner, f"secret {name} holds neither tls.crt and tls.key nor ca.crt")


_SDS: Final = "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig"


def _secret_names(message: Any) -> set[str]:
    names: set[str] = set()
    messages.edit(message, {_SDS: lambda one: names.add(one.name)})
    return names - {""}


def _route_names(message: Any) -> set[str]:
    names: set[str] = set()
    messages.edit(message, {messages.HCM: lambda one: names.add(one.rds.route_config_name)})
    return names - {""}


def tls_secret(name: str, secret: Secret) -> Any:
    """Envoy's form of a Kubernetes secret: a certificate with its key, or who is trusted; None for neither."""

    def inline(key: str) -> dict[str, str]:
        return {"inline_bytes": base64.b64encode(secret.content(key)).decode()}

    if {"tls.crt", "tls.key"} <= secret.keys:
        certificate = {"certificate_chain": inline("tls.crt"), "private_key": inline("tls.key")}
        return messages.new(messages.SECRET, name=name, tls_certificate=certificate)
    if "ca.crt" in secret.keys:
        return messages.new(messages.SECRET, name=name, validation_context={"trusted_ca": inline("ca.crt")})
    return None


def _name(message: Any) -> str:
    if message.DESCRIPTOR.full_name == messages.ENDPOINTS:
        return str(message.cluster_name)
    return str(message.name)
