"""Policy of the ingress endpoint, enforced by a real Envoy on loopback: who comes in, and which backends are asked."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from bpf.policies import EndpointPolicy, PolicyEntry
from mesh.envoy import gate
from mesh.envoy.matching import NodeView
from mesh.envoyconfig.guarding import gate_of
from mesh.policy.judging import Whole
from mesh.policy.rules import TCP, HttpMatch
from mesh.policy.view import Allowed, ProxyPort
from mesh.resources.manifests import parse_manifests
from tests.support.cluster import node, settled
from tests.support.loopback_envoy import Answer, Running, Server, running, service_of, told_in

pytestmark = pytest.mark.kernel  # sockets with addresses of others

WORLD, CLIENT, FOO, BAR = 2, 300, 301, 302
POD = "127.0.9.7"
INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: routes}
spec:
  ingressClassName: cilium
  rules:
  - http: {paths: [
      {path: /foo, pathType: Prefix, backend: {service: {name: foo, port: {number: 80}}}},
      {path: /bar, pathType: Prefix, backend: {service: {name: bar, port: {number: 80}}}}]}
"""
TCP_ONLY = """
---
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: through, namespace: default, annotations: {cec.cilium.io/use-original-source-address: "false"}}
spec:
  services: [{name: foo}]
  resources:
    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
      name: through
      filter_chains:
        - filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: through
                cluster: default/foo
    - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
      name: default/foo
      type: EDS
      connect_timeout: 5s
"""


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    found = {name: Server(name, f"127.0.1.{number}") for number, name in enumerate(("foo", "bar"), 1)}
    yield found
    for one in found.values():
        one.close()


Run = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def run(servers: dict[str, Server], tmp_path: Path) -> Run:
    resources = settled([node(0), *parse_manifests("".join(map(service_of, servers.values())) + INGRESS + TCP_ONLY)])
    prefixes = {"0.0.0.0/0": WORLD, f"{POD}/32": CLIENT, "127.0.1.1/32": FOO, "127.0.1.2/32": BAR}
    backends = [(ip_address(one.address), one.port) for one in servers.values()]

    @contextmanager
    def run(ingress: Whole | None = None, pods: Mapping[str, Whole] | None = None) -> Iterator[Running]:
        policies = {ip_address(address): policy for address, policy in (pods or {}).items()}
        view = NodeView({}, {ip_network(one): to for one, to in prefixes.items()}, ingress or Whole(), policies)
        filters = gate.filters(view, backends)
        guard = gate_of(lambda name, _: {"typed_config": filters[name]}, "egress", str(tmp_path / "records"))
        (tmp_path / "records").mkdir()
        with running(resources, tmp_path, guard) as envoy:
            assert not envoy.translation.problems
            yield envoy

    return run


def ask(envoy: Running, path: str, source: str = "127.0.0.1", method: str = "GET") -> Answer:
    return envoy.get("routes/http", path, source=source, method=method)


def is_denied(answer: Answer) -> bool:
    denied = answer.status == 403
    assert denied == (answer.body == b"Access denied\r\n")
    return denied


def egress(*entries: PolicyEntry, view: tuple[ProxyPort, ...] = ()) -> Whole:
    return Whole(EndpointPolicy(tuple(sorted(entries)), False, True), view)


def test_without_policy_everybody_is_served_in_the_name_of_the_node(run: Run) -> None:
    with run() as envoy:
        assert ask(envoy, "/foo").seen["client"] == "127.0.8.254"
        assert ask(envoy, "/foo", POD).seen["client"] == "127.0.8.254"


def test_who_may_not_come_in_is_refused(run: Run, servers: dict[str, Server]) -> None:
    ingress = Whole(EndpointPolicy((PolicyEntry(False, CLIENT),), True))
    with run(ingress) as envoy:
        before = len(servers["foo"].seen)
        assert is_denied(ask(envoy, "/foo"))
        assert len(servers["foo"].seen) == before
        assert ask(envoy, "/foo", POD).status == 200


def test_a_header_makes_nobody_a_pod(run: Run) -> None:
    ingress = Whole(EndpointPolicy((PolicyEntry(False, CLIENT),), True))
    with run(ingress) as envoy:
        assert is_denied(envoy.get("routes/http", "/foo", headers={"X-Forwarded-For": POD}))


def test_requests_that_come_are_judged_by_rules(run: Run) -> None:
    entry = PolicyEntry(False, WORLD, TCP, 0, 0, proxy_port=10000)
    allowed = (Allowed(frozenset({WORLD}), (HttpMatch(method="GET", path="/foo/.*"),)),)
    ingress = Whole(EndpointPolicy((entry,), True), (ProxyPort(False, TCP, 1, 65535, "http", allowed),))
    with run(ingress) as envoy:
        assert ask(envoy, "/foo/a").status == 200
        assert is_denied(ask(envoy, "/foo/a", method="POST"))
        assert is_denied(ask(envoy, "/bar"))
        assert is_denied(ask(envoy, "/foo/a", POD))


def test_backends_are_judged_when_they_are_chosen(run: Run, servers: dict[str, Server], tmp_path: Path) -> None:
    with run(egress(PolicyEntry(True, FOO))) as envoy:
        before = len(servers["bar"].seen)
        assert ask(envoy, "/foo").status == 200
        assert is_denied(ask(envoy, "/bar"))
        assert len(servers["bar"].seen) == before
        [record] = denials(tmp_path)
    assert (record["server"], record["server_port"]) == ("127.0.1.2", str(servers["bar"].port))
    assert record["client"] == "127.0.0.1"
    assert record["url"] == "http://example.org/bar"


def test_requests_to_a_backend_are_judged_by_rules(run: Run) -> None:
    entry = PolicyEntry(True, 0, TCP, 0, 0, proxy_port=10000)
    rule = HttpMatch(path="/bar/ok", host="example.org")
    allowed = (Allowed(frozenset({BAR}), (rule,)), Allowed(frozenset({FOO}), None))
    whole = egress(entry, view=(ProxyPort(True, TCP, 1, 65535, "http", allowed),))
    with run(whole) as envoy:
        assert ask(envoy, "/bar/ok").status == 200
        assert is_denied(ask(envoy, "/bar/ok?x=1"))
        assert is_denied(envoy.get("routes/http", "/bar/ok", host="other.example"))
        assert ask(envoy, "/foo/anything").status == 200


def test_a_pod_has_its_own_policy_besides(run: Run) -> None:
    both = egress(PolicyEntry(True, 0), PolicyEntry(True, BAR, precedence=9, deny=True))
    with run(both, {POD: egress(PolicyEntry(True, BAR))}) as envoy:
        assert ask(envoy, "/foo").status == 200
        assert is_denied(ask(envoy, "/bar"))
        # What the one allows, the other denies.
        assert is_denied(ask(envoy, "/foo", POD))
        assert is_denied(ask(envoy, "/bar", POD))


def test_a_pod_that_may_not_ask_a_load_balancer(run: Run) -> None:
    denied = egress(PolicyEntry(True, 0), PolicyEntry(True, 8, precedence=9, deny=True))
    with run(pods={POD: denied}) as envoy:
        assert is_denied(ask(envoy, "/foo", POD))
        assert ask(envoy, "/foo").status == 200


def test_connections_without_requests_are_judged_before_a_backend_is_chosen(run: Run, tmp_path: Path) -> None:
    entry = PolicyEntry(False, CLIENT, TCP, 0, 0, proxy_port=10000)
    allowed = (Allowed(frozenset({CLIENT}), (HttpMatch(path="/foo"),)),)
    ingress = Whole(
        EndpointPolicy((PolicyEntry(False, 0), entry), True), (ProxyPort(False, TCP, 1, 65535, "http", allowed),)
    )
    with run(ingress) as envoy:
        assert envoy.get("through", "/foo").status == 200
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            # Its rules are about requests, and nobody sees one.
            envoy.get("through", "/foo", source=POD)
        [record] = denials(tmp_path)
    assert (record["type"], record["client"], record["url"]) == ("Connection", POD, "")


def test_a_pod_has_to_be_allowed_to_ask_a_load_balancer_of_connections(run: Run) -> None:
    with run(pods={POD: egress(PolicyEntry(True, FOO))}) as envoy:
        assert envoy.get("through", "/foo").status == 200
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            envoy.get("through", "/foo", source=POD)


def denials(folder: Path) -> list[dict[str, str]]:
    """Records of requests that were refused on their way out."""
    return [one for one in told_in(folder / "records") if one["verdict"] == "Denied"]
