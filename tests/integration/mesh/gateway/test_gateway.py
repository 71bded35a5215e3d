"""HTTPRoute and GRPCRoute from YAML to answers, through a real Envoy on loopback."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from mesh.resources.manifests import parse_manifests
from tests.support.cluster import node, settled
from tests.support.loopback_envoy import Running, Server, running, service_of
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel  # sockets with addresses of others

GATEWAY = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: cilium}
spec: {controllerName: io.cilium/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: cilium
  listeners: [{name: web, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: http}
spec:
  parentRefs: [{name: edge}]
  hostnames: [example.org]
  rules:
  - matches: [{path: {value: /foo}}]
    backendRefs: [{name: foo, port: 80}]
  - matches: [{path: {value: /foo}, headers: [{name: canary, value: 'yes'}]}, {path: {value: /foo}, method: POST}]
    backendRefs: [{name: bar, port: 80}]
  - matches: [{path: {value: /foo}, queryParams: [{name: to, value: 'b.*', type: RegularExpression}]}]
    backendRefs: [{name: bar, port: 80}]
  - matches: [{path: {value: /split}}]
    backendRefs: [{name: foo, port: 80, weight: 3}, {name: bar, port: 80, weight: 1}, {name: foo, port: 80, weight: 0}]
  - matches: [{path: {value: /lost}}]
    backendRefs: [{name: gone, port: 80}]
  - matches: [{path: {value: /none}}]
    backendRefs: [{name: foo, port: 80, weight: 0}]
  - matches: [{path: {value: /moved}}]
    filters:
    - type: RequestRedirect
      requestRedirect:
        {scheme: https, hostname: n.example, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /to}}
  - matches: [{path: {value: /strip}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    backendRefs: [{name: foo, port: 80}]
  - matches: [{path: {value: /whole}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /one}}}]
    backendRefs: [{name: foo, port: 80}]
  - matches: [{path: {value: /headers}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-set, value: new}], add: [{name: x-add, value: more}], remove: [x-gone]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: x-name, value: changed}]}
    backendRefs: [{name: foo, port: 80}]
  - matches: [{path: {value: /mirror}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: bar, port: 80}}}]
    backendRefs: [{name: foo, port: 80}]
  - matches: [{path: {value: /status/503}}]
    retry: {codes: [503], attempts: 2, backoff: 10ms}
    timeouts: {request: 5s, backendRequest: 500ms}
    backendRefs: [{name: foo, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: grpc}
spec:
  parentRefs: [{name: edge}]
  hostnames: [grpc.example]
  rules:
  - matches: [{method: {service: shop.Cart, method: Add}}]
    backendRefs: [{name: cart, port: 80}]
"""


class Cart(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call with its name."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = details.method.encode()
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: name)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Server]]:
    found = {name: Server(name, f"127.0.1.{number}") for number, name in enumerate(("foo", "bar"), 1)}
    yield found
    for one in found.values():
        one.close()


@pytest.fixture(scope="module")
def envoy(servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    cart = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Cart()])
    port = cart.add_insecure_port("127.0.1.3:0")
    cart.start()
    text = "".join(map(service_of, servers.values())) + service_of("cart", address="127.0.1.3", target=port) + GATEWAY
    with running(settled([node(0), *parse_manifests(text)]), tmp_path_factory.mktemp("envoy")) as found:
        assert not found.translation.problems
        yield found
    cart.stop(None)


@pytest.mark.parametrize(
    ("path", "method", "headers", "server"),
    [
        ("/foo", "GET", {}, "foo"),
        ("/foo/x", "GET", {}, "foo"),
        ("/foo", "GET", {"canary": "yes"}, "bar"),
        ("/foo", "GET", {"canary": "no"}, "foo"),
        ("/foo", "POST", {}, "bar"),
        ("/foo?to=bar", "GET", {}, "bar"),
        ("/foo?to=foo", "GET", {}, "foo"),
    ],
)
def test_requests_go_by_path_method_headers_and_query(
    envoy: Running, path: str, method: str, headers: dict[str, str], server: str
) -> None:
    assert envoy.get("port-80", path, method=method, headers=headers).seen["name"] == server


def test_weights_are_relative(envoy: Running) -> None:
    counts = Counter(envoy.get("port-80", "/split").seen["name"] for _ in range(200))
    # Expected 150 and 50, with a deviation of 6.
    assert 110 <= counts["foo"] <= 186, counts


@pytest.mark.parametrize(("path", "status"), [("/lost", 500), ("/none", 500), ("/other", 404)])
def test_requests_without_backend(envoy: Running, path: str, status: int) -> None:
    assert envoy.get("port-80", path).status == status


def test_redirect(envoy: Running) -> None:
    answer = envoy.get("port-80", "/moved/x?y=1")
    assert (answer.status, answer.headers["location"]) == (301, "https://n.example/to/x?y=1")


def test_a_prefix_is_taken_away_and_the_host_replaced(envoy: Running) -> None:
    seen = envoy.get("port-80", "/strip/a/b?c=d").seen
    assert (seen["path"], seen["headers"]["host"]) == ("/a/b?c=d", "inner.example")
    assert envoy.get("port-80", "/strip").seen["path"] == "/"


def test_a_whole_path_is_replaced(envoy: Running) -> None:
    assert envoy.get("port-80", "/whole/x?y=1").seen["path"] == "/one?y=1"


def test_headers_are_set_added_and_removed(envoy: Running) -> None:
    answer = envoy.get("port-80", "/headers", headers={"x-set": "old", "x-gone": "1"})
    headers = answer.seen["headers"]
    assert (headers["x-set"], headers["x-add"], headers.get("x-gone")) == ("new", "more", None)
    assert answer.headers["x-name"] == "changed"


def test_a_mirror_sees_the_request_and_does_not_answer(envoy: Running, servers: dict[str, Server]) -> None:
    assert envoy.get("port-80", "/mirror/1").seen["name"] == "foo"
    eventually(lambda: any(one["path"] == "/mirror/1" for one in servers["bar"].seen))


def test_retries(envoy: Running, servers: dict[str, Server]) -> None:
    assert envoy.get("port-80", "/status/503").status == 503
    assert sum(one["path"] == "/status/503" for one in servers["foo"].seen) == 3


def test_grpc_goes_by_service_and_method(envoy: Running) -> None:
    [port] = {port for name, port in envoy.ports.items() if name.endswith("port-80")}
    options = [("grpc.default_authority", "grpc.example")]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        assert channel.unary_unary("/shop.Cart/Add")(b"", timeout=10) == b"/shop.Cart/Add"
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/shop.Cart/Remove")(b"", timeout=10)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
