"""Names and MACs that follow from what they belong to."""

from __future__ import annotations

import re

from mesh.names import interface_name, mac_address, pod_name, template_hash
from mesh.resources.deployments import Deployment
from mesh.resources.manifests import parse_manifests

TEXT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: client2, namespace: cilium-test}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {name: client2}}
  template:
    metadata: {labels: {name: client2}}
    spec: {containers: [{name: client2, image: IMAGE}]}
"""


def deployment(replicas: int = 1, image: str = "pause") -> Deployment:
    (found,) = parse_manifests(TEXT.replace("REPLICAS", str(replicas)).replace("IMAGE", image))
    assert isinstance(found, Deployment)
    return found


def test_a_pod_is_called_like_one_of_kubernetes() -> None:
    assert re.fullmatch(r"client2-[b-z2-9]{1,10}-[b-z2-9]{5}", pod_name(deployment(), 0))


def test_each_pod_has_a_name_of_its_own() -> None:
    assert len({pod_name(deployment(), number) for number in range(500)}) == 500


def test_the_hash_follows_the_template_and_nothing_else() -> None:
    assert template_hash(deployment(1)) == template_hash(deployment(5))
    assert template_hash(deployment()) != template_hash(deployment(image="other"))


def test_interface_names_fit_into_linux() -> None:
    assert re.fullmatch(r"lxc[0-9a-f]{12}", interface_name("some-uid"))


def test_macs_are_local_and_unicast() -> None:
    for seed in ("a", "b", "c", "d"):
        assert int(mac_address(seed)[:2], 16) & 3 == 2
