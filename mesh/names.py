"""Names as Kubernetes makes them, but the same ones for the same manifests every time.

In:        a Deployment and how many pods it has made; a pod.
Out:       `client2-5998d566b4-hrhrb`: deployment, hash of the pod template, five characters; the workload of a pod.
Elsewhere: controller.py decides when a pod is made.

Kubernetes draws the last five characters at random. Ours follow from the number of the pod, so that recordings, tests
and screenshots of the same manifests show the same names.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from mesh.resources.deployments import Deployment
from mesh.resources.pods import Pod

ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and nothing that looks like another character (Kubernetes, util/rand)."""

HASH_LABEL: Final = "pod-template-hash"
"""Label of a pod with the hash of its template."""

_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193


def template_hash(deployment: Deployment) -> str:
    """The pod-template-hash: changes when, and only when, the template does."""
    template = deployment.spec.template.model_dump(mode="json", by_alias=True, exclude_unset=True)
    digits = str(_fnv1a(json.dumps(template, sort_keys=True).encode()))
    # Kubernetes writes the decimal digits of a 32-bit FNV hash in its own alphabet, hence ten characters at most.
    return "".join(ALPHABET[ord(digit) % len(ALPHABET)] for digit in digits)


def pod_name(deployment: Deployment, number: int) -> str:
    """Name of the `number`th pod that the deployment makes."""
    owner = f"{deployment.name}-{template_hash(deployment)}"
    value = int.from_bytes(hashlib.sha256(f"{deployment.namespace}/{owner}/{number}".encode()).digest()[:8], "big")
    return f"{owner}-" + "".join(ALPHABET[value // len(ALPHABET) ** at % len(ALPHABET)] for at in range(5))


def interface_name(uid: str) -> str:
    """The node's end of a pod's veth: `lxc` and 12 hex digits, the 15 characters that Linux allows."""
    return "lxc" + hashlib.sha256(uid.encode()).hexdigest()[:12]


def mac_address(seed: str) -> str:
    """A locally administered unicast MAC that follows from `seed`."""
    octets = bytearray(hashlib.sha256(seed.encode()).digest()[:6])
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


def workload(pod: Pod) -> tuple[str, str]:
    """Kind and name of what manages a pod: for a pod of a ReplicaSet its Deployment; a pod on its own is its own."""
    for owner in pod.metadata.owner_references:
        if owner.kind == "ReplicaSet" and (value := pod.metadata.labels.get(HASH_LABEL)):
            return "Deployment", owner.name.removesuffix(f"-{value}")
        return owner.kind, owner.name
    return "Pod", pod.name


def _fnv1a(data: bytes) -> int:
    value = _FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * _FNV_PRIME & 0xFFFFFFFF
    return value
