"""Kubernetes resources as we understand them: YAML in, checked and typed values out.

In:        YAML documents as users write them for Kubernetes.
Out:       frozen models; `dump` gives back every field that was written, also those that mean nothing here.
Elsewhere: store.py keeps them; controller.py fills in what Kubernetes' own controllers would.

A field that Kubernetes knows and we do not need is kept and ignored; a field that Kubernetes does not know is an error,
because it is a typing mistake nine times out of ten.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

MAX_DOCUMENT_BYTES: Final = 4 << 20
"""YAML text we are willing to parse at once; etcd's own limit for one object is 1.5 MB."""
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"
"""Of timestamps in resources."""


class InvalidResource(ValueError):
    """A document that cannot be accepted. The text names the file, the document and the field, on one line."""

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)
        self.problems = tuple(" ".join(one.split()) for one in problems)
        """Everything that is wrong, the text being the first of it."""

    def __str__(self) -> str:
        return self.problems[0]


M = TypeVar("M", bound="Model")


class Key(NamedTuple):
    """What names a resource."""

    kind: str
    namespace: str
    """Empty for kinds that belong to the whole cluster."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Model(BaseModel):
    """Base of everything below: camelCase in YAML, snake_case here, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)

    ignored: ClassVar[frozenset[str]] = frozenset()
    """Fields that Kubernetes knows and we only carry along."""

    @model_validator(mode="after")
    def _no_unknown_fields(self) -> Self:
        for name in self.model_extra or ():
            if name not in self.ignored:
                raise ValueError(f"unknown field {name!r}")
        return self


def _checked(pattern: str, what: str, longest: int) -> Callable[[str], str]:
    shape = re.compile(pattern)

    def check(text: str) -> str:
        if len(text) > longest or not shape.fullmatch(text):
            raise ValueError(f"must be {what} of at most {longest} characters, got {text[:80]!r}")
        return text

    return check


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"must be an IP address, got {text[:80]!r}") from None


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(f"must be a CIDR like 10.244.1.0/24, got {text[:80]!r}") from None


_WORD = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
DnsLabel = Annotated[str, AfterValidator(_checked(_WORD, "lower case letters, digits and '-'", 63))]
DnsName = Annotated[str, AfterValidator(_checked(rf"{_WORD}(\.{_WORD})*", "a lower case DNS name", 253))]
LabelKey = Annotated[
    str,
    AfterValidator(_checked(rf"({_WORD}(\.{_WORD})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", "a label name", 317)),
]
LabelValue = Annotated[
    str, AfterValidator(_checked(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", "a label value", 63))
]
Labels = dict[LabelKey, LabelValue]
Port = Annotated[int, Field(ge=1, le=65535)]
PortName = Annotated[str, AfterValidator(_checked(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", "a port name", 63))]
Protocol = Literal["TCP", "UDP", "SCTP"]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]


class OwnerReference(Model):
    """Who made a resource; for pods of a Deployment its ReplicaSet, as in Kubernetes."""

    api_version: str
    kind: str
    name: str
    uid: str = ""
    ignored = frozenset({"controller", "blockOwnerDeletion"})


def _timestamp(given: object) -> object:
    """YAML reads an unquoted time as one, and tools write `creationTimestamp: null`."""
    if isinstance(given, datetime):
        return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC).strftime(TIME_FORMAT)
    return given


class Metadata(Model):
    name: DnsName
    namespace: DnsLabel | Literal[""] = ""
    labels: Labels = {}
    annotations: dict[LabelKey, str] = {}
    uid: str = ""
    creation_timestamp: Annotated[str | None, BeforeValidator(_timestamp)] = None
    """When the resource came into the store, which writes it; RFC 3339 in UTC."""
    owner_references: tuple[OwnerReference, ...] = ()
    deletion_timestamp: Annotated[str | None, BeforeValidator(_timestamp)] = None
    """When it was told to go; it stays until whoever runs it has ended it. None: it is to stay."""
    ignored = frozenset(
        {"finalizers", "generateName", "generation", "managedFields"}
        | {"resourceVersion", "selfLink", "deletionGracePeriodSeconds"}
    )


class Resource(Model):
    """What all kinds have."""

    api_version: str
    kind: str
    metadata: Metadata

    @property
    def key(self) -> Key:
        return Key(self.kind, self.metadata.namespace, self.metadata.name)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    def dump(self) -> dict[str, Any]:
        """The resource as plain data, with every field that was written or changed."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Condition(Model):
    """What a controller has found out about a resource."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    ignored = frozenset({"lastTransitionTime", "lastHeartbeatTime", "lastProbeTime", "observedGeneration"})


class Namespace(Resource):
    kind: Literal["Namespace"] = "Namespace"
    ignored = frozenset({"spec", "status"})


# --- Node ---


class Taint(Model):
    key: str
    value: str = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    ignored = frozenset({"timeAdded"})


class NodeSpec(Model):
    pod_cidrs: Annotated[tuple[Network, ...], Field(alias="podCIDRs")] = ()
    taints: tuple[Taint, ...] = ()
    ignored = frozenset({"podCIDR", "providerID", "unschedulable"})


class NodeAddress(Model):
    type: str
    address: str


class NodeStatus(Model):
    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[Condition, ...] = ()
    ignored = frozenset(
        {"capacity", "allocatable", "nodeInfo", "phase", "images", "daemonEndpoints", "volumesAttached", "volumesInUse"}
    )


class Node(Resource):
    kind: Literal["Node"] = "Node"
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ips(self) -> tuple[str, ...]:
        """Addresses on the network between the nodes, IPv4 first."""
        return tuple(one.address for one in self.status.addresses if one.type == "InternalIP")

    @property
    def is_ready(self) -> bool:
        """Unless somebody says otherwise."""
        return all(one.status == "True" for one in self.status.conditions if one.type == "Ready")


# --- Pod ---


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


class Requirement(Model):
    """One term of a set-based selector. In and NotIn compare with `values`."""

    key: LabelKey
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class LabelSelector(Model):
    match_labels: Labels = {}
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Every term holds; the empty selector selects everything."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            _TERMS[term.operator](labels.get(term.key), term.values) for term in self.match_expressions
        )


_TERMS: Final[dict[str, Callable[[str | None, Sequence[str]], bool]]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, values: value is not None,
    "DoesNotExist": lambda value, values: value is None,
}


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
    node_selector: Labels = {}
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


# --- Deployment ---


class PodTemplateMetadata(Metadata):
    name: DnsName | Literal[""] = ""


class PodTemplate(Model):
    metadata: PodTemplateMetadata = PodTemplateMetadata()
    spec: PodSpec


class DeploymentSpec(Model):
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    selector: LabelSelector
    template: PodTemplate
    ignored = frozenset({"strategy", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds", "paused"})


class DeploymentStatus(Model):
    created: int = 0
    """Pods made so far; the next pod's name depends on it, so that no name comes twice."""
    ignored = frozenset(
        {"replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas"}
        | {"conditions", "observedGeneration", "collisionCount"}
    )


class Deployment(Resource):
    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus()

    @model_validator(mode="after")
    def _selects_its_own_pods(self) -> Self:
        if not self.spec.selector.matches(self.spec.template.metadata.labels):
            raise ValueError("spec.selector does not match spec.template.metadata.labels")
        return self


# --- Service ---


class ServicePort(Model):
    port: Port
    name: PortName | None = None
    protocol: Protocol = "TCP"
    target_port: Port | PortName | None = None
    """None: the same as `port`."""
    node_port: int = 0
    """0: none, or not chosen yet."""
    app_protocol: str | None = None

    @field_validator("node_port")
    @classmethod
    def _is_kept_for_services(cls, number: int) -> int:
        if number and not NODE_PORTS[0] <= number <= NODE_PORTS[1]:
            raise ValueError(f"must be {NODE_PORTS[0]} to {NODE_PORTS[1]}")
        return number


NODE_PORTS: Final = (30000, 32767)
"""First and last port that nodes keep for services."""
DEFAULT_AFFINITY_S: Final = 10800


class ClientIpConfig(Model):
    timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = DEFAULT_AFFINITY_S


class AffinityConfig(Model):
    client_ip: Annotated[ClientIpConfig, Field(alias="clientIP")] = ClientIpConfig()


class ServiceSpec(Model):
    ports: tuple[ServicePort, ...] = ()
    selector: Labels = {}
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: Annotated[Address | Literal["None", ""], Field(alias="clusterIP")] = ""
    cluster_ips: Annotated[tuple[Address | Literal["None"], ...], Field(alias="clusterIPs", max_length=2)] = ()
    external_name: str = ""
    external_ips: Annotated[tuple[Address, ...], Field(alias="externalIPs")] = ()
    external_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    internal_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    session_affinity: Literal["None", "ClientIP"] = "None"
    session_affinity_config: AffinityConfig = AffinityConfig()
    load_balancer_ip: Annotated[Address | Literal[""], Field(alias="loadBalancerIP")] = ""
    load_balancer_class: str = ""
    load_balancer_source_ranges: tuple[Network, ...] = ()
    allocate_load_balancer_node_ports: bool = True
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: Literal["SingleStack", "PreferDualStack", "RequireDualStack"] = "SingleStack"
    publish_not_ready_addresses: bool = False
    ignored = frozenset({"healthCheckNodePort", "trafficDistribution"})

    @model_validator(mode="after")
    def _ports_make_sense_together(self) -> Self:
        if len(self.ports) > 1 and any(one.name is None for one in self.ports):
            raise ValueError("ports need names when there are several")
        seen: dict[object, int] = {}
        for at, one in enumerate(self.ports):
            for what in (one.name, (one.port, one.protocol)):
                if what is not None and seen.setdefault(what, at) != at:
                    raise ValueError(f"ports[{at}] is the same as ports[{seen[what]}]: {_words(what)}")
            if one.node_port and self.type not in ("NodePort", "LoadBalancer"):
                raise ValueError(f"ports[{at}].nodePort may not be used when type is {self.type}")
            if one.node_port and seen.setdefault((one.node_port, one.protocol, "node"), at) != at:
                raise ValueError(f"ports[{at}].nodePort: {one.node_port} {one.protocol} is there twice")
        return self

    @model_validator(mode="after")
    def _addresses_make_sense_together(self) -> Self:
        if len(set(self.ip_families)) != len(self.ip_families):
            raise ValueError("ipFamilies names a family twice")
        if self.ip_family_policy == "SingleStack" and len(self.ip_families) > 1:
            raise ValueError("ipFamilyPolicy must be PreferDualStack or RequireDualStack for two ipFamilies")
        if self.cluster_ip and self.cluster_ips and self.cluster_ips[0] != self.cluster_ip:
            raise ValueError("clusterIPs[0] must be the same as clusterIP")
        if self.type == "ExternalName" and not self.external_name:
            raise ValueError("externalName must be given when type is ExternalName")
        if self.cluster_ip == "None" and self.type in ("NodePort", "LoadBalancer"):
            raise ValueError(f"clusterIP may not be None when type is {self.type}")
        if self.type != "LoadBalancer" and (self.load_balancer_class or self.load_balancer_source_ranges):
            raise ValueError("loadBalancerClass and loadBalancerSourceRanges need type LoadBalancer")
        return self


def _words(what: object) -> str:
    return f"{what[0]} {what[1]}" if isinstance(what, tuple) else str(what)


class IngressPoint(Model):
    """Where a load balancer is reached."""

    ip: Address | None = None
    hostname: str = ""
    ignored = frozenset({"ipMode", "ports"})


class LoadBalancerStatus(Model):
    ingress: tuple[IngressPoint, ...] = ()


class ServiceStatus(Model):
    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: tuple[Condition, ...] = ()


class Service(Resource):
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()

    @property
    def headless(self) -> bool:
        return self.spec.cluster_ip == "None"

    @property
    def families(self) -> tuple[int, ...]:
        """IP versions the service is reachable by: 4, 6 or both."""
        named = tuple(int(one[-1]) for one in self.spec.ip_families)
        if not named and self.spec.cluster_ip and not self.headless:
            named = (ipaddress.ip_address(self.spec.cluster_ip).version,)
        if self.spec.ip_family_policy == "SingleStack":
            return named[:1] or (4,)
        return (4, 6) if not named or named[0] == 4 else (6, 4)

    @property
    def balancer_ips(self) -> tuple[str, ...]:
        """Addresses of its load balancer; none unless it is of that type."""
        points = self.status.load_balancer.ingress if self.spec.type == "LoadBalancer" else ()
        return tuple(one.ip for one in points if one.ip)


# --- CiliumIdentity ---


class CiliumIdentity(Resource):
    """The number (its name) that stands for a set of security labels."""

    kind: Literal["CiliumIdentity"] = "CiliumIdentity"
    security_labels: Annotated[dict[str, str], Field(alias="security-labels")]
    """`source:key` -> value, as in Cilium's own resource."""


class Kind(NamedTuple):
    """How a kind is recognised."""

    model: type[Resource]
    api_versions: tuple[str, ...]
    namespaced: bool


KINDS: Final[dict[str, Kind]] = {
    "Namespace": Kind(Namespace, ("v1",), False),
    "Node": Kind(Node, ("v1",), False),
    "Pod": Kind(Pod, ("v1",), True),
    "Deployment": Kind(Deployment, ("apps/v1",), True),
    "Service": Kind(Service, ("v1",), True),
    "CiliumIdentity": Kind(CiliumIdentity, ("cilium.io/v2",), False),
}


@cache
def known_kinds() -> dict[str, Kind]:
    """All kinds: those above, and those of the rooms, which are built of the models above."""
    from mesh.envoyconfig import documents as envoyconfig
    from mesh.gateway import documents as gateway
    from mesh.ingress import documents as ingress
    from mesh.ingress import secrets
    from mesh.policy import documents as policy
    from mesh.services import kinds as services

    return {
        **KINDS,
        **services.KINDS,
        **policy.KINDS,
        **envoyconfig.KINDS,
        **secrets.KINDS,
        **ingress.KINDS,
        **gateway.KINDS,
    }


def parse_manifests(text: str, source: str = "-", namespace: str = "default") -> list[Resource]:
    """Read all documents of a YAML text; `kind: List` is unfolded, empty documents are skipped.

    source     file name, for messages.
    namespace  for namespaced resources that name none.
    Raises:    InvalidResource for anything that is not a resource we can take.
    """
    resources, problems = check_manifests(text, source, namespace)
    if problems:
        raise InvalidResource(*problems)
    return resources


def check_manifests(text: str, source: str = "-", namespace: str = "default") -> tuple[list[Resource], list[str]]:
    """Like parse_manifests, but goes on after a mistake: what could be read, and everything that is wrong."""
    resources: list[Resource] = []
    problems: list[str] = []
    try:
        for where, manifest in manifests_of(text, source):
            try:
                resources.append(parse_manifest(manifest, where, namespace))
            except InvalidResource as error:
                problems += error.problems
    except InvalidResource as error:
        problems += error.problems
    return resources, problems


def manifests_of(text: str, source: str = "-") -> Iterator[tuple[str, object]]:
    """The documents of a YAML text as plain data, each with where it stands. Raises: InvalidResource."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise InvalidResource(f"{source}: larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    for number, document in _documents(text, source):
        for manifest in _unfold(document):
            yield f"{source}: document {number}", manifest


def parse_manifest(manifest: object, where: str = "manifest", namespace: str = "default") -> Resource:
    """One resource from plain data. Raises: InvalidResource, with the path of the bad field."""
    if not isinstance(manifest, dict):
        raise InvalidResource(f"{where}: must be a mapping with apiVersion, kind and metadata")
    known = known_kinds()
    kind = known.get(name := str(manifest.get("kind")))
    if kind is None:
        raise InvalidResource(f"{where}: kind: {unknown_kind(name)}")
    if manifest.get("apiVersion") not in kind.api_versions:
        got = str(manifest.get("apiVersion"))[:80]
        raise InvalidResource(f"{where} ({name}): apiVersion: must be {kind.api_versions[0]} for {name}, got {got!r}")
    try:
        resource = kind.model.model_validate(manifest)
    except ValidationError as error:
        title = _title(name, manifest)
        raise InvalidResource(*(f"{where} ({title}): {one}" for one in all_errors(error))) from None
    wanted = (resource.namespace or namespace) if kind.namespaced else ""
    if wanted == resource.namespace:
        return resource
    return resource.model_copy(update={"metadata": changed(resource.metadata, namespace=wanted)})


def timestamp(now_s: float) -> str:
    """A time as it stands in metadata."""
    return datetime.fromtimestamp(now_s, UTC).strftime(TIME_FORMAT)


def told_to_go(resource: Resource, now: str) -> Resource | None:
    """What becomes of a resource that is deleted: a pod that runs is only told so; None: it is gone at once."""
    if not isinstance(resource, Pod) or resource.status.network is None:
        return None
    if resource.is_leaving:
        return resource
    return changed(resource, metadata=changed(resource.metadata, deletion_timestamp=now))


def unknown_kind(name: str) -> str:
    """What to say about a kind that there is not."""
    known = known_kinds()
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"{name[:80]!r} is not known; {hint}"


def changed(model: M, **fields: object) -> M:
    """A copy of `model` in which `fields` have new values (and count as written, for `dump`)."""
    return model.model_copy(update=fields)


def _documents(text: str, source: str) -> Iterator[tuple[int, object]]:
    try:
        for number, document in enumerate(yaml.load_all(text, Loader=_LOADER), 1):
            if document is not None:
                yield number, document
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise InvalidResource(f"{source}:{place} not valid YAML: {problem}") from None


_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _unfold(document: object) -> Iterator[object]:
    if isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        yield from document["items"]
    else:
        yield document


def _title(kind: str, manifest: Mapping[str, object]) -> str:
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        return kind
    namespace = metadata.get("namespace")
    return f"{kind} {namespace}/{metadata['name']}" if namespace else f"{kind} {metadata['name']}"


def first_error(error: ValidationError) -> str:
    """`path: what is wrong`, for the first mistake."""
    return all_errors(error)[0]


def all_errors(error: ValidationError) -> list[str]:
    """`path: what is wrong`, one for each bad field."""
    found: dict[str, str] = {}
    told = error.errors(include_url=False)
    paths = [_path(details["loc"]) for details in told]
    for details in told:
        message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        message = message[:1].lower() + message[1:]
        if details["type"] not in {"value_error", "missing"}:
            message += f", got {str(details['input'])[:80]!r}"
        path = _path(details["loc"])
        # pydantic counts only the good ones of a list, and calls a list of one bad item too short.
        if details["type"] == "too_short" and any(other.startswith(f"{path}[") for other in paths):
            continue
        # A field that may be one of several types is wrong once for each of them.
        found.setdefault(path, f"{path}: {message}" if path else message)
    return list(found.values())


def _path(parts: Sequence[int | str]) -> str:
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part in {"[key]", "constrained-int", "constrained-str"} or "[" in part:
            continue  # pydantic's own words for the branch of a union
        else:
            text += f".{part}" if text else part
    return text
