"""kind-config.yaml: which nodes the cluster has.

In:        the text of a kind configuration (kind.x-k8s.io/v1alpha4).
Out:       Node resources with kind's names, addresses and taints.
Elsewhere: network.py makes the namespaces that the nodes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError

from mesh.ipam import CLUSTER_CIDRS, SERVICE_CIDRS, pod_cidrs
from mesh.resources.base import Metadata, Model
from mesh.resources.cluster import Node, NodeAddress, NodeSpec, NodeStatus, Taint
from mesh.resources.fields import DnsLabel, Labels
from mesh.resources.mistakes import InvalidResource, first_error
from service.failure import Failure

NODE_NETWORKS: Final[tuple[IPv4Network | IPv6Network, ...]] = (
    IPv4Network("172.18.0.0/16"),
    IPv6Network("fc00:f853:ccd:e793::/64"),
)
"""The network that the nodes meet on; kind's own numbers. The first address is the outside world's."""
FIRST_NODE: Final = 2

CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"


class KindNode(Model):
    role: Literal["control-plane", "worker"] = "control-plane"
    labels: Labels = Field(default_factory=dict)
    ignored = frozenset({"image", "extraMounts", "extraPortMappings", "kubeadmConfigPatches"})


class KindNetworking(Model):
    pod_subnet: str = ""
    service_subnet: str = ""
    ignored = frozenset(
        {"disableDefaultCNI", "kubeProxyMode", "ipFamily", "apiServerPort", "apiServerAddress", "dnsSearch"}
    )


class KindConfig(Model):
    api_version: Literal["kind.x-k8s.io/v1alpha4"]
    kind: Literal["Cluster"]
    name: DnsLabel = "kind"
    nodes: Annotated[tuple[KindNode, ...], Field(max_length=256)] = ()
    networking: KindNetworking = KindNetworking()
    ignored = frozenset(
        {"featureGates", "runtimeConfig", "kubeadmConfigPatches", "kubeadmConfigPatchesJSON6902"}
        | {"containerdConfigPatches", "containerdConfigPatchesJSON6902"}
    )


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster to be made."""

    name: str
    nodes: tuple[Node, ...]


def read_kind_config(text: str, source: str = "kind-config.yaml") -> Cluster:
    """The cluster that a kind configuration asks for; one control-plane node when it names none.

    Raises: InvalidResource with the path of the bad field.
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidResource(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise InvalidResource(f"{source}: must be a mapping with kind: Cluster")
    try:
        config = KindConfig.model_validate(document)
    except ValidationError as error:
        raise InvalidResource(f"{source}: {first_error(error)}") from None
    for field, given, ours in (
        ("podSubnet", config.networking.pod_subnet, CLUSTER_CIDRS),
        ("serviceSubnet", config.networking.service_subnet, SERVICE_CIDRS),
    ):
        if given and not set(given.split(",")) <= set(map(str, ours)):
            raise InvalidResource(f"{source}: networking.{field}: the lab has {ours[0]} and {ours[1]} only")
    return Cluster(config.name, tuple(_nodes(config)))


def _nodes(config: KindConfig) -> list[Node]:
    nodes = []
    seen = {"control-plane": 0, "worker": 0}
    # kind numbers addresses in the order of the file, control plane first.
    wanted = sorted(config.nodes or (KindNode(),), key=lambda node: node.role != "control-plane")
    if wanted[0].role != "control-plane":
        raise InvalidResource("nodes: one node must have role control-plane")
    alone = len(wanted) == 1
    for number, node in enumerate(wanted):
        seen[node.role] += 1
        count = seen[node.role]
        name = f"{config.name}-{node.role}{count if count > 1 else ''}"
        nodes.append(_node(name, number, node, tainted=node.role == "control-plane" and not alone))
    return nodes


def _node(name: str, number: int, node: KindNode, tainted: bool) -> Node:
    labels: dict[str, str] = {
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        **({CONTROL_PLANE: ""} if node.role == "control-plane" else {}),
        **node.labels,
    }
    if number + FIRST_NODE >= NODE_NETWORKS[0].num_addresses - 1:
        raise Failure(f"too many nodes: {NODE_NETWORKS[0]} has no address for {name}")
    addresses: list[dict[str, Any]] = [
        {"type": "InternalIP", "address": str(network[number + FIRST_NODE])} for network in NODE_NETWORKS
    ]
    return Node(
        api_version="v1",
        kind="Node",
        metadata=Metadata(name=name, labels=labels),
        spec=NodeSpec(
            pod_cidrs=pod_cidrs(number),
            taints=(Taint(key=CONTROL_PLANE, effect="NoSchedule"),) if tainted else (),
        ),
        status=NodeStatus(addresses=tuple(NodeAddress(**one) for one in addresses)),
    )
