"""Tables as kubectl prints them: the reference article's own outputs are what must come out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from cli.mesh.get import Request, render
from cli.mesh.kinds import find_kinds, plural_of, targets_of
from cli.mesh.place import Place
from cli.mesh.view import View, duration
from mesh.resources.base import TIME_FORMAT, Resource, changed
from mesh.resources.manifests import parse_manifests
from mesh.resources.selectors import LabelSelector
from service.failure import Failure

NOW_S = 1_639_800_000


def service(name: str, address: str, port: str, kind: str = "ClusterIP") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default}}
spec: {{clusterIP: {address}, type: {kind}, ports: [{port}]}}
"""


def deployment(name: str) -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: cilium-test}}
spec:
  selector: {{matchLabels: {{name: {name}}}}}
  template:
    metadata: {{labels: {{name: {name}}}}}
    spec: {{containers: [{{name: main, image: pause}}]}}
"""


def pod(name: str, labels: str, address: str, node: str) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: cilium-test, labels: {labels}}}
spec: {{nodeName: {node}, containers: [{{name: main, image: pause}}]}}
status: {{phase: Running, ready: true, podIP: {address}, podIPs: [{{ip: {address}}}]}}
"""


def made(texts: Sequence[str], age_s: int) -> list[Resource]:
    """The resources, as old as that."""
    stamp = datetime.fromtimestamp(NOW_S - age_s, UTC).strftime(TIME_FORMAT)
    return [
        changed(one, metadata=changed(one.metadata, creation_timestamp=stamp))
        for text in texts
        for one in parse_manifests(text)
    ]


def view(resources: Sequence[Resource]) -> View:
    return View(resources, Place(Path("nowhere")), clock=lambda: NOW_S)


def ask(words: str, namespace: str | None = "default") -> Request:
    return Request(targets_of(words.split()), namespace, LabelSelector())


PODS = made(
    [
        pod(
            "client-6488dcf5d4-pk6w9",
            "{kind: client, name: client, pod-template-hash: 6488dcf5d4}",
            "10.244.3.7",
            "kind-worker3",
        ),
        pod(
            "client2-5998d566b4-hrhrb",
            "{kind: client, name: client2, other: client, pod-template-hash: 5998d566b4}",
            "10.244.3.18",
            "kind-worker3",
        ),
        pod(
            "echo-other-node-f4d46f75b-bqpcb",
            "{kind: echo, name: echo-other-node, pod-template-hash: f4d46f75b}",
            "10.244.1.146",
            "kind-worker2",
        ),
    ],
    67 * 60 + 12,
)


def test_services_look_as_in_the_article() -> None:
    cluster = [
        *made([service("bar-app", "10.96.229.141", "{port: 5678}")], 106),
        *made([service("foo-app", "10.96.166.212", "{port: 5678}")], 106),
        *made(
            [service("cilium-ingress-cilium-ingress", "10.96.161.128", "{port: 80, nodePort: 31643}", "LoadBalancer")],
            4,
        ),
        *made([service("kubernetes", "10.96.0.1", "{port: 443}")], 81 * 60),
    ]
    balancer = cluster[2].dump() | {"status": {"loadBalancer": {"ingress": [{"ip": "172.18.255.200"}]}}}
    cluster[2:3] = parse_manifests(yaml.safe_dump(balancer))
    assert (
        render(ask("svc"), view(cluster))
        == """\
NAME                            TYPE           CLUSTER-IP      EXTERNAL-IP      PORT(S)        AGE
bar-app                         ClusterIP      10.96.229.141   <none>           5678/TCP       106s
cilium-ingress-cilium-ingress   LoadBalancer   10.96.161.128   172.18.255.200   80:31643/TCP   4s
foo-app                         ClusterIP      10.96.166.212   <none>           5678/TCP       106s
kubernetes                      ClusterIP      10.96.0.1       <none>           443/TCP        81m
"""
    )


def test_pods_with_labels_look_as_in_the_article() -> None:
    request = replace(ask("pods", "cilium-test"), output="wide", labels=True)
    assert (
        render(request, view(PODS))
        == """\
NAME                              READY   STATUS    RESTARTS   AGE   IP             NODE           NOMINATED NODE   READINESS GATES   LABELS
client-6488dcf5d4-pk6w9           1/1     Running   0          67m   10.244.3.7     kind-worker3   <none>           <none>            kind=client,name=client,pod-template-hash=6488dcf5d4
client2-5998d566b4-hrhrb          1/1     Running   0          67m   10.244.3.18    kind-worker3   <none>           <none>            kind=client,name=client2,other=client,pod-template-hash=5998d566b4
echo-other-node-f4d46f75b-bqpcb   1/1     Running   0          67m   10.244.1.146   kind-worker2   <none>           <none>            kind=echo,name=echo-other-node,pod-template-hash=f4d46f75b
"""  # noqa: E501
    )


def test_all_means_pods_services_deployments_and_replica_sets() -> None:
    text = render(ask("all", "cilium-test"), view([*PODS, *made([deployment("client")], 66 * 60)]))
    pods, deployments, replica_sets = text.split("\n\n")
    assert pods.splitlines()[1].startswith("pod/client-6488dcf5d4-pk6w9 ")
    assert deployments.splitlines()[0] == "NAME                     READY   UP-TO-DATE   AVAILABLE   AGE"
    assert deployments.splitlines()[1] == "deployment.apps/client   0/1     0            0           66m"
    assert replica_sets.splitlines()[0].split() == ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]
    assert replica_sets.splitlines()[1].startswith("replicaset.apps/client-")


def test_yaml_and_json_can_be_applied_again() -> None:
    for output in ("yaml", "json"):
        several = render(replace(ask("pods", "cilium-test"), output=output), view(PODS))
        assert parse_manifests(several) == sorted(PODS, key=lambda one: one.key)
        (first,) = parse_manifests(render(replace(ask(f"pod {PODS[0].name}", None), output=output), view(PODS)))
        assert first == PODS[0]
    assert json.loads(render(replace(ask("po", None), output="json"), view(PODS)))["kind"] == "List"


def test_names_come_with_their_kind() -> None:
    shown = render(replace(ask("pods", None), output="name"), view(PODS))
    assert shown.splitlines()[0] == "pod/client-6488dcf5d4-pk6w9"


def test_a_name_that_nothing_has_is_told() -> None:
    request = ask("pod nobody", "cilium-test")
    assert request.missing(view(PODS)) == ["there is no Pod 'nobody' in namespace cilium-test"]
    assert render(request, view(PODS)) == ""


def test_all_namespaces_have_a_column_of_their_own() -> None:
    head, first, *_ = render(ask("pods", None), view(PODS)).splitlines()
    assert head.split()[:2] == ["NAMESPACE", "NAME"]
    assert first.split()[:2] == ["cilium-test", "client-6488dcf5d4-pk6w9"]


@pytest.mark.parametrize("words", ["po", "pods", "Pod", "pod"])
def test_kinds_have_many_names(words: str) -> None:
    assert [one.kind for one in find_kinds(words)] == ["Pod"]


def test_kinds_can_be_named_with_their_group_and_together() -> None:
    assert [one.kind for one in find_kinds("deployments.apps,cnp,svc,services")] == [
        "Deployment",
        "CiliumNetworkPolicy",
        "Service",
    ]


def test_an_unknown_kind_is_refused_with_the_ones_that_come_near() -> None:
    with pytest.raises(Failure, match=r"there is no kind of resource called 'pds'; did you mean pods"):
        find_kinds("pds")
    with pytest.raises(Failure, match="api-resources"):
        find_kinds("xyzzy")


@pytest.mark.parametrize(
    ("kind", "plural"), [("Gateway", "gateways"), ("IngressClass", "ingressclasses"), ("GRPCPolicy", "grpcpolicies")]
)
def test_plurals(kind: str, plural: str) -> None:
    assert plural_of(kind) == plural


AGES = {
    -5: "0s",
    106: "106s",
    120: "2m",
    190: "3m10s",
    4860: "81m",
    3 * 3600: "3h",
    5 * 3600 + 120: "5h2m",
    30 * 3600: "30h",
    3 * 86400: "3d",
    3 * 86400 + 7200: "3d2h",
    100 * 86400: "100d",
    1000 * 86400: "2y270d",
}


@pytest.mark.parametrize(("seconds", "text"), AGES.items())
def test_ages_get_rougher_with_time(seconds: int, text: str) -> None:
    assert duration(seconds) == text
