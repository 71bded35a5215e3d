"""Wires: the outside world with its bridge, nodes on it, pods behind their nodes.

In:        Node and Pod resources with their addresses.
Out:       network namespaces `fs-...` with devices, addresses and routes.
Elsewhere: mesh/devices.py adds what the datapath needs inside a node; cleanup.py removes namespaces.

    fs-kind-outside        bridge `kind`, 172.18.0.1: stands for the world
      fs-kind-worker       eth0 172.18.0.3 on the bridge; lxc... per pod
        fs-kind_NS_POD     eth0 with the pod's /32; everything goes to the node's router address

The machine's own namespace gets no device, route or setting: veth pairs are made inside the lab's namespaces.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_address
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lab import world
from lab.cluster import NODE_NETWORKS
from lab.linux import delete_netns, inside, make_netns, netns_path
from lab.names import node_netns, outside_netns, pod_netns
from lab.rundir import RunDir
from mesh import ipam
from mesh.devices import VXLAN_OVERHEAD, set_sysctl
from mesh.names import interface_name, mac_address
from mesh.resources.cluster import Node
from mesh.resources.pods import Pod, PodNetwork
from service.failure import Failure

BRIDGE: Final = "kind"
UPLINK: Final = "eth0"
MTU: Final = 1500
LINK_LOCAL: Final = "fe80::{:x}"
IFA_F_NODAD: Final = 0x02

QUIET: Final = {
    # No link-local addresses: their router solicitations and multicast reports would be flows that nobody asked for.
    "net/ipv6/conf/default/addr_gen_mode": "1",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_dad": "0",
}


class Network:
    """Makes and removes the lab's namespaces.

    The work is done in a thread of its own: a thread is what moves into a namespace, and pyroute2 runs an event loop
    inside its calls, which a caller inside asyncio could not.
    """

    def __init__(self, run_dir: RunDir, cluster: str) -> None:
        self._run_dir = run_dir
        self._cluster = cluster
        self._outside = outside_netns(cluster)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")

    def make_outside(self) -> None:
        """The world: a bridge with the first address of the nodes' network."""
        self._thread.submit(self._make_outside).result()

    def make_node(self, node: Node, number: int) -> None:
        """A node on the bridge, with a default route to the world."""
        self._thread.submit(self._make_node, node, number).result()

    def make_pod(self, pod: Pod, node: Node) -> PodNetwork:
        """A pod behind its node. Repeating it, as after a crash, starts over."""
        return self._thread.submit(self._make_pod, pod, node).result()

    def delete_pod(self, namespace: str, name: str) -> None:
        """Forget a pod's namespace; its veth goes with it."""
        delete_netns(self.pod_netns(namespace, name))

    def pod_netns(self, namespace: str, name: str) -> str:
        """Name of a pod's namespace."""
        return pod_netns(self._cluster, namespace, name)

    def _make_outside(self) -> None:
        self._make_netns(self._outside)
        with _iproute(self._outside) as ip:
            ip.link("add", ifname=BRIDGE, kind="bridge")
            bridge = _index(ip, BRIDGE)
            for network in NODE_NETWORKS:
                _add_address(ip, bridge, str(network[1]), network.prefixlen)
            ip.link("set", index=bridge, state="up", mtu=MTU)
            for one in world.addresses():
                _add_address(ip, bridge, str(one), one.max_prefixlen)

    def _make_node(self, node: Node, number: int) -> None:
        name = node_netns(node.name)
        self._make_netns(name)
        port = f"node{number}"
        with _iproute(self._outside) as ip, open(netns_path(name)) as namespace:
            peer = {"ifname": UPLINK, "net_ns_fd": namespace.fileno(), "address": mac_address(node.name)}
            ip.link("add", ifname=port, kind="veth", mtu=MTU, peer={**peer, "mtu": MTU})
            ip.link("set", index=_index(ip, port), master=_index(ip, BRIDGE), state="up")
        with _iproute(name) as ip:
            uplink = _index(ip, UPLINK)
            ip.link("set", index=uplink, state="up")
            for address, network in zip(node.ips, NODE_NETWORKS, strict=True):
                _add_address(ip, uplink, address, network.prefixlen)
                ip.route("add", dst="default", family=_family(address), gateway=str(network[1]), oif=uplink)
            # With it the node asks for its gateway's MAC in the name of pods: their own addresses are not its own.
            _add_address(ip, uplink, LINK_LOCAL.format(number + 2), 64)

    def _make_pod(self, pod: Pod, node: Node) -> PodNetwork:
        name = self.pod_netns(pod.namespace, pod.name)
        self._make_netns(name)
        wires = PodNetwork(
            interface=interface_name(pod.metadata.uid),
            mac=mac_address(f"{pod.metadata.uid}/pod"),
            host_mac=mac_address(f"{pod.metadata.uid}/host"),
        )
        mtu = MTU - VXLAN_OVERHEAD
        with _iproute(node_netns(node.name)) as ip, open(netns_path(name)) as namespace:
            peer = {"ifname": UPLINK, "net_ns_fd": namespace.fileno(), "address": wires.mac, "mtu": mtu}
            ip.link("add", ifname=wires.interface, kind="veth", address=wires.host_mac, mtu=mtu, peer=peer)
            ip.link("set", index=_index(ip, wires.interface), state="up")
        with _iproute(name) as ip:
            device = _index(ip, UPLINK)
            ip.link("set", index=device, state="up")
            for address, router in zip(pod.ips, ipam.router_addresses(node), strict=True):
                full = ip_address(address).max_prefixlen
                _add_address(ip, device, address, full)
                ip.neigh("replace", dst=router, lladdr=wires.host_mac, ifindex=device, state="permanent")
                ip.route("add", dst=f"{router}/{full}", oif=device, scope=_SCOPE_LINK)
                ip.route("add", dst="default", family=_family(address), gateway=router, oif=device)
        return wires

    def _make_netns(self, name: str) -> None:
        if foreign_namespaces([name], self._run_dir.recorded_netns()):
            raise Failure(
                f"network namespace {name} is in the way and not of this lab; `ip netns delete {name}` removes it"
            )
        delete_netns(name)
        self._run_dir.record_netns([name])
        make_netns(name)
        with inside(name):
            for setting, value in QUIET.items():
                set_sysctl(setting, value)
        with _iproute(name) as ip:
            ip.link("set", index=1, state="up")


_SCOPE_LINK: Final = 253


class _iproute:  # noqa: N801  reads as a verb at its only place of use
    """`with _iproute(NAME) as ip`: netlink inside a namespace; what the kernel refuses becomes a Failure."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Any:
        with inside(self._name):
            self._ip = IPRoute()
        return self._ip

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with closing(self._ip):
            if isinstance(error, NetlinkError):
                raise Failure(f"cannot wire network namespace {self._name}: {error}") from error


def _index(ip: Any, name: str) -> int:
    return int(ip.link_lookup(ifname=name)[0])


def _family(address: str) -> int:
    return int(_FAMILIES[ip_address(address).version])


_FAMILIES: Final = {4: 2, 6: 10}
"""AF_INET and AF_INET6."""


def _add_address(ip: Any, device: int, address: str, prefix: int) -> None:
    flags: dict[str, Any] = {"flags": IFA_F_NODAD} if ":" in address else {}
    ip.addr("add", index=device, address=address, prefixlen=prefix, **flags)


def foreign_namespaces(wanted: Iterable[str], recorded: Iterable[str]) -> list[str]:
    """Namespaces that stand where ours are to be and that this lab has not made."""
    ours = set(recorded)
    return [name for name in wanted if name not in ours and os.path.exists(netns_path(name))]
