"""Pod, and what it says about its containers, its place and its network.

In:        plain data of one document.
Out:       frozen models; `told_to_go`, which is what deleting means for a pod that runs.
Elsewhere: mesh/schedule.py finds a node; lab/pods.py runs pods.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from mesh.resources.base import Model, Resource, changed
from mesh.resources.fields import Address, DnsLabel, Labels, Port, PortName, Protocol
from mesh.resources.selectors import LabelSelector, Requirement


class ContainerPort(Model):
    container_port: Port
    name: PortName | None = None
    protocol: Protocol = "TCP"
    ignored = frozenset({"hostPort", "hostIP"})


class EnvVar(Model):
    name: str
    value: str = ""
    ignored = frozenset({"valueFrom"})


class SleepAction(Model):
    seconds: Annotated[int, Field(ge=0)]


class LifecycleHandler(Model):
    """Only `sleep` is done here."""

    sleep: SleepAction | None = None
    ignored = frozenset({"exec", "httpGet", "tcpSocket"})


class Lifecycle(Model):
    pre_stop: LifecycleHandler = LifecycleHandler()
    ignored = frozenset({"postStart", "stopSignal"})


class Container(Model):
    name: DnsLabel
    image: Annotated[str, Field(min_length=1)]
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    lifecycle: Lifecycle = Lifecycle()
    ignored = frozenset(
        {"resources", "imagePullPolicy", "livenessProbe", "readinessProbe", "startupProbe", "securityContext", "tty"}
        | {"volumeMounts", "volumeDevices", "workingDir", "stdin", "stdinOnce", "envFrom"}
        | {"terminationMessagePath", "terminationMessagePolicy", "restartPolicy", "resizePolicy"}
    )


class Toleration(Model):
    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    ignored = frozenset({"tolerationSeconds"})


class PodAffinityTerm(Model):
    label_selector: LabelSelector = LabelSelector()
    topology_key: str
    namespaces: tuple[str, ...] = ()
    ignored = frozenset({"namespaceSelector", "matchLabelKeys", "mismatchLabelKeys"})


_REQUIRED: Final = Field(alias="requiredDuringSchedulingIgnoredDuringExecution")


class PodAffinity(Model):
    required: Annotated[tuple[PodAffinityTerm, ...], _REQUIRED] = ()
    ignored = frozenset({"preferredDuringSchedulingIgnoredDuringExecution"})


class NodeSelectorTerm(Model):
    match_expressions: tuple[Requirement, ...] = ()
    ignored = frozenset({"matchFields"})


class NodeSelector(Model):
    node_selector_terms: tuple[NodeSelectorTerm, ...]


class NodeAffinity(Model):
    required: Annotated[NodeSelector | None, _REQUIRED] = None
    ignored = frozenset({"preferredDuringSchedulingIgnoredDuringExecution"})


class Affinity(Model):
    node_affinity: NodeAffinity = NodeAffinity()
    pod_affinity: PodAffinity = PodAffinity()
    pod_anti_affinity: PodAffinity = PodAffinity()


class PodSpec(Model):
    containers: Annotated[tuple[Container, ...], Field(min_length=1)]
    node_name: str = ""
    node_selector: Labels = Field(default_factory=dict)
    affinity: Affinity = Affinity()
    tolerations: tuple[Toleration, ...] = ()
    service_account_name: str = "default"
    hostname: DnsLabel | Literal[""] = ""
    subdomain: DnsLabel | Literal[""] = ""
    host_network: bool = False
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: Annotated[int, Field(ge=0)] = 30
    ignored = frozenset(
        {"dnsPolicy", "dnsConfig", "serviceAccount", "securityContext", "schedulerName", "priority", "volumes"}
        | {"priorityClassName", "preemptionPolicy", "enableServiceLinks"}
        | {"automountServiceAccountToken", "hostAliases", "hostIPC", "hostPID", "imagePullSecrets", "initContainers"}
        | {"readinessGates", "topologySpreadConstraints", "shareProcessNamespace", "activeDeadlineSeconds", "os"}
        | {"runtimeClassName", "overhead", "setHostnameAsFQDN", "hostUsers", "schedulingGates"}
    )


class PodIp(Model):
    ip: Address


class PodNetwork(Model):
    """How a pod hangs on its node; written by whoever made the pod's namespace (the lab; a CNI plug-in elsewhere)."""

    interface: str
    """Name of the node's end of the pod's veth."""
    mac: str
    """Of the pod's own end."""
    host_mac: str
    """Of the node's end."""


class PodStatus(Model):
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Pending"
    pod_ip: Annotated[Address | None, Field(alias="podIP")] = None
    pod_ips: Annotated[tuple[PodIp, ...], Field(alias="podIPs")] = ()
    host_ip: Annotated[Address | None, Field(alias="hostIP")] = None
    ready: bool = False
    network: PodNetwork | None = None
    ignored = frozenset(
        {"conditions", "containerStatuses", "qosClass", "startTime", "message", "reason", "hostIPs"}
        | {"initContainerStatuses", "ephemeralContainerStatuses", "nominatedNodeName"}
    )


class Pod(Resource):
    kind: Literal["Pod"] = "Pod"
    spec: PodSpec
    status: PodStatus = PodStatus()

    @property
    def ips(self) -> tuple[str, ...]:
        """Addresses, IPv4 first."""
        return tuple(one.ip for one in self.status.pod_ips)

    @property
    def is_leaving(self) -> bool:
        """It was told to go and still has connections to finish."""
        return self.metadata.deletion_timestamp is not None


def told_to_go(resource: Resource, now: str) -> Resource | None:
    """What becomes of a resource that is deleted: a pod that runs is only told so; None: it is gone at once."""
    if not isinstance(resource, Pod) or resource.status.network is None:
        return None
    if resource.is_leaving:
        return resource
    return changed(resource, metadata=changed(resource.metadata, deletion_timestamp=now))
