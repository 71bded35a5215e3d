"""One node's datapath: load it, tell it what the node looks like, read what it counted.

In:        the agent's decisions (endpoints, ipcache, node settings); network devices that the caller has created.
Out:       programs on those devices, entries in maps; all pinned, so that traffic does not notice a restart of the
           caller: every call may be repeated after a restart and changes only what differs.
Elsewhere: loader.py talks to libbpf; maps.py knows the layouts; the programs are the *.bpf.c files.

What the caller prepares, in the node's network namespace:

    cilium_host    one end of a veth pair (`cilium_host`, `cilium_net`), up, ARP off on both ends. Carries the router
                   address (IPv4 /32, IPv6 /128) and is the route to all pods: `10.244.0.0/16 dev cilium_host src ROUTER`.
                   Packets of the node to pods, local and remote, leave through it. attach_host().
    cilium_vxlan   vxlan in external (metadata) mode, UDP port 8472, up, no address. attach_overlay().
    eth0, ...      the node's own devices. attach_netdev().
    lxc...         the host side of a pod's veth, up, no address. attach_endpoint().

    sysctl         net.ipv4.ip_forward=1, net.ipv6.conf.all.forwarding=1, rp_filter=0 on all and on each device.

and in the pod's namespace: the pod's address as /32 (/128, nodad), MTU = device MTU - 50, then

    ip route add ROUTER dev eth0 scope link;  ip route add default via ROUTER       (and the same with -6)

No neighbour entries are needed: the program on the host side answers ARP and neighbour solicitations for every address
with the MAC of the host side (a permanent entry saves the first round trip: `ip neigh replace ROUTER lladdr HOST_MAC`).
`addrgenmode none` on the pod's eth0 keeps router solicitations and multicast reports of link-local addresses away.

What the caller writes: attach_endpoint() per local pod; set_host_addresses() for the addresses of this node (router
address too); set_ipcache() for every pod, node, router address and prefix of the cluster:

    local pod                        its identity   no tunnel endpoint
    remote pod                       its identity   address of its node
    this node's addresses, router    1 host         no tunnel endpoint
    other nodes' addresses, routers  6 remote-node  that node's address
    everything else                  (a miss is 2 world)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from types import TracebackType
from typing import Self

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


class Aggregation(IntEnum):
    """How many trace events the kernel sends (spec/events.md, section 13)."""

    NONE = 0
    LOWEST = 1
    LOW = 2
    MEDIUM = 3
    MAX = 4

    @classmethod
    def parse(cls, text: str) -> Aggregation:
        """Read a level as users write it: none, disabled, empty, lowest, low, medium, max, maximum or 0 to 4.

        Raises: ValueError for anything else.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A workload of this node and the device it hangs on."""

    endpoint_id: int
    """1 to 65535, unique on the node."""
    identity: int
    ifname: str
    """Host side of the veth, in the node's network namespace."""
    pod_mac: str
    """MAC of the device inside the pod, as "aa:bb:cc:dd:ee:ff"."""
    host_mac: str
    """MAC of the host side."""
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IpcacheEntry:
    """Who owns an address or prefix, and behind which node."""

    identity: int
    tunnel_endpoint: Address | None = None
    """Node to encapsulate to; None: local, or reached without a tunnel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSizes:
    """Entries of the maps that grow with use. Connection tracking is allocated up front: about 150 bytes per entry."""

    conntrack_tcp: int = 65536
    conntrack_any: int = 32768
    ipcache: int = 512000
    fragments: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class EventCounters:
    """What the programs of this node wanted to send, since the maps were created."""

    emitted: int
    """Events offered to a perf ring with a reader: delivered + lost."""
    ring_full: int
    """Part of `emitted` that the kernel could not store."""
    no_reader: int
    """Events nobody could take: no observer was attached."""


class Datapath:
    """Programs and maps of one node, pinned below `<bpffs>/flowscope/<node>/`.

    `netns` is where the node's devices live: a name below /run/netns, a path, or None for the caller's own.
    Every method raises loader.BpfError with one line that names the thing and the remedy.
    """

    def __init__(
        self,
        node: str,
        *,
        netns: str | None = None,
        bpffs: Path = Path("/sys/fs/bpf"),
        sizes: MapSizes = MapSizes(),
        objects: Path | None = None,
    ) -> None:
        """Nothing is touched yet; `objects` is the folder of the built programs (default: bpf/build beside this file)."""
        raise NotImplementedError

    @property
    def pin_dir(self) -> Path:
        """Where this node's maps are pinned; the observer's `--pin-dir`."""
        raise NotImplementedError

    def ensure_loaded(self) -> None:
        """Mount bpffs if it is not, load and pin programs and maps; what is pinned and current is used again."""
        raise NotImplementedError

    def configure(
        self,
        *,
        aggregation: Aggregation | None = None,
        monitor_interval_s: int | None = None,
        monitor_flags: int | None = None,
        host_endpoint_id: int | None = None,
    ) -> None:
        """Change settings while traffic runs; None keeps the present value (at first: medium, 5 s, all flags, 0)."""
        raise NotImplementedError

    def attach_overlay(self, ifname: str) -> None:
        """Put the overlay programs on the vxlan device and send remote pods' traffic through it."""
        raise NotImplementedError

    def attach_host(self, ifname: str) -> None:
        """Put the host programs on cilium_host; packets of pods for the node arrive there."""
        raise NotImplementedError

    def attach_netdev(self, ifname: str) -> None:
        """Put the device programs on one of the node's own devices (eth0)."""
        raise NotImplementedError

    def attach_endpoint(self, endpoint: Endpoint) -> None:
        """Make a pod reachable, or update it: programs on its veth, endpoint map. The ipcache is set separately."""
        raise NotImplementedError

    def detach_endpoint(self, endpoint_id: int) -> None:
        """Forget a pod; its device may be gone already. Unknown ids are fine."""
        raise NotImplementedError

    def endpoints(self) -> dict[int, Endpoint]:
        """Attached endpoints by id, as the maps have them (for an agent that comes back); ifname is "" when gone."""
        raise NotImplementedError

    def set_host_addresses(self, addresses: Iterable[Address]) -> None:
        """All addresses of this node that pods may talk to, router addresses included; replaces the earlier set."""
        raise NotImplementedError

    def set_ipcache(self, prefix: Prefix | Address, entry: IpcacheEntry) -> None:
        """Say who owns an address or prefix."""
        raise NotImplementedError

    def delete_ipcache(self, prefix: Prefix | Address) -> None:
        """Forget it; unknown prefixes are fine."""
        raise NotImplementedError

    def sync_ipcache(self, entries: Mapping[Prefix, IpcacheEntry]) -> None:
        """Make the ipcache exactly this, changing only what differs."""
        raise NotImplementedError

    def ipcache(self) -> dict[Prefix, IpcacheEntry]:
        """What the kernel has."""
        raise NotImplementedError

    def event_counters(self) -> EventCounters:
        """Events offered to the perf rings, over all CPUs."""
        raise NotImplementedError

    def collect_garbage(self) -> int:
        """Remove expired conntrack entries; returns how many. Call it every few minutes."""
        raise NotImplementedError

    def unload(self) -> None:
        """Take the programs off every device still there and remove the pins: the node is as if never loaded."""
        raise NotImplementedError

    def close(self) -> None:
        """Close file descriptors; programs, maps and traffic stay."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
