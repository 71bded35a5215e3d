"""From CiliumEnvoyConfig to Envoy's messages and redirects."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from mesh.envoyconfig import messages
from mesh.envoyconfig.listeners import MARK_UPSTREAM, Place
from mesh.envoyconfig.translate import Redirect, Translation, translate
from mesh.resources.base import Key, Resource
from mesh.resources.manifests import parse_manifests
from mesh.resources.mistakes import InvalidResource
from tests.support.cluster import node, settled

SEED = Path(__file__).parents[4] / "lab/manifests/walk/cilium-envoy-config.yaml"

ECHO = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}-0, namespace: {namespace}, labels: {{app: {name}}}, uid: {namespace}-{name}}}
spec: {{containers: [{{name: main, image: pause, ports: [{{containerPort: 8080, name: web}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  selector: {{app: {name}}}
  ports: [{{port: 80, name: http, targetPort: web}}, {{port: 81, name: b, targetPort: 9}}]
"""

LISTENER = """
    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
      name: {name}
      filter_chains:
        - filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: x
                cluster: {cluster}
"""


def echo(*names: str, namespace: str = "cilium-test") -> str:
    return "\n---".join(ECHO.format(name=name, namespace=namespace) for name in names)


def place() -> Place:
    ports: dict[str, int] = {}
    return Place(
        port=lambda name: ports.setdefault(name, 10000 + len(ports)),
        source=lambda kind, name: messages.new(
            "envoy.config.core.v3.ConfigSource", path_config_source={"path": f"/{kind.rpartition('.')[2]}/{name}"}
        ),
        pod_ranges=(ip_network("10.244.0.0/24"),),
        own=(ip_address("10.244.0.1"), ip_address("10.244.0.254")),
        ingress=(ip_address("10.244.0.254"),),
    )


def translated(*texts: str) -> Translation:
    resources: list[Resource] = [node(0)]
    for text in texts:
        resources += parse_manifests(text)
    return translate(settled(resources), node(0), place())


def config(name: str, spec: str, kind: str = "CiliumEnvoyConfig", namespace: str = "cilium-test") -> str:
    where = f", namespace: {namespace}" if kind == "CiliumEnvoyConfig" else ""
    return f"---\napiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: {name}{where}}}\nspec:\n{spec}"


def managers(listener: Any) -> list[Any]:
    return [messages.unpacked(chain.filters[0].typed_config) for chain in listener.filter_chains]


def test_the_reference_configuration_is_taken_as_it_is() -> None:
    done = translated(echo("echo-same-node", "echo-other-node"), SEED.read_text())
    assert not done.problems
    [listener] = done.resources.listeners
    assert listener.name == "default/envoy-lb-listener/envoy-lb-listener"
    assert listener.address.socket_address.port_value == 10000
    assert listener.transparent.value
    first = managers(listener)[0]
    assert first.rds.route_config_name == "default/envoy-lb-listener/lb_route"
    assert first.rds.config_source.path_config_source.path == ("/RouteConfiguration/default/envoy-lb-listener/lb_route")
    assert first.http_filters[-1].typed_config.type_url.endswith("router.v3.Router")
    [routes] = done.resources.routes
    assert routes.name == first.rds.route_config_name
    weighted = routes.virtual_hosts[0].routes[0].route.weighted_clusters.clusters
    assert [one.name for one in weighted] == ["cilium-test/echo-same-node", "cilium-test/echo-other-node"]
    assert [one.name for one in done.resources.clusters] == sorted(one.name for one in weighted)
    assert [one.cluster_name for one in done.resources.endpoints] == sorted(one.name for one in weighted)
    assert all(len(one.endpoints[0].lb_endpoints) == 2 for one in done.resources.endpoints)  # two ports, one pod
    assert done.redirects == tuple(
        Redirect(namespace="cilium-test", service=one, ports=(), listener=listener.name, proxy_port=10000)
        for one in ("echo-other-node", "echo-same-node")
    )


def test_pods_of_the_node_keep_their_address_and_others_get_the_ingress_address() -> None:
    done = translated(echo("echo-same-node", "echo-other-node"), SEED.read_text())
    others, pods = done.resources.listeners[0].filter_chains

    def ranges(chain: Any) -> set[str]:
        return {f"{one.address_prefix}/{one.prefix_len.value}" for one in chain.filter_chain_match.source_prefix_ranges}

    assert ranges(pods) == {"10.244.0.0/24"}
    assert ranges(others) == {"0.0.0.0/0", "::/0", "10.244.0.1/32", "10.244.0.254/32"}
    kept = messages.unpacked(managers(done.resources.listeners[0])[1].http_filters[0].typed_config)
    assert kept.mark == MARK_UPSTREAM
    bind = done.resources.clusters[0].upstream_bind_config
    assert bind.source_address.address == "10.244.0.254"
    assert [one.int_value for one in bind.socket_options] == [MARK_UPSTREAM, 1]


@pytest.mark.parametrize(
    ("change", "keeps"),
    [
        ("spec:", True),
        ("spec:\n  type: NodePort", False),
        ("spec:\n  externalIPs: [192.0.2.1]", False),
    ],
)
def test_where_no_http_is_spoken_pods_keep_their_address_unless_others_come_too(change: str, keeps: bool) -> None:
    pod, service = echo("echo").split("---")
    listener = LISTENER.format(name="l", cluster="cilium-test/echo")
    text = f"{pod}---{service.replace('spec:', change)}"
    done = translated(text, config("a", f"  services: [{{name: echo}}]\n  resources:{listener}"))
    [found] = done.resources.listeners
    kept = [one for one in found.listener_filters if one.name == "envoy.filters.listener.original_src"]
    assert len(kept) == keeps
    assert len(found.filter_chains) == 1 + keeps
    if keeps:
        assert messages.unpacked(kept[0].typed_config).mark == MARK_UPSTREAM
        own = kept[0].filter_disabled.destination_port_range
        assert (own.start, own.end) == (10000, 10001), "the node's own processes come to the listener itself"


def test_a_service_whose_port_is_that_of_the_listener_keeps_no_address() -> None:
    listener = LISTENER.format(name="l", cluster="cilium-test/echo")
    text = echo("echo").replace("port: 81", "port: 10000")
    done = translated(text, config("a", f"  services: [{{name: echo}}]\n  resources:{listener}"))
    assert len(done.resources.listeners[0].filter_chains) == 1


def test_a_header_cannot_choose_the_source_address() -> None:
    done = translated(echo("echo-same-node", "echo-other-node"), SEED.read_text())
    assert all(one.use_remote_address.value for one in managers(done.resources.listeners[0]))


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("cilium-test/echo", [9, 8080]),
        ("cilium-test/echo:http", [8080]),
        ("cilium-test/echo:81", [9]),
        ("cilium-test:echo:80", [8080]),
        ("cilium-test/echo:nothing", []),
        ("cilium-test/other", []),
    ],
)
def test_endpoints_go_by_the_name_of_the_cluster(name: str, ports: list[int]) -> None:
    cluster = f"""
  backendServices: [{{name: echo}}]
  resources:
    - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
      name: {name}
      type: EDS
"""
    done = translated(echo("echo"), config("c", cluster))
    wanted = done.resources.clusters[0].eds_cluster_config.service_name
    [found] = [one for one in done.resources.endpoints if one.cluster_name == wanted]
    got = [one.endpoint.address.socket_address.port_value for group in found.endpoints for one in group.lb_endpoints]
    assert got == ports
    assert bool(done.problems) == name.endswith("/other")


@pytest.mark.parametrize(("policy", "others"), [("PreferDualStack", 1), ("SingleStack", 0)])
def test_a_pod_is_one_endpoint_with_an_address_for_each_family_of_the_service(policy: str, others: int) -> None:
    text = echo("echo").replace("spec:\n", f"spec:\n  ipFamilyPolicy: {policy}\n")
    done = translated(text, config("a", "  backendServices: [{name: echo, number: ['80']}]"))
    [assignment] = done.resources.endpoints
    [endpoint] = [one.endpoint for one in assignment.endpoints[0].lb_endpoints]
    assert ip_address(endpoint.address.socket_address.address).version == 4
    found = [one.address.socket_address for one in endpoint.additional_addresses]
    assert [(ip_address(one.address).version, one.port_value) for one in found] == [(6, 8080)] * others


SLICE = """
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: cilium-test}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: echo-1, namespace: cilium-test, labels: {kubernetes.io/service-name: echo}}
addressType: IPv4
ports: [{port: 8080}]
endpoints:
"""
READY = "- {addresses: [192.0.2.1]}\n"
GOING = "- {addresses: [192.0.2.2], conditions: {ready: false, serving: true, terminating: true}}\n"
SILENT = "- {addresses: [192.0.2.3], conditions: {ready: false, serving: false, terminating: true}}\n"


@pytest.mark.parametrize(
    ("endpoints", "asked"),
    [(READY + GOING, ["192.0.2.1"]), (GOING + SILENT, ["192.0.2.2"]), (SILENT, [])],
)
def test_backends_that_are_about_to_go_are_asked_while_there_are_no_others(endpoints: str, asked: list[str]) -> None:
    done = translated(SLICE + endpoints, config("a", "  backendServices: [{name: echo}]"))
    [assignment] = done.resources.endpoints
    found = [one.endpoint.address.socket_address for part in assignment.endpoints for one in part.lb_endpoints]
    assert [one.address for one in found] == asked


def test_a_namespaced_resource_redirects_services_of_its_own_namespace_only() -> None:
    spec = "  services: [{name: echo, namespace: other, ports: [81, 80]}]\n  resources:\n"
    done = translated(echo("echo"), config("c", spec + LISTENER.format(name="l", cluster="mine")))
    assert [(one.namespace, one.ports) for one in done.redirects] == [("cilium-test", (80, 81))]
    tcp = messages.unpacked(done.resources.listeners[0].filter_chains[0].filters[0].typed_config)
    assert tcp.cluster == "cilium-test/c/mine"


def test_of_two_resources_for_one_service_the_first_by_name_wins() -> None:
    spec = "  services: [{name: echo}]\n  resources:\n" + LISTENER.format(name="l", cluster="cilium-test/echo")
    done = translated(echo("echo"), config("b", spec), config("a", spec))
    assert [one.listener for one in done.redirects] == ["cilium-test/a/l"]
    assert done.problems == {
        Key("CiliumEnvoyConfig", "cilium-test", "b"): (
            "service cilium-test/echo is already redirected by CiliumEnvoyConfig cilium-test/a",
        )
    }


def test_different_ports_of_a_service_may_go_to_different_listeners() -> None:
    spec = "  services: [{name: echo, ports: [80], listener: one}, {name: echo, ports: [81], listener: two}]\n"
    spec += "  resources:\n" + "".join(LISTENER.format(name=one, cluster="cilium-test/echo") for one in ("one", "two"))
    done = translated(echo("echo"), config("a", spec))
    assert [(one.listener, one.ports) for one in done.redirects] == [
        ("cilium-test/a/one", (80,)),
        ("cilium-test/a/two", (81,)),
    ]


def test_a_node_selector_leaves_other_nodes_alone() -> None:
    spec = "  nodeSelector: {matchLabels: {role: edge}}\n  services: [{name: echo}]\n  resources:\n"
    text = echo("echo") + config("a", spec + LISTENER.format(name="l", cluster="cilium-test/echo"))
    assert translated(text) == Translation()
    resources = settled([node(0), *parse_manifests(text)])
    assert translate(resources, node(0, "edge", role="edge"), place()).redirects


def test_cluster_wide_resources_name_services_of_any_namespace() -> None:
    spec = "  services: [{name: echo, namespace: cilium-test}, {name: gone, listener: none}]\n  resources:\n"
    text = config("wide", spec + LISTENER.format(name="l", cluster="c"), kind="CiliumClusterwideEnvoyConfig")
    done = translated(echo("echo"), text)
    assert [(one.namespace, one.service, one.listener) for one in done.redirects] == [
        ("cilium-test", "echo", "/wide/l")
    ]
    assert list(done.problems.values()) == [("service default/gone: the resource has no listener 'none'",)]


def test_secrets_come_from_the_secrets_namespace_or_the_own_one() -> None:
    text = """
apiVersion: v1
kind: Secret
metadata: {name: tls, namespace: %s}
type: kubernetes.io/tls
stringData: {tls.crt: CERT, tls.key: KEY}
"""
    spec = """
  resources:
    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
      name: l
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context: {tls_certificate_sds_secret_configs: [{name: %s/tls}]}
"""
    for namespace, allowed in (("cilium-secrets", True), ("cilium-test", True), ("other", False)):
        done = translated(text % namespace, config("a", spec % namespace))
        assert [one.name for one in done.resources.secrets] == ([f"{namespace}/tls"] if allowed else [])
        assert bool(done.problems) is not allowed


OWN_FILTERS = """
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http_protocol_options: {}}
          http_filters: [{name: envoy.filters.http.upstream_codec}]
"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "rds:",
            "rdss:",
            "resources[0]: filter_chains[0].filters[0].typed_config: envoy.extensions.filters.network",
        ),
        ('prefix: "/"', "prefix: 5", "resources[1]: virtual_hosts[0].routes[0].match.prefix: expected string"),
        ("ROUND_ROBIN", "ROUND", "resources[2]: lb_policy: Invalid enum value ROUND"),
        (
            "connect_timeout: 5s",
            "connect_timeout: 5",
            "resources[2]: connect_timeout: Duration JSON value",
        ),
        ("listener.v3.Listener", "listener.v2.Listener", "resources[0]: @type: must be type.googleapis.com/"),
        ("HttpConnectionManager\n", "Manager\n", "typed_config.@type: Envoy has no type 'type.googleapis.com/envoy"),
        (
            "      connect_timeout: 5s\n",
            OWN_FILTERS,
            "resources[2]: typed_extension_protocol_options: envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
            ".http_filters: Envoy would ask them in place of the filter by which policy judges the",
        ),
        ("services:", "service:", "spec: unknown field 'service'"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_its_place(old: str, new: str, complaint: str) -> None:
    text = SEED.read_text()
    assert old in text
    with pytest.raises(InvalidResource) as error:
        parse_manifests(text.replace(old, new, 1), "config.yaml")
    assert "config.yaml: document 1 (CiliumEnvoyConfig envoy-lb-listener): spec" in str(error.value)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)
