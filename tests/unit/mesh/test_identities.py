"""Labels decide identities."""

from __future__ import annotations

from mesh.identities import allocate, as_text, number, security_labels
from mesh.resources.cluster import CiliumIdentity, Namespace
from mesh.resources.manifests import parse_manifest
from tests.support.cluster import pod


def space(**labels: str) -> Namespace:
    found = parse_manifest({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})
    assert isinstance(found, Namespace)
    return found


def test_a_pod_s_security_labels_are_those_of_cilium() -> None:
    labels = security_labels(pod("a", "shop", app="web"), space(team="blue"), "default")
    assert as_text(labels) == [
        "k8s:app=web",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
        "k8s:io.cilium.k8s.namespace.labels.team=blue",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=default",
        "k8s:io.kubernetes.pod.namespace=shop",
    ]


def test_labels_that_differ_from_pod_to_pod_do_not_count() -> None:
    one = pod("a", app="web", **{"pod-template-hash": "abc"})
    other = pod("b", app="web", **{"pod-template-hash": "xyz"})
    assert security_labels(one, None, "default") == security_labels(other, None, "default")


def test_a_label_without_value_is_written_without_equals_sign() -> None:
    assert as_text({"k8s:canary": "", "k8s:app": "web"}) == ["k8s:app=web", "k8s:canary"]


def test_numbers_begin_at_256_and_are_found_again() -> None:
    known: list[CiliumIdentity] = []
    for name in "abc":
        known.append(allocate({"k8s:app": name}, known))
    assert [number(one) for one in known] == [256, 257, 258]
    assert allocate({"k8s:app": "b"}, known) is known[1]


def test_a_number_that_became_free_is_used_again() -> None:
    known = [allocate({"k8s:app": "a"}, [])]
    known.append(allocate({"k8s:app": "b"}, known))
    assert number(allocate({"k8s:app": "c"}, known[1:])) == 256
