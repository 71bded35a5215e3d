"""Which CiliumEnvoyConfigs a node's Envoy gets, with an Envoy that refuses what is called bad."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from mesh.envoyconfig.admission import Admission
from mesh.envoyconfig.documents import EnvoyConfig
from mesh.resources.base import Key, Resource
from mesh.resources.manifests import parse_manifests
from service.failure import Failure
from tests.support.cluster import node

CONFIG = """
---
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: %s}
spec:
  resources:
    - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
      name: %s
"""
OTHER_NODE = """
---
apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: elsewhere}
spec: {nodeSelector: {matchLabels: {kubernetes.io/hostname: other}}}
"""


class Envoy:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, configs: Sequence[EnvoyConfig]) -> Mapping[Key, str]:
        self.asked.append([one.name for one in configs])
        return {one.key: "no" for one in configs if one.spec.resources[0]["name"] == "bad"}


def configs(*pairs: tuple[str, str]) -> list[Resource]:
    return parse_manifests("".join(CONFIG % pair for pair in pairs))


def admit(admission: Admission, resources: Sequence[Resource]) -> dict[str, str]:
    """Names of listeners, by those of their resources."""
    asyncio.run(admission.judge(resources))
    found = admission.admitted(resources)
    return {one.name: one.spec.resources[0]["name"] for one in found if isinstance(one, EnvoyConfig)}


def test_what_is_refused_does_not_keep_the_rest_from_envoy(tmp_path: Path) -> None:
    admission = Admission(tmp_path / "accepted.json", node(0), Envoy())
    assert admit(admission, configs(("a", "bad"), ("b", "good"))) == {"b": "good"}
    assert admission.problems == {
        Key("CiliumEnvoyConfig", "default", "a"): "no; nothing of it is in effect",
    }


def test_an_earlier_version_stays_while_the_next_is_refused_also_for_the_next_agent(tmp_path: Path) -> None:
    envoy = Envoy()
    first = Admission(tmp_path / "accepted.json", node(0), envoy)
    assert admit(first, configs(("a", "good"), ("b", "good"))) == {"a": "good", "b": "good"}
    assert admit(first, configs(("a", "bad"), ("b", "good"))) == {"a": "good", "b": "good"}
    assert [*first.problems.values()] == ["no; what it said before stays"]

    again = Admission(tmp_path / "accepted.json", node(0), envoy)
    assert admit(again, configs(("a", "bad"), ("b", "good"))) == {"a": "good", "b": "good"}
    # What was taken is not asked about again.
    assert envoy.asked == [["a", "b"], ["a"], ["a"]]

    assert admit(again, configs(("a", "better"), ("b", "good"))) == {"a": "better", "b": "good"}
    assert not again.problems


def test_the_same_is_asked_once_and_what_goes_is_forgotten(tmp_path: Path) -> None:
    envoy = Envoy()
    admission = Admission(tmp_path / "accepted.json", node(0), envoy)
    for _ in range(3):
        admit(admission, configs(("a", "bad"), ("b", "good")))
    assert envoy.asked == [["a", "b"]]
    assert admit(admission, configs(("b", "good"))) == {"b": "good"}
    assert not admission.problems


def test_what_is_for_other_nodes_is_not_looked_at(tmp_path: Path) -> None:
    envoy = Envoy()
    admission = Admission(tmp_path / "accepted.json", node(0), envoy)
    asyncio.run(admission.judge(parse_manifests(OTHER_NODE)))
    assert envoy.asked == []


def test_without_an_envoy_to_ask_the_one_that_runs_decides(tmp_path: Path) -> None:
    def ask(_configs: Sequence[EnvoyConfig]) -> Mapping[Key, str]:
        raise Failure("cannot run Envoy")

    admission = Admission(tmp_path / "accepted.json", node(0), ask)
    assert admit(admission, configs(("a", "bad"))) == {"a": "bad"}


def test_a_damaged_memory_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "accepted.json").write_text("[")
    envoy = Envoy()
    assert admit(Admission(tmp_path / "accepted.json", node(0), envoy), configs(("a", "good"))) == {"a": "good"}
    assert envoy.asked == [["a"]]
