"""What follows from Ingress resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mesh.cluster import Cluster
from mesh.controller import reconcile
from mesh.envoyconfig.documents import CiliumEnvoyConfig
from mesh.ingress.secrets import Secret
from mesh.resources.base import Key
from mesh.resources.manifests import parse_manifests
from mesh.resources.mistakes import InvalidResource
from mesh.resources.services import Service
from tests.support.cluster import node, settled

WALK = Path(__file__).parents[4] / "lab/manifests/walk"
REFERENCE = (WALK / "foo-bar-apps.yaml").read_text() + "\n---\n" + (WALK / "cilium-ingress.yaml").read_text()


def cluster(text: str) -> Cluster:
    return Cluster(settled([node(0), *parse_manifests(text)]))


def ingress(name: str, spec: str, namespace: str = "default", **annotations: str) -> str:
    marks = "".join(f"\n    ingress.cilium.io/{key.replace('_', '-')}: '{value}'" for key, value in annotations.items())
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: {namespace}
  annotations: {{}}{marks}
spec:
  {spec}
""".replace("{}\n    ", "\n    ")


def paths(*pairs: str, host: str = "") -> str:
    backend = "{service: {name: web, port: {number: 80}}}"
    split = (pair.partition(" ") for pair in pairs)
    listed = ", ".join(f"{{path: {path}, pathType: {kind}, backend: {backend}}}" for kind, _, path in split)
    return f"{{host: '{host}', http: {{paths: [{listed}]}}}}"


def service(found: Cluster, name: str, namespace: str = "default") -> Service:
    one = found.resources[Key("Service", namespace, name)]
    assert isinstance(one, Service)
    return one


def config(found: Cluster, name: str, namespace: str = "default") -> CiliumEnvoyConfig:
    one = found.resources[Key("CiliumEnvoyConfig", namespace, name)]
    assert isinstance(one, CiliumEnvoyConfig)
    return one


def routes(found: CiliumEnvoyConfig, name: str) -> dict[str, list[dict[str, Any]]]:
    [one] = [raw for raw in found.spec.resources if raw["@type"].endswith("RouteConfiguration") and raw["name"] == name]
    return {host["name"]: host["routes"] for host in one["virtual_hosts"]}


def test_the_reference_ingress_gets_a_balancer_and_a_configuration() -> None:
    found = cluster(REFERENCE)
    balancer = service(found, "cilium-ingress-cilium-ingress")
    assert balancer.spec.type == "LoadBalancer"
    assert [(one.name, one.port) for one in balancer.spec.ports] == [("http", 80)]
    assert balancer.metadata.labels["cilium.io/ingress"] == "true"
    made = config(found, "cilium-ingress-default-cilium-ingress")
    assert [one["match"] for one in routes(made, "http")["*"]] == [
        {"path_separated_prefix": "/foo"},
        {"path_separated_prefix": "/bar"},
    ]
    assert [(one.name, one.number) for one in made.spec.backend_services] == [
        ("bar-app", ("5678",)),
        ("foo-app", ("5678",)),
    ]


def test_a_settled_cluster_with_ingress_stays_as_it_is() -> None:
    assert not reconcile(settled([node(0), *parse_manifests(REFERENCE)]))


def test_what_was_made_goes_with_the_ingress() -> None:
    before = settled([node(0), *parse_manifests(REFERENCE)])
    after = Cluster(settled([one for one in before if one.kind != "Ingress"]))
    assert not [key for key in after.resources if key.name.startswith("cilium-ingress")]


def test_other_classes_are_left_alone() -> None:
    spec = "ingressClassName: nginx\n  rules: [" + paths("Prefix /") + "]"
    assert not cluster(ingress("a", spec)).services()


@pytest.mark.parametrize(
    "more",
    [
        "---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: edge, annotations: "
        "{ingressclass.kubernetes.io/is-default-class: 'true'}}\nspec: {controller: cilium.io/ingress-controller}\n",
    ],
)
def test_a_default_class_takes_what_names_none(more: str) -> None:
    text = ingress("a", "rules: [" + paths("Prefix /") + "]")
    assert not cluster(text).services()
    assert cluster(text + more).services()


def test_routes_are_tried_from_the_most_particular_to_the_least() -> None:
    spec = "ingressClassName: cilium\n  rules: [" + paths(
        "Prefix /", "Prefix /a", "ImplementationSpecific /a/.*", "Prefix /a/b/", "Exact /a/b", "Exact /a/b/c"
    )
    made = config(cluster(ingress("a", spec + "]")), "cilium-ingress-default-a")
    assert [one["match"] for one in routes(made, "http")["*"]] == [
        {"path": "/a/b/c"},
        {"path": "/a/b"},
        {"safe_regex": {"regex": "/a/.*"}},
        {"path_separated_prefix": "/a/b"},
        {"path_separated_prefix": "/a"},
        {"prefix": "/"},
    ]


def test_tls_opens_a_second_port_and_copies_the_secret() -> None:
    secret = """
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: default}
type: kubernetes.io/tls
stringData: {tls.crt: a, tls.key: b}
"""
    spec = "ingressClassName: cilium\n  tls: [{hosts: [a.example], secretName: cert}]\n  rules: ["
    found = cluster(secret + ingress("a", spec + paths("Prefix /", host="a.example") + "]"))
    assert [one.port for one in service(found, "cilium-ingress-a").spec.ports] == [80, 443]
    assert isinstance(found.resources[Key("Secret", "cilium-secrets", "default-cert")], Secret)
    made = config(found, "cilium-ingress-default-a")
    [forced] = routes(made, "http")["a.example"]
    assert forced["redirect"] == {"response_code": "MOVED_PERMANENTLY", "scheme_redirect": "https"}
    assert "route" in routes(made, "https")["a.example"][0]


def test_shared_ingresses_have_one_balancer_and_the_first_wins() -> None:
    rules = "ingressClassName: cilium\n  rules: ["
    one = ingress("one", rules + paths("Prefix /x") + "]", loadbalancer_mode="shared")
    two = ingress("two", rules + paths("Prefix /x", "Prefix /y") + "]", "other", loadbalancer_mode="shared")
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n" + one + two
    found = cluster(text)
    assert [one.name for one in found.services()] == ["cilium-ingress"]
    made = routes(config(found, "cilium-ingress", "kube-system"), "http")["*"]
    assert [one["route"]["cluster"] for one in made] == ["default:web:80", "other:web:80"]


def test_a_service_of_the_same_name_is_not_taken_over() -> None:
    mine = "apiVersion: v1\nkind: Service\nmetadata: {name: cilium-ingress-a}\nspec: {ports: [{port: 1}]}\n"
    found = cluster(mine + ingress("a", "ingressClassName: cilium\n  rules: [" + paths("Prefix /") + "]"))
    assert [one.port for one in service(found, "cilium-ingress-a").spec.ports] == [1]


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("rules: [" + paths("Prefix foo") + "]", "spec.rules[0].http.paths[0]: path: must begin with '/'"),
        ("rules: [" + paths("ImplementationSpecific '/('") + "]", "path: must be a regular expression (RE2)"),
        ("rules: [" + paths("Prefix /", host="*.*.example") + "]", "spec.rules[0].host: must be a host name"),
        ("defaultBackend: {service: {name: a, port: {}}}", "port: needs either number or name"),
        ("rule: []", "spec"),
        ("ingressClassName: cilium", "needs rules or defaultBackend"),
    ],
)
def test_mistakes_are_told_with_their_place(spec: str, complaint: str) -> None:
    with pytest.raises(InvalidResource) as error:
        parse_manifests(ingress("a", spec), "in.yaml")
    assert "in.yaml: document" in str(error.value)
    assert complaint in str(error.value)
