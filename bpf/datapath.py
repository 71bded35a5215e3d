"""One node's datapath: load it, tell it what the node looks like, read what it counted.

In:        the agent's decisions (endpoints, ipcache, node settings); network devices that the caller has created.
Out:       programs on those devices, entries in maps; all pinned, so that traffic does not notice a restart of the
           caller: every call may be repeated after a restart and changes only what differs.
Elsewhere: facts.py has the values; programs.py loads; settings.py, endpoints.py, policies.py, service_maps.py,
           tracking.py and counting.py do the work on maps; maps.py knows the layouts; the programs are the *.bpf.c
           files.

What the caller prepares, in the node's network namespace:

    cilium_host    one end of a veth pair (`cilium_host`, `cilium_net`), up, ARP off on both ends. Carries the router
                   address (IPv4 /32, IPv6 /128) and is the route to all pods:
                   `ip route add 10.244.0.0/16 dev cilium_host src ROUTER`. Packets of the node to pods, local and
                   remote, leave through it. attach_host().
    cilium_vxlan   vxlan in external (metadata) mode, UDP port 8472, up, no address. attach_overlay().
    eth0, ...      the node's own devices. attach_netdev().
    lxc...         the host side of a pod's veth, up, no address. attach_endpoint().

    sysctl         net.ipv4.ip_forward=1, net.ipv6.conf.all.forwarding=1, rp_filter=0 on all and on each device;
                   net.ipv4.conf.cilium_host.accept_local=1.
    rule           packets for proxies are this node's, in both families:
                   `ip rule add pref 9 fwmark 0x200/0xf00 lookup 2004; ip route add local default dev lo table 2004`;
                   and what a load balancer sends in a pod's name goes the pod's way:
                   `ip rule add pref 10 fwmark 0x900/0xf00 lookup 2005;
                   ip route add default dev cilium_host table 2005`.

and in the pod's namespace: the pod's address as /32 (/128, nodad), MTU = device MTU - 50, then

    ip route add ROUTER dev eth0 scope link;  ip route add default via ROUTER       (and the same with -6)

No neighbour entries are needed: the program on the host side answers ARP and neighbour solicitations for every address
with the MAC of the host side (a permanent entry saves the first round trip: `ip neigh replace ROUTER lladdr HOST_MAC`).
`addrgenmode none` on the pod's eth0 keeps router solicitations and multicast reports of link-local addresses away.

What the caller writes: set_policies() and then attach_endpoint() per local pod; set_host_addresses() for the addresses
of this node (router address too); set_ipcache() for every pod, node, router address and prefix of the cluster:

    local pod                        its identity   no tunnel endpoint
    remote pod                       its identity   address of its node
    this node's addresses, router    1 host         no tunnel endpoint
    other nodes' addresses, routers  6 remote-node  that node's address
    everything else                  (a miss is 2 world)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import numpy as np

from bpf import counting, maps, tracking
from bpf.auth import AuthMaps
from bpf.bpffs import DEFAULT_BPFFS, ensure_bpffs
from bpf.census import evictions
from bpf.devices import Hook, NodeNamespace
from bpf.encoding import announcement, ipcache_entry, ipcache_info, ipcache_key
from bpf.endpoints import EndpointMaps
from bpf.facts import Address, Aggregation, Endpoint, EventCounters, IpcacheEntry, MapSizes, PacketCounter, Prefix
from bpf.handles import Map, Program
from bpf.libbpf import BpfError
from bpf.loader import require_kernel
from bpf.policies import EndpointPolicy, PolicyMaps
from bpf.programs import OBJECTS, PROGRAM_FILES, NodePrograms
from bpf.service_maps import ServiceMaps
from bpf.services import ServiceFrontend
from bpf.settings import NodeSettings
from bpf.sockets import SocketServices

__all__ = [
    "OBJECTS",
    "Address",
    "Aggregation",
    "Datapath",
    "Endpoint",
    "EventCounters",
    "IpcacheEntry",
    "MapSizes",
    "PacketCounter",
    "Prefix",
]

VXLAN_PORT: Final = 8472
ALL_TCP_FLAGS: Final = 0xFF
DEFAULT_INTERVAL_S: Final = 5
DEFAULT_SIZES: Final = MapSizes()


class Datapath:
    """Programs and maps of one node, pinned below `<bpffs>/flowscope/<node>/`.

    `netns` is where the node's devices live: a name below /run/netns, a path, or None for the caller's own.
    Every method raises loader.BpfError with one line that names the thing and the remedy. Not for several threads.
    """

    def __init__(
        self,
        node: str,
        *,
        netns: str | None = None,
        bpffs: Path = DEFAULT_BPFFS,
        sizes: MapSizes = DEFAULT_SIZES,
        objects: Path = OBJECTS,
    ) -> None:
        """Nothing is touched yet; `objects` is the folder of the built programs."""
        if not node or "/" in node or node.startswith("."):
            raise ValueError(f"a node's name becomes a folder's name, got {node!r}")
        self.node = node
        self._bpffs = bpffs
        self._objects = objects
        self._namespace = NodeNamespace(netns)
        self._loaded = NodePrograms(self.pin_dir, objects, sizes)
        self._rooms: _Rooms | None = None
        self._netdevs: dict[int, str] = {}

    @property
    def pin_dir(self) -> Path:
        """Where this node's maps are pinned; the observer's `--pin-dir`."""
        return self._bpffs / "flowscope" / self.node

    def ensure_loaded(self) -> None:
        """Mount bpffs if it is not, load and pin programs and maps; what is pinned and current is used again.

        Programs of an earlier build go on running on devices until they are attached again.
        """
        require_kernel()
        ensure_bpffs(self._bpffs)
        self._rooms = None
        self._loaded.load()
        self._rooms = _Rooms.of(self._loaded.maps, self.pin_dir)
        settings = self._rooms.settings
        if not settings.read()["monitor_interval_s"]:
            self.configure(
                aggregation=Aggregation.MEDIUM, monitor_interval_s=DEFAULT_INTERVAL_S, monitor_flags=ALL_TCP_FLAGS
            )
            settings.change(tunnel_port_be=VXLAN_PORT)

    def look(self) -> None:
        """Open what is pinned, to read it only: nothing is loaded or attached. Raises: BpfError when nothing is."""
        self._rooms = None
        self._loaded.look()
        self._rooms = _Rooms.of(self._loaded.maps, self.pin_dir)

    def configure(
        self,
        *,
        aggregation: Aggregation | None = None,
        monitor_interval_s: int | None = None,
        monitor_flags: int | None = None,
        host_endpoint_id: int | None = None,
        host_policy: bool | None = None,
        reject: bool | None = None,
        tell_denied: bool | None = None,
        auth_renew_s: int | None = None,
        tunnel_mtu: int | None = None,
    ) -> None:
        """Change settings while traffic runs; None keeps the present value.

        At first: medium, 5 s, all flags, no id, no host policy, reject.
        `host_policy`: the policy of the endpoint `host_endpoint_id` is about the node's own processes.
        `reject`: clients of a service without backends are told so, and do not wait in vain.
        `tell_denied`: pods hear that a policy denies what they send (ICMP, administratively prohibited).
        `auth_renew_s`: records of authentication that are used are asked for again this long before they are over.
        `tunnel_mtu`: the largest packet that fits into the tunnel; who sends a larger one that must not be cut hears
        so. 0, as at first: nobody does, and what does not fit is cut outside, by whoever carries the tunnel.
        """
        settings = self._open().settings
        settings.change(
            aggregation=aggregation,
            monitor_interval_s=monitor_interval_s,
            monitor_flags=monitor_flags,
            host_endpoint_id=host_endpoint_id,
            auth_renew_s=auth_renew_s,
            tunnel_mtu=tunnel_mtu,
        )
        settings.switch(
            host_policy=host_policy, no_reject=None if reject is None else not reject, tell_denied=tell_denied
        )

    def attach_overlay(self, ifname: str) -> None:
        """Put the overlay programs on the vxlan device and send remote pods' traffic through it."""
        ifindex = self._attach(ifname, ingress="from_overlay", egress="to_overlay")
        self._open().settings.change(overlay_ifindex=ifindex)

    def attach_host(self, ifname: str) -> None:
        """Put the host programs on cilium_host; packets of pods for the node arrive there."""
        ifindex = self._attach(ifname, ingress="host_ingress", egress="from_host")
        mac = maps.mac_bytes(self._namespace.mac(ifindex))
        self._open().settings.change(host_ifindex=ifindex, host_mac=np.frombuffer(mac, np.uint8))

    def attach_netdev(self, ifname: str) -> None:
        """Put the device programs on one of the node's own devices (eth0)."""
        ifindex = self._attach(ifname, ingress="from_netdev", egress="to_netdev")
        self._netdevs[ifindex] = self._namespace.mac(ifindex)

    def attach_endpoint(self, endpoint: Endpoint) -> None:
        """Make a pod reachable, or update it: programs on its veth, endpoint map. The ipcache is set separately."""
        if not 1 <= endpoint.endpoint_id <= 65535:
            raise ValueError(f"an endpoint id is 1 to 65535, got {endpoint.endpoint_id}")
        ifindex = self._namespace.ifindex(endpoint.ifname)
        if ifindex is None:
            raise BpfError(f"attach endpoint {endpoint.endpoint_id}: device {endpoint.ifname} does not exist")
        self._open().endpoints.add(
            endpoint,
            ifindex,
            ingress=self._program("endpoint_ingress"),
            egress=self._program("endpoint_egress"),
        )
        # On the veth last: now a packet of the pod finds all it needs.
        self._attach(endpoint.ifname, ingress="from_container", egress="to_container")

    def detach_endpoint(self, endpoint_id: int) -> None:
        """Forget a pod; its device may be gone already. Unknown ids are fine.

        The programs stay on a device that still exists, and drop what the pod sends from now on.
        """
        rooms = self._open()
        rooms.endpoints.remove(endpoint_id)
        # Last: what could still reach the pod was still judged.
        rooms.policies.remove([endpoint_id])

    def endpoints(self) -> dict[int, Endpoint]:
        """Attached endpoints by id, as the maps have them (for an agent that comes back); ifname is "" when gone."""
        return self._open().endpoints.read(self._namespace)

    def set_policies(self, policies: Mapping[int, EndpointPolicy]) -> None:
        """Set what may pass at endpoints, by id; each changes in one step, from its old policy to its new one.

        An endpoint without policy lets everything pass, so give a new endpoint its policy before it is attached.
        Raises: policies.PolicyTooLarge when one does not fit into a map; none has changed then.
        """
        self._open().policies.replace(policies)

    def set_policy(self, endpoint_id: int, policy: EndpointPolicy) -> None:
        """Set what may pass at one endpoint."""
        self.set_policies({endpoint_id: policy})

    def policies(self) -> dict[int, EndpointPolicy]:
        """Policies by endpoint id, as the kernel has them; endpoints without one are not among them."""
        table = self._open().policies
        return {number: table.read(number) for number in table.numbers()}

    def auth(self) -> AuthMaps:
        """Who has proved to be who they are, and for whom that is asked."""
        return AuthMaps(self._map(maps.AUTH), self._map(maps.AUTH_WANTED), self._map(maps.AUTH_MISSED))

    def sync_services(self, wanted: Iterable[ServiceFrontend]) -> None:
        """Make the services exactly these, changing only what differs; each stays usable meanwhile.

        Raises: services.ServicesTooLarge when they do not fit; none has changed then.
        """
        self._open().services.sync(wanted)

    def services(self) -> list[ServiceFrontend]:
        """Services as the kernel has them."""
        return self._open().services.services()

    def set_masquerade(self, ipv4: IPv4Address | None, ipv6: IPv6Address | None, exclude: Iterable[Prefix]) -> None:
        """The node's addresses, with which pods' packets leave for the world and clients' packets for other nodes.

        None: packets of that family leave as they are. Destinations in `exclude` see the pods' own addresses.
        """
        table = self._map(maps.NOT_MASQUERADED)
        wanted = {ipcache_key(prefix) for prefix in exclude}
        for key in wanted:
            table.update(key, b"\1")
        for key, _ in table.items():
            if key not in wanted:
                table.delete(key)
        self._open().settings.change(
            masquerade4=maps.address_bytes(ipv4 or IPv4Address(0)),
            masquerade6=maps.address_bytes(ipv6 or IPv6Address(0)),
        )

    def set_announced(self, addresses: Iterable[Address]) -> None:
        """Addresses this node answers for (ARP, neighbour solicitation) on the devices given to attach_netdev()."""
        table = self._map(maps.ANNOUNCED)
        present = dict(table.items())
        wanted: dict[bytes, bytes] = {}
        for address in addresses:
            for ifindex, mac in self._netdevs.items():
                wanted.update([announcement(address, ifindex, mac)])
        for key, value in wanted.items():
            if key not in present or present[key][8:14] != value[8:14]:
                table.update(key, value)
        for key in present.keys() - wanted.keys():
            table.delete(key)

    def attach_sockets(self, cgroup: Path) -> int:
        """Lead the node's own processes in a cgroup to backends when they ask for services; returns the cgroup's id."""
        self._open()
        return SocketServices(self.pin_dir, self._objects).attach(cgroup, self._namespace.cookie())

    def detach_sockets(self) -> None:
        """Let them send packets to services again, which are translated on the way."""
        SocketServices(self.pin_dir, self._objects).detach()

    def set_host_addresses(self, addresses: Iterable[Address]) -> None:
        """All addresses of this node that pods may talk to, router addresses included; replaces the earlier set."""
        self._open().endpoints.set_host_addresses(addresses)

    def set_ipcache(self, prefix: Prefix | Address, entry: IpcacheEntry) -> None:
        """Say who owns an address or prefix."""
        self._map(maps.IPCACHE).update(ipcache_key(ip_network(prefix)), ipcache_info(entry))

    def delete_ipcache(self, prefix: Prefix | Address) -> None:
        """Forget it; unknown prefixes are fine."""
        self._map(maps.IPCACHE).delete(ipcache_key(ip_network(prefix)))

    def sync_ipcache(self, entries: Mapping[Prefix, IpcacheEntry]) -> None:
        """Make the ipcache exactly this, changing only what differs."""
        table = self._map(maps.IPCACHE)
        wanted = {ipcache_key(prefix): ipcache_info(entry) for prefix, entry in entries.items()}
        present = dict(table.items())
        for key, value in wanted.items():
            if present.get(key) != value:
                table.update(key, value)
        for key in present.keys() - wanted.keys():
            table.delete(key)

    def ipcache(self) -> dict[Prefix, IpcacheEntry]:
        """What the kernel has."""
        return dict(ipcache_entry(key, value) for key, value in self._map(maps.IPCACHE).items())

    def event_counters(self) -> EventCounters:
        """Events offered to the perf rings, over all CPUs."""
        return counting.event_counters(self._map(maps.EVENT_STATS))

    def packet_counters(self) -> list[PacketCounter]:
        """Packets forwarded, arrived and dropped, by reason and place."""
        return counting.packet_counters(self._map(maps.METRICS))

    def collect_garbage(self) -> int:
        """Remove what has expired of connections, translations and affinities; returns how many entries.

        Call it every few minutes.

        Correctness does not need it (programs ignore expired entries); memory of busy nodes and reports do.
        """
        now_s = int(time.monotonic())
        self._open()
        return tracking.collect(self._loaded.maps, now_s) + self._open().services.forget_clients(now_s)

    def evictions(self) -> dict[str, int]:
        """Entries that full maps have thrown out for newer ones, by map, since the maps were created."""
        return evictions(self.pin_dir)

    def connections(self) -> set[tuple[Address, Address]]:
        """Who has connections to whom: source and destination of all that have not expired."""
        self._open()
        return tracking.connections(self._loaded.maps, int(time.monotonic()))

    def unload(self) -> None:
        """Take the programs off every device still there and remove the pins: the node is as if never loaded."""
        self._namespace.detach_all(frozenset(PROGRAM_FILES))
        self._release()
        shutil.rmtree(self.pin_dir, ignore_errors=True)

    def close(self) -> None:
        """Close file descriptors; programs, maps and traffic stay."""
        self._release()
        self._namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _attach(self, ifname: str, *, ingress: str | None = None, egress: str | None = None) -> int:
        ifindex = 0
        for hook, name in ((Hook.INGRESS, ingress), (Hook.EGRESS, egress)):
            if name is not None:
                ifindex = self._namespace.attach(ifname, hook, self._program(name))
        return ifindex

    def _program(self, name: str) -> Program:
        self._open()
        return self._loaded.programs[name]

    def _map(self, name: str) -> Map:
        self._open()
        return self._loaded.maps[name]

    def _open(self) -> _Rooms:
        if self._rooms is None:
            raise BpfError(f"the datapath of node {self.node} is not loaded: call ensure_loaded() first")
        return self._rooms

    def _release(self) -> None:
        self._rooms = None
        self._loaded.close()


class _Rooms(NamedTuple):
    """Those who do the work on the maps of a node that is open."""

    settings: NodeSettings
    endpoints: EndpointMaps
    policies: PolicyMaps
    services: ServiceMaps

    @classmethod
    def of(cls, tables: Mapping[str, Map], pin_dir: Path) -> _Rooms:
        return cls(
            NodeSettings(tables[maps.CONFIG]),
            EndpointMaps(tables),
            PolicyMaps(tables[maps.POLICIES], pin_dir),
            ServiceMaps(tables),
        )
