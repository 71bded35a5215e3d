"""The observer's process: puts the parts together, serves until told to stop.

In:        an ObserverConfig, the stop and reload events of service.run.
Out:       a served socket; exit by return, or Failure with one line that names the remedy.
Elsewhere: every part has its own module; this one only wires them and ends them in the right order.
"""

from __future__ import annotations

import asyncio
import gc
import secrets
import socket
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from model.decode import Decoder
from model.knowledge import Knowledge
from model.ring import InvalidCapacity, Ring, check_capacity
from model.tables import Node
from observer.config import ObserverConfig
from observer.cost import CostService, PinnedPrograms
from observer.namespaces import Namespaces
from observer.peers import PeerEntry, Peers, PeerService
from observer.pipeline import Pipeline
from observer.recorder import Recorder
from observer.recording import Hello
from observer.records_socket import RecordsSocket
from observer.service import VERSION, ColumnsService, ObserverService, Shared
from observer.sources import Replay, Source
from observer.state import BrokenState, NodeState, StateFile, parse_state
from rpc.server import Server
from rpc.target import Target
from rpc.tls import ServerTls, node_server_name
from service.failure import Failure

log = structlog.get_logger(component="observer")

REPORT_S: Final = 60.0
"""How often losses and undecodable events are summed up in the log, if there were any."""


async def serve(config: ObserverConfig, stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Run an observer until `stop`.

    Raises: Failure.
    """
    _check(config)
    async with AsyncExitStack() as opened:
        observer = await _open(config, opened)
        # What lives now lives for good: it need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(work) for work in observer.works(reload)]
            await stop.wait()
            for task in running:
                task.cancel()


def _check(config: ObserverConfig) -> None:
    """Refuse settings that cannot work, before anything is opened."""
    try:
        check_capacity(config.ring_flows)
    except InvalidCapacity as error:
        raise Failure(f"{error}; set --ring-flows") from error
    if config.events not in ("kernel", "none"):
        raise Failure(f"unknown event source {config.events!r}; set --events to kernel or none")
    if config.queue_events < 1:
        raise Failure(f"--queue-events must be at least 1, got {config.queue_events}")
    if not config.listen:
        raise Failure("nothing to serve on; set --listen, for example unix:///run/flowscope/observer/observer.sock")
    if bool(config.tls_cert_file) != bool(config.tls_key_file):
        raise Failure("TLS needs both --tls-cert-file and --tls-key-file")


async def _open(config: ObserverConfig, opened: AsyncExitStack) -> _Observer:
    """Put the parts together. What has to be closed is put on `opened`, and closed in the opposite order.

    Raises: Failure.
    """
    identity = _Identity(config, *_first_state(config))
    node = identity.node()
    ring = Ring(config.ring_flows)
    namespaces = Namespaces(ring, "" if config.cluster_name == "default" else config.cluster_name)
    recorder = None
    if config.record:
        recorder = Recorder(config.record)
        recorder.offer(Hello(node.name, node.labels))
        opened.push_async_callback(asyncio.to_thread, recorder.close)
    source = _open_source(config, node.name)
    decoder = Decoder(ring.tables, identity.state.knowledge, ring.tables.nodes.intern(node))
    pipeline = Pipeline(ring, decoder, node, namespaces, queue_events=config.queue_events, recorder=recorder)
    pipeline.set_state(identity.state)
    if config.records_socket:
        opened.callback(RecordsSocket(config.records_socket, pipeline.receive).close)
    shared = Shared(
        ring=ring,
        bell=pipeline.bell,
        namespaces=namespaces,
        node_name=lambda: pipeline.node.name,
        node_index=lambda: pipeline.node_index,
        started_ns=time.monotonic_ns(),
    )
    peers = Peers()
    programs = PinnedPrograms(_pin_dir(config, node.name)) if _reads_kernel(config) else None
    if programs is not None:
        opened.callback(programs.close)
    cost = CostService(shared.node_name, shared.started_ns, programs)
    server = Server(
        [ObserverService(shared), ColumnsService(shared), PeerService(peers), cost],
        metadata={"hubble-server-version": VERSION, "flowscope-columns": "1"},
    )
    # Open streams get half of the time that the process has to end.
    opened.push_async_callback(server.close, config.drain_s / 2)
    opened.callback(pipeline.bell.stop)
    tls = _tls(config)
    identity.addresses = [await server.listen(one, tls=tls, insecure=config.insecure) for one in config.listen]
    peers.set(identity.peers())
    return _Observer(identity, pipeline, peers, namespaces, source)


def _first_state(config: ObserverConfig) -> tuple[NodeState, StateFile | None]:
    """What the node knows at first: the state file, or what a recording says of its node."""
    nothing = NodeState(b"{}", Knowledge.from_json({}))
    if config.replay:
        hello, recorded = Replay(config.replay).preview()
        state = nothing
        if recorded is not None:
            with suppress(BrokenState):
                state = parse_state(recorded.text)
        if hello is not None and not state.node_name:
            state = replace(state, node_name=hello.node, node_labels=hello.labels)
        return state, None
    if not config.state_file:
        return nothing, None
    file = StateFile(config.state_file)
    return file.read() or nothing, file


class _Identity:
    """Who this node is, from the settings and the state."""

    def __init__(self, config: ObserverConfig, state: NodeState, file: StateFile | None) -> None:
        self.state = state
        self.file = file
        self.addresses: list[str] = []
        """Where we serve."""
        self._config = config
        self._boot = secrets.randbits(64)

    def node(self) -> Node:
        """This node."""
        config = self._config
        name = config.node_name or self.state.node_name or socket.gethostname()
        if "/" not in name and config.cluster_name not in ("", "default"):
            name = f"{config.cluster_name}/{name}"
        return Node(name, self.state.node_labels, self._boot, VERSION)

    def peers(self) -> list[PeerEntry]:
        """This node and the others that relays should know of."""
        config = self._config
        own_name = self.node().name
        cluster, _, name = own_name.rpartition("/")
        address = config.advertise or self.addresses[0]
        has_tls = bool(config.tls_cert_file) and Target.parse(address).kind == "tcp"
        own = PeerEntry(own_name, address, node_server_name(name, cluster) if has_tls else "")
        return [*self.state.peers, *map(_peer, config.peers), own]


@dataclass(frozen=True, slots=True)
class _Observer:
    """The parts that something happens to while the observer runs."""

    identity: _Identity
    pipeline: Pipeline
    peers: Peers
    namespaces: Namespaces
    source: Source | None

    def works(self, reload: asyncio.Event) -> Iterator[Coroutine[Any, Any, None]]:
        """What runs until the observer stops."""
        yield self._report()
        yield self._reload(reload)
        if self.source is not None:
            yield self.pipeline.run(self.source)
        if self.identity.file is not None:
            yield self.identity.file.follow(self._take_state)

    def _take_state(self, state: NodeState) -> None:
        self.identity.state = state
        self.pipeline.set_state(state)
        self.pipeline.set_node(self.identity.node())
        self.peers.set(self.identity.peers())

    async def _reload(self, reload: asyncio.Event) -> None:
        """SIGHUP: read the state file again. Certificates are followed by themselves."""
        while True:
            await reload.wait()
            reload.clear()
            log.info("reloading")
            if self.identity.file is not None:
                self.identity.file.reload()

    async def _report(self) -> None:
        """Once a minute: sum up in the log what went wrong, if anything did."""
        told: Counter[str] = Counter()
        while True:
            await asyncio.sleep(REPORT_S)
            self.namespaces.look()
            now = Counter(self.pipeline.errors)
            if self.pipeline.dropped:
                now["queue_full"] = self.pipeline.dropped
            if news := now - told:
                log.warning("events that became no flow", **news)
                told = now


def _peer(text: str) -> PeerEntry:
    name, equals, address = text.partition("=")
    if not equals or not name:
        raise Failure(f"peer {text!r} is not name=address; write --peers node-2=10.0.0.2:4244")
    return PeerEntry(name, address)


def _tls(config: ObserverConfig) -> ServerTls | None:
    if not config.tls_cert_file:
        return None
    return ServerTls(
        cert_file=config.tls_cert_file, key_file=config.tls_key_file, client_ca_files=config.tls_client_ca_files
    )


def _open_source(config: ObserverConfig, node_name: str) -> Source | None:
    if config.replay:
        return Replay(
            config.replay,
            speed=config.replay_speed,
            loops=config.replay_loops,
            original_times=config.replay_original_times,
            period_s=config.replay_period_s,
        )
    if not _reads_kernel(config):
        return None
    # Replay and tests do without libbpf.
    from observer.kernel import Kernel

    return Kernel(_pin_dir(config, node_name), config.perf_buffer_kib)


def _reads_kernel(config: ObserverConfig) -> bool:
    return config.events == "kernel" and not config.replay


def _pin_dir(config: ObserverConfig, node_name: str) -> Path:
    """Where the agent of this node pins maps and programs."""
    return Path(config.pin_dir or f"/sys/fs/bpf/flowscope/{node_name.rpartition('/')[2]}")
