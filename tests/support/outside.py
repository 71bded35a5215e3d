"""The world beyond the nodes of a kernel test: addresses on their network, a way out, and what lies behind a router."""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_network

from bpf.datapath import IpcacheEntry
from tests.support.testnet import Cluster, Network, ip, sysctl

ANY = {"ipv4": "0.0.0.0", "ipv6": "::"}
NODE = {"ipv4": "172.18.0.1", "ipv6": "2001:db8:18::1"}
OUTSIDE = {"ipv4": "172.18.0.254", "ipv6": "2001:db8:18::254"}
WORLD = {"ipv4": "198.51.100.9", "ipv6": "2001:db8:99::9"}
BEYOND = {"ipv4": "203.0.113.7", "ipv6": "2001:db8:77::7"}
"""Behind a router with a narrow way."""
NOWHERE = {"ipv4": "192.0.2.66", "ipv6": "2001:db8:66::66"}
"""The router knows that it cannot be reached."""
NARROW_MTU = 1300


def join(cluster: Cluster) -> Cluster:
    """The outside has addresses on the nodes' network and beyond it; nodes speak IPv6 too."""
    net = cluster.net
    ip(
        "link set lo up",
        f"addr add {OUTSIDE['ipv4']}/16 dev br0",
        f"addr add {OUTSIDE['ipv6']}/64 dev br0 nodad",
        f"addr add {WORLD['ipv4']}/32 dev lo",
        f"addr add {WORLD['ipv6']}/128 dev lo nodad",
        netns=net.name,
    )
    for node in net.nodes:
        node6 = IPv6Address(f"2001:db8:18::{node.number}")
        ip(
            f"addr add {node6}/64 dev eth0 nodad",
            f"addr add fe80::{node.number}/64 dev eth0 nodad",  # a router asks for neighbours from there
            f"route add default via {OUTSIDE['ipv4']}",
            f"route add default via {OUTSIDE['ipv6']}",
            f"route add 10.96.0.0/16 dev cilium_host src {node.router}",
            f"route add fd00:10:96::/112 dev cilium_host src {node.router6}",
            netns=node.netns,
        )
        node.datapath.set_host_addresses([node.address, node6, node.router, node.router6])
        node.datapath.set_masquerade(node.address, node6, [ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48")])
    share_ipcache(net)
    return cluster


def share_ipcache(net: Network) -> None:
    """Tell every node about all pods and nodes, by all their addresses."""
    net.share_ipcache()
    for node in net.nodes:
        for other in net.nodes:
            if other is not node:
                entry = IpcacheEntry(identity=6, tunnel_endpoint=other.address)
                node.datapath.set_ipcache(IPv6Address(f"2001:db8:18::{other.number}"), entry)


def add_beyond(cluster: Cluster) -> str:
    """Make the outside a router, with a namespace behind it; returns its name. `join` comes first."""
    net = cluster.net
    netns = f"{net.name}b"
    ip(f"netns add {netns}")
    sysctl(net.name, ipv4__ip_forward=1, ipv6__conf__all__forwarding=1, ipv4__icmp_ratelimit=0, ipv6__icmp__ratelimit=0)
    ip(
        f"link add beyond type veth peer name eth0 netns {netns}",
        "link set beyond addrgenmode none up",
        "addr add 203.0.113.1/32 dev beyond",
        "addr add 2001:db8:77::1/64 dev beyond nodad",
        "addr add fe80::1/64 dev beyond nodad",
        f"route add {BEYOND['ipv4']} dev beyond mtu lock {NARROW_MTU}",
        f"route add {BEYOND['ipv6']} dev beyond mtu lock {NARROW_MTU}",
        f"route add unreachable {NOWHERE['ipv4']}",
        f"route add unreachable {NOWHERE['ipv6']}",
        netns=net.name,
    )
    ip(
        "link set lo up",
        "link set eth0 addrgenmode none up",
        f"addr add {BEYOND['ipv4']}/32 dev eth0",
        f"addr add {BEYOND['ipv6']}/64 dev eth0 nodad",
        "route add 203.0.113.1 dev eth0 scope link",
        "route add default via 203.0.113.1",
        "route add default via 2001:db8:77::1",
        netns=netns,
    )
    return netns


def path_mtu(sock: socket.socket) -> int:
    """What a connected socket thinks the way to its peer can carry."""
    if sock.family == socket.AF_INET6:
        return sock.getsockopt(socket.IPPROTO_IPV6, 24)  # IPV6_MTU
    return sock.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU
