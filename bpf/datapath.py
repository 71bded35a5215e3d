"""One node's datapath: load it, tell it what the node looks like, read what it counted.

In:        the agent's decisions (endpoints, ipcache, node settings); network devices that the caller has created.
Out:       programs on those devices, entries in maps; all pinned, so that traffic does not notice a restart of the
           caller: every call may be repeated after a restart and changes only what differs.
Elsewhere: facts.py has the values; encoding.py, tracking.py and counting.py do the work on maps, policies.py and
           services.py that of theirs; loader.py talks to libbpf; maps.py knows the layouts; the programs are the
           *.bpf.c files.

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

import hashlib
import shutil
import time
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from bpf import counting, maps, tracking
from bpf.auth import AuthMaps
from bpf.bpffs import DEFAULT_BPFFS, ensure_bpffs
from bpf.census import evictions
from bpf.devices import Hook, NodeNamespace
from bpf.encoding import (
    addresses_of,
    announcement,
    endpoint_info,
    endpoint_key,
    interface_info,
    ipcache_entry,
    ipcache_info,
    ipcache_key,
    record,
)
from bpf.facts import Address, Aggregation, Endpoint, EventCounters, IpcacheEntry, MapSizes, PacketCounter, Prefix
from bpf.handles import Map, Program
from bpf.libbpf import BpfError
from bpf.loader import load_object, require_kernel
from bpf.policies import EndpointPolicy, PolicyMaps
from bpf.services import ServiceFrontend, ServiceMaps
from bpf.sockets import SocketServices

__all__ = [
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

OBJECTS: Final = Path(__file__).parent / "build"
PROGRAM_FILES: Final = {
    "from_container": "tc_from_container.bpf.o",
    "container_translated": "tc_from_container.bpf.o",
    "to_container": "tc_to_container.bpf.o",
    "endpoint_ingress": "tail_endpoint_ingress.bpf.o",
    "endpoint_egress": "tc_from_container.bpf.o",
    "service": "tail_service.bpf.o",
    "reverse": "tail_service.bpf.o",
    "too_big": "tail_errors.bpf.o",
    "outside_error": "tail_errors.bpf.o",
    "host_arrival": "tail_host_policy.bpf.o",
    "host_departure": "tail_host_policy.bpf.o",
    "from_overlay": "tc_from_overlay.bpf.o",
    "to_overlay": "tc_to_overlay.bpf.o",
    "from_host": "tc_from_host.bpf.o",
    "host_translated": "tc_from_host.bpf.o",
    "host_ingress": "tc_to_host.bpf.o",
    "from_netdev": "tc_from_netdev.bpf.o",
    "netdev_translated": "tc_from_netdev.bpf.o",
    "to_netdev": "tc_to_netdev.bpf.o",
}
CALLS: Final = {
    maps.CALL_SERVICE: "service",
    maps.CALL_CONTAINER_TRANSLATED: "container_translated",
    maps.CALL_HOST_TRANSLATED: "host_translated",
    maps.CALL_NETDEV_TRANSLATED: "netdev_translated",
    maps.CALL_REVERSE: "reverse",
    maps.CALL_HOST_ARRIVAL: "host_arrival",
    maps.CALL_HOST_DEPARTURE: "host_departure",
}
"""Programs that others continue in (include/calls.h)."""
ERROR_CALLS: Final = {maps.CALL_TOO_BIG: "too_big", maps.CALL_OUTSIDE_ERROR: "outside_error"}
"""The same, about what cannot be sent on."""
MAP_NAMES: Final = (
    maps.EVENTS,
    maps.EVENT_STATS,
    maps.INSERTS,
    maps.METRICS,
    maps.CONFIG,
    maps.ENDPOINTS,
    maps.INTERFACES,
    maps.CALL_POLICY,
    maps.EGRESSCALL_POLICY,
    maps.POLICIES,
    maps.IPCACHE,
    maps.FRAGMENTS,
    maps.CALLS,
    maps.ERROR_CALLS,
    maps.NAT4,
    maps.NAT6,
    maps.NOT_MASQUERADED,
    maps.ANNOUNCED,
    maps.AUTH,
    maps.AUTH_WANTED,
    maps.AUTH_MISSED,
    *maps.CONNTRACK,
    *maps.SERVICES,
)
ZERO_KEY: Final = bytes(4)
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
        self._sizes = sizes
        self._objects = objects
        self._namespace = NodeNamespace(netns)
        self._maps: dict[str, Map] = {}
        self._programs: dict[str, Program] = {}
        self._policies: PolicyMaps | None = None
        self._services: ServiceMaps | None = None
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
        # bpffs refuses dots in names.
        program_dir = self.pin_dir / f"programs-{self._build_id()}"
        if not self._is_complete(program_dir):
            self._load(program_dir)
        for stale in self.pin_dir.glob("programs-*"):
            if stale != program_dir:
                shutil.rmtree(stale)
        self._release()
        self._programs = {name: Program.pinned(program_dir / name) for name in PROGRAM_FILES}
        self._maps = {name: Map.pinned(self.pin_dir / name) for name in MAP_NAMES}
        self._policies = PolicyMaps(self._maps[maps.POLICIES], self.pin_dir)
        self._services = ServiceMaps(self._maps)
        for index, name in CALLS.items():
            self._maps[maps.CALLS].set_fd(index, self._programs[name].fd)
        for index, name in ERROR_CALLS.items():
            self._maps[maps.ERROR_CALLS].set_fd(index, self._programs[name].fd)
        if not self._config()["monitor_interval_s"]:
            self.configure(
                aggregation=Aggregation.MEDIUM, monitor_interval_s=DEFAULT_INTERVAL_S, monitor_flags=ALL_TCP_FLAGS
            )
            self._change_config(tunnel_port_be=VXLAN_PORT)

    def look(self) -> None:
        """Open what is pinned, to read it only: nothing is loaded or attached. Raises: BpfError when nothing is."""
        self._release()
        self._maps = {name: Map.pinned(self.pin_dir / name) for name in MAP_NAMES}
        self._policies = PolicyMaps(self._maps[maps.POLICIES], self.pin_dir)
        self._services = ServiceMaps(self._maps)

    def configure(
        self,
        *,
        aggregation: Aggregation | None = None,
        monitor_interval_s: int | None = None,
        monitor_flags: int | None = None,
        host_endpoint_id: int | None = None,
        host_policy: bool | None = None,
        reject: bool | None = None,
        auth_renew_s: int | None = None,
        tunnel_mtu: int | None = None,
    ) -> None:
        """Change settings while traffic runs; None keeps the present value.

        At first: medium, 5 s, all flags, no id, no host policy, reject.
        `host_policy`: the policy of the endpoint `host_endpoint_id` is about the node's own processes.
        `reject`: clients of a service without backends are told so, and do not wait in vain.
        `auth_renew_s`: records of authentication that are used are asked for again this long before they are over.
        `tunnel_mtu`: the largest packet that fits into the tunnel; who sends a larger one that must not be cut hears
        so. 0, as at first: nobody does, and what does not fit is cut outside, by whoever carries the tunnel.
        """
        wanted = {
            "aggregation": aggregation,
            "monitor_interval_s": monitor_interval_s,
            "monitor_flags": monitor_flags,
            "host_endpoint_id": host_endpoint_id,
            "auth_renew_s": auth_renew_s,
            "tunnel_mtu": tunnel_mtu,
            "flags": self._flags(host_policy, reject),
        }
        self._change_config(**{name: value for name, value in wanted.items() if value is not None})

    def attach_overlay(self, ifname: str) -> None:
        """Put the overlay programs on the vxlan device and send remote pods' traffic through it."""
        ifindex = self._attach(ifname, ingress="from_overlay", egress="to_overlay")
        self._change_config(overlay_ifindex=ifindex)

    def attach_host(self, ifname: str) -> None:
        """Put the host programs on cilium_host; packets of pods for the node arrive there."""
        ifindex = self._attach(ifname, ingress="host_ingress", egress="from_host")
        mac = maps.mac_bytes(self._namespace.mac(ifindex))
        self._change_config(host_ifindex=ifindex, host_mac=np.frombuffer(mac, np.uint8))

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
        self._forget(endpoint.endpoint_id, keep_ifindex=ifindex, keep_addresses=addresses_of(endpoint))
        # The program stands in the array before any packet can look for it, and on the veth last.
        self._map(maps.INTERFACES).update(ifindex.to_bytes(4, "little"), interface_info(endpoint))
        self._map(maps.CALL_POLICY).set_fd(endpoint.endpoint_id, self._program("endpoint_ingress").fd)
        self._map(maps.EGRESSCALL_POLICY).set_fd(endpoint.endpoint_id, self._program("endpoint_egress").fd)
        for address in addresses_of(endpoint):
            self._map(maps.ENDPOINTS).update(endpoint_key(address), endpoint_info(endpoint, ifindex))
        self._attach(endpoint.ifname, ingress="from_container", egress="to_container")

    def detach_endpoint(self, endpoint_id: int) -> None:
        """Forget a pod; its device may be gone already. Unknown ids are fine.

        The programs stay on a device that still exists, and drop what the pod sends from now on.
        """
        self._forget(endpoint_id)
        for programs in (maps.CALL_POLICY, maps.EGRESSCALL_POLICY):
            self._map(programs).delete(endpoint_id.to_bytes(4, "little"))
        # Last: what could still reach the pod was still judged.
        self._policy_maps().remove([endpoint_id])

    def endpoints(self) -> dict[int, Endpoint]:
        """Attached endpoints by id, as the maps have them (for an agent that comes back); ifname is "" when gone."""
        found = {}
        for ifindex, info in self._interfaces():
            ipv4, ipv6 = info["ip4"].tobytes(), info["ip6"].tobytes()
            found[int(info["endpoint_id"])] = Endpoint(
                endpoint_id=int(info["endpoint_id"]),
                identity=int(info["identity"]),
                ifname=self._namespace.ifname(ifindex) or "",
                pod_mac=maps.mac_text(info["mac"]),
                host_mac=maps.mac_text(info["host_mac"]),
                ipv4=IPv4Address(ipv4) if any(ipv4) else None,
                ipv6=IPv6Address(ipv6) if any(ipv6) else None,
            )
        return found

    def set_policies(self, policies: Mapping[int, EndpointPolicy]) -> None:
        """Set what may pass at endpoints, by id; each changes in one step, from its old policy to its new one.

        An endpoint without policy lets everything pass, so give a new endpoint its policy before it is attached.
        Raises: policies.PolicyTooLarge when one does not fit into a map; none has changed then.
        """
        self._policy_maps().replace(policies)

    def set_policy(self, endpoint_id: int, policy: EndpointPolicy) -> None:
        """Set what may pass at one endpoint."""
        self.set_policies({endpoint_id: policy})

    def policies(self) -> dict[int, EndpointPolicy]:
        """Policies by endpoint id, as the kernel has them; endpoints without one are not among them."""
        table = self._policy_maps()
        return {number: table.read(number) for number in table.numbers()}

    def auth(self) -> AuthMaps:
        """Who has proved to be who they are, and for whom that is asked."""
        return AuthMaps(self._map(maps.AUTH), self._map(maps.AUTH_WANTED), self._map(maps.AUTH_MISSED))

    def sync_services(self, wanted: Iterable[ServiceFrontend]) -> None:
        """Make the services exactly these, changing only what differs; each stays usable meanwhile.

        Raises: services.ServicesTooLarge when they do not fit; none has changed then.
        """
        self._service_maps().sync(wanted)

    def services(self) -> list[ServiceFrontend]:
        """Services as the kernel has them."""
        return self._service_maps().services()

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
        self._change_config(
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
        self._require_loaded()
        return SocketServices(self.pin_dir, self._objects).attach(cgroup, self._namespace.cookie())

    def detach_sockets(self) -> None:
        """Let them send packets to services again, which are translated on the way."""
        SocketServices(self.pin_dir, self._objects).detach()

    def set_host_addresses(self, addresses: Iterable[Address]) -> None:
        """All addresses of this node that pods may talk to, router addresses included; replaces the earlier set."""
        wanted = {endpoint_key(address) for address in addresses}
        table = self._map(maps.ENDPOINTS)
        for key, value in table.items():
            if record(value, maps.ENDPOINT_INFO)["flags"] & maps.ENDPOINT_HOST and key not in wanted:
                table.delete(key)
        info = np.zeros(1, maps.ENDPOINT_INFO)
        info["flags"] = maps.ENDPOINT_HOST
        info["identity"] = 1
        for key in wanted:
            table.update(key, info.tobytes())

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
        self._require_loaded()
        return tracking.collect(self._maps, now_s) + self._service_maps().forget_clients(now_s)

    def evictions(self) -> dict[str, int]:
        """Entries that full maps have thrown out for newer ones, by map, since the maps were created."""
        return evictions(self.pin_dir)

    def connections(self) -> set[tuple[Address, Address]]:
        """Who has connections to whom: source and destination of all that have not expired."""
        self._require_loaded()
        return tracking.connections(self._maps, int(time.monotonic()))

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

    # ---- programs ----

    def _build_id(self) -> str:
        """Changes with the programs, so that an upgrade is loaded and a restart is not."""
        digest = hashlib.sha256()
        for file in sorted(set(PROGRAM_FILES.values())):
            path = self._objects / file
            if not path.exists():
                raise BpfError(f"{path} is missing: run `make -C bpf`")
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def _is_complete(self, program_dir: Path) -> bool:
        pins = [program_dir / name for name in PROGRAM_FILES] + [self.pin_dir / name for name in MAP_NAMES]
        return all(pin.exists() for pin in pins)

    def _load(self, program_dir: Path) -> None:
        # Left half done by a crash, or bound to maps that are gone.
        shutil.rmtree(program_dir, ignore_errors=True)
        sizes = {
            maps.CT4_TCP: self._sizes.conntrack_tcp,
            maps.CT6_TCP: self._sizes.conntrack_tcp,
            maps.CT4_ANY: self._sizes.conntrack_any,
            maps.CT6_ANY: self._sizes.conntrack_any,
            maps.NAT4: self._sizes.nat,
            maps.NAT6: self._sizes.nat,
            maps.LB4_AFFINITY: self._sizes.affinity,
            maps.LB6_AFFINITY: self._sizes.affinity,
            maps.IPCACHE: self._sizes.ipcache,
            maps.FRAGMENTS: self._sizes.fragments,
        }
        for file in dict.fromkeys(PROGRAM_FILES.values()):
            load_object(self._objects / file, self.pin_dir, program_dir, sizes).close()

    def _attach(self, ifname: str, *, ingress: str | None = None, egress: str | None = None) -> int:
        ifindex = 0
        for hook, name in ((Hook.INGRESS, ingress), (Hook.EGRESS, egress)):
            if name is not None:
                ifindex = self._namespace.attach(ifname, hook, self._program(name))
        return ifindex

    def _program(self, name: str) -> Program:
        self._require_loaded()
        return self._programs[name]

    # ---- maps ----

    def _map(self, name: str) -> Map:
        self._require_loaded()
        return self._maps[name]

    def _policy_maps(self) -> PolicyMaps:
        self._require_loaded()
        assert self._policies is not None
        return self._policies

    def _service_maps(self) -> ServiceMaps:
        self._require_loaded()
        assert self._services is not None
        return self._services

    def _require_loaded(self) -> None:
        if not self._maps:
            raise BpfError(f"the datapath of node {self.node} is not loaded: call ensure_loaded() first")

    def _config(self) -> Any:
        return record(self._map(maps.CONFIG).lookup(ZERO_KEY) or bytes(maps.NODE_CONFIG.itemsize), maps.NODE_CONFIG)

    def _flags(self, host_policy: bool | None, reject: bool | None) -> int:
        """Those of the present, changed."""
        flags = int(self._config()["flags"])
        for flag, on in (
            (maps.NODE_HOST_POLICY, host_policy),
            (maps.NODE_NO_REJECT, None if reject is None else not reject),
        ):
            if on is not None:
                flags = flags | flag if on else flags & ~flag
        return flags

    def _change_config(self, **changes: Any) -> None:
        config = self._config().copy()
        for name, value in changes.items():
            config[name] = value
        self._map(maps.CONFIG).update(ZERO_KEY, config.tobytes())

    def _interfaces(self) -> list[tuple[int, Any]]:
        table = self._map(maps.INTERFACES)
        return [(int.from_bytes(key, "little"), record(value, maps.INTERFACE_INFO)) for key, value in table.items()]

    def _forget(
        self, endpoint_id: int, keep_ifindex: int | None = None, keep_addresses: Iterable[Address] = ()
    ) -> None:
        """Remove what the maps have of an endpoint, but not what is about to be written again: no gap in traffic."""
        keep = {endpoint_key(address) for address in keep_addresses}
        table = self._map(maps.ENDPOINTS)
        for key, value in table.items():
            info = record(value, maps.ENDPOINT_INFO)
            if info["endpoint_id"] == endpoint_id and not info["flags"] & maps.ENDPOINT_HOST and key not in keep:
                table.delete(key)
        for ifindex, info in self._interfaces():
            if info["endpoint_id"] == endpoint_id and ifindex != keep_ifindex:
                self._map(maps.INTERFACES).delete(ifindex.to_bytes(4, "little"))

    def _release(self) -> None:
        for program in self._programs.values():
            program.close()
        for table in self._maps.values():
            table.close()
        self._programs, self._maps = {}, {}
