"""The network devices that a node's datapath needs.

In:        the node's addresses; runs inside the node's network namespace.
Out:       cilium_host and cilium_net (the way from the node to its pods), cilium_vxlan (the way to other nodes),
           routes, sysctls. Made when missing, left alone when right: a restart of the agent disturbs nothing.
Elsewhere: bpf/datapath.py says what it expects of these devices and attaches the programs.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mesh import ipam
from mesh.resources.cluster import Node
from service.failure import Failure

HOST_DEVICE: Final = "cilium_host"
HOST_PEER: Final = "cilium_net"
OVERLAY_DEVICE: Final = "cilium_vxlan"
VXLAN_PORT: Final = 8472
VXLAN_OVERHEAD: Final = 50
"""Outer Ethernet, IPv4, UDP and VXLAN headers."""

MARK_TO_PROXY: Final = 0x200
MARK_FROM_L7LB: Final = 0x900
MARK_KIND_MASK: Final = 0xF00
TO_PROXY_TABLE: Final = 2004
FROM_PROXY_TABLE: Final = 2005

SYSCTLS: Final[Mapping[str, str]] = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # Packets of pods come and go by ways that the routing table does not know.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}


class NodeDevices:
    """Devices of the namespace in which the caller runs.

    Netlink is spoken in a thread of its own: pyroute2 runs an event loop inside its calls, which a caller inside
    asyncio could not.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netlink")
        self._ip: Any = self._thread.submit(IPRoute).result()

    def close(self) -> None:
        """Close the socket and end the thread."""
        self._thread.submit(self._ip.close).result()
        self._thread.shutdown()

    def prepare(self, node: Node, uplink: str) -> int:
        """Make what is missing; returns how large a packet of a pod may be on its way to another node.

        `uplink` is the device that leads to the other nodes.

        Raises: Failure when the kernel refuses.
        """
        try:
            return self._thread.submit(self._make, node, uplink).result()
        except NetlinkError as error:
            raise Failure(f"cannot prepare the devices of node {node.name}: {error}") from error

    def links(self) -> dict[int, str]:
        """Names of all devices by ifindex. By libc, for it is asked in each round: pyroute2 takes 0.3 ms a device."""
        return dict(socket.if_nameindex())

    def describe(self, uplinks: Sequence[str]) -> dict[str, str]:
        """For the agent's report: whether all devices are there."""
        there = set(self.links().values())
        missing = [name for name in (HOST_DEVICE, OVERLAY_DEVICE, *uplinks) if name not in there]
        if missing:
            return {"state": "failure", "message": f"no device {', '.join(missing)}; start the agent anew"}
        return {"state": "ok", "message": f"tunnel {OVERLAY_DEVICE} (UDP {VXLAN_PORT}), devices {', '.join(uplinks)}"}

    def _make(self, node: Node, uplink: str) -> int:
        mtu = self._mtu(uplink)
        if self._index(HOST_DEVICE) is None:
            self._ip.link("add", ifname=HOST_DEVICE, kind="veth", peer={"ifname": HOST_PEER})
        for name in (HOST_DEVICE, HOST_PEER):
            self._ip.link("set", index=self._index(name), state="up", arp=False, mtu=mtu)
        if self._index(OVERLAY_DEVICE) is None:
            metadata = {"vxlan_collect_metadata": True, "vxlan_port": VXLAN_PORT, "vxlan_learning": False}
            self._ip.link("add", ifname=OVERLAY_DEVICE, kind="vxlan", **metadata)
        self._ip.link("set", index=self._index(OVERLAY_DEVICE), state="up", mtu=mtu)
        for name, value in SYSCTLS.items():
            set_sysctl(name, value)
        for name in (HOST_DEVICE, HOST_PEER, OVERLAY_DEVICE, uplink):
            set_sysctl(f"net/ipv4/conf/{name}/rp_filter", "0")
        # Packets of the node itself come back on this device when a proxy is to judge them.
        set_sysctl(f"net/ipv4/conf/{HOST_DEVICE}/accept_local", "1")
        for family in (socket.AF_INET, socket.AF_INET6):
            self._lead_proxies(family)
        self._address(node, mtu - VXLAN_OVERHEAD)
        return mtu - VXLAN_OVERHEAD

    def _lead_proxies(self, family: int) -> None:
        """What the programs mark for a proxy is this node's, whatever its destination; what a load balancer sends in a
        pod's name goes to the programs first, wherever it leads (spec/datapath.md, section 2).
        """
        everything = "0.0.0.0/0" if family == socket.AF_INET else "::/0"
        lo, host = self._index("lo"), self._index(HOST_DEVICE)
        route = {"family": family, "dst": everything}
        self._ip.route("replace", table=TO_PROXY_TABLE, type="local", scope="host", oif=lo, **route)
        self._ip.route("replace", table=FROM_PROXY_TABLE, scope="link", oif=host, **route)
        for priority, table, mark in ((9, TO_PROXY_TABLE, MARK_TO_PROXY), (10, FROM_PROXY_TABLE, MARK_FROM_L7LB)):
            rule = {"priority": priority, "table": table, "fwmark": mark, "fwmask": MARK_KIND_MASK}
            try:
                self._ip.rule("add", family=family, **rule)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise

    def _address(self, node: Node, pod_mtu: int) -> None:
        host = self._index(HOST_DEVICE)
        # A node may have a range of one version only.
        clusters: dict[int, IPv4Network | IPv6Network] = {one.version: one for one in ipam.CLUSTER_CIDRS}
        services: dict[int, IPv4Network | IPv6Network] = {one.version: one for one in ipam.SERVICE_CIDRS}
        for router, ingress in zip(ipam.router_addresses(node), ipam.ingress_addresses(node), strict=True):
            version = ip_address(router).version
            cluster, service = clusters[version], services[version]
            # nodad: duplicate detection would leave the address unusable for a second, and nobody can answer it here.
            extra: dict[str, Any] = {"flags": _IFA_F_NODAD} if cluster.version == 6 else {}
            for address in (router, ingress):
                self._ip.addr("replace", index=host, address=address, prefixlen=cluster.max_prefixlen, **extra)
            for destination in (cluster, service):
                self._ip.route("replace", dst=str(destination), oif=host, prefsrc=router, metrics={"mtu": pod_mtu})

    def _index(self, name: str) -> int | None:
        return next(iter(self._ip.link_lookup(ifname=name)), None)

    def _mtu(self, uplink: str) -> int:
        index = self._index(uplink)
        if index is None:
            raise Failure(f"device {uplink} is missing; name the device that leads to the other nodes with --devices")
        return int(self._ip.get_links(index)[0].get_attr("IFLA_MTU"))


_IFA_F_NODAD: Final = 0x02


def set_sysctl(name: str, value: str) -> None:
    """Write a setting of the namespace in which the calling thread runs; one that the kernel lacks is skipped."""
    path = Path("/proc/sys") / name
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        if error.errno != errno.ENOENT:  # a kernel without IPv6
            raise Failure(f"cannot set {path}: {error.strerror}") from error
