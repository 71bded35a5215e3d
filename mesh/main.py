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
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import structlog

from bpf.datapath import Aggregation, Datapath, Endpoint, IpcacheEntry
from bpf.encoding import addresses_of
from bpf.libbpf import BpfError
from bpf.policies import EndpointPolicy
from mesh import identities, ipam, knowledge
from mesh.attachments import Attachments
from mesh.auth.node import AuthSettings, NodeAuthentication
from mesh.cluster import Cluster
from mesh.config import DENY_RESPONSES, LOCALHOST, NO_BACKEND, AgentConfig, check
from mesh.devices import HOST_DEVICE, OVERLAY_DEVICE, NodeDevices
from mesh.dns.keeper import DnsNode, DnsSettings
from mesh.dns.names import Address
from mesh.dns.rules import proxy_rules
from mesh.endpoints import endpoint_ids, endpoint_of, ipcache_entries, node_view
from mesh.envoy.node import EnvoyNode
from mesh.envoyconfig.node import NodeEnvoyConfigs
from mesh.leader import Lock, lead
from mesh.policy.compiling import Settings, Subject
from mesh.policy.node import NodePolicies, named_ports
from mesh.policy.outcome import Refusal
from mesh.policy.ports import ProxyPorts
from mesh.records import Records
from mesh.report import AgentReport
from mesh.resources.base import Key
from mesh.resources.cluster import Node
from mesh.services.node import NodeServices, outside_endpoints
from mesh.sockets import cgroups, serve_sockets
from mesh.state import StateFile
from mesh.store import SqliteStore, Store
from service.failure import Failure

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
    check(config)
    store = SqliteStore(Path(config.store))
    try:
        node = await _appear(store, Key("Node", "", name), stop)
        if node is None:
            return
        folder = Path(config.state_file).parent
        async with AsyncExitStack() as cleanup:
            datapath = cleanup.enter_context(Datapath(name, bpffs=Path(config.bpffs)))
            agent = Agent(config, node, store, datapath, NodeDevices(), ProxyPorts(folder / "proxy-ports.json"))
            agent.start(aggregation)
            if config.envoy:
                records = Records(config.records_socket)
                agent.envoy = EnvoyNode(folder / "envoy", name, agent.proxies.port, records)
                cleanup.callback(records.close)
                agent.configs = NodeEnvoyConfigs(node, agent.envoy, agent.proxies.port, store.accepted)
                agent.report.add("envoy", agent.envoy.status)
                agent.report.add("envoy-config", agent.configs.describe)
                await agent.envoy.start()
                cleanup.callback(agent.envoy.stop)
            agent.auth = NodeAuthentication(folder / "auth", node, store, datapath, AuthSettings.of(config))
            agent.report.add("authentication", agent.auth.status)
            agent.auth.start()
            cleanup.push_async_callback(agent.auth.stop)
            agent.dns = DnsNode(folder, DnsSettings.of(config), partial(agent.proxies.port, "dns", True), agent.learn)
            agent.report.add("dns", agent.dns.status)
            await agent.dns.start()
            cleanup.push_async_callback(agent.dns.stop)
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
        self._policies = NodePolicies(
            settings=Settings(
                mode=config.enable_policy,
                audit=config.policy_audit_mode,
                allow_localhost=config.allow_localhost == LOCALHOST[0],
            ),
            prefixes_select_nodes=bool(config.policy_cidr_match_mode),
            cluster_name=config.cluster_name,
            node_name=node.name if config.host_firewall else "",
            proxies=proxies or ProxyPorts(),
        )
        self.proxies = self._policies.proxies
        self.envoy: EnvoyNode | None = None
        """Judges requests; without it, what policies have judged there is refused by the kernel."""
        self.configs: NodeEnvoyConfigs | None = None
        """What users want of it."""
        self.dns: DnsNode | None = None
        """Judges queries; without it, the kernel refuses those that policies want judged."""
        self.auth: NodeAuthentication | None = None
        """Lets identities prove themselves; without it, the kernel drops what has to be proved first."""
        self._round = asyncio.Lock()
        self._cgroup = 0
        self._services = NodeServices(
            datapath,
            node,
            config.load_balancer_algorithm,
            open_cluster_ips=config.external_cluster_ip,
            loopback=config.socket_lb,
        )
        self._endpoints: Mapping[int, Endpoint] = {}
        self._written: Mapping[int, EndpointPolicy] = {}
        self._problems: Sequence[Refusal] = ()
        state_file = Path(config.state_file)
        self._state = StateFile(state_file, self._policies, self._names_told)
        self._attachments = Attachments(datapath)
        self.report = AgentReport(state_file.with_name("agent.json"), node.name)
        self.report.add("policy", self._policy_condition)
        self.report.add("endpoints", self._attachments.describe)
        self.report.add("services", self._services.describe)
        self.report.add("masquerade", self._services.describe_masquerade)
        self.report.add("devices", partial(devices.describe, config.devices))

    def start(self, aggregation: Aggregation) -> None:
        """Devices, programs, settings: what does not depend on pods."""
        config = self._config
        tunnel_mtu = self._devices.prepare(self._node, config.devices[0])
        self._datapath.ensure_loaded()
        self._datapath.configure(
            aggregation=aggregation,
            monitor_interval_s=config.aggregation_interval_s,
            host_endpoint_id=knowledge.HOST_ENDPOINT_ID,
            host_policy=config.host_firewall,
            reject=config.service_no_backend == NO_BACKEND[0],
            tell_denied=config.policy_deny_response == DENY_RESPONSES[1],
            tunnel_mtu=tunnel_mtu,
        )
        known = {prefix: one.identity for prefix, one in self._datapath.ipcache().items()}
        self._policies.local.restore(known)
        self._policies.nodes.restore(known)
        self._datapath.attach_overlay(OVERLAY_DEVICE)
        self._datapath.attach_host(HOST_DEVICE)
        for device in config.devices:
            self._datapath.attach_netdev(device)
        self._cgroup = serve_sockets(self._datapath, config)
        self._services.leave_as(self._node.ips if config.masquerade else ())
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
        """Try again what the kernel refused, such as a pod whose device is being made; end what has had its time."""
        while True:
            await asyncio.sleep(RETRY_S)
            if (
                self._attachments.refused
                or (self.configs is not None and self.configs.waiting)
                or (self.envoy is not None and self.envoy.is_due)
            ):
                await self.synchronise(self._store.changes(0).revision)
            elif self.envoy is not None and self.envoy.problems:
                async with self._round:
                    await self.envoy.look_again()

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
            if self.dns is not None:
                connections = await asyncio.to_thread(self._datapath.connections)
                await self.dns.expire(partial(self._is_connected, connections))

    async def synchronise(self, revision: int) -> None:
        """One round: names for the observer, proxies, addresses, endpoints; then tell whoever waits."""
        async with self._round:
            await self._synchronise(revision)

    async def _synchronise(self, revision: int) -> None:
        cluster = Cluster(self._store.find())
        facts = knowledge.Identities(cluster, self._config.cluster_name)
        pods = [one for one in knowledge.local_pods(cluster.pods(), self._node.name) if one.status.network]
        ids = endpoint_ids(pods)
        wanted = {ids[pod.metadata.uid]: endpoint_of(pod, ids[pod.metadata.uid], facts.number(pod)) for pod in pods}
        subjects = {ids[pod.metadata.uid]: Subject(facts.number(pod), named_ports(pod)) for pod in pods}
        subjects[knowledge.HOST_ENDPOINT_ID] = Subject(identities.HOST)
        self._policies.service_addresses = outside_endpoints(cluster)
        services = self._services.find(cluster)
        decided = self._policies.update(list(cluster.resources.values()), subjects, revision)
        if self.dns is not None:
            self.dns.keep_endpoints(subjects)
            self.dns.keep_selectors(self._policies.name_selectors())
            decided = self._policies.learn(self.dns.selected())
        self._tell(decided.problems)
        # The observer has to know a pod before its first packet; so its file comes before the kernel.
        links, name = self._devices.links(), self._config.cluster_name
        self._state.base = knowledge.node_state(cluster, self._node, ids, links, name, services)
        self._state.base["cgroups"] = cgroups(self._cgroup, self._node)
        self._endpoints = wanted
        state = self._state.write(decided)
        # What is to be judged comes to a proxy that knows how.
        if self.dns is not None:
            await self.dns.update(proxy_rules(decided.views, state, self._policies.name_selectors()))
        if self.envoy is not None and self.configs is not None:
            extra = await self.configs.find(cluster)
            if (remaining := self.configs.remaining(cluster)) is not None:
                # Nothing is sent to a listener that is about to go.
                self._services.write(self._services.find(cluster, remaining))
            await self.envoy.update(node_view(state["ipcache"], wanted, decided), extra)
            if redirects := await self.configs.redirects(cluster):
                services = self._services.find(cluster, redirects)
        if self._policies.names is not decided.names:
            # Some were learned meanwhile.
            decided = self._policies.learn(self._policies.names)
            state = self._state.write(decided)
        # Before any packet can have an identity, or a pod can be reached, its policy is there.
        self._datapath.set_policies(decided.policies)
        self._written = decided.policies
        self._datapath.set_host_addresses(map(ip_address, ipam.own_addresses(self._node)))
        entries = ipcache_entries(state["ipcache"], self._node.ips)
        self._datapath.sync_ipcache(self.auth.mark(entries) if self.auth is not None else entries)
        # Before endpoints go: nobody is sent to one that is not there any more.
        self._services.write(services)
        self._services.announce(cluster, self._config.devices)
        self._attachments.update(wanted)
        if self.auth is not None:
            self.auth.update(cluster, self._policies.wants_authentication(), wanted, decided.policies)
        refused = self._attachments.refused
        ready = sorted(pod.metadata.uid for pod in pods if ids[pod.metadata.uid] not in refused)
        self.report.round(revision, ready)

    def _policy_condition(self) -> dict[str, Any]:
        problems = sorted(map(str, self._problems))
        host = self._written.get(knowledge.HOST_ENDPOINT_ID, EndpointPolicy())
        limits = {"ingress": host.enforced_ingress, "egress": host.enforced_egress}
        state = {
            "mode": self._config.enable_policy,
            "audit": self._config.policy_audit_mode,
            "problems": problems,
            "refusals": [one.plain() for one in self._problems],
            "host": limits,
        }
        if problems:
            return {"state": "warning", "message": f"refused for {len(problems)} kinds of pods: {problems[0]}", **state}
        limited = " and ".join(name for name, enforced in limits.items() if enforced)
        node = f", the node's own {limited} limited" if limited else ""
        return {"state": "ok", "message": f"enforcement {self._config.enable_policy}{node}", **state}

    async def learn(self, addresses: set[Address]) -> None:
        """Addresses have other names: policy and kernel know it when this returns. Nothing else is looked at."""
        if self.dns is None or self._state.base is None:
            return
        names = dict(self._policies.names)
        for address in addresses:
            prefix = ip_network(address)
            if selectors := self.dns.selectors_of(address):
                names[prefix] = selectors
            else:
                names.pop(prefix, None)
        if names == self._policies.names:
            self._state.write_soon()
            return
        decided = self._policies.learn(names)
        self._tell(decided.problems)
        self._state.write_now_or_soon(decided)
        old = self._written
        self._datapath.set_policies({
            number: policy for number, policy in decided.policies.items() if old.get(number) is not policy
        })  # fmt: skip
        self._written = decided.policies
        for prefix in map(ip_network, addresses):
            if prefix in self._state.taken:
                continue
            if (number := decided.ipcache.get(prefix)) is not None:
                self._datapath.set_ipcache(prefix, IpcacheEntry(identity=number))
            else:
                self._datapath.delete_ipcache(prefix)
        if self.envoy is not None:
            async with self._round:
                # A round may have come between; what holds now is what counts.
                decided = self._policies.learn(self._policies.names)
                await self.envoy.update(node_view(self._state.of(decided)["ipcache"], self._endpoints, decided))

    def _names_told(self, endpoint: int) -> Mapping[Address, Sequence[str]]:
        return self.dns.names.of_endpoint(endpoint) if self.dns is not None else {}

    def _is_connected(self, connections: set[tuple[Address, Address]], endpoint: int, address: Address) -> bool:
        if endpoint == knowledge.HOST_ENDPOINT_ID:
            own = list(map(ip_address, ipam.own_addresses(self._node)))
        else:
            mine = self._endpoints.get(endpoint)
            own = addresses_of(mine) if mine is not None else []
        return any((one, address) in connections for one in own)

    def _tell(self, problems: Sequence[Refusal]) -> None:
        for problem in problems:
            if problem not in self._problems:
                log.warning("policy refused", reason=str(problem))
        self._problems = tuple(problems)
