"""Rules of HTTPRoute and GRPCRoute, in the model of routes.

In:        a route; the cluster's services and grants.
Out:       Routes, and why a backend cannot be used.
Elsewhere: attaching.py says under which hosts they are found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mesh.cluster import Cluster
from mesh.gateway.documents import (
    GROUP,
    AnyRoute,
    BackendRef,
    GrpcMatch,
    GrpcRouteRule,
    HeaderModifier,
    HttpMatch,
    HTTPRoute,
    HttpRouteRule,
    PathModifier,
    ReferenceGrant,
    RouteFilter,
    ValueMatch,
    seconds,
)
from mesh.ingress.publishing import speaks_http2
from mesh.ingress.routes import Backend, HeaderChanges, Match, Mirror, Redirect, Retry, Rewrite, Route, Value
from mesh.resources.base import Key
from mesh.resources.services import Service


@dataclass(slots=True)
class References:
    """What a route refers to, and what of it is wrong."""

    cluster: Cluster
    owner: AnyRoute
    problem: tuple[str, str] = ("", "")
    """Reason and message of the first reference that cannot be followed."""

    def backend(self, ref: BackendRef, filters: Iterable[RouteFilter] = ()) -> Backend:
        """The backend; one that is not valid where the reference leads nowhere."""
        namespace = ref.namespace or self.owner.namespace
        reason, message = self._wrong(ref, namespace)
        if reason and not self.problem[0]:
            self.problem = (reason, message)
        request, response = _header_changes(filters)
        port = str(ref.port or 0)
        return Backend(
            namespace=namespace,
            service=ref.name,
            port=port,
            weight=ref.weight,
            http2=self.owner.kind == "GRPCRoute" or speaks_http2(self.cluster)(namespace, ref.name, port),
            valid=not reason,
            request_headers=request,
            response_headers=response,
        )

    def _wrong(self, ref: BackendRef, namespace: str) -> tuple[str, str]:
        if (ref.group, ref.kind) != ("", "Service"):
            return "InvalidKind", f"{ref.group}/{ref.kind} {ref.name} cannot be a backend; a Service can"
        if namespace != self.owner.namespace and not granted(
            self.cluster, self.owner.kind, self.owner.namespace, Key("Service", namespace, ref.name)
        ):
            return "RefNotPermitted", f"no ReferenceGrant in namespace {namespace} allows Service {ref.name}"
        service = self.cluster.resources.get(Key("Service", namespace, ref.name))
        if not isinstance(service, Service) or ref.port not in {one.port for one in service.spec.ports}:
            return "BackendNotFound", f"there is no Service {namespace}/{ref.name} with port {ref.port}"
        return "", ""


def granted(cluster: Cluster, kind: str, namespace: str, target: Key) -> bool:
    """Whether a resource of the Gateway API in `namespace` may refer to a Service or Secret of another namespace."""
    return any(
        any((one.group, one.kind, one.namespace) == (GROUP, kind, namespace) for one in grant.spec.from_)
        and any(one.group == "" and one.kind == target.kind and one.name in {"", target.name} for one in grant.spec.to)
        for grant in cluster.resources.values()
        if isinstance(grant, ReferenceGrant) and grant.namespace == target.namespace
    )


def routes_of(route: AnyRoute, references: References) -> tuple[Route, ...]:
    """All rules, one Route per match."""
    if isinstance(route, HTTPRoute):
        return tuple(one for rule in route.spec.rules for one in _http_rule(rule, references))
    return tuple(one for rule in route.spec.rules for one in _grpc_rule(rule, references))


def _http_rule(rule: HttpRouteRule, references: References) -> Iterator[Route]:
    retry = rule.retry
    for match in rule.matches or (HttpMatch(),):
        yield _route(
            _http_match(match),
            rule,
            references,
            timeout=seconds(rule.timeouts.request) if rule.timeouts.request else "0s",
            try_timeout=seconds(rule.timeouts.backend_request) if rule.timeouts.backend_request else "",
            retry=Retry(
                codes=retry.codes, attempts=retry.attempts, backoff=seconds(retry.backoff) if retry.backoff else ""
            )
            if retry
            else None,
        )


def _grpc_rule(rule: GrpcRouteRule, references: References) -> Iterator[Route]:
    for match in rule.matches or (GrpcMatch(),):
        yield _route(_grpc_match(match), rule, references)


def _route(
    match: Match,
    rule: HttpRouteRule | GrpcRouteRule,
    references: References,
    timeout: str = "0s",
    try_timeout: str = "",
    retry: Retry | None = None,
) -> Route:
    request, response = _header_changes(rule.filters)
    return Route(
        match=match,
        backends=tuple(references.backend(one, one.filters) for one in rule.backend_refs),
        redirect=next((_redirect(one) for one in rule.filters if one.request_redirect), None),
        rewrite=next((_rewrite(one) for one in rule.filters if one.url_rewrite), None),
        request_headers=request,
        response_headers=response,
        mirrors=tuple(_mirror(one, references) for one in rule.filters if one.request_mirror),
        timeout=timeout,
        try_timeout=try_timeout if try_timeout != "0s" else "",
        retry=retry,
    )


def _http_match(match: HttpMatch) -> Match:
    kinds = {"Exact": "Exact", "PathPrefix": "Prefix", "RegularExpression": "Regex"}
    return Match(
        kind=kinds[match.path.type],  # type: ignore[arg-type]
        path=match.path.value,
        method=match.method,
        headers=_values(match.headers),
        query=_values(match.query_params),
    )


def _grpc_match(match: GrpcMatch) -> Match:
    """A gRPC method is a path: /package.Service/Method."""
    headers, method = _values(match.headers), match.method
    if method is None:
        return Match(headers=headers)
    if method.type == "Exact" and method.service:
        kind, path = (
            ("Exact", f"/{method.service}/{method.method}") if method.method else ("Prefix", f"/{method.service}")
        )
        return Match(kind=kind, path=path, headers=headers)  # type: ignore[arg-type]
    service = method.service or "[^/]+"
    wanted = method.method if method.type == "RegularExpression" else re.escape(method.method)
    return Match(kind="Regex", path=f"/{service}/{wanted or '[^/]+'}", headers=headers)


def _values(matches: Iterable[ValueMatch]) -> tuple[Value, ...]:
    return tuple(Value(one.name, one.value, one.type == "RegularExpression") for one in matches)


def _header_changes(filters: Iterable[RouteFilter]) -> tuple[HeaderChanges, HeaderChanges]:
    """Of requests and of responses."""
    request = response = HeaderChanges()
    for one in filters:
        if one.request_header_modifier:
            request = _changes(one.request_header_modifier)
        if one.response_header_modifier:
            response = _changes(one.response_header_modifier)
    return request, response


def _changes(one: HeaderModifier) -> HeaderChanges:
    return HeaderChanges(
        set=tuple((header.name, header.value) for header in one.set),
        add=tuple((header.name, header.value) for header in one.add),
        remove=one.remove,
    )


def _path(one: PathModifier | None) -> tuple[str, str | None]:
    """The whole path, or the new prefix."""
    if one is None:
        return "", None
    if one.type == "ReplaceFullPath":
        return one.replace_full_path or "/", None
    return "", one.replace_prefix_match or ""


def _redirect(one: RouteFilter) -> Redirect:
    asked = one.request_redirect
    assert asked is not None
    path, prefix = _path(asked.path)
    return Redirect(
        scheme=asked.scheme,
        host=asked.hostname,
        port=asked.port or 0,
        path=path,
        prefix=prefix,
        status=asked.status_code,
    )


def _rewrite(one: RouteFilter) -> Rewrite:
    asked = one.url_rewrite
    assert asked is not None
    path, prefix = _path(asked.path)
    return Rewrite(host=asked.hostname, path=path, prefix=prefix)


def _mirror(one: RouteFilter, references: References) -> Mirror:
    asked = one.request_mirror
    assert asked is not None
    backend = references.backend(asked.backend_ref)
    if asked.fraction is not None:
        return Mirror(backend=backend, numerator=asked.fraction.numerator, denominator=asked.fraction.denominator)
    return Mirror(backend=backend, numerator=100 if asked.percent is None else asked.percent)
