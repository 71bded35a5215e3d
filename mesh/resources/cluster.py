"""What a cluster is made of: Namespace, Node, and CiliumIdentity, the number of a set of labels.

In:        plain data of one document.
Out:       frozen models.
Elsewhere: mesh/ipam.py gives nodes their address ranges, mesh/identities.py gives identities their numbers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mesh.resources.base import Condition, Model, Resource
from mesh.resources.fields import Network


class Namespace(Resource):
    kind: Literal["Namespace"] = "Namespace"
    ignored = frozenset({"spec", "status"})


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


class CiliumIdentity(Resource):
    """The number (its name) that stands for a set of security labels."""

    kind: Literal["CiliumIdentity"] = "CiliumIdentity"
    security_labels: Annotated[dict[str, str], Field(alias="security-labels")]
    """`source:key` -> value, as in Cilium's own resource."""
