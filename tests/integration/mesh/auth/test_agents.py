"""Two nodes with real packets: what passes, and when, is a matter of two agents' handshakes."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bpf.datapath import OBJECTS
from bpf.policies import EndpointPolicy, PolicyEntry
from mesh.auth.documents import CertificateSigningRequest
from mesh.cluster import Cluster
from mesh.knowledge import Identities
from mesh.resources.base import Resource, changed
from mesh.resources.manifests import parse_manifest
from mesh.resources.pods import Pod as PodResource
from mesh.store import SqliteStore
from tests.support.authnet import AuthAgent, expire_now, has_record
from tests.support.cluster import pod, settled
from tests.support.policynet import client_socket
from tests.support.testnet import Network, Node, Pod, network
from tests.support.traffic import open_socket
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

PORT = 8080
SOON_S = 60.0
"""Nothing here takes that long, unless the machine has other things to do."""
DENIED_S = 0.3
REQUIRED = EndpointPolicy((PolicyEntry(False, 0, auth=0x81),), enforced_ingress=True)
PODS = {"server": 1, "client": 1, "far": 2}
"""Pods and the numbers of their nodes."""


class World:
    """Two nodes; `server` wants proofs, `client` is its neighbour, `far` is not."""

    def __init__(self, net: Network, folder: Path) -> None:
        self.net = net
        self.nodes: list[Node] = [net.add_node(), net.add_node()]
        self.resources = resources = settled([*(node_resource(one) for one in self.nodes), *map(placed, PODS)])
        facts = Identities(Cluster(resources), "default")
        self.identities = {one.name: facts.number(one) for one in resources if isinstance(one, PodResource)}
        self.pods: dict[str, Pod] = {}
        for number, (name, node) in enumerate(PODS.items(), 1000):
            self.pods[name] = self.nodes[node - 1].add_pod(number, self.identities[name])
        net.share_ipcache()
        self.store = SqliteStore(folder / "store")
        self.store.apply(resources)
        self.agents = [AuthAgent(one, name_of(one), folder) for one in self.nodes]
        policies = {self.pods["server"].endpoint.endpoint_id: REQUIRED}
        self.near.datapath.set_policies(policies)
        self.agents[0].policies = policies

    @property
    def near(self) -> Node:
        return self.nodes[0]

    def connects(self, client: str, timeout_s: float = SOON_S) -> bool:
        """Whether the server can be reached; TCP sends again meanwhile."""
        server = self.pods["server"]
        with (
            open_socket(server.netns, socket.SOCK_STREAM, "0.0.0.0", PORT),
            client_socket(self.pods[client].netns, server.ipv4) as sock,
        ):
            sock.settimeout(timeout_s)
            try:
                sock.connect((server.ipv4, PORT))
            except OSError:
                return False
            return True

    def has_record(self, client: str) -> bool:
        return has_record(self.near, self.identities["server"], self.identities[client])


def name_of(node: Node) -> str:
    return f"node{node.number}"


def node_resource(node: Node) -> Resource:
    address = {"type": "InternalIP", "address": str(node.address)}
    return parse_manifest(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name_of(node)},
            "spec": {"podCIDRs": [f"10.244.{node.number}.0/24"]},
            "status": {"addresses": [address]},
        }
    )


def placed(name: str) -> Resource:
    one = pod(name, "default", app=name)
    return changed(one, spec=changed(one.spec, node_name=f"node{PODS[name]}"))


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    folder = tmp_path_factory.mktemp("agents")
    with ExitStack() as stack:
        made = World(stack.enter_context(network(folder)), folder)
        stack.callback(made.store.close)
        yield made


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """With both agents running, and without records and questions."""
    shared_world.store.apply(shared_world.resources)
    for agent in shared_world.agents:
        agent.start()
    yield shared_world
    for agent in shared_world.agents:
        agent.kill()
    table = shared_world.near.datapath.auth()
    table.revoke(table.records())
    table.answer(table.wanted())


def test_packets_pass_once_both_agents_have_proved_their_pods(world: World) -> None:
    assert world.connects("far")
    assert world.has_record("far")
    assert not world.has_record("client"), "nobody has asked"
    assert world.connects("client")
    eventually(lambda: world.agents[0].status()["records"] == 2, SOON_S)
    assert world.agents[0].status()["state"] == "ok"
    assert world.agents[1].status()["answered"]["proved"] >= 1

    # A record that is used is made again when it is over.
    expire_now(world.near)
    assert world.connects("far")

    # Another agent comes back to the same records, and shakes no hands for them.
    world.agents[0].kill()
    assert world.has_record("far")
    assert world.connects("far")
    before = world.near.datapath.auth().records()
    world.agents[0].start()
    assert world.connects("far")
    assert world.near.datapath.auth().records() == before
    requests = [one for one in world.store.find() if isinstance(one, CertificateSigningRequest)]
    assert sorted(one.name for one in requests) == sorted(
        f"node{node}.{world.identities[name]}" for name, node in PODS.items()
    )


def test_without_the_other_agent_packets_stay_dropped_and_it_is_said_why(world: World) -> None:
    world.agents[1].kill()
    assert not world.connects("far", DENIED_S)
    eventually(lambda: world.agents[0].status()["state"] == "warning", SOON_S)
    said = world.agents[0].status()["message"]
    pair = f"{world.identities['server']} with {world.identities['far']} on node2"
    assert said.startswith(f"not authenticated: {pair}: the agent at 172.18.0.2:4250 cannot be reached: ")
    assert not world.has_record("far")
    assert world.connects("client"), "others are not concerned"
    world.agents[1].start()
    assert world.connects("far")
    eventually(lambda: world.agents[0].status()["state"] == "ok", SOON_S)


def test_an_agent_that_was_killed_while_it_was_asked_is_asked_again(world: World) -> None:
    world.agents[0].kill()
    assert not world.connects("far", DENIED_S)
    assert world.near.datapath.auth().wanted(), "the question waits in the kernel"
    world.agents[0].start()
    eventually(lambda: world.has_record("far"), SOON_S)
    assert world.connects("far")


def test_records_go_with_the_pods_they_are_about(world: World) -> None:
    assert world.connects("far")
    assert world.has_record("far")
    far = f"{world.identities['far']}"
    keys = [one.key for one in world.store.find() if one.name in ("far", far)]
    world.store.delete(keys, at_once=True)
    eventually(lambda: not world.has_record("far"), SOON_S)
    assert not world.connects("far", DENIED_S)
