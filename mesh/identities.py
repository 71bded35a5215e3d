"""Security identities: one number for each set of labels that policy can tell apart.

In:        labels of pods and of their namespaces.
Out:       security labels (`k8s:app=web`), and the numbers that stand for sets of them.
Elsewhere: controller.py keeps the numbers in the store as CiliumIdentity resources.

Source: Cilium's ranges and label filters: 0 to 127 reserved, 128 to 255 for users, from 256 for the cluster.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from mesh.resources.base import Metadata
from mesh.resources.cluster import CiliumIdentity, Namespace
from mesh.resources.pods import Pod
from service.failure import Failure

UNKNOWN: Final = 0
HOST: Final = 1
WORLD: Final = 2
HEALTH: Final = 4
REMOTE_NODE: Final = 6
INGRESS: Final = 8

RESERVED: Final[dict[int, tuple[str, ...]]] = {
    HOST: ("reserved:host",),
    WORLD: ("reserved:world",),
    3: ("reserved:unmanaged",),
    HEALTH: ("reserved:health",),
    5: ("reserved:init",),
    REMOTE_NODE: ("reserved:remote-node",),
    7: ("reserved:kube-apiserver", "reserved:remote-node"),
    INGRESS: ("reserved:ingress",),
    9: ("reserved:world-ipv4",),
    10: ("reserved:world-ipv6",),
}
"""Labels of the reserved numbers."""

FIRST: Final = 256
LAST: Final = 65535

NAMESPACE_LABEL: Final = "io.kubernetes.pod.namespace"
NAMESPACE_META: Final = "io.cilium.k8s.namespace.labels."
CLUSTER_LABEL: Final = "io.cilium.k8s.policy.cluster"
ACCOUNT_LABEL: Final = "io.cilium.k8s.policy.serviceaccount"
NAMESPACE_NAME: Final = "kubernetes.io/metadata.name"
"""Label that Kubernetes puts on every namespace."""

EXCLUDED: Final = frozenset(
    {"pod-template-hash", "controller-revision-hash", "pod-template-generation", "controller-uid", "job-name"}
    | {"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "batch.kubernetes.io/job-name"}
)
"""Labels that differ from pod to pod or roll-out to roll-out: they would make an identity for each."""


def security_labels(pod: Pod, namespace: Namespace | None, cluster: str) -> dict[str, str]:
    """The labels that decide a pod's identity, `source:key` -> value, sorted."""
    labels = {key: value for key, value in pod.metadata.labels.items() if key not in EXCLUDED}
    labels |= {NAMESPACE_META + key: value for key, value in namespace_labels(pod.namespace, namespace).items()}
    labels |= {
        NAMESPACE_LABEL: pod.namespace,
        CLUSTER_LABEL: cluster,
        ACCOUNT_LABEL: pod.spec.service_account_name,
    }
    return {f"k8s:{key}": labels[key] for key in sorted(labels)}


def namespace_labels(name: str, namespace: Namespace | None) -> dict[str, str]:
    """Labels of a namespace, the one that Kubernetes adds included."""
    written = namespace.metadata.labels if namespace else {}
    return {**written, NAMESPACE_NAME: name}


def as_text(labels: Mapping[str, str]) -> list[str]:
    """`source:key=value`, or `source:key` where the value is empty; sorted."""
    return sorted(f"{key}={value}" if value else key for key, value in labels.items())


def allocate(labels: Mapping[str, str], existing: Iterable[CiliumIdentity]) -> CiliumIdentity:
    """The identity of a label set: the existing one, else the lowest free number.

    Raises: Failure when all numbers are taken.
    """
    taken = set()
    for identity in existing:
        if identity.security_labels == labels:
            return identity
        taken.add(number(identity))
    return CiliumIdentity(
        api_version="cilium.io/v2",
        metadata=Metadata(name=str(_lowest_free(taken))),
        security_labels=dict(labels),
        kind="CiliumIdentity",
    )


def number(identity: CiliumIdentity) -> int:
    """The number that a CiliumIdentity is named by."""
    return int(identity.name)


def _lowest_free(taken: Collection[int]) -> int:
    for candidate in range(FIRST, LAST + 1):
        if candidate not in taken:
            return candidate
    raise Failure(f"all identities from {FIRST} to {LAST} are taken; use fewer distinct labels")
