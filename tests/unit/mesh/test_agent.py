"""The agent's rounds, with a kernel that only remembers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import cast

from bpf.datapath import Address, Datapath, Endpoint, IpcacheEntry, Prefix
from bpf.libbpf import BpfError
from bpf.policies import EndpointPolicy
from bpf.services import ServiceFrontend
from mesh.config import AgentConfig
from mesh.devices import NodeDevices
from mesh.dns.keeper import DnsNode, DnsSettings
from mesh.endpoints import endpoint_ids
from mesh.knowledge import HOST_ENDPOINT_ID
from mesh.main import Agent
from mesh.policy.nodes import FIRST as NODES_FROM
from mesh.resources.base import Resource, changed
from mesh.resources.manifests import parse_manifests
from mesh.resources.pods import Pod, PodNetwork
from mesh.store import Store
from tests.support.cluster import node, pod, settled
from tests.support.waiting import eventually_async


class Kernel:
    """Stands for bpf.datapath.Datapath."""

    def __init__(self, state_file: Path) -> None:
        self.attached: dict[int, Endpoint] = {}
        self.cache: dict[Prefix, IpcacheEntry] = {}
        self.own: set[str] = set()
        self.judged: dict[int, EndpointPolicy] = {}
        self.services: list[ServiceFrontend] = []
        self.too_many = False
        self.announced: set[str] = set()
        self.attempts = 0
        self.refuses: set[str] = set()
        self._state_file = state_file

    def endpoints(self) -> dict[int, Endpoint]:
        return dict(self.attached)

    def attach_endpoint(self, endpoint: Endpoint) -> None:
        self.attempts += 1
        known = {one["id"] for one in json.loads(self._state_file.read_text())["local_endpoints"]}
        assert endpoint.endpoint_id in known, "the observer must know a pod before its first packet"
        if endpoint.ifname in self.refuses:
            raise BpfError(f"device {endpoint.ifname} is missing")
        assert endpoint.endpoint_id in self.judged, "a pod must have its policy before it can be reached"
        self.attached[endpoint.endpoint_id] = endpoint

    def detach_endpoint(self, endpoint_id: int) -> None:
        del self.attached[endpoint_id]
        self.judged.pop(endpoint_id, None)

    def set_policies(self, policies: Mapping[int, EndpointPolicy]) -> None:
        self.judged.update(policies)

    def sync_services(self, wanted: Iterable[ServiceFrontend]) -> None:
        if self.too_many:
            raise BpfError("too many services")
        self.services = list(wanted)

    def set_announced(self, addresses: Iterable[Address]) -> None:
        self.announced = {str(one) for one in addresses}

    def sync_ipcache(self, entries: Mapping[Prefix, IpcacheEntry]) -> None:
        self.cache = dict(entries)

    def set_ipcache(self, prefix: Prefix, entry: IpcacheEntry) -> None:
        self.cache[prefix] = entry

    def delete_ipcache(self, prefix: Prefix) -> None:
        self.cache.pop(prefix, None)

    def set_host_addresses(self, addresses: Iterable[Address]) -> None:
        self.own = {str(one) for one in addresses}


class Devices:
    """Stands for the node's devices."""

    def links(self) -> dict[int, str]:
        return {1: "lo"}

    def describe(self, uplinks: Sequence[str]) -> dict[str, str]:
        return {"state": "ok", "message": f"devices {', '.join(uplinks)}"}


class Resources:
    """Stands for the store."""

    def __init__(self, resources: list[Resource]) -> None:
        self.resources = resources

    def find(self) -> list[Resource]:
        return self.resources


def wired(one: Pod, device: str) -> Pod:
    network = PodNetwork(interface=device, mac="02:00:00:00:00:01", host_mac="02:00:00:00:00:02")
    return changed(one, status=changed(one.status, network=network))


def cluster(*names: str) -> list[Resource]:
    placed = [changed(pod(name), spec=changed(pod(name).spec, node_name="kind-worker0")) for name in names]
    found = settled([node(0), node(1), *placed])
    return [wired(one, f"lxc{one.name}") if isinstance(one, Pod) else one for one in found]


def agent(folder: Path, resources: list[Resource], kernel: Kernel | None = None) -> tuple[Agent, Kernel, Resources]:
    """kernel: what an earlier agent has left."""
    state_file = folder / "state.json"
    kernel, store = kernel or Kernel(state_file), Resources(resources)
    config = AgentConfig(node="kind-worker0", state_file=str(state_file))
    made = Agent(config, node(0), cast(Store, store), cast(Datapath, kernel), cast(NodeDevices, Devices()))
    return made, kernel, store


def ready(folder: Path) -> list[str]:
    return list(json.loads((folder / "agent.json").read_text())["pods"])


def test_a_round_brings_pods_addresses_and_names_into_the_kernel(tmp_path: Path) -> None:
    made, kernel, _ = agent(tmp_path, cluster("a", "b"))
    asyncio.run(made.synchronise(7))
    assert sorted(one.ifname for one in kernel.attached.values()) == ["lxca", "lxcb"]
    assert all(one.identity == 256 for one in kernel.attached.values())
    own = {"172.18.0.2", "fc00:f853:ccd:e793::2", "10.244.0.1", "fd00:10:244::1", "10.244.0.254", "fd00:10:244::fe"}
    assert kernel.own == own
    assert str(kernel.cache[ip_network("10.244.1.1")].tunnel_endpoint) == "172.18.0.3"
    assert ready(tmp_path) == ["uid-default-a", "uid-default-b"]


def test_a_second_round_touches_nothing(tmp_path: Path) -> None:
    made, kernel, _ = agent(tmp_path, cluster("a", "b"))
    asyncio.run(made.synchronise(1))
    asyncio.run(made.synchronise(2))
    assert kernel.attempts == 2


def test_a_pod_that_is_gone_leaves_the_kernel(tmp_path: Path) -> None:
    made, kernel, store = agent(tmp_path, cluster("a", "b"))
    asyncio.run(made.synchronise(1))
    store.resources = cluster("b")
    asyncio.run(made.synchronise(2))
    assert [one.ifname for one in kernel.attached.values()] == ["lxcb"]
    assert ready(tmp_path) == ["uid-default-b"]


def test_a_refused_pod_is_not_ready_and_holds_up_no_other(tmp_path: Path) -> None:
    made, kernel, _ = agent(tmp_path, cluster("a", "b"))
    kernel.refuses = {"lxca"}
    asyncio.run(made.synchronise(1))
    assert ready(tmp_path) == ["uid-default-b"]
    kernel.refuses = set()
    asyncio.run(made.synchronise(1))
    assert ready(tmp_path) == ["uid-default-a", "uid-default-b"]


def test_a_pod_without_wires_waits(tmp_path: Path) -> None:
    resources = [
        changed(one, status=changed(one.status, network=None)) if isinstance(one, Pod) else one for one in cluster("a")
    ]
    made, kernel, _ = agent(tmp_path, resources)
    asyncio.run(made.synchronise(1))
    assert not kernel.attached
    assert ready(tmp_path) == []


def test_endpoints_of_an_earlier_agent_keep_their_ids(tmp_path: Path) -> None:
    resources = cluster("a", "b")
    made, kernel, _ = agent(tmp_path, resources)
    asyncio.run(made.synchronise(1))
    again, _, _ = agent(tmp_path, resources, kernel)
    asyncio.run(again.synchronise(2))
    assert set(kernel.attached) == set(endpoint_ids(one for one in resources if isinstance(one, Pod)).values())


POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: only-dns-servers, namespace: default}
spec:
  endpointSelector: {}
  egress:
  - toCIDR: [198.51.100.7]
    toPorts: [{ports: [{port: "53", protocol: UDP}]}]
"""


def test_a_policy_reaches_the_kernel_with_its_prefixes_and_the_observer_with_its_name(tmp_path: Path) -> None:
    made, kernel, store = agent(tmp_path, cluster("a"))
    asyncio.run(made.synchronise(1))
    [before] = [policy for number, policy in kernel.judged.items() if number != HOST_ENDPOINT_ID]
    assert not before.enforced

    store.resources = [*store.resources, *parse_manifests(POLICY)]
    asyncio.run(made.synchronise(2))

    [after] = [policy for number, policy in kernel.judged.items() if number != HOST_ENDPOINT_ID]
    [entry] = after.entries
    assert (after.enforced_ingress, after.enforced_egress) == (False, True)
    assert (entry.protocol, entry.port, entry.port_bits) == (17, 53, 16)
    assert kernel.cache[ip_network("198.51.100.7/32")].identity == entry.identity
    state = json.loads((tmp_path / "state.json").read_text())
    assert {"prefix": "198.51.100.7/32", "identity": entry.identity} in state["ipcache"]
    [shown] = [one for one in state["local_endpoints"] if one.get("policy")]
    assert (shown["policy"][0]["direction"], shown["policy"][0]["identity"]) == ("egress", entry.identity)
    assert "k8s:io.cilium.k8s.policy.name=only-dns-servers" in shown["policy"][0]["rules"][0]


def test_a_policy_that_is_gone_leaves_the_kernel_and_the_ipcache(tmp_path: Path) -> None:
    made, kernel, store = agent(tmp_path, cluster("a"))
    before = store.resources
    store.resources = [*before, *parse_manifests(POLICY)]
    asyncio.run(made.synchronise(1))
    store.resources = before
    asyncio.run(made.synchronise(2))
    assert len(kernel.judged) == 2
    assert not any(policy.enforced for policy in kernel.judged.values())
    assert ip_network("198.51.100.7/32") not in kernel.cache


HOSTS = """
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: nodes}
spec: {nodeSelector: {}, ingress: [{fromNodes: [{matchLabels: {role: db}}]}]}
"""


def test_a_policy_about_nodes_is_the_node_s_own_and_tells_other_nodes_apart(tmp_path: Path) -> None:
    made, kernel, _ = agent(tmp_path, [*cluster("a"), *parse_manifests(HOSTS)])
    asyncio.run(made.synchronise(1))
    assert {number for number, policy in kernel.judged.items() if policy.enforced} == {HOST_ENDPOINT_ID}
    told = kernel.cache[ip_network("172.18.0.3/32")]
    assert told.identity == NODES_FROM
    state = json.loads((tmp_path / "state.json").read_text())
    [known] = [one for one in state["identities"] if one["id"] == NODES_FROM]
    assert known["labels"][-1] == "reserved:remote-node"
    assert [one["id"] for one in state["local_endpoints"] if one.get("policy")] == []
    policy = json.loads((tmp_path / "agent.json").read_text())["parts"]["policy"]
    assert policy["host"] == {"ingress": True, "egress": False}


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
"""


async def test_services_reach_the_kernel_and_the_observer(tmp_path: Path) -> None:
    made, kernel, _ = agent(tmp_path, settled([*cluster("a"), *parse_manifests(SERVICE)]))
    await made.synchronise(1)
    known = {(one["ip"], one["port"]) for one in json.loads((tmp_path / "state.json").read_text())["services"]}
    assert known == {(str(one.frontend.address), one.frontend.port) for one in kernel.services}
    assert ("172.18.0.2", 30080) in known


async def test_services_that_do_not_fit_are_told_and_hold_up_nothing(tmp_path: Path) -> None:
    made, kernel, _ = agent(tmp_path, settled([*cluster("a"), *parse_manifests(SERVICE)]))
    kernel.too_many = True
    await made.synchronise(1)
    assert ready(tmp_path) == ["uid-default-a"]
    part = json.loads((tmp_path / "agent.json").read_text())["parts"]["services"]
    assert (part["state"], part["message"]) == ("failure", "too many services")


BY_NAME = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: by-name, namespace: default}
spec: {endpointSelector: {}, egress: [{toFQDNs: [{matchPattern: "*.example.com"}]}]}
"""


def test_addresses_of_names_reach_policy_and_kernel_without_a_round(tmp_path: Path) -> None:
    resources = [*cluster("a", "b"), *parse_manifests(BY_NAME)]
    made, kernel, _ = agent(tmp_path, resources)
    outside, inside = ip_address("192.0.2.1"), ip_address(next(one.ips[0] for one in resources if isinstance(one, Pod)))
    (number, *_) = endpoint_ids(one for one in resources if isinstance(one, Pod)).values()

    async def live() -> None:
        made.dns = DnsNode(tmp_path, DnsSettings(), lambda: 10_000, made.learn)
        await made.synchronise(1)
        before, attempts = dict(kernel.judged), kernel.attempts
        changed_addresses = made.dns.names.learn(number, "a.example.com.", [outside, inside], 30, 0.0)
        await made.learn(changed_addresses)
        identity = kernel.cache[ip_network(outside)].identity
        assert identity in {one.identity for one in kernel.judged[number].entries if one.egress}
        assert kernel.judged[number] != before[number]
        assert kernel.attempts == attempts
        # Who lives at an address is stronger than its names.
        assert kernel.cache[ip_network(inside)].identity == 256
        await eventually_async(lambda: "a.example.com" in (tmp_path / "state.json").read_text())
        state = json.loads((tmp_path / "state.json").read_text())
        known = next(one for one in state["local_endpoints"] if one["id"] == number)["dns"]
        assert {"ip": "192.0.2.1", "names": ["a.example.com"]} in known
        labels = ["cidr:192.0.2.1/32", "fqdn:*.example.com", "reserved:world"]
        assert {"id": identity, "labels": labels} in state["identities"]
        await made.dns.expire(lambda *_: False)
        assert ip_network(outside) not in kernel.cache
        # Policies know a number for one round longer than packets have it.
        await made.synchronise(2)
        assert kernel.judged == before

    asyncio.run(live())


def test_names_that_no_policy_means_change_nothing_in_the_kernel(tmp_path: Path) -> None:
    resources = [*cluster("a"), *parse_manifests(BY_NAME)]
    made, kernel, _ = agent(tmp_path, resources)

    async def live() -> None:
        made.dns = DnsNode(tmp_path, DnsSettings(), lambda: 10_000, made.learn)
        await made.synchronise(1)
        before, cache = dict(kernel.judged), dict(kernel.cache)
        await made.learn(made.dns.names.learn(7, "example.org.", [ip_address("192.0.2.9")], 30, 0.0))
        assert (kernel.judged, kernel.cache) == (before, cache)

    asyncio.run(live())
