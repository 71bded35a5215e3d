"""From doors, hosts and routes to the Service and the CiliumEnvoyConfig that serve them.

In:        Doors (routes.py).
Out:       the spec of a CiliumEnvoyConfig as plain data: a listener and routes for each door, a cluster per backend.
Elsewhere: mesh/envoyconfig/ completes it on each node.

Source: spec/mesh.md section 4, "Routes" and "Listener details".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from mesh.envoyconfig import messages
from mesh.ingress.routes import (
    Backend,
    Door,
    HeaderChanges,
    Host,
    Match,
    Mirror,
    Redirect,
    Retry,
    Rewrite,
    Route,
    Value,
)
from mesh.ingress.secrets import SECRETS_NAMESPACE

_FILTERS: Final = "envoy.extensions.filters.http"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
IDLE_TIMEOUT: Final = "60s"
NOWHERE: Final = "nowhere"
"""A cluster that does not exist."""

Plain = dict[str, Any]


def config_spec(doors: Sequence[Door], namespace: str, service: str) -> Plain:
    """The spec of a CiliumEnvoyConfig in `namespace`, for the doors of the service called `service`."""
    backends = {_cluster_name(one): one for one in _all_backends(doors) if one.valid}
    listeners = [_listener(door) for door in doors]
    routes = [_typed(messages.ROUTES, _routes(door)) for door in doors if door.certificates or not door.tls]
    clusters = [_typed(messages.CLUSTER, _cluster(backends[name])) for name in sorted(backends)]
    ports: dict[tuple[str, str], list[str]] = {}
    for one in backends.values():
        ports.setdefault((one.namespace, one.service), []).append(one.port)
    return {
        "services": [
            {"name": service, "namespace": namespace, "ports": [door.port], "listener": door.name} for door in doors
        ],
        "backendServices": [
            {"name": name, "namespace": where, "number": sorted(set(numbers))}
            for (where, name), numbers in sorted(ports.items())
        ],
        "resources": [*listeners, *routes, *clusters],
    }


def _typed(name: str, fields: Plain) -> Plain:
    return {"@type": messages.URL + name, **fields}


def _all_backends(doors: Iterable[Door]) -> Iterable[Backend]:
    for door in doors:
        for passthrough in door.passthroughs:
            yield from passthrough.backends
        for host in door.hosts:
            for route in host.routes:
                yield from route.backends
                yield from (mirror.backend for mirror in route.mirrors)


def _cluster_name(one: Backend) -> str:
    if not one.valid:
        return NOWHERE
    return f"{one.namespace}:{one.service}:{one.port}" + (":h2c" if one.http2 else "")


def _cluster(one: Backend) -> Plain:
    protocol = "http2_protocol_options" if one.http2 else "http_protocol_options"
    return {
        "name": _cluster_name(one),
        "type": "EDS",
        "eds_cluster_config": {"service_name": f"{one.namespace}/{one.service}:{one.port}"},
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "outlier_detection": {"split_external_local_origin_errors": True, "consecutive_local_origin_failure": 2},
        "typed_extension_protocol_options": {
            messages.HTTP_OPTIONS: _typed(
                messages.HTTP_OPTIONS,
                {
                    "common_http_protocol_options": {"idle_timeout": IDLE_TIMEOUT},
                    "explicit_http_config": {protocol: {}},
                },
            )
        },
    }


# --- listeners ---


def _listener(door: Door) -> Plain:
    chains: list[Plain] = []
    taken: set[str] = set()
    for passthrough in door.passthroughs:
        names = _server_names(passthrough.hosts, taken)
        if names is not None:
            chains.append(
                {"filter_chain_match": {"transport_protocol": "tls", **names}, "filters": [_tcp(passthrough.backends)]}
            )
    for one in door.certificates:
        names = _server_names(one.hosts, taken)
        if names is None:
            continue
        secret = {"name": f"{SECRETS_NAMESPACE}/{one.secret}"}
        context = {
            "common_tls_context": {"tls_certificate_sds_secret_configs": [secret], "alpn_protocols": ["h2", "http/1.1"]}
        }
        socket = {"name": "envoy.transport_sockets.tls", "typed_config": _typed(_TLS, context)}
        chains.append(
            {
                "filter_chain_match": {"transport_protocol": "tls", **names},
                "filters": [_http(door)],
                "transport_socket": socket,
            }
        )
    if not door.tls:
        chains.append({"filters": [_http(door)]})
    return _typed(messages.LISTENER, {"name": door.name, "filter_chains": chains})


def _server_names(hosts: Sequence[str], taken: set[str]) -> Plain | None:
    """The match for server names that no chain has yet; None when nothing is left, as two equal matches are refused."""
    wanted = [one for one in (hosts or ("*",)) if one not in taken]
    taken.update(wanted)
    if not wanted:
        return None
    return {} if "*" in wanted else {"server_names": wanted}


def _http(door: Door) -> Plain:
    filters = [
        ("envoy.filters.http.grpc_web", f"{_FILTERS}.grpc_web.v3.GrpcWeb"),
        ("envoy.filters.http.grpc_stats", f"{_FILTERS}.grpc_stats.v3.FilterConfig"),
        ("envoy.filters.http.router", f"{_FILTERS}.router.v3.Router"),
    ]
    manager = {
        "stat_prefix": door.name,
        "rds": {"route_config_name": door.name},
        "use_remote_address": True,
        "xff_num_trusted_hops": 0,
        "common_http_protocol_options": {"max_stream_duration": "0s"},
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [{"name": name, "typed_config": _typed(kind, {})} for name, kind in filters],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": _typed(messages.HCM, manager)}


def _tcp(backends: Sequence[Backend]) -> Plain:
    proxy = {"stat_prefix": "passthrough", **_destination(backends)}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": _typed(messages.TCP_PROXY, proxy)}


def _destination(backends: Sequence[Backend]) -> Plain:
    if len(backends) == 1:
        return {"cluster": _cluster_name(backends[0])}
    return {"weighted_clusters": {"clusters": [{"name": _cluster_name(one), "weight": one.weight} for one in backends]}}


# --- routes ---


def _routes(door: Door) -> Plain:
    others = next((host.routes for host in door.hosts if host.name == "*"), ())
    return {
        "name": door.name,
        # A Host header may carry a port; names of hosts never do.
        "ignore_port_in_host_matching": True,
        "virtual_hosts": [_virtual_host(host, others) for host in door.hosts],
    }


def _virtual_host(host: Host, others: Sequence[Route]) -> Plain:
    routes = [_route(one, _authority(host)) for one in host.routes]
    if _authority(host):
        # For names with more labels than the wildcard stands for, it is as if this host were not there.
        routes += [_route(one, []) for one in others]
    return {"name": host.name, "domains": [host.name], "routes": routes}


def _authority(host: Host) -> list[Plain]:
    if not (host.one_label and host.name.startswith("*.")):
        return []
    pattern = rf"[^.]+{re.escape(host.name[1:])}(:[0-9]+)?"
    return [{"name": ":authority", "string_match": {"safe_regex": {"regex": pattern}, "ignore_case": False}}]


def _route(route: Route, authority: list[Plain]) -> Plain:
    plain: Plain = {"match": _match(route.match, authority)}
    plain |= _headers(route.request_headers, "request") | _headers(route.response_headers, "response")
    backends = [one for one in route.backends if one.weight > 0]
    if route.redirect is not None:
        plain["redirect"] = _redirect(route.redirect, route.match)
    elif not backends:
        plain["direct_response"] = {"status": route.status}
    else:
        plain["route"] = _action(route, backends)
    return plain


def _match(match: Match, authority: list[Plain]) -> Plain:
    prefix = match.path.rstrip("/")
    path: Plain
    if match.kind == "Exact":
        path = {"path": match.path}
    elif match.kind == "Regex":
        path = {"safe_regex": {"regex": match.path}}
    elif prefix:
        path = {"path_separated_prefix": prefix}
    else:
        path = {"prefix": "/"}
    method = [{"name": ":method", "string_match": {"exact": match.method}}] if match.method else []
    headers = [*authority, *method, *({"name": one.name, "string_match": _text(one)} for one in match.headers)]
    query = [{"name": one.name, "string_match": _text(one)} for one in match.query]
    return path | ({"headers": headers} if headers else {}) | ({"query_parameters": query} if query else {})


def _text(one: Value) -> Plain:
    return {"safe_regex": {"regex": one.value}} if one.regex else {"exact": one.value}


def _headers(changes: HeaderChanges, side: str) -> Plain:
    added = [
        {"header": {"key": key, "value": value}, "append_action": action}
        for pairs, action in (
            (changes.set, "OVERWRITE_IF_EXISTS_OR_ADD"),
            (changes.add, "APPEND_IF_EXISTS_OR_ADD"),
        )
        for key, value in pairs
    ]
    plain: Plain = {f"{side}_headers_to_add": added} if added else {}
    return plain | ({f"{side}_headers_to_remove": list(changes.remove)} if changes.remove else {})


_STATUS: Final = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def _redirect(one: Redirect, match: Match) -> Plain:
    plain: Plain = {"response_code": _STATUS[one.status]}
    if one.scheme:
        plain["scheme_redirect"] = one.scheme
    if one.host:
        plain["host_redirect"] = one.host
    if one.port:
        plain["port_redirect"] = one.port
    if one.path:
        plain["path_redirect"] = one.path
    elif one.prefix is not None:
        plain |= _replaced_prefix(match, one.prefix)
    return plain


def _replaced_prefix(match: Match, prefix: str) -> Plain:
    """Another prefix in place of the one that matched, with exactly one slash where they meet."""
    old, new = match.path.rstrip("/"), prefix.rstrip("/")
    pattern, substitution = rf"^{re.escape(old)}/*(.*)$", rf"{_literal(new)}/\1"
    if not new:
        return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": substitution}}
    return (
        {"prefix_rewrite": new}
        if old
        else {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": substitution}}
    )


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\")


def _action(route: Route, backends: Sequence[Backend]) -> Plain:
    plain: Plain = {"timeout": route.timeout}
    if not all(one.valid for one in backends):
        plain["cluster_not_found_response_code"] = "INTERNAL_SERVER_ERROR"
    changed = any(one.request_headers != HeaderChanges() or one.response_headers != HeaderChanges() for one in backends)
    if len(backends) == 1 and not changed:
        plain["cluster"] = _cluster_name(backends[0])
    else:
        plain["weighted_clusters"] = {
            "clusters": [
                {"name": _cluster_name(one), "weight": one.weight}
                | _headers(one.request_headers, "request")
                | _headers(one.response_headers, "response")
                for one in backends
            ]
        }
    if route.rewrite is not None:
        plain |= _rewrite(route.rewrite, route.match)
    if route.mirrors:
        plain["request_mirror_policies"] = [_mirror(one) for one in route.mirrors if one.backend.valid]
    retry = _retry(route.retry, route.try_timeout)
    return plain | ({"retry_policy": retry} if retry else {})


def _rewrite(one: Rewrite, match: Match) -> Plain:
    plain: Plain = {"host_rewrite_literal": one.host} if one.host else {}
    if one.path:
        return plain | {"regex_rewrite": {"pattern": {"regex": "^.*$"}, "substitution": _literal(one.path)}}
    return plain | (_replaced_prefix(match, one.prefix) if one.prefix is not None else {})


_MILLION: Final = 1_000_000


def _mirror(one: Mirror) -> Plain:
    share = one.numerator * _MILLION // one.denominator
    fraction = {"default_value": {"numerator": min(share, _MILLION), "denominator": "MILLION"}}
    return {"cluster": _cluster_name(one.backend), "runtime_fraction": fraction}


def _retry(retry: Retry | None, try_timeout: str) -> Plain:
    """A limit for a single try is a part of the retry policy in Envoy, with or without retries."""
    plain: Plain = {"per_try_timeout": try_timeout} if try_timeout else {}
    if retry is None:
        return plain
    plain["num_retries"] = retry.attempts
    plain["retry_on"] = "retriable-status-codes,connect-failure,reset" if retry.codes else "connect-failure,reset"
    if retry.codes:
        plain["retriable_status_codes"] = list(retry.codes)
    if retry.backoff:
        plain["retry_back_off"] = {"base_interval": retry.backoff}
    return plain
