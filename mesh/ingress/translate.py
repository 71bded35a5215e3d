"""What an Ingress means: its doors, hosts and routes.

In:        Ingress resources; services, for what their ports speak.
Out:       Doors.
Elsewhere: render.py makes Envoy's resources of them; controller.py keeps services and addresses.

Source: spec/mesh.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from mesh.ingress.documents import HttpPath, Ingress, IngressBackend
from mesh.ingress.routes import Backend, Certificate, Door, Host, Match, Passthrough, Redirect, Route, merged

HTTP, HTTPS = 80, 443

SpeaksHttp2 = Callable[[str, str, str], bool]
"""Whether the port (number or name) of the service in the namespace understands HTTP/2 without being asked."""


def doors(ingresses: Sequence[Ingress], speaks_http2: SpeaksHttp2) -> tuple[Door, ...]:
    """The doors of one load balancer that serves all of `ingresses`; the first of them wins where they contradict."""
    through = [one for one in ingresses if passes_through(one)]
    opened = [one for one in ingresses if not passes_through(one)]
    plain = merged(host for one in opened for host in _hosts(one, speaks_http2, forced_hosts(one)))
    secure = merged(host for one in opened if one.spec.tls for host in _hosts(one, speaks_http2, frozenset()))
    certificates = tuple(_certificates(opened))
    found = [Door(name="http", port=HTTP, hosts=plain)]
    if certificates or through:
        passthroughs = tuple(each for one in through for each in _passthroughs(one))
        hosts = secure if certificates else ()
        found.append(Door(name="https", port=HTTPS, hosts=hosts, certificates=certificates, passthroughs=passthroughs))
    return tuple(found)


def passes_through(ingress: Ingress) -> bool:
    """Whether TLS goes to the backend unopened."""
    return ingress.annotation("tls-passthrough") in {"enabled", "true"}


def number_of(text: str) -> int:
    """The number that an annotation says; 0 when it says none, or none that could be meant."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0


def secret_copy(namespace: str, name: str) -> str:
    """Name of a secret's copy in the secrets namespace."""
    return f"{namespace}-{name}"


def tls_hosts(ingress: Ingress, hosts: Sequence[str]) -> tuple[str, ...]:
    """For which server names an entry of `tls` is; an entry without hosts is for those of all rules."""
    return tuple(hosts) or tuple(sorted({rule.host or "*" for rule in ingress.spec.rules})) or ("*",)


def forced_hosts(ingress: Ingress) -> frozenset[str]:
    """Hosts whose plain requests are answered with a redirect to https."""
    if ingress.annotation("force-https") in {"disabled", "false"}:
        return frozenset()
    return frozenset(host for tls in ingress.spec.tls if tls.secret_name for host in tls_hosts(ingress, tls.hosts))


def _certificates(ingresses: Iterable[Ingress]) -> Iterator[Certificate]:
    for ingress in ingresses:
        for tls in ingress.spec.tls:
            if tls.secret_name:
                secret = secret_copy(ingress.namespace, tls.secret_name)
                yield Certificate(secret=secret, hosts=tls_hosts(ingress, tls.hosts))


def _hosts(ingress: Ingress, speaks_http2: SpeaksHttp2, forced: frozenset[str]) -> Iterator[Host]:
    seconds = f"{number_of(ingress.annotation('request-timeout').removesuffix('s'))}s"

    def route(match: Match, backend: IngressBackend, host: str) -> Route:
        if host in forced:
            return Route(match=match, redirect=Redirect(scheme="https", status=301))
        return Route(match=match, backends=(_backend(ingress, backend, speaks_http2),), timeout=seconds)

    names = {rule.host or "*" for rule in ingress.spec.rules}
    for rule in ingress.spec.rules:
        host = rule.host or "*"
        paths = rule.http.paths if rule.http else ()
        routes = tuple(route(_match(path), path.backend, host) for path in paths)
        yield Host(name=host, routes=routes, one_label=True)
    if (default := ingress.spec.default_backend) is not None:
        for host in sorted({*names, "*"}):
            yield Host(name=host, routes=(route(Match(), default, host),), one_label=True)


def _match(path: HttpPath) -> Match:
    if path.path_type == "ImplementationSpecific" and path.path:
        return Match(kind="Regex", path=path.path)
    if path.path_type == "Exact":
        return Match(kind="Exact", path=path.path)
    return Match(path=path.path or "/")


def _backend(ingress: Ingress, backend: IngressBackend, speaks_http2: SpeaksHttp2) -> Backend:
    service, port = backend.service.name, str(backend.service.port)
    return Backend(
        namespace=ingress.namespace,
        service=service,
        port=port,
        http2=speaks_http2(ingress.namespace, service, port),
    )


def _passthroughs(ingress: Ingress) -> Iterator[Passthrough]:
    """Only what names a host and everything under it: nothing else can be seen of TLS that is not opened."""
    for rule in ingress.spec.rules:
        for path in rule.http.paths if rule.http else ():
            if rule.host and path.path in {"", "/"}:
                backend = _backend(ingress, path.backend, lambda *_: False)
                yield Passthrough(hosts=(rule.host,), backends=(backend,))
