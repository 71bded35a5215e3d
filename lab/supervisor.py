"""The lab's supervisor: one process that makes the cluster, keeps it running and takes it down.

In:        LabOptions; the resource store, which `lab apply` writes to; SIGTERM.
Out:       namespaces, pods, an agent and an observer per node, relay and UI; lab.json for the command line.
Elsewhere: pods.py runs pods, network.py makes wires, cleanup.py removes whatever is left.

One loop, one thread. It plays the parts of Kubernetes that decide (through mesh.controller), and of the machines.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from cli.mesh.inputs import read_documents, read_text
from lab import images
from lab.cgroups import make_cgroup
from lab.checks import answers
from lab.cleanup import clean
from lab.cluster import Cluster as KindCluster
from lab.cluster import read_kind_config
from lab.linux import mount, raise_limit
from lab.names import node_netns, outside_netns
from lab.network import Network, foreign_namespaces
from lab.options import STOP_S, SYSTEM, LabOptions
from lab.pods import Observed, Pods, dns_pods, dns_servers, place_files, programmed, report_status, write_etc
from lab.process import Process, Program
from lab.programs import Programs
from lab.rundir import RunDir
from mesh.leader import Lock, decide
from mesh.names import workload
from mesh.namespaces import DEFAULT_NAMESPACES
from mesh.resources.base import Metadata, Resource
from mesh.resources.cluster import Namespace, Node
from mesh.resources.mistakes import InvalidResource
from mesh.resources.pods import Pod
from mesh.resources.services import Service
from mesh.services.kinds import METALLB
from mesh.store import SqliteStore
from service.failure import Failure
from service.run import run

LOOK_S: Final = 0.05
"""How often the supervisor looks while something is not ready yet; four times as rarely once the lab was ready."""
POOLS_NAMESPACE: Final = METALLB[0]
"""Exists as if MetalLB were installed, so that its pools can be applied."""
INOTIFY_INSTANCES: Final = 1024
"""Each Envoy needs ten, and Linux gives all processes of a user 128."""
GIVE_UP_RESTARTS: Final = 3
"""A process that falls so often before the lab is ready will not get better."""

log = structlog.get_logger(component="lab")


async def supervise(options: LabOptions, stop: asyncio.Event) -> None:
    """Make a lab, keep it until `stop`, take it down. Raises: Failure; what was made is removed then, too."""
    run_dir = RunDir(Path(options.run_dir))
    run_dir.create()
    if not run_dir.lock():
        raise Failure("another lab is running; see `flowscope lab status`, end it with `flowscope lab down`")
    reason: Failure | None = None
    try:
        cluster, resources = read_inputs(options)
        refuse_foreign(run_dir, cluster)
        clean(run_dir)
        run_dir.create()
        lab = Supervisor(options, run_dir, cluster)
        try:
            lab.prepare(resources)
            await lab.serve(stop)
        finally:
            await lab.take_down()
    except* (Failure, InvalidResource) as group:
        first = _first(group)
        reason = first if isinstance(first, Failure) else Failure(str(first))
        # What `lab up` prints; it is waiting for a state.
        run_dir.write_state({"phase": "failed", "message": str(reason)})
    finally:
        run_dir.unlock()
    if reason is not None:
        raise reason


def refuse_foreign(run_dir: RunDir, cluster: KindCluster) -> None:
    """Raises: Failure when a namespace of somebody else has one of our names."""
    wanted = [outside_netns(cluster.name), *(node_netns(node.name) for node in cluster.nodes)]
    if foreign := foreign_namespaces(wanted, run_dir.recorded_netns()):
        raise Failure(
            f"network namespace {foreign[0]} is in the way and not of this lab;"
            f" `lab down` of the lab that made it, or `ip netns delete {foreign[0]}`, removes it"
        )


class Supervisor:
    """The lab while it runs."""

    def __init__(self, options: LabOptions, run_dir: RunDir, cluster: KindCluster) -> None:
        self._options = options
        self._run_dir = run_dir
        self._cluster = cluster
        self._network = Network(run_dir, cluster.name)
        self._programs = Programs(options, run_dir, outside_netns(cluster.name))
        self._changed = asyncio.Event()
        self._services: dict[str, Process] = {}
        self._nodes: dict[str, Node] = {}
        self._store = SqliteStore(run_dir.store)
        self._pods = Pods(run_dir, self._network, self._changed.set, self._store)
        self._lead = Lock(run_dir.store)
        self._phase = "starting"
        self._began = time.monotonic()

    def prepare(self, resources: Sequence[Resource]) -> None:
        """Network, BPF file system, content of the store: what processes need to start. Raises: Failure."""
        self._write_state()
        if (before := raise_limit("fs/inotify/max_user_instances", INOTIFY_INSTANCES)) is not None:
            log.info("raised fs.inotify.max_user_instances", before=before, now=INOTIFY_INSTANCES)
        mount("bpffs", str(self._run_dir.bpffs), "bpf", 0)
        self._network.make_outside()
        for number, node in enumerate(self._cluster.nodes):
            self._network.make_node(node, number)
            make_cgroup(node_netns(node.name))
            self._run_dir.node(node.name).mkdir(exist_ok=True)
        spaces = [_namespace(name) for name in (*DEFAULT_NAMESPACES, POOLS_NAMESPACE)]
        self._store.apply([*spaces, *self._cluster.nodes, *resources])
        self._nodes = {one.name: one for one in self._store.find("Node") if isinstance(one, Node)}
        log.info("network ready", nodes=len(self._nodes), seconds=round(time.monotonic() - self._began, 2))

    async def serve(self, stop: asyncio.Event) -> None:
        """Run everything until `stop`. Raises: Failure when something does not come up."""
        # Before the first agent starts: they would decide in our place.
        if not self._lead.take():
            raise Failure(f"somebody else decides for the resource store {self._run_dir.store}; end that agent")
        self._start(self._programs.world())
        for node in self._nodes.values():
            self._start(self._programs.agent(node.name))
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(self._follow(), name="follow"),
                tasks.create_task(self._look(), name="look"),
            ]
            await stop.wait()
            for task in work:
                task.cancel()

    async def _follow(self) -> None:
        """After each change of the store: decide what follows, then make it so."""
        async for changes in self._store.watch():
            if self._decide():
                continue  # our own change wakes us again
            resources = self._store.find()
            pods = [one for one in resources if isinstance(one, Pod)]
            servers = dns_servers(one for one in resources if isinstance(one, Service))
            await self._pods.synchronise(pods, self._nodes, servers, changes.revision)
            self._write_place_files(dns_pods(resources))
            self._changed.set()

    def _decide(self) -> bool:
        """What controllers decide; says whether anything was written. Raises: Failure, while the lab is coming up."""
        try:
            return decide(self._store, self._lead)
        except Failure as failure:
            if self._phase == "starting":
                raise
            log.error("cannot decide what follows from the resources", reason=str(failure))
            return False

    async def _look(self) -> None:
        """Find out what has become ready, start what depends on it, tell the store and lab.json."""
        while True:
            self._changed.clear()
            waiting = self._check_pods() + self._check_services()
            if not waiting and self._phase == "starting":
                self._phase = "ready"
                log.info("lab ready", seconds=round(time.monotonic() - self._began, 2))
            if self._phase == "starting":
                self._give_up()
            self._write_state(waiting)
            with suppress(TimeoutError):
                pause_s = LOOK_S if self._phase == "starting" else 4 * LOOK_S
                async with asyncio.timeout(pause_s if waiting else None):
                    await self._changed.wait()

    def _check_pods(self) -> list[str]:
        """Pods that are not ready; the store learns who is."""
        done = {uid for node in self._nodes for uid in programmed(self._run_dir, node)}
        seen, waiting = {}, []
        for uid, sandbox in self._pods.sandboxes.items():
            pod, end = sandbox.pod, sandbox.ended()
            lacks = sandbox.lacks()
            if lacks is None and uid not in done and not pod.spec.host_network:
                lacks = "its node's kernel does not know it yet"
            begun = lacks is None or pod.status.phase == "Running"
            found = Observed(sandbox.network, lacks is None, end or ("Running" if begun else "Pending"))
            if found.differs(pod):
                seen[uid] = found
            if lacks and not end and not pod.is_leaving:
                waiting.append(f"pod {pod.namespace}/{pod.name} ({lacks})")
        if seen:
            report_status(self._store, seen)
        unplaced = [one for one in self._store.find("Pod") if isinstance(one, Pod) and not one.status.pod_ips]
        return waiting + [f"pod {one.namespace}/{one.name} (no node will do)" for one in unplaced]

    def _check_services(self) -> list[str]:
        """Observers need their node's maps, the relay needs observers, the UI needs the relay."""
        waiting, made = [], self._programs
        for node in self._nodes:
            if not (self._run_dir.node(node) / "agent.json").exists():
                waiting.append(f"agent of {node}")
            elif not (self._have(f"{node}_observer", partial(made.observer, node)) and answers(made.socket(node))):
                waiting.append(f"observer of {node}")
        if waiting:
            return waiting
        for name, listen, make in (
            ("relay", self._options.relay_listen, partial(made.relay, self._nodes)),
            ("ui", self._options.ui_listen, made.ui),
        ):
            if listen and not (self._have(name, make) and answers(listen)):
                waiting.append(f"{name} on {listen}")
        return waiting

    def _have(self, name: str, make: Callable[[], Program]) -> bool:
        """Start a service if it was not started yet; True once it runs."""
        if name not in self._services:
            self._start(make())
        return self._services[name].pid is not None

    def _start(self, program: Program) -> None:
        process = Process(program, self._run_dir.logs / f"{program.name}.log", self._changed.set)
        self._services[program.name] = process
        process.start()

    def _write_place_files(self, servers: Sequence[str]) -> None:
        """/etc files of nodes and of the outside world, for `lab exec`."""
        nodes = {node.name: node.ips[0] for node in self._nodes.values()}
        for name in nodes:
            write_etc(self._run_dir.node(name) / "etc", place_files(name, nodes, servers))
        write_etc(self._run_dir.path / "outside" / "etc", place_files("outside", nodes, ()))

    def _give_up(self) -> None:
        """Stop waiting for something that keeps falling."""
        for process in self._services.values():
            if process.restarts >= GIVE_UP_RESTARTS:
                raise Failure(f"{process.program.name} does not stay up: {_last_line(process.log_file)}")

    def _write_state(self, waiting: Sequence[str] = ()) -> None:
        self._run_dir.write_state(
            {
                "phase": self._phase,
                "pid": os.getpid(),
                "waiting": list(waiting),
                "relay": self._options.relay_listen,
                "ui": self._options.ui_listen,
                "aggregation": self._options.aggregation,
                "outside": outside_netns(self._cluster.name),
                "nodes": [
                    {"name": node.name, "netns": node_netns(node.name), "ips": list(node.ips)}
                    for node in self._nodes.values()
                ],
                "pods": [self._pod_state(uid) for uid in self._pods.sandboxes],
                "processes": [
                    {"name": name, "pid": one.pid, "restarts": one.restarts} for name, one in self._services.items()
                ],
            }
        )

    def _pod_state(self, uid: str) -> dict[str, Any]:
        sandbox = self._pods.sandboxes[uid]
        pod, place = sandbox.pod, sandbox.place
        kind, owner = workload(pod)
        return {
            "namespace": pod.namespace,
            "name": pod.name,
            "deployment": owner if kind == "Deployment" else "",
            "labels": dict(pod.metadata.labels),
            "node": pod.spec.node_name,
            "ips": list(pod.ips),
            "ready": pod.status.ready,
            "restarts": sandbox.restarts,
            "netns": place.netns,
            "hostname": place.hostname,
            "etc": str(place.etc) if place.etc else None,
        }

    async def take_down(self) -> None:
        """Children first, so that each can finish; then whatever else there is."""
        self._phase = "stopping"
        with suppress(OSError):
            self._write_state()
        late = [one for name, one in self._services.items() if name in ("ui", "relay")]
        await asyncio.gather(*(one.stop(STOP_S) for one in late))
        rest = [one for one in self._services.values() if one not in late]
        await asyncio.gather(self._pods.stop(), *(one.stop(STOP_S) for one in rest))
        self._lead.release()
        self._store.close()
        clean(self._run_dir)
        log.info("lab is down")


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _namespace(name: str) -> Namespace:
    return Namespace(api_version="v1", kind="Namespace", metadata=Metadata(name=name))


def read_inputs(options: LabOptions) -> tuple[KindCluster, list[Resource]]:
    """The cluster and what is to run in it. Raises: Failure, InvalidResource."""
    cluster = read_kind_config(read_text(options.config), options.config)
    documents = read_documents((*map(str, SYSTEM), *options.manifests), (), checks=(images.check_image,))
    return cluster, [one.resource for one in documents]


def _last_line(path: Path) -> str:
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return f"{lines[-1].removeprefix('flowscope: ') if lines else 'no output'} (log: {path})"


def main(arguments: Sequence[str]) -> int:
    """`python -m lab.supervisor OPTIONS`, as `lab up` starts it."""
    options = LabOptions.from_json(arguments[0])

    async def serve(config: LabOptions, stop: asyncio.Event, _reload: asyncio.Event) -> None:
        await supervise(config, stop)

    return run(serve, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
