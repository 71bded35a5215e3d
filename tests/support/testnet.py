"""Small node networks for kernel tests: real namespaces, veth pairs and a datapath; all gone afterwards.

A Node is a network namespace with cilium_host, cilium_vxlan and its own device eth0; pods are namespaces behind veths.
Names begin with `fst` and a random part, so that tests may run side by side and never meet a lab.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from bpf.bpffs import ensure_bpffs
from bpf.datapath import Datapath, Endpoint, IpcacheEntry, MapSizes
from tests.support.kernel_events import EventLog

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
SMALL_MAPS = MapSizes(conntrack_tcp=4096, conntrack_any=4096, nat=4096, affinity=1024, ipcache=4096, fragments=256)
POD_MTU = 1450
HOST_MAC = "02:00:00:00:00:01"


def ip(*lines: str, netns: str | None = None) -> None:
    """Run lines of `ip -batch`, inside a namespace."""
    command = ["ip", *(["-n", netns] if netns else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {lines}: {done.stderr.strip()}")


def sysctl(netns: str, **settings: int) -> None:
    """Write /proc/sys/net settings inside a namespace; `__` stands for `/`."""

    def write() -> None:
        for name, value in settings.items():
            Path("/proc/sys/net", name.replace("__", "/")).write_text(str(value))

    inside(netns, write)


def inside(netns: str, action: Callable[[], T]) -> T:
    """Run `action` in a thread that lives in a namespace, and return what it returns."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            fd = os.open(f"/run/netns/{netns}", os.O_RDONLY)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {netns}")
            finally:
                os.close(fd)
            outcome["value"] = action()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]  # type: ignore[no-any-return]


def ping(netns: str, address: str, timeout_s: float = 1.0) -> bool:
    """One echo request from a namespace, IPv4 or IPv6; True when it is answered."""

    def ask() -> bool:
        version6 = ":" in address
        family, protocol = (socket.AF_INET6, 58) if version6 else (socket.AF_INET, 1)
        with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
            sock.settimeout(timeout_s)
            identifier = secrets.randbelow(65000) + 1
            head = struct.pack("!BBHHH", 128 if version6 else 8, 0, 0, identifier, 1)
            body = b"flowscope" * 4
            if not version6:  # the kernel sums ICMPv6 itself
                words = struct.unpack(f"!{len(head + body) // 2}H", head + body)
                total = sum(words)
                total = (total & 0xFFFF) + (total >> 16)
                head = struct.pack("!BBHHH", 8, 0, ~(total + (total >> 16)) & 0xFFFF, identifier, 1)
            try:
                sock.sendto(head + body, (address, 0))
                deadline = time.monotonic() + timeout_s
                while time.monotonic() < deadline:
                    answer = sock.recv(2048)
                    if not version6:
                        answer = answer[(answer[0] & 15) * 4 :]
                    if answer[0] in (0, 129) and answer[4:6] == head[4:6]:
                        return True
            except OSError:
                return False
            return False

    return inside(netns, ask)


def proxy_routes(netns: str) -> None:
    """Ways to proxies and from load balancers, as mesh/devices.py makes them."""
    for family in ("-4", "-6"):
        for line in (
            "rule add pref 9 fwmark 0x200/0xf00 lookup 2004",
            "route add local default dev lo table 2004",
            "rule add pref 10 fwmark 0x900/0xf00 lookup 2005",
            "route add default dev cilium_host table 2005",
        ):
            subprocess.run(["ip", "-n", netns, family, *line.split()], check=True)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod: its namespace and what the datapath knows of it."""

    netns: str
    endpoint: Endpoint

    @property
    def ipv4(self) -> str:
        return str(self.endpoint.ipv4)

    @property
    def ipv6(self) -> str:
        return str(self.endpoint.ipv6)


@dataclass(slots=True)
class Node:
    """A node: its namespace, its datapath, its pods."""

    number: int
    netns: str
    datapath: Datapath
    pods: list[Pod] = field(default_factory=list)

    @property
    def address(self) -> IPv4Address:
        """On the network between the nodes."""
        return IPv4Address(f"172.18.0.{self.number}")

    @property
    def router(self) -> IPv4Address:
        return IPv4Address(f"10.244.{self.number}.1")

    @property
    def router6(self) -> IPv6Address:
        return IPv6Address(f"fd00:10:244:{self.number}::1")

    def add_pod(self, endpoint_id: int, identity: int, mtu: int = POD_MTU) -> Pod:
        """Make a pod, with addresses below 10.244.N. and fd00:10:244:N::, and attach it."""
        netns, ifname = f"{self.netns}p{endpoint_id}", f"lxc{endpoint_id}"
        pod_mac = f"02:00:00:{self.number:02x}:{endpoint_id >> 8:02x}:{endpoint_id & 255:02x}"
        endpoint = Endpoint(
            endpoint_id=endpoint_id,
            identity=identity,
            ifname=ifname,
            pod_mac=pod_mac,
            host_mac=HOST_MAC,
            ipv4=IPv4Address(f"10.244.{self.number}.{endpoint_id % 200 + 10}"),
            ipv6=IPv6Address(f"fd00:10:244:{self.number}::{endpoint_id % 200 + 10:x}"),
        )
        ip(f"netns add {netns}")
        ip(
            f"link add {ifname} address {HOST_MAC} mtu {mtu} type veth "
            f"peer name eth0 address {pod_mac} mtu {mtu} netns {netns}",
            f"link set {ifname} addrgenmode none up",
            netns=self.netns,
        )
        ip(
            "link set lo up",
            "link set eth0 addrgenmode none up",
            f"addr add {endpoint.ipv4}/32 dev eth0",
            f"addr add {endpoint.ipv6}/128 dev eth0 nodad",
            f"route add {self.router} dev eth0 scope link",
            f"route add default via {self.router}",
            f"route add {self.router6} dev eth0",
            f"route add ::/0 via {self.router6}",
            netns=netns,
        )
        self.datapath.attach_endpoint(endpoint)
        pod = Pod(netns, endpoint)
        self.pods.append(pod)
        return pod


class Network:
    """Nodes on one link. Used through `network()`."""

    def __init__(self, bpffs: Path, sizes: MapSizes) -> None:
        self._sizes = sizes
        self.name = f"fst{secrets.token_hex(3)}"
        self.bpffs = bpffs
        self.nodes: list[Node] = []
        ip(f"netns add {self.name}")
        ip("link add br0 type bridge", "link set br0 addrgenmode none up", netns=self.name)

    def add_node(self) -> Node:
        """Make a node with all its devices and a loaded datapath."""
        number = len(self.nodes) + 1
        netns = f"{self.name}n{number}"
        node = Node(number, netns, Datapath(netns, netns=netns, bpffs=self.bpffs, sizes=self._sizes))
        self.nodes.append(node)
        ip(f"netns add {netns}")
        sysctl(
            netns,
            ipv4__ip_forward=1,
            ipv6__conf__all__forwarding=1,
            ipv4__conf__all__rp_filter=0,
            ipv4__conf__default__rp_filter=0,
        )
        ip(
            f"link add node{number} type veth peer name eth0 netns {netns}",
            f"link set node{number} master br0 addrgenmode none up",
            netns=self.name,
        )
        ip(
            "link set lo up",
            f"addr add {node.address}/16 dev eth0",
            "link set eth0 addrgenmode none up",
            "link add cilium_host type veth peer name cilium_net",
            "link set cilium_host arp off addrgenmode none up",
            "link set cilium_net arp off addrgenmode none up",
            f"addr add {node.router}/32 dev cilium_host",
            f"addr add {node.router6}/128 dev cilium_host nodad",
            f"route add 10.244.0.0/16 dev cilium_host src {node.router}",
            f"route add fd00:10:244::/48 dev cilium_host src {node.router6}",
            "link add cilium_vxlan type vxlan external dstport 8472",
            "link set cilium_vxlan addrgenmode none up",
            netns=netns,
        )
        # Packets of the node itself, on their way to a proxy, come back from here.
        sysctl(netns, ipv4__conf__cilium_host__accept_local=1)
        proxy_routes(netns)
        node.datapath.ensure_loaded()
        node.datapath.attach_host("cilium_host")
        node.datapath.attach_overlay("cilium_vxlan")
        node.datapath.attach_netdev("eth0")
        node.datapath.set_host_addresses([node.address, node.router, node.router6])
        return node

    def share_ipcache(self) -> None:
        """Tell every node about all pods and nodes, as an agent would."""
        for node in self.nodes:
            entries = {}
            for other in self.nodes:
                tunnel = None if other is node else other.address
                for address in (other.address, other.router, other.router6):
                    entries[ip_network(address)] = IpcacheEntry(
                        identity=1 if other is node else 6, tunnel_endpoint=tunnel
                    )
                for pod in other.pods:
                    for pod_address in (pod.endpoint.ipv4, pod.endpoint.ipv6):
                        assert pod_address is not None
                        entries[ip_network(pod_address)] = IpcacheEntry(
                            identity=pod.endpoint.identity, tunnel_endpoint=tunnel
                        )
            node.datapath.sync_ipcache(entries)

    def close(self) -> None:
        """Remove namespaces and pins."""
        for node in self.nodes:
            with contextlib.suppress(Exception):
                node.datapath.unload()
            node.datapath.close()
        # By name, so that one whose making failed half-way goes too.
        for path in Path("/run/netns").glob(f"{self.name}*"):
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


@dataclass(slots=True)
class Cluster:
    """Two nodes; client and server share the first, far lives on the second."""

    net: Network
    near: Node
    away: Node
    client: Pod
    server: Pod
    far: Pod
    log: EventLog
    """Events of the node `near`."""
    away_log: EventLog


@contextlib.contextmanager
def network(tmp_path: Path, sizes: MapSizes = SMALL_MAPS) -> Iterator[Network]:
    """An empty network with a BPF file system of its own."""
    bpffs = tmp_path / "bpffs"
    ensure_bpffs(bpffs)
    net = Network(bpffs, sizes)
    try:
        yield net
    finally:
        net.close()
        subprocess.run(["umount", str(bpffs)], capture_output=True, check=False)
