"""Conditions of CiliumEnvoyConfigs."""

from __future__ import annotations

from mesh.cluster import Cluster
from mesh.envoyconfig.documents import CiliumEnvoyConfig
from mesh.resources.base import Key
from mesh.resources.manifests import parse_manifests
from tests.support.cluster import node, settled

CONFIG = """
---
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: %s}
spec:
  nodeSelector: {matchLabels: {kubernetes.io/hostname: %s}}
  services: [{name: web}]
  resources:
    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
      name: l
"""


def accepted(*texts: str) -> dict[str, tuple[str, str]]:
    found = Cluster(settled([node(0), node(1), *parse_manifests("".join(texts))]))
    configs = [found.resources[Key("CiliumEnvoyConfig", "default", name)] for name in ("a", "b")]
    return {
        one.name: (one.status.conditions[0].status, one.status.conditions[0].message)
        for one in configs
        if isinstance(one, CiliumEnvoyConfig)
    }


def test_of_two_for_one_service_the_second_says_so() -> None:
    told = accepted(CONFIG % ("b", "kind-worker0"), CONFIG % ("a", "kind-worker0"))
    assert told["a"] == ("True", "")
    assert told["b"] == (
        "False",
        "service default/web is already redirected by CiliumEnvoyConfig default/a",
    )


def test_two_for_different_nodes_are_not_in_each_others_way() -> None:
    told = accepted(CONFIG % ("b", "kind-worker0"), CONFIG % ("a", "kind-worker1"))
    assert told == {"a": ("True", ""), "b": ("True", "")}
