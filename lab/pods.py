"""Pods as running things: a namespace, files, processes; what a kubelet does, for all nodes at once.

In:        Pod resources with node and addresses.
Out:       namespaces with programs in them; for each pod whether it is ready.
Elsewhere: network.py wires, images.py knows the programs, supervisor.py writes what is found here into the store.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from lab import images
from lab.cgroups import find_cgroup
from lab.linux import Place
from lab.names import node_netns
from lab.network import Network
from lab.process import Process, Program
from lab.rundir import MARK, RunDir
from mesh.backends import Directory
from mesh.ipam import is_ipv4
from mesh.resources.base import Resource, changed
from mesh.resources.cluster import Node
from mesh.resources.pods import Pod, PodNetwork
from mesh.resources.services import Service
from mesh.store import Store, Update

CAUGHT_UP_S: Final = 2.0
"""How long a pod that is to end waits for agents to send nobody to it any more."""
LOOK_S: Final = 0.01
STOP_S: Final = 1.0
"""Seconds that a pod's programs get to end."""
SEARCH: Final = "svc.cluster.local cluster.local"
NSSWITCH: Final = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"
"""Names must go to the pod's own DNS server, not to a resolver daemon of the machine."""

TCP_LISTEN: Final = "0A"
UDP_BOUND: Final = "07"


@dataclass(slots=True)
class Sandbox:
    """One pod that has been made."""

    pod: Pod
    network: PodNetwork | None
    place: Place
    processes: list[Process]

    @property
    def restarts(self) -> int:
        """How often its programs were started again."""
        return sum(process.restarts for process in self.processes)

    def lacks(self) -> str | None:
        """What keeps the pod from serving; None when every program runs and every port of the manifest is bound.

        Looking at the kernel's tables costs no packet, so no probe of ours appears among the flows.
        """
        pids = [process.pid for process in self.processes]
        if None in pids or not pids:
            return "not running"
        wanted = {
            (port.protocol, port.container_port)
            for container in self.pod.spec.containers
            for port in container.ports
            if port.protocol != "SCTP"
        }
        missing = wanted - bound_ports(Path(f"/proc/{pids[0]}/net")) if wanted else ()
        return ", ".join(f"nothing listens on {protocol} {port}" for protocol, port in sorted(missing)) or None

    def ended(self) -> Literal["Succeeded", "Failed"] | None:
        """How the pod ended, if all its programs did and none is to be started again."""
        if not self.processes or not all(process.is_done for process in self.processes):
            return None
        return "Failed" if any(process.exit_code for process in self.processes) else "Succeeded"


class Pods:
    """All pods of the lab."""

    def __init__(self, run_dir: RunDir, network: Network, on_change: Callable[[], None], store: Store) -> None:
        self._run_dir = run_dir
        self._store = store
        self._endings: dict[str, asyncio.Task[None]] = {}
        """Pods that were told to go, by uid."""
        self._network = network
        self._on_change = on_change
        self._around = images.Surroundings(store=run_dir.store)
        self.sandboxes: dict[str, Sandbox] = {}
        """By uid."""

    async def synchronise(
        self, pods: Iterable[Pod], nodes: Mapping[str, Node], servers: Sequence[str], revision: int
    ) -> None:
        """Make what is missing, end what was told to go, remove what is not wanted any more.

        servers   addresses of the cluster's DNS.
        revision  of the store, from which `pods` are.
        """
        placed = {pod.metadata.uid: pod for pod in pods if pod.status.pod_ips and pod.spec.node_name in nodes}
        await asyncio.gather(*(self._remove(uid) for uid in self.sandboxes.keys() - placed.keys()))
        for uid, pod in placed.items():
            if uid in self.sandboxes:
                self.sandboxes[uid].pod = pod
            else:
                self.sandboxes[uid] = self._make(pod, nodes[pod.spec.node_name])
        self._write_files(servers)
        for uid, sandbox in self.sandboxes.items():
            if sandbox.pod.is_leaving and uid not in self._endings:
                self._endings[uid] = asyncio.create_task(self._end(sandbox, list(nodes), revision), name=f"end {uid}")
            elif not sandbox.processes and not sandbox.pod.is_leaving:
                self._start(sandbox)

    async def stop(self) -> None:
        """End all programs; the namespaces are left to cleanup."""
        for ending in self._endings.values():
            ending.cancel()
        processes = [process for sandbox in self.sandboxes.values() for process in sandbox.processes]
        await asyncio.gather(*(process.stop(STOP_S) for process in processes))

    def _write_files(self, servers: Sequence[str]) -> None:
        """/etc files of every pod; in place, because they are bind-mounted. servers: of the cluster's DNS."""
        for sandbox in self.sandboxes.values():
            if sandbox.place.etc is not None:
                write_etc(sandbox.place.etc, pod_files(sandbox.pod, servers))

    def _make(self, pod: Pod, node: Node) -> Sandbox:
        etc = self._run_dir.pod(pod.namespace, pod.name)
        hostname = pod.spec.hostname or pod.name
        if pod.spec.host_network:
            name = node_netns(node.name)
            return Sandbox(pod, None, Place(netns=name, hostname=node.name, cgroup=find_cgroup(name)), [])
        wires = self._network.make_pod(pod, node)
        place = Place(
            netns=self._network.pod_netns(pod.namespace, pod.name), hostname=hostname[:63], etc=etc, own_sys=True
        )
        return Sandbox(pod, wires, place, [])

    def _start(self, sandbox: Sandbox) -> None:
        pod = sandbox.pod
        for container in pod.spec.containers:
            line = images.command_line(pod, container, self._around)
            program = Program(
                name=f"{pod.namespace}_{pod.name}_{container.name}",
                argv=line.argv,
                env={**line.env, MARK: str(self._run_dir.path)},
                place=sandbox.place,
                restart=pod.spec.restart_policy,
            )
            process = Process(program, self._run_dir.logs / f"{program.name}.log", self._on_change)
            sandbox.processes.append(process)
            process.start()

    async def _end(self, sandbox: Sandbox, nodes: Sequence[str], revision: int) -> None:
        """Let a pod finish its connections: nothing new comes, then its programs end, then the store forgets it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CAUGHT_UP_S):
                while any(agent_state(self._run_dir, node).get("revision", 0) < revision for node in nodes):
                    await asyncio.sleep(LOOK_S)
        spec = sandbox.pod.spec
        hooks = [one.lifecycle.pre_stop.sleep.seconds for one in spec.containers if one.lifecycle.pre_stop.sleep]
        grace_s = spec.termination_grace_period_seconds
        pause_s = min(max(hooks, default=0), grace_s)
        await asyncio.sleep(pause_s)
        await asyncio.gather(*(process.stop(max(grace_s - pause_s, STOP_S)) for process in sandbox.processes))
        self._store.delete([sandbox.pod.key], at_once=True)

    async def _remove(self, uid: str) -> None:
        sandbox = self.sandboxes.pop(uid)
        if ending := self._endings.pop(uid, None):
            ending.cancel()
        await asyncio.gather(*(process.stop(STOP_S) for process in sandbox.processes))
        if not sandbox.pod.spec.host_network:
            self._network.delete_pod(sandbox.pod.namespace, sandbox.pod.name)


def dns_servers(services: Iterable[Service]) -> list[str]:
    """Addresses of the cluster's DNS: those of the service kube-dns."""
    return [address for one in services if _is_dns(one) for address in one.spec.cluster_ips]


def dns_pods(resources: Sequence[Resource]) -> list[str]:
    """The pods behind it, IPv4: for nodes, which find names also while nothing translates services for them."""
    directory = Directory(resources)
    services = (one for one in resources if isinstance(one, Service) and _is_dns(one))
    return [backend.address for one in services for backend in directory.ready(one) if is_ipv4(backend.address)]


def _is_dns(service: Service) -> bool:
    return (service.namespace, service.name) == ("kube-system", "kube-dns")


def pod_files(pod: Pod, servers: Sequence[str]) -> dict[str, str]:
    """What stands in a pod's /etc."""
    hostname = pod.spec.hostname or pod.name
    hosts = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", *(f"{ip} {hostname}" for ip in pod.ips)]
    resolver = [
        f"search {pod.namespace}.svc.cluster.local {SEARCH}",
        *(f"nameserver {address}" for address in servers),
        "options ndots:5",
    ]
    return {"hosts": _lines(hosts), "resolv.conf": _lines(resolver), "hostname": f"{hostname}\n"}


def place_files(hostname: str, known: Mapping[str, str], servers: Sequence[str]) -> dict[str, str]:
    """What stands in the /etc of a node, or of the outside world. known: name -> address."""
    hosts = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    hosts += [f"{address} {name}" for name, address in known.items()]
    # Without a server the resolver asks 127.0.0.1, where nobody is: an error at once, not a timeout.
    resolver = [f"search {SEARCH}", *(f"nameserver {address}" for address in servers)] if servers else []
    return {"hosts": _lines(hosts), "resolv.conf": _lines(resolver), "hostname": f"{hostname}\n"}


def write_etc(folder: Path, files: Mapping[str, str]) -> None:
    """Write files whose content differs, without replacing their inodes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**files, "nsswitch.conf": NSSWITCH}.items():
        path = folder / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)


def bound_ports(proc_net: Path) -> set[tuple[str, int]]:
    """Protocols and ports on which something listens in the namespace that /proc/PID/net shows."""
    ports = set()
    for protocol, table, state in (
        ("TCP", "tcp", TCP_LISTEN), ("TCP", "tcp6", TCP_LISTEN), ("UDP", "udp", UDP_BOUND), ("UDP", "udp6", UDP_BOUND),
    ):  # fmt: skip
        try:
            lines = (proc_net / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == state:
                ports.add((protocol, int(fields[1].rpartition(":")[2], 16)))
    return ports


def agent_state(run_dir: RunDir, node: str) -> dict[str, Any]:
    """What the node's agent has done: `revision` of the store, `pods` by uid. Empty before it has done anything."""
    try:
        found = json.loads((run_dir.node(node) / "agent.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def programmed(run_dir: RunDir, node: str) -> set[str]:
    """Uids of the pods that the node's agent has put into the kernel."""
    return set(agent_state(run_dir, node).get("pods", ()))


@dataclass(frozen=True, slots=True)
class Observed:
    """What became of a pod."""

    network: PodNetwork | None
    ready: bool
    phase: str

    def differs(self, pod: Pod) -> bool:
        """Whether the store does not say so yet."""
        status = pod.status
        return (self.network, self.ready, self.phase) != (status.network, status.ready, status.phase)


def report_status(store: Store, seen: Mapping[str, Observed]) -> None:
    """Write what became of pods into the store. seen: by uid."""

    def change(existing: Sequence[Any]) -> Update:
        put = []
        for one in existing:
            if isinstance(one, Pod) and one.metadata.uid in seen:
                what = seen[one.metadata.uid]
                status = changed(one.status, network=what.network, ready=what.ready, phase=what.phase)
                if status != one.status:
                    put.append(changed(one, status=status))
        return Update(tuple(put))

    store.update(change)


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
