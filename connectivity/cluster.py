"""Who there is to ask and to be asked: pods, nodes, services, the world outside.

In:        lab.json and the resource store of a running lab.
Out:       Parties (who can act) and Targets (what can be asked).
Elsewhere: lab/ runs the cluster; actions.py makes parties act.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bpf.datapath import Aggregation
from cli.mesh.place import Place as Files
from cli.mesh.settling import await_agents
from lab.execute import node_place, outside_place, pod_place, running_state
from lab.linux import Place
from lab.rundir import RunDir
from mesh.resources.base import Key, Resource
from mesh.resources.services import Service
from mesh.store import SqliteStore
from service.failure import Failure

NAMESPACE: Final = "cilium-test"
CLIENTS: Final = ("client", "client2")
ECHOES: Final = ("echo-same-node", "echo-other-node")
OTHER_NAMESPACE: Final = "cilium-test-other"
"""Of more clients and echo pods, in tests that bring them."""
POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Somebody who can run a command."""

    name: str
    place: Place
    addresses: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    node: str = ""

    @property
    def ipv4(self) -> str:
        return self.addresses[0]

    def has(self, **labels: str) -> bool:
        """Whether it carries these labels."""
        return labels.items() <= self.labels.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that can be asked."""

    name: str
    """For people: namespace/pod (address:port), a URL, ..."""
    kind: str
    """pod, service, nodeport, world, host, ingress."""
    host: str
    """Name or address for the URL, or to ping."""
    port: int = 0
    scheme: str = "http"
    path: str = "/"
    peers: tuple[str, ...] = ()
    """Addresses of who answers, where known."""
    labels: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    options: tuple[str, ...] = ()
    """More options for curl."""

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    def has(self, **labels: str) -> bool:
        """Whether the pod behind it carries these labels."""
        return labels.items() <= self.labels.items()


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What stands for the internet."""

    name: str = "one.one.one.one"
    address: str = "192.0.2.1"
    other_address: str = "192.0.2.2"
    cidr: str = "192.0.2.0/24"


class ClusterView:
    """A running lab, as the test sees it."""

    def __init__(self, run_dir: Path, world: World) -> None:
        """Raises: Failure when no lab runs there."""
        self.run_dir = RunDir(run_dir)
        self.world = world
        self.state: dict[str, Any] = running_state(self.run_dir)
        self.store = SqliteStore(self.run_dir.store)
        self.name = str(self.state.get("outside", "")).removeprefix("fs-").removesuffix("-outside") or "kind"

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()

    def refresh(self) -> None:
        """Look again."""
        self.state = running_state(self.run_dir)

    @property
    def aggregates(self) -> bool:
        """Whether kernels leave packets of connections out of what they tell."""
        return Aggregation.parse(str(self.state.get("aggregation", ""))) > Aggregation.NONE

    def pods(self, *deployments: str, namespace: str = NAMESPACE) -> list[Party]:
        """The pods of these deployments, in the order of the names."""
        found = []
        for deployment in deployments:
            for pod in self.state.get("pods", ()):
                if pod["namespace"] == namespace and pod["deployment"] == deployment and pod["ready"]:
                    found.append(
                        Party(
                            name=f"{namespace}/{pod['name']}",
                            place=pod_place(pod),
                            addresses=tuple(pod["ips"]),
                            labels=pod["labels"],
                            node=pod["node"],
                        )
                    )
        return found

    def clients(self) -> list[Party]:
        return self.pods(*CLIENTS)

    def echoes(self) -> list[Party]:
        return self.pods(*ECHOES)

    def nodes(self) -> list[Party]:
        """The nodes, as who can act and be asked."""
        return [
            Party(
                name=node["name"],
                place=node_place(self.run_dir, self.state, node["name"]),
                addresses=tuple(node["ips"]),
                node=node["name"],
            )
            for node in self.state.get("nodes", ())
        ]

    def outside(self) -> Party:
        """The world outside the cluster, as who can act."""
        return Party(name="outside", place=outside_place(self.run_dir, self.state), addresses=("172.18.0.1",))

    def services(self) -> list[Service]:
        """Services of the echo pods."""
        found = [one for one in self.store.find("Service", NAMESPACE) if isinstance(one, Service)]
        return [one for one in found if one.name in ECHOES]

    def wait(self, done: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Raises: Failure when it does not come true in time."""
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise Failure(f"{what} is not ready after {timeout_s:.0f} s; see `flowscope mesh status`")
            time.sleep(POLL_S)
            self.refresh()

    @contextmanager
    def applied(self, resources: Sequence[Resource], timeout_s: float) -> Iterator[None]:
        """Resources for as long as the body runs; every node has taken them over, and has forgotten them after."""
        self.store.apply(resources)
        try:
            self.settle(timeout_s)
            self._await_pods(resources, timeout_s)
            self._await_balancers(resources, timeout_s)
            yield
        finally:
            self.store.delete(one.key for one in resources)
            self.settle(timeout_s)

    def _await_pods(self, resources: Sequence[Resource], timeout_s: float) -> None:
        for one in resources:
            if one.kind == "Deployment":
                self.wait(lambda one=one: bool(self.pods(one.name, namespace=one.namespace)), one.name, timeout_s)  # type: ignore[misc]

    def _await_balancers(self, resources: Sequence[Resource], timeout_s: float) -> None:
        """Until the Ingress has an address and a node speaks for it."""
        for one in resources:
            if one.kind == "Ingress":
                name = f"cilium-ingress-{one.name}"
                self.wait(lambda name=name: self._is_announced(self.balancer_address(name)), name, timeout_s)  # type: ignore[misc]

    def _is_announced(self, address: str) -> bool:
        return bool(address) and self.is_reached(self.outside(), f"http://{address}/")

    def is_reached(self, client: Party, url: str) -> bool:
        """Whether a client gets some answer."""
        command = ["curl", "-s", "-o", "/dev/null", "-m", "1", url]
        return not subprocess.run(command, preexec_fn=client.place.enter, check=False).returncode

    def balancer_address(self, name: str) -> str:
        """The load balancer address of a service; empty while it has none."""
        found = self.store.get(Key("Service", NAMESPACE, name))
        addresses = found.balancer_ips if isinstance(found, Service) else ()
        return addresses[0] if addresses else ""

    def settle(self, timeout_s: float) -> None:
        """Wait until every agent has done what the store says. Raises: Failure."""
        await_agents(Files(self.run_dir.store, self.run_dir.path), self.store, timeout_s)
