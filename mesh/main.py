"""`flowscope agent`: keeps one node's kernel and state.json in step with the resource store.

In:        the resource store (watched); the node's devices.
Out:       programs and maps through bpf/datapath.py; state.json for the observer; agent.json for whoever waits.
Elsewhere: controller.py decides addresses and identities; knowledge.py says what goes into state.json.

Everything is level-triggered: each round compares what should be with what the kernel has and changes the difference.
Stopping the agent changes nothing: programs and maps are pinned, traffic goes on.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import structlog

from bpf.datapath import Aggregation, Datapath, Endpoint, IpcacheEntry, Prefix
from bpf.loader import BpfError
from mesh import identities, ipam, knowledge
from mesh.cluster import Cluster
from mesh.config import AgentConfig
from mesh.devices import HOST_DEVICE, OVERLAY_DEVICE, NodeDevices
from mesh.envoy.matching import NodeView
from mesh.envoy.node import EnvoyNode
from mesh.files import write_atomically
from mesh.leader import Lock, lead
from mesh.policy.compiling import MODES, Settings, Subject
from mesh.policy.node import NodePolicies, Outcome, named_ports
from mesh.policy.ports import ProxyPorts
from mesh.records import Records
from mesh.report import AgentReport
from mesh.resources import Key, Node, Pod
from mesh.services.frontends import ALGORITHMS
from mesh.services.node import NodeServices, outside_endpoints
from mesh.store import SqliteStore, Store
from service.failure import Failure

MAX_ENDPOINT_ID: Final = 65535
RETRY_S: Final = 1.0
REPORT_S: Final = 1.0

log = structlog.get_logger(component="agent")


async def serve(config: AgentConfig, stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Run until `stop`; `reload` makes it compare everything again."""
    name = config.node or socket.gethostname()
    try:
        aggregation = Aggregation.parse(config.aggregation)
    except ValueError as error:
        raise Failure(f"--aggregation: {error}") from None
    if config.enable_policy not in MODES:
        raise Failure(f"--enable-policy is one of {', '.join(MODES)}, got {config.enable_policy!r}")
    if config.load_balancer_algorithm not in ALGORITHMS:
        wanted = " or ".join(ALGORITHMS)
        raise Failure(f"--load-balancer-algorithm is {wanted}, got {config.load_balancer_algorithm!r}")
    store = SqliteStore(Path(config.store))
    try:
        node = await _appear(store, Key("Node", "", name), stop)
        if node is None:
            return
        folder = Path(config.state_file).parent
        with ExitStack() as cleanup:
            datapath = cleanup.enter_context(Datapath(name, bpffs=Path(config.bpffs)))
            agent = Agent(config, node, store, datapath, NodeDevices(), ProxyPorts(folder / "proxy-ports.json"))
            agent.start(aggregation)
            if config.envoy:
                records = Records(config.records_socket)
                agent.envoy = EnvoyNode(folder / "envoy", name, agent.proxies.port, records)
                cleanup.callback(records.close)
                agent.report.add("envoy", agent.envoy.status)
                await agent.envoy.start()
                cleanup.callback(agent.envoy.stop)
            async with asyncio.TaskGroup() as tasks:
                work = [
                    tasks.create_task(lead(store, Lock(Path(config.store)), config.cluster_name), name="lead"),
                    tasks.create_task(agent.follow(), name="follow"),
                    tasks.create_task(agent.obey(reload), name="reload"),
                    tasks.create_task(agent.retry(), name="retry"),
                    tasks.create_task(agent.sweep(), name="sweep"),
                    tasks.create_task(agent.tell(), name="tell"),
                ]
                await stop.wait()
                for task in work:
                    task.cancel()
    except* BpfError as errors:
        raise Failure(str(errors.exceptions[0])) from errors
    finally:
        store.close()


async def _appear(store: Store, key: Key, stop: asyncio.Event) -> Node | None:
    """The Node resource, as soon as there is one; None when told to stop before."""
    found = store.get(key)
    if found is None:
        log.info("waiting for the node's resource", node=key.name)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        while not isinstance(found, Node):
            done, _ = await asyncio.wait({stopping}, timeout=0.2)
            if done:
                return None
            found = store.get(key)
    finally:
        stopping.cancel()
    return found


class Agent:
    """One node. Owns the devices, the datapath handle and the two files."""

    def __init__(
        self,
        config: AgentConfig,
        node: Node,
        store: Store,
        datapath: Datapath,
        devices: NodeDevices,
        proxies: ProxyPorts | None = None,
    ) -> None:
        self._config = config
        self._node = node
        self._store = store
        self._datapath = datapath
        self._devices = devices
        self._state_file = Path(config.state_file)
        self._policies = NodePolicies(
            settings=Settings(mode=config.enable_policy, audit=config.policy_audit_mode),
            cluster_name=config.cluster_name,
            proxies=proxies or ProxyPorts(),
        )
        self.proxies = self._policies.proxies
        self.envoy: EnvoyNode | None = None
        """Judges requests; without it, what policies have judged there is refused by the kernel."""
        self._round = asyncio.Lock()
        self._services = NodeServices(datapath, node, config.load_balancer_algorithm)
        self._problems: frozenset[str] = frozenset()
        self._programmed: dict[int, Endpoint] = {}
        self._refused: set[int] = set()
        """Endpoints that the kernel has not taken; tried again until it does, or until they are not wanted."""
        self.report = AgentReport(self._state_file.with_name("agent.json"), node.name)
        self.report.add("policy", self._policy_condition)
        self.report.add("endpoints", self._endpoint_condition)
        self.report.add("services", self._services.describe)

    def start(self, aggregation: Aggregation) -> None:
        """Devices, programs, settings: what does not depend on pods."""
        config = self._config
        self._devices.prepare(self._node, config.devices[0])
        self._datapath.ensure_loaded()
        self._datapath.configure(
            aggregation=aggregation,
            monitor_interval_s=config.aggregation_interval_s,
            host_endpoint_id=knowledge.HOST_ENDPOINT_ID,
        )
        self._policies.local.restore({prefix: one.identity for prefix, one in self._datapath.ipcache().items()})
        self._datapath.attach_overlay(OVERLAY_DEVICE)
        self._datapath.attach_host(HOST_DEVICE)
        for device in config.devices:
            self._datapath.attach_netdev(device)
        log.info("datapath ready", node=self._node.name, pins=str(self._datapath.pin_dir))

    async def follow(self) -> None:
        """Bring the kernel up to date after each change of the store."""
        async for changes in self._store.watch():
            await self.synchronise(changes.revision)

    async def obey(self, reload: asyncio.Event) -> None:
        """Compare everything again when asked to."""
        while True:
            await reload.wait()
            reload.clear()
            await self.synchronise(self._store.changes(0).revision)
            log.info("synchronised on request")

    async def retry(self) -> None:
        """Try again what the kernel refused, such as a pod whose device is only just being made or removed."""
        while True:
            await asyncio.sleep(RETRY_S)
            if self._refused:
                await self.synchronise(self._store.changes(0).revision)

    async def tell(self) -> None:
        """Keep agent.json up to date between rounds."""
        while True:
            await asyncio.sleep(REPORT_S)
            self.report.refresh()

    async def sweep(self) -> None:
        """Clear expired connections now and then."""
        while True:
            await asyncio.sleep(self._config.garbage_s)
            removed = await asyncio.to_thread(self._datapath.collect_garbage)
            log.debug("expired connections removed", count=removed)

    async def synchronise(self, revision: int) -> None:
        """One round: names for the observer, proxies, addresses, endpoints; then tell whoever waits."""
        async with self._round:
            await self._synchronise(revision)

    async def _synchronise(self, revision: int) -> None:
        cluster = Cluster(self._store.find())
        facts = knowledge.Identities(cluster, self._config.cluster_name)
        pods = [one for one in knowledge.local_pods(cluster.pods(), self._node.name) if one.status.network]
        ids = endpoint_ids(pods)
        wanted = {ids[pod.metadata.uid]: _endpoint(pod, ids[pod.metadata.uid], facts.number(pod)) for pod in pods}
        subjects = {ids[pod.metadata.uid]: Subject(facts.number(pod), named_ports(pod)) for pod in pods}
        self._policies.service_addresses = outside_endpoints(cluster)
        services = self._services.find(cluster)
        decided = self._policies.update(list(cluster.resources.values()), subjects, revision)
        self._tell(decided.problems)
        # The observer has to know a pod before its first packet; so its file comes before the kernel.
        links, name = self._devices.links(), self._config.cluster_name
        state = knowledge.node_state(cluster, self._node, ids, links, name, services)
        self._describe_policies(state, decided)
        write_atomically(self._state_file, state)
        # What is to be judged comes to a proxy that knows how.
        if self.envoy is not None:
            await self.envoy.update(node_view(state["ipcache"], wanted, decided))
        # Before any packet can have an identity, or a pod can be reached, its policy is there.
        self._datapath.set_policies(decided.policies)
        self._datapath.set_host_addresses(map(ip_address, (*self._node.ips, *ipam.router_addresses(self._node))))
        self._datapath.sync_ipcache(ipcache_entries(state["ipcache"], self._node.ips))
        # Before endpoints go: nobody is sent to one that is not there any more.
        self._services.write(services)
        self._program(wanted)
        ready = sorted(pod.metadata.uid for pod in pods if ids[pod.metadata.uid] not in self._refused)
        self.report.round(revision, ready)

    def _policy_condition(self) -> dict[str, Any]:
        problems = sorted(self._problems)
        state = {"mode": self._config.enable_policy, "audit": self._config.policy_audit_mode, "problems": problems}
        if problems:
            return {"state": "warning", "message": f"{len(problems)} policies refused: {problems[0]}", **state}
        return {"state": "ok", "message": f"enforcement {self._config.enable_policy}", **state}

    def _endpoint_condition(self) -> dict[str, Any]:
        refused = sorted(self._refused)
        if refused:
            return {"state": "warning", "message": f"not attached: {', '.join(map(str, refused))}", "refused": refused}
        return {"state": "ok", "message": f"{len(self._programmed)} attached", "refused": []}

    def _describe_policies(self, state: dict[str, Any], decided: Outcome) -> None:
        """Add to state.json which rules stand behind verdicts, and who the prefixes of policies are."""
        for endpoint in state["local_endpoints"]:
            if rules := self._policies.rules_behind(endpoint["id"]):
                endpoint["policy"] = rules
        numbers = set(decided.ipcache.values())
        state["identities"] += [
            {"id": one.number, "labels": list(one.labels)} for one in decided.identities if one.number in numbers
        ]
        taken = {ip_network(one["prefix"]) for one in state["ipcache"] if one["identity"] != identities.WORLD}
        known = [one for one in state["ipcache"] if ip_network(one["prefix"]) not in decided.ipcache.keys() - taken]
        state["ipcache"] = known + [
            {"prefix": str(prefix), "identity": number}
            for prefix, number in decided.ipcache.items()
            # Who lives at an address is stronger than what a policy calls it.
            if prefix not in taken
        ]

    def _tell(self, problems: Sequence[str]) -> None:
        for problem in set(problems) - self._problems:
            log.warning("policy refused", reason=problem)
        self._problems = frozenset(problems)

    def _program(self, wanted: Mapping[int, Endpoint]) -> None:
        for number in self._datapath.endpoints().keys() - wanted.keys():
            self._datapath.detach_endpoint(number)
            self._programmed.pop(number, None)
            log.info("endpoint removed", endpoint=number)
        self._refused.clear()
        for number, endpoint in wanted.items():
            if self._programmed.get(number) == endpoint:
                continue
            try:
                self._datapath.attach_endpoint(endpoint)
            except BpfError as error:
                self._refused.add(number)
                log.warning("endpoint refused", endpoint=number, device=endpoint.ifname, error=str(error))
                continue
            self._programmed[number] = endpoint
            log.info("endpoint attached", endpoint=number, device=endpoint.ifname, identity=endpoint.identity)


def endpoint_ids(pods: Iterable[Pod]) -> dict[str, int]:
    """Ids by the pods' uids. They follow from the uid, so a restarted agent finds the same; clashes move up by one."""
    ids: dict[str, int] = {}
    taken = {knowledge.HOST_ENDPOINT_ID}
    for uid in sorted(pod.metadata.uid for pod in pods):
        number = int.from_bytes(sha256(uid.encode()).digest()[:2], "big") or MAX_ENDPOINT_ID
        while number in taken:
            number = number % MAX_ENDPOINT_ID + 1
        taken.add(number)
        ids[uid] = number
    return ids


def ipcache_entries(state: Iterable[Mapping[str, Any]], own: Iterable[str]) -> dict[Prefix, IpcacheEntry]:
    """The kernel's form of the ipcache of state.json. What lives on another node is reached through a tunnel.

    The world is left out: a miss already means world.
    """
    here = set(own)
    entries: dict[Prefix, IpcacheEntry] = {}
    for one in state:
        if one["identity"] == identities.WORLD:
            continue
        host = one.get("host_ip")
        tunnel = ip_address(host) if host and host not in here else None
        entries[ip_network(one["prefix"])] = IpcacheEntry(identity=one["identity"], tunnel_endpoint=tunnel)
    return entries


def node_view(ipcache: Iterable[Mapping[str, Any]], endpoints: Mapping[int, Endpoint], decided: Outcome) -> NodeView:
    """What proxies have to know, from the ipcache of state.json and the policies of endpoints."""
    return NodeView(
        {
            address: view
            for number, view in decided.views.items()
            for address in (endpoints[number].ipv4, endpoints[number].ipv6)
            if address is not None and view
        },
        {ip_network(one["prefix"]): one["identity"] for one in ipcache},
    )


def _endpoint(pod: Pod, number: int, identity: int) -> Endpoint:
    network = pod.status.network
    assert network is not None
    addresses = [ip_address(address) for address in pod.ips]
    return Endpoint(
        endpoint_id=number,
        identity=identity,
        ifname=network.interface,
        pod_mac=network.mac,
        host_mac=network.host_mac,
        ipv4=next((one for one in addresses if isinstance(one, IPv4Address)), None),
        ipv6=next((one for one in addresses if isinstance(one, IPv6Address)), None),
    )
