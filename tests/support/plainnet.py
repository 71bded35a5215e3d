"""The same machines without us: pods on bridges, bridges joined by VXLAN. What our datapath is held against.

In:        nothing.
Out:       two nodes on one link, each with a bridge and a vxlan device in it; pods with addresses of one subnet.
Elsewhere: testnet.py makes the same with our programs.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.testnet import POD_MTU, ip

VNI = 77


@dataclass(slots=True)
class PlainNet:
    """Two nodes; `near` and `server` are pods of the first, `far` is one of the second."""

    name: str
    pods: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Namespace and address of each pod."""

    def netns(self, node: int) -> str:
        """A node's namespace."""
        return f"{self.name}n{node}"

    def add_node(self, number: int) -> None:
        """A node with a bridge for its pods and a tunnel to the other node."""
        netns, other = self.netns(number), 3 - number
        ip(f"netns add {netns}")
        ip(
            f"link add node{number} type veth peer name eth0 netns {netns}",
            f"link set node{number} master br0 addrgenmode none up",
            netns=self.name,
        )
        ip(
            "link set lo up",
            f"addr add 172.18.0.{number}/16 dev eth0",
            "link set eth0 addrgenmode none up",
            "link add pods type bridge",
            "link set pods addrgenmode none up",
            f"link add tunnel type vxlan id {VNI} remote 172.18.0.{other} dstport 8472 dev eth0",
            f"link set tunnel mtu {POD_MTU} master pods addrgenmode none up",
            netns=netns,
        )

    def add_pod(self, name: str, node: int) -> None:
        """A pod on the node's bridge."""
        number = len(self.pods) + 10
        netns, address = f"{self.name}p{number}", f"10.244.1.{number}"
        ip(f"netns add {netns}")
        ip(
            f"link add lxc{number} mtu {POD_MTU} type veth peer name eth0 mtu {POD_MTU} netns {netns}",
            f"link set lxc{number} master pods addrgenmode none up",
            netns=self.netns(node),
        )
        ip(
            "link set lo up",
            "link set eth0 addrgenmode none up",
            f"addr add {address}/24 dev eth0",
            netns=netns,
        )
        self.pods[name] = netns, address


@contextlib.contextmanager
def plain_network() -> Iterator[PlainNet]:
    """Two nodes with three pods; all gone afterwards."""
    net = PlainNet(f"fsp{secrets.token_hex(3)}")
    try:
        ip(f"netns add {net.name}")
        ip("link add br0 type bridge", "link set br0 addrgenmode none up", netns=net.name)
        for number in (1, 2):
            net.add_node(number)
        net.add_pod("near", 1)
        net.add_pod("server", 1)
        net.add_pod("far", 2)
        yield net
    finally:
        for path in Path("/run/netns").glob(f"{net.name}*"):
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)
