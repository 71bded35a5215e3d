"""What follows from Gateways and routes: who is attached where, conditions, resources."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.cluster import Cluster
from mesh.controller import reconcile
from mesh.gateway.attaching import common_hosts
from mesh.gateway.documents import Gateway, HTTPRoute
from mesh.resources.base import Condition, Key
from mesh.resources.manifests import parse_manifests
from mesh.resources.mistakes import InvalidResource
from mesh.resources.services import Service
from tests.support.cluster import node, settled

CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: cilium}
spec: {controllerName: io.cilium/gateway-controller}
"""
GATEWAY = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: cilium
  listeners: [%s]
"""
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: %s}
spec: {ports: [{port: 80}]}
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s, namespace: %s}
spec:
  parentRefs: [{name: edge, namespace: default}]
  hostnames: [%s]
  rules: [{backendRefs: [%s]}]
"""
HTTP_A = "{name: a, port: 80, protocol: HTTP}, "
OTHER = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n"
POOL = """
---
apiVersion: cilium.io/v2alpha1
kind: CiliumLoadBalancerIPPool
metadata: {name: pool}
spec: {blocks: [{cidr: 203.0.113.0/24}]}
"""


def cluster(*texts: str) -> Cluster:
    return Cluster(settled([node(0), *parse_manifests("".join(texts))]))


def gateway(found: Cluster) -> Gateway:
    one = found.resources[Key("Gateway", "default", "edge")]
    assert isinstance(one, Gateway)
    return one


def route(found: Cluster, name: str, namespace: str = "default") -> HTTPRoute:
    one = found.resources[Key("HTTPRoute", namespace, name)]
    assert isinstance(one, HTTPRoute)
    return one


def said(conditions: tuple[Condition, ...]) -> dict[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in conditions}


def test_a_gateway_has_a_balancer_and_tells_its_address() -> None:
    found = cluster(CLASS, GATEWAY % "{name: web, port: 80, protocol: HTTP}", SERVICE % "default", POOL)
    balancer = found.resources[Key("Service", "default", "cilium-gateway-edge")]
    assert isinstance(balancer, Service)
    assert balancer.spec.type == "LoadBalancer"
    assert [one.value for one in gateway(found).status.addresses] == list(balancer.balancer_ips)
    assert said(gateway(found).status.conditions) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("True", "Programmed"),
    }


def test_without_an_address_a_gateway_is_not_programmed() -> None:
    found = cluster(CLASS, GATEWAY % "{name: web, port: 80, protocol: HTTP}")
    assert said(gateway(found).status.conditions)["Programmed"] == ("False", "AddressNotAssigned")


def test_a_settled_cluster_with_a_gateway_stays_as_it_is() -> None:
    text = CLASS + GATEWAY % "{name: web, port: 80, protocol: HTTP}" + SERVICE % "default"
    text += ROUTE % ("r", "default", "", "{name: web, port: 80}")
    assert not reconcile(settled([node(0), *parse_manifests(text)]))


def test_gateways_of_other_controllers_are_left_alone() -> None:
    found = cluster(CLASS.replace("io.cilium/", "example/"), GATEWAY % "{name: web, port: 80, protocol: HTTP}")
    assert not found.services()


@pytest.mark.parametrize(
    ("listeners", "name", "condition", "reason"),
    [
        ("{name: a, port: 80, protocol: TCP}", "a", "Accepted", "UnsupportedProtocol"),
        (
            HTTP_A + "{name: b, port: 80, protocol: HTTP}",
            "b",
            "Conflicted",
            "HostnameConflict",
        ),
        (
            HTTP_A + "{name: b, port: 80, protocol: HTTPS}",
            "b",
            "Conflicted",
            "ProtocolConflict",
        ),
        ("{name: a, port: 443, protocol: HTTPS}", "a", "ResolvedRefs", "InvalidCertificateRef"),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: x, namespace: other}]}}",
            "a",
            "ResolvedRefs",
            "RefNotPermitted",
        ),
    ],
)
def test_listeners_say_what_is_wrong_with_them(listeners: str, name: str, condition: str, reason: str) -> None:
    status = {one.name: one for one in gateway(cluster(CLASS, GATEWAY % listeners)).status.listeners}[name]
    assert said(status.conditions)[condition] == ("True" if condition == "Conflicted" else "False", reason)
    assert said(status.conditions)["Programmed"] == ("False", "Invalid")


@pytest.mark.parametrize(
    ("listener", "namespace", "hostnames", "accepted"),
    [
        ("", "default", "", ("True", "Accepted")),
        ("", "other", "", ("False", "NotAllowedByListeners")),
        (", allowedRoutes: {namespaces: {from: All}}", "other", "", ("True", "Accepted")),
        (
            ", allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: x}}}}",
            "other",
            "",
            ("False", "NotAllowedByListeners"),
        ),
        (", allowedRoutes: {kinds: [{kind: GRPCRoute}]}", "default", "", ("False", "NotAllowedByListeners")),
        (", hostname: a.example", "default", "b.example", ("False", "NoMatchingListenerHostname")),
    ],
)
def test_routes_learn_whether_they_are_accepted(
    listener: str, namespace: str, hostnames: str, accepted: tuple[str, str]
) -> None:
    found = cluster(
        CLASS,
        OTHER,
        GATEWAY % f"{{name: web, port: 80, protocol: HTTP{listener}}}",
        SERVICE % namespace,
        ROUTE % ("r", namespace, hostnames, "{name: web, port: 80}"),
    )
    [parent] = route(found, "r", namespace).status.parents
    assert said(parent.conditions) == {"Accepted": accepted, "ResolvedRefs": ("True", "ResolvedRefs")}
    assert gateway(found).status.listeners[0].attached_routes == (accepted[0] == "True")


GRANT = """
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: '', kind: Service}]
"""


@pytest.mark.parametrize(
    ("backend", "more", "reason"),
    [
        ("{name: web, port: 80}", "", "ResolvedRefs"),
        ("{name: web, port: 81}", "", "BackendNotFound"),
        ("{name: none, port: 80}", "", "BackendNotFound"),
        ("{name: web, port: 80, kind: Pod}", "", "InvalidKind"),
        ("{name: web, port: 80, namespace: other}", "", "RefNotPermitted"),
        ("{name: web, port: 80, namespace: other}", GRANT, "ResolvedRefs"),
    ],
)
def test_backends_are_looked_for(backend: str, more: str, reason: str) -> None:
    found = cluster(
        CLASS,
        OTHER,
        GATEWAY % "{name: web, port: 80, protocol: HTTP}",
        SERVICE % "default",
        SERVICE % "other",
        ROUTE % ("r", "default", "", backend),
        more,
    )
    [parent] = route(found, "r").status.parents
    assert said(parent.conditions)["ResolvedRefs"][1] == reason


@pytest.mark.parametrize(
    ("listener", "hostnames", "common"),
    [
        ("", (), ("*",)),
        ("", ("a.example",), ("a.example",)),
        ("a.example", (), ("a.example",)),
        ("*.example", ("a.example", "b.other"), ("a.example",)),
        ("a.example", ("*.example",), ("a.example",)),
        ("*.example", ("*.b.example",), ("*.b.example",)),
        ("a.example", ("b.example",), ()),
        ("*.example", ("example",), ()),
    ],
)
def test_host_names_in_common(listener: str, hostnames: tuple[str, ...], common: tuple[str, ...]) -> None:
    assert common_hosts(listener, hostnames) == common


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("matches: [{path: {value: foo}}]", "spec.rules[0].matches[0].path: value: must begin with '/'"),
        ("matches: [{path: {type: RegularExpression, value: '('}}]", "must be a regular expression (RE2)"),
        ("timeouts: {request: soon}", "spec.rules[0].timeouts.request: must be a duration"),
        ("filters: [{type: URLRewrite}]", "spec.rules[0].filters[0]: type URLRewrite: needs its own field"),
        ("filters: [{type: ExtensionRef}]", "spec.rules[0].filters[0].type: must be"),
        ("matchs: []", "spec.rules[0]: unknown field 'matchs'"),
    ],
)
def test_mistakes_are_told_with_their_place(rule: str, complaint: str) -> None:
    text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n"
    with pytest.raises(InvalidResource) as error:
        parse_manifests(f"{text}spec: {{rules: [{{{rule}}}]}}", "r.yaml")
    assert str(error.value).startswith("r.yaml: document 1 (HTTPRoute r): ")
    assert complaint in str(error.value)


def test_what_a_route_says_is_kept_word_by_word() -> None:
    text = CLASS + ROUTE % ("r", "default", "a.example", "{name: web, port: 80, weight: 3}")
    spec: dict[str, Any] = route(cluster(text), "r").dump()["spec"]
    assert spec["rules"] == [{"backendRefs": [{"name": "web", "port": 80, "weight": 3}]}]
