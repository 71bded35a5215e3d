"""Resources of the Gateway API, as users write them.

In:        gateway.networking.k8s.io.
Out:       frozen models.
Elsewhere: rules.py and attaching.py say what they mean.

Source: spec/mesh.md section 5; names and rules of fields from the published types of the Gateway API.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

import re2
from pydantic import AfterValidator, Field, model_validator

from mesh.ingress.documents import HostName
from mesh.resources.base import Condition, Model, Resource
from mesh.resources.fields import DnsLabel, DnsName, Port
from mesh.resources.selectors import LabelSelector

GROUP: Final = "gateway.networking.k8s.io"
CONTROLLER: Final = "io.cilium/gateway-controller"
MAX_NAME: Final = 170
_DURATION: Final = re.compile(r"([0-9]{1,5}(ms|[hms])){1,4}")
_PART: Final = re.compile(r"([0-9]+)(ms|[hms])")
_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}")


def _duration(text: str) -> str:
    if not _DURATION.fullmatch(text):
        raise ValueError(f"must be a duration such as 10s, 500ms or 1m30s, got {text[:80]!r}")
    return text


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise ValueError(f"must be the name of a header, got {text[:80]!r}")
    return text


def _header_value(text: str) -> str:
    if not text or len(text) > 4096 or any(character < " " and character != "\t" for character in text):
        raise ValueError("must be 1 to 4096 characters without line breaks")
    return text


def seconds(duration: str) -> str:
    """A duration in the form that Envoy takes."""
    total = sum(int(number) * _MS[unit] for number, unit in _PART.findall(duration))
    return f"{total // 1000}s" if total % 1000 == 0 else f"{total / 1000:.3f}s"


def expression(text: str) -> str:
    """Raises: ValueError unless `text` is a regular expression that Envoy can use."""
    try:
        re2.compile(text)
    except re2.error as error:
        raise ValueError(f"must be a regular expression (RE2): {error}, got {text[:80]!r}") from None
    return text


Duration = Annotated[str, AfterValidator(_duration)]
HeaderName = Annotated[str, AfterValidator(_header)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]


# --- GatewayClass, Gateway, ReferenceGrant ---


class GatewayClassSpec(Model):
    controller_name: str
    ignored = frozenset({"description", "parametersRef"})


class GatewayClassStatus(Model):
    conditions: tuple[Condition, ...] = ()
    ignored = frozenset({"supportedFeatures"})


class GatewayClass(Resource):
    kind: Literal["GatewayClass"] = "GatewayClass"
    spec: GatewayClassSpec
    status: GatewayClassStatus = GatewayClassStatus()


class CertificateRef(Model):
    group: str = ""
    kind: str = "Secret"
    name: DnsName
    namespace: DnsLabel | Literal[""] = ""


class ListenerTls(Model):
    mode: Literal["Terminate", "Passthrough"] = "Terminate"
    certificate_refs: tuple[CertificateRef, ...] = ()
    ignored = frozenset({"options", "frontendValidation"})


class RouteNamespaces(Model):
    from_: Annotated[Literal["Same", "All", "Selector", "None"], Field(alias="from")] = "Same"
    selector: LabelSelector | None = None


class RouteKind(Model):
    group: str = GROUP
    kind: str


class AllowedRoutes(Model):
    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteKind, ...] = ()


class Listener(Model):
    name: DnsName
    hostname: HostName = ""
    port: Port
    protocol: Literal["HTTP", "HTTPS", "TLS", "TCP", "UDP"]
    tls: ListenerTls | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(Model):
    type: str = "IPAddress"
    value: str = ""


class Infrastructure(Model):
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    ignored = frozenset({"parametersRef"})


class GatewaySpec(Model):
    gateway_class_name: str
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64)]
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: Infrastructure = Infrastructure()
    ignored = frozenset({"backendTLS", "allowedListeners"})

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [one.name for one in self.listeners]
        if len(set(names)) != len(names):
            raise ValueError("listeners: names must differ")
        return self


class ListenerStatus(Model):
    name: str
    attached_routes: int = 0
    supported_kinds: tuple[RouteKind, ...] = ()
    conditions: tuple[Condition, ...] = ()


class GatewayStatus(Model):
    addresses: tuple[GatewayAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()


class Gateway(Resource):
    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec
    status: GatewayStatus = GatewayStatus()

    @model_validator(mode="after")
    def _name_leaves_room(self) -> Self:
        if len(self.metadata.name) > MAX_NAME:
            raise ValueError(f"metadata.name: must be at most {MAX_NAME} characters")
        return self


class GrantFrom(Model):
    group: str
    kind: str
    namespace: DnsLabel


class GrantTo(Model):
    group: str
    kind: str
    name: str = ""


class ReferenceGrantSpec(Model):
    from_: Annotated[tuple[GrantFrom, ...], Field(alias="from", min_length=1)]
    to: Annotated[tuple[GrantTo, ...], Field(min_length=1)]


class ReferenceGrant(Resource):
    kind: Literal["ReferenceGrant"] = "ReferenceGrant"
    spec: ReferenceGrantSpec


# --- what routes have in common ---


class ParentRef(Model):
    group: str = GROUP
    kind: str = "Gateway"
    name: DnsName
    namespace: DnsLabel | Literal[""] = ""
    section_name: str = ""
    port: Port | None = None


class ParentStatus(Model):
    parent_ref: ParentRef
    controller_name: str
    conditions: tuple[Condition, ...] = ()


class RouteStatus(Model):
    parents: tuple[ParentStatus, ...] = ()


class BackendRef(Model):
    group: str = ""
    kind: str = "Service"
    name: DnsName
    namespace: DnsLabel | Literal[""] = ""
    port: Port | None = None
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1


class Header(Model):
    name: HeaderName
    value: HeaderValue


class HeaderModifier(Model):
    set: tuple[Header, ...] = ()
    add: tuple[Header, ...] = ()
    remove: tuple[HeaderName, ...] = ()


class PathModifier(Model):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: str = ""
    replace_prefix_match: str | None = None


class RequestRedirect(Model):
    scheme: Literal["http", "https", ""] = ""
    hostname: HostName = ""
    path: PathModifier | None = None
    port: Port | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class UrlRewrite(Model):
    hostname: HostName = ""
    path: PathModifier | None = None


class Fraction(Model):
    numerator: Annotated[int, Field(ge=0, le=1_000_000_000)]
    denominator: Annotated[int, Field(ge=1, le=1_000_000_000)] = 100

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.numerator > self.denominator:
            raise ValueError("numerator must not be larger than denominator")
        return self


class RequestMirror(Model):
    backend_ref: BackendRef
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    fraction: Fraction | None = None


_FILTERS: Final = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "RequestMirror": "request_mirror",
}


class RouteFilter(Model):
    """Says in `type` which of its fields is there."""

    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "RequestMirror"]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: Annotated[UrlRewrite | None, Field(alias="urlRewrite")] = None
    request_mirror: RequestMirror | None = None

    @model_validator(mode="after")
    def _type_and_field_agree(self) -> Self:
        for kind, field in _FILTERS.items():
            if (getattr(self, field) is not None) != (kind == self.type):
                raise ValueError(f"type {self.type}: needs its own field and no other")
        return self


class RouteBackend(BackendRef):
    filters: tuple[RouteFilter, ...] = ()


class RouteSpec(Model):
    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[HostName, ...] = ()
    ignored = frozenset({"useDefaultGateways"})


# --- HTTPRoute ---


class PathMatch(Model):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Field(max_length=1024)] = "/"

    @model_validator(mode="after")
    def _can_be_matched(self) -> Self:
        if self.type == "RegularExpression":
            expression(self.value)
        elif not self.value.startswith("/") or any(part in self.value for part in ("//", "?", "#", "\0")):
            raise ValueError(f"value: must begin with '/', without '//', '?' or '#', got {self.value[:80]!r}")
        return self


class ValueMatch(Model):
    """Of a header or a query parameter."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(min_length=1, max_length=4096)]

    @model_validator(mode="after")
    def _can_be_matched(self) -> Self:
        if self.type == "RegularExpression":
            expression(self.value)
        return self


class HttpMatch(Model):
    path: PathMatch = PathMatch()
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", ""] = ""
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()


class Timeouts(Model):
    request: Duration = ""
    backend_request: Duration = ""


class RouteRetry(Model):
    codes: tuple[Annotated[int, Field(ge=400, le=599)], ...] = ()
    attempts: Annotated[int, Field(ge=0, le=1000)] = 1
    backoff: Duration = ""


class HttpRouteRule(Model):
    name: str = ""
    matches: tuple[HttpMatch, ...] = (HttpMatch(),)
    filters: tuple[RouteFilter, ...] = ()
    backend_refs: tuple[RouteBackend, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: RouteRetry | None = None
    ignored = frozenset({"sessionPersistence"})


class HttpRouteSpec(RouteSpec):
    rules: Annotated[tuple[HttpRouteRule, ...], Field(max_length=64)] = (HttpRouteRule(),)


class HTTPRoute(Resource):
    kind: Literal["HTTPRoute"] = "HTTPRoute"
    spec: HttpRouteSpec
    status: RouteStatus = RouteStatus()


# --- GRPCRoute ---


class GrpcMethodMatch(Model):
    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[str, Field(max_length=1024)] = ""
    method: Annotated[str, Field(max_length=1024)] = ""

    @model_validator(mode="after")
    def _can_be_matched(self) -> Self:
        if not self.service and not self.method:
            raise ValueError("needs service or method")
        for one in (self.service, self.method):
            if self.type == "RegularExpression":
                expression(one)
            elif one and not re.fullmatch(r"[A-Za-z_][\w.]*", one, re.ASCII):
                raise ValueError(f"must be the name of a gRPC service or method, got {one[:80]!r}")
        return self


class GrpcMatch(Model):
    method: GrpcMethodMatch | None = None
    headers: tuple[ValueMatch, ...] = ()


class GrpcRouteRule(Model):
    name: str = ""
    matches: tuple[GrpcMatch, ...] = (GrpcMatch(),)
    filters: tuple[RouteFilter, ...] = ()
    backend_refs: tuple[RouteBackend, ...] = ()
    ignored = frozenset({"sessionPersistence"})


class GrpcRouteSpec(RouteSpec):
    rules: Annotated[tuple[GrpcRouteRule, ...], Field(max_length=64)] = (GrpcRouteRule(),)


class GRPCRoute(Resource):
    kind: Literal["GRPCRoute"] = "GRPCRoute"
    spec: GrpcRouteSpec
    status: RouteStatus = RouteStatus()


AnyRoute = HTTPRoute | GRPCRoute
