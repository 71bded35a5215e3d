"""Services that Envoy balances request by request, because an annotation of theirs says so.

In:        the cluster's services.
Out:       the same cluster with a CiliumEnvoyConfig for each such service, and without those of others.
Elsewhere: mesh/resources/services.py checks the annotations; mesh/controller.py calls `reconcile` in each round.

Without it a connection has one backend for as long as it lives, and with it each request has one of its own. TLS stays
closed: such a connection goes to one backend as a whole.

Source: spec/mesh.md section 3, "Annotation form for a simple case".
"""

from __future__ import annotations

from typing import Any, Final

from mesh.cluster import Cluster
from mesh.envoyconfig import messages
from mesh.envoyconfig.documents import CiliumEnvoyConfig, EnvoyConfigSpec
from mesh.resources.base import Metadata, changed
from mesh.resources.services import L7_ALGORITHM, Service

LABEL: Final = "cilium.io/lb-l7"
"""Of the resources that are made here."""
_POLICIES: Final = {
    "": "ROUND_ROBIN",
    "round_robin": "ROUND_ROBIN",
    "least_request": "LEAST_REQUEST",
    "random": "RANDOM",
}
_ROUTER: Final = "envoy.filters.http.router"

Plain = dict[str, Any]


def reconcile(cluster: Cluster) -> None:
    """Bring the resources that are made here in line with services. What a user has made is left alone."""
    services = [one for one in cluster.resources.values() if isinstance(one, Service) and one.wants_l7]
    wanted = {one.key: one for one in map(_config, services) if one.spec.services}
    made = {
        key: one
        for key, one in cluster.resources.items()
        if isinstance(one, CiliumEnvoyConfig) and LABEL in one.metadata.labels
    }
    for key in made.keys() - wanted.keys():
        cluster.remove(key)
    for key, config in wanted.items():
        existing = made.get(key)
        if existing is None and key not in cluster.resources:
            cluster.put(config)
        elif existing is not None and existing.spec != config.spec:
            cluster.put(changed(existing, spec=config.spec))


def _config(service: Service) -> CiliumEnvoyConfig:
    ports = [one.port for one in service.spec.ports if one.protocol == "TCP"] if not service.headless else []
    clusters = {port: f"{service.namespace}/{service.name}:{port}" for port in ports}
    policy = _POLICIES[service.metadata.annotations.get(L7_ALGORITHM, "")]
    spec = {
        "services": [
            {"name": service.name, "namespace": service.namespace, "ports": [port], "listener": _listener_name(port)}
            for port in ports
        ],
        "backendServices": [{"name": service.name, "namespace": service.namespace, "number": [*map(str, ports)]}],
        "resources": [
            resource
            for port, cluster in clusters.items()
            for resource in (_listener(port, cluster), _routes(port, cluster), _cluster(cluster, policy))
        ],
    }
    return CiliumEnvoyConfig(
        api_version="cilium.io/v2",
        kind="CiliumEnvoyConfig",
        metadata=Metadata(name=f"cilium-envoy-lb-{service.name}", namespace=service.namespace, labels={LABEL: "true"}),
        spec=EnvoyConfigSpec.model_validate(spec),
    )


def _listener_name(port: int) -> str:
    return f"port-{port}"


def _listener(port: int, cluster: str) -> Plain:
    name = _listener_name(port)
    manager = _typed(
        messages.HCM,
        stat_prefix=name,
        rds={"route_config_name": name},
        common_http_protocol_options={"max_stream_duration": "0s"},
        upgrade_configs=[{"upgrade_type": "websocket"}],
        http_filters=[{"name": _ROUTER, "typed_config": _typed("envoy.extensions.filters.http.router.v3.Router")}],
    )
    proxy = _typed(messages.TCP_PROXY, stat_prefix=name, cluster=cluster)
    chains = [
        {"filter_chain_match": {"transport_protocol": transport}, "filters": [{"name": kind, "typed_config": config}]}
        for transport, kind, config in (
            ("raw_buffer", "envoy.filters.network.http_connection_manager", manager),
            ("tls", "envoy.filters.network.tcp_proxy", proxy),
        )
    ]
    return _typed(messages.LISTENER, name=name, filter_chains=chains)


def _routes(port: int, cluster: str) -> Plain:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    return _typed(messages.ROUTES, name=_listener_name(port), virtual_hosts=hosts)


def _cluster(name: str, policy: str) -> Plain:
    return _typed(
        messages.CLUSTER,
        name=name,
        type="EDS",
        connect_timeout="5s",
        lb_policy=policy,
        outlier_detection={"split_external_local_origin_errors": True, "consecutive_local_origin_failure": 2},
    )


def _typed(kind: str, **fields: Any) -> Plain:
    return {"@type": messages.URL + kind, **fields}
