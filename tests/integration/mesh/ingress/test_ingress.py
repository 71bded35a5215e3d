"""Ingress from YAML to answers, through a real Envoy on loopback."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.resources.manifests import parse_manifests
from tests.support.certificates import Authority
from tests.support.cluster import node, settled
from tests.support.loopback_envoy import Running, Server, running, service_of

pytestmark = pytest.mark.kernel  # sockets with addresses of others

ROUTES = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: routes}
spec:
  ingressClassName: cilium
  rules:
  - http: {paths: [
      {path: /foo, pathType: Prefix, backend: {service: {name: foo, port: {number: 80}}}},
      {path: /foo/exact, pathType: Exact, backend: {service: {name: bar, port: {name: web}}}},
      {path: '/r[0-9]+', pathType: ImplementationSpecific, backend: {service: {name: bar, port: {number: 80}}}}]}
  - host: bar.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: bar, port: {number: 80}}}}]}
  - host: '*.wild.example'
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: foo, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: fallback, annotations: {ingress.cilium.io/request-timeout: '5'}}
spec:
  ingressClassName: cilium
  defaultBackend: {service: {name: bar, port: {number: 80}}}
  rules:
  - host: foo.example
    http: {paths: [{path: /only, pathType: Exact, backend: {service: {name: foo, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: secure}
spec:
  ingressClassName: cilium
  tls:
  - {hosts: [one.example], secretName: one}
  - {hosts: [two.example], secretName: two}
  rules:
  - host: one.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: foo, port: {number: 80}}}}]}
  - host: two.example
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: bar, port: {number: 80}}}}]}
"""

SECRET = """
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {cert}
  tls.key: |
    {key}
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def envoy(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    servers = [Server(name, f"127.0.1.{number}") for number, name in enumerate(("foo", "bar"), 1)]
    text = "".join(map(service_of, servers)) + ROUTES
    for name in ("one", "two"):
        pair = authority.issue(name, f"{name}.example")
        cert, key = (Path(one).read_text().replace("\n", "\n    ") for one in (pair.cert, pair.key))
        text += SECRET.format(name=name, cert=cert, key=key)
    resources = settled([node(0), *parse_manifests(text)])
    with running(resources, tmp_path_factory.mktemp("envoy")) as found:
        assert not found.translation.problems
        yield found
    for one in servers:
        one.close()


@pytest.mark.parametrize(
    ("path", "host", "server"),
    [
        ("/foo", "any.example", "foo"),
        ("/foo/", "any.example", "foo"),
        ("/foo/bar?x=1", "any.example:8080", "foo"),
        ("/foobar", "any.example", ""),
        ("/", "any.example", ""),
        ("/foo/exact", "any.example", "bar"),
        ("/foo/exact/", "any.example", "foo"),
        ("/r12", "any.example", "bar"),
        ("/r12/x", "any.example", ""),
        ("/anything", "bar.example", "bar"),
        ("/anything", "bar.example:8080", "bar"),
        ("/anything", "a.wild.example", "foo"),
        ("/anything", "a.wild.example:8080", "foo"),
        ("/anything", "a.b.wild.example", ""),
        ("/foo", "a.b.wild.example", "foo"),
    ],
)
def test_requests_go_by_host_and_path(envoy: Running, path: str, host: str, server: str) -> None:
    answer = envoy.get("routes/http", path, host=host)
    assert answer.headers["server"] == "envoy"
    if server:
        assert answer.seen["name"] == server
        assert answer.headers["x-envoy-upstream-service-time"].isdecimal()
    else:
        assert (answer.status, answer.body) == (404, b"")


@pytest.mark.parametrize(
    ("path", "host", "server"),
    [("/only", "foo.example", "foo"), ("/other", "foo.example", "bar"), ("/", "any.example", "bar")],
)
def test_the_default_backend_takes_the_rest(envoy: Running, path: str, host: str, server: str) -> None:
    assert envoy.get("fallback/http", path, host=host).seen["name"] == server


def test_the_backend_learns_who_the_client_is(envoy: Running) -> None:
    headers = envoy.get("routes/http", "/foo", headers={"X-Forwarded-For": "192.0.2.1"}).seen["headers"]
    # Envoy writes an address of the machine where the client's is a loopback one.
    assert headers["x-forwarded-for"].startswith("192.0.2.1,")
    assert headers["x-envoy-external-address"] == "127.0.0.1"


@pytest.mark.parametrize(("host", "server"), [("one.example", "foo"), ("two.example", "bar")])
def test_each_host_has_its_own_certificate(envoy: Running, authority: Authority, host: str, server: str) -> None:
    trust = ssl.create_default_context(cafile=authority.ca)
    assert envoy.get("secure/https", "/x", host=host, tls=trust).seen["name"] == server


def test_a_name_without_certificate_gets_no_connection(envoy: Running, authority: Authority) -> None:
    trust = ssl.create_default_context(cafile=authority.ca)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        envoy.get("secure/https", "/x", host="three.example", tls=trust)


def test_plain_requests_for_a_host_with_a_certificate_are_sent_to_https(envoy: Running) -> None:
    answer = envoy.get("secure/http", "/x?y=1", host="one.example")
    assert (answer.status, answer.headers["location"]) == (301, "https://one.example/x?y=1")
