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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from model.decode import Decoder
from model.knowledge import Knowledge
from model.ring import InvalidCapacity, Ring, check_capacity
from model.tables import Node
from observer.config import ObserverConfig
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
    observer = _Observer(config)
    try:
        await observer.start()
        async with asyncio.TaskGroup() as tasks:
            running = observer.start_tasks(tasks, reload)
            await stop.wait()
            for task in running:
                task.cancel()
    finally:
        await observer.close()


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


class _Observer:
    """The parts of one running observer."""

    def __init__(self, config: ObserverConfig) -> None:
        self._config = config
        self._source: Source | None = None
        self._recorder: Recorder | None = None
        self._records: RecordsSocket | None = None
        self._state_file: StateFile | None = None
        self._addresses: list[str] = []
        self._state = NodeState(b"{}", Knowledge.from_json({}))
        self._peers = Peers()
        self._boot = secrets.randbits(64)

    async def start(self) -> None:
        config = self._config
        self._read_first_state()
        self._source = _open_source(config, self._node().name)
        self._ring = Ring(config.ring_flows)
        cluster = "" if config.cluster_name == "default" else config.cluster_name
        namespaces = self._namespaces = Namespaces(self._ring, cluster)
        if config.record:
            self._recorder = Recorder(config.record)
            self._recorder.offer(Hello(self._node().name, self._node().labels))
        node = self._node()
        decoder = Decoder(self._ring.tables, self._state.knowledge, self._ring.tables.nodes.intern(node))
        self._pipeline = Pipeline(
            self._ring, decoder, node, namespaces, queue_events=config.queue_events, recorder=self._recorder
        )
        self._pipeline.set_state(self._state)
        if config.records_socket:
            self._records = RecordsSocket(config.records_socket, self._pipeline.receive)
        shared = Shared(
            ring=self._ring,
            bell=self._pipeline.bell,
            namespaces=namespaces,
            node_name=lambda: self._pipeline.node.name,
            node_index=lambda: self._pipeline.node_index,
            started_ns=time.monotonic_ns(),
        )
        self._server = Server(
            [ObserverService(shared), ColumnsService(shared), PeerService(self._peers)],
            metadata={"hubble-server-version": VERSION, "flowscope-columns": "1"},
        )
        tls = _tls(config)
        for address in config.listen:
            self._addresses.append(await self._server.listen(address, tls=tls, insecure=config.insecure))
        self._announce()
        # What lives now lives for good: it need not be looked at by every collection.
        gc.collect()
        gc.freeze()

    def start_tasks(self, group: asyncio.TaskGroup, reload: asyncio.Event) -> list[asyncio.Task[None]]:
        tasks = [group.create_task(self._report(), name="report"), group.create_task(self._reload(reload))]
        if self._source is not None:
            tasks.append(group.create_task(self._pipeline.run(self._source), name="pipeline"))
        if self._state_file is not None:
            tasks.append(group.create_task(self._state_file.follow(), name="state"))
        return tasks

    async def close(self) -> None:
        """In the opposite order of opening; streams get what is left of the drain time."""
        if hasattr(self, "_server"):
            self._pipeline.bell.stop()
            await self._server.close(self._config.drain_s / 2)
        if self._records is not None:
            self._records.close()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)

    def _read_first_state(self) -> None:
        """The state file, or what a recording says of its node."""
        config = self._config
        if config.replay:
            hello, state = Replay(config.replay).preview()
            if state is not None:
                with suppress(BrokenState):
                    self._state = parse_state(state.text)
            if hello is not None and not self._state.node_name:
                self._state = replace(self._state, node_name=hello.node, node_labels=hello.labels)
        elif config.state_file:
            self._state_file = StateFile(config.state_file, self._take_state)
            self._state_file.load()

    def _take_state(self, state: NodeState) -> None:
        self._state = state
        if hasattr(self, "_pipeline"):
            self._pipeline.set_state(state)
            self._pipeline.set_node(self._node())
            self._announce()

    def _node(self) -> Node:
        """Who we are, from the settings and the state."""
        config = self._config
        name = config.node_name or self._state.node_name or socket.gethostname()
        if "/" not in name and config.cluster_name not in ("", "default"):
            name = f"{config.cluster_name}/{name}"
        return Node(name, self._state.node_labels, self._boot, VERSION)

    def _announce(self) -> None:
        """Tell relays of this node and of the others."""
        config = self._config
        own_name = self._node().name
        cluster, _, name = own_name.rpartition("/")
        address = config.advertise or self._addresses[0]
        tls_name = (
            node_server_name(name, cluster) if config.tls_cert_file and Target.parse(address).kind == "tcp" else ""
        )
        others = [_peer(text) for text in config.peers]
        self._peers.set([*self._state.peers, *others, PeerEntry(own_name, address, tls_name)])

    async def _reload(self, reload: asyncio.Event) -> None:
        """SIGHUP: read the state file again. Certificates are followed by themselves."""
        while True:
            await reload.wait()
            reload.clear()
            log.info("reloading")
            if self._state_file is not None:
                self._state_file.reload()

    async def _report(self) -> None:
        """Once a minute: sum up in the log what went wrong, if anything did."""
        told: Counter[str] = Counter()
        while True:
            await asyncio.sleep(REPORT_S)
            self._namespaces.look()
            now = Counter(self._pipeline.errors)
            if self._pipeline.dropped:
                now["queue_full"] = self._pipeline.dropped
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
    if config.events == "none":
        return None
    # Replay and tests do without libbpf.
    from observer.kernel import Kernel

    pin_dir = config.pin_dir or f"/sys/fs/bpf/flowscope/{node_name.rpartition('/')[2]}"
    return Kernel(Path(pin_dir), config.perf_buffer_kib)
