"""Services that ask by annotation to be balanced request by request."""

from __future__ import annotations

import pytest

from mesh.cluster import Cluster
from mesh.envoyconfig.documents import CiliumEnvoyConfig
from mesh.resources.base import Key
from mesh.resources.manifests import parse_manifests
from mesh.resources.mistakes import InvalidResource
from tests.support.cluster import node, settled

MADE = Key("CiliumEnvoyConfig", "default", "cilium-envoy-lb-web")


def service(annotations: str = "service.cilium.io/lb-l7: enabled", more: str = "") -> str:
    ports = "[{name: a, port: 80}, {name: b, port: 90, targetPort: http}, {name: c, port: 53, protocol: UDP}]"
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: default, annotations: {{{annotations}}}}}
spec: {{selector: {{app: web}}, ports: {ports}{more}}}
"""


def cluster(*texts: str, before: Cluster | None = None) -> Cluster:
    kept = [one for one in before.resources.values() if one.kind != "Service"] if before else [node(0)]
    return Cluster(settled([*kept, *parse_manifests("\n---\n".join(texts))]))


def made(found: Cluster) -> CiliumEnvoyConfig:
    config = found.resources[MADE]
    assert isinstance(config, CiliumEnvoyConfig)
    return config


def test_each_tcp_port_gets_a_listener_and_its_own_backends() -> None:
    config = made(cluster(service()))
    assert [(one.name, one.ports, one.listener) for one in config.spec.services] == [
        ("web", (80,), "port-80"),
        ("web", (90,), "port-90"),
    ]
    assert [(one.name, one.number) for one in config.spec.backend_services] == [("web", ("80", "90"))]
    assert [one["name"] for one in config.spec.resources if one["@type"].endswith(".Cluster")] == [
        "default/web:80",
        "default/web:90",
    ]
    assert config.keeps_source
    assert config.status.conditions[0].reason == "InEffect"


@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [("round_robin", "ROUND_ROBIN"), ("least_request", "LEAST_REQUEST"), ("random", "RANDOM")],
)
def test_the_algorithm_is_envoys(algorithm: str, policy: str) -> None:
    wanted = f"service.cilium.io/lb-l7: enabled, service.cilium.io/lb-l7-algorithm: {algorithm}"
    config = made(cluster(service(wanted)))
    assert {one["lb_policy"] for one in config.spec.resources if "lb_policy" in one} == {policy}


def test_it_comes_changes_and_goes_with_the_service() -> None:
    first = cluster(service())
    changed = cluster(
        service("service.cilium.io/lb-l7: enabled, service.cilium.io/lb-l7-algorithm: random"), before=first
    )
    assert "RANDOM" in str(made(changed).spec.resources)
    assert MADE not in cluster(service(""), before=changed).resources
    assert MADE not in cluster(service("service.cilium.io/lb-l7: disabled"), before=changed).resources
    assert MADE not in cluster(before=changed).resources
    assert MADE not in cluster(service(more=", clusterIP: None")).resources


def test_what_a_user_has_made_under_its_name_stays() -> None:
    own = "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {name: cilium-envoy-lb-web}\nspec: {}"
    assert made(cluster(service(), own)).spec.services == ()


@pytest.mark.parametrize(
    ("annotations", "complaint"),
    [
        ("service.cilium.io/lb-l7: 'yes'", "service.cilium.io/lb-l7: must be enabled or disabled, got 'yes'"),
        (
            "service.cilium.io/lb-l7-algorithm: maglev",
            "service.cilium.io/lb-l7-algorithm: must be round_robin, least_request or random, got 'maglev'",
        ),
    ],
)
def test_other_values_are_refused(annotations: str, complaint: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        parse_manifests(service(annotations))
    assert str(refused.value).endswith(f"(Service default/web): metadata.annotations: {complaint}")
