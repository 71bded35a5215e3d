"""What comes in where, and which service answers: the one model behind Ingress and Gateway.

In:        nothing but values.
Out:       frozen values, and the order in which routes are tried.
Elsewhere: translate.py (Ingress) and mesh/gateway/ make such values; render.py makes Envoy's resources of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

PathKind = Literal["Exact", "Regex", "Prefix"]
_ORDER: Final[dict[str, int]] = {"Exact": 0, "Regex": 1, "Prefix": 2}


@dataclass(frozen=True, slots=True)
class Value:
    """What a header or a query parameter must be."""

    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests a route is for."""

    kind: PathKind = "Prefix"
    path: str = "/"
    """Prefix: whole path elements, so that /foo means /foo and /foo/bar, not /foobar."""
    method: str = ""
    headers: tuple[Value, ...] = ()
    query: tuple[Value, ...] = ()

    def rank(self) -> tuple[int, int, bool, int, int]:
        """Lower is tried first: exact paths, expressions, prefixes; in each the longest, then the most particular."""
        path = self.path.rstrip("/") if self.kind == "Prefix" else self.path
        return _ORDER[self.kind], -len(path), not self.method, -len(self.headers), -len(self.query)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChanges:
    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A port of a service."""

    namespace: str
    service: str
    port: str
    """Number or name."""
    weight: int = 1
    http2: bool = False
    """It understands HTTP/2 without being asked (h2c), as gRPC servers do."""
    valid: bool = True
    """Otherwise it is there for its share of requests only: they are answered with 500."""
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """An answer that sends the client elsewhere; empty fields stay as they were."""

    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""
    prefix: str | None = None
    """In place of the prefix that matched."""
    status: int = 302


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    host: str = ""
    path: str = ""
    prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    backend: Backend
    numerator: int = 100
    denominator: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    codes: tuple[int, ...] = ()
    attempts: int = 1
    backoff: str = ""
    """Duration with its unit, such as 0.1s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    match: Match = Match()
    backends: tuple[Backend, ...] = ()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()
    mirrors: tuple[Mirror, ...] = ()
    timeout: str = "0s"
    """For all of a request; 0s: no limit."""
    try_timeout: str = ""
    retry: Retry | None = None
    status: int = 500
    """Of the answer when there is neither redirect nor backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Routes of one host name; `*` is every other."""

    name: str = "*"
    routes: tuple[Route, ...] = ()
    one_label: bool = False
    """Whether `*.` in the name stands for exactly one label, as in Ingress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A secret in the secrets namespace, for server names; none: for all."""

    secret: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Passthrough:
    """TLS that is not opened: server names to backends."""

    hosts: tuple[str, ...]
    backends: tuple[Backend, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """One port that is open to the outside. With certificates or passthroughs it speaks TLS."""

    name: str
    port: int
    hosts: tuple[Host, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    passthroughs: tuple[Passthrough, ...] = ()

    @property
    def tls(self) -> bool:
        return bool(self.certificates or self.passthroughs)


def merged(hosts: Iterable[Host]) -> tuple[Host, ...]:
    """One Host for each name, its routes in the order in which they are to be tried. Of equal matches the first."""
    routes: dict[str, dict[Match, Route]] = {}
    kinds: dict[str, Host] = {}
    for host in hosts:
        kinds.setdefault(host.name, host)
        known = routes.setdefault(host.name, {})
        for route in host.routes:
            known.setdefault(route.match, route)
    return tuple(
        replace(kinds[name], routes=tuple(sorted(known.values(), key=lambda one: one.match.rank())))
        for name, known in sorted(routes.items())
    )
