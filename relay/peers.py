"""The nodes behind the relay: which there are, and a connection to each.

In:        notifications of a Peer service, or the list of the configuration.
Out:       nodes with their connections; who is usable now; word of nodes that were removed.
Elsewhere: collect.py reads their flows; status.py asks them about themselves.

Source: api.md, section 6.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import structlog

from proto.peer import peer_pb2
from relay.config import RelayConfig
from rpc.client import Channel
from rpc.status import RpcError
from rpc.target import Target
from rpc.tls import ClientTls, node_server_name
from service.failure import Failure

log = structlog.get_logger(component="relay")

NODE_PORT: Final = 4244
PEER_NODE: Final = "hubble-peer"
"""Stands for the node in the TLS server name of a Peer service on TCP."""

CHANNEL_WINDOW: Final = 65535
"""What a node may send unasked on any stream; flow streams get more, by how many share the client's memory."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A node, as a Peer service or the configuration describes it."""

    name: str
    address: str
    """`host:port` or `unix:///path`; empty: not reachable."""
    tls: bool = False
    server_name: str = ""


def peer_target(address: str) -> Target | None:
    """Where to connect; None for an address that leads nowhere.

    A missing or unreadable port becomes the nodes' port 4244.
    """
    if not address:
        return None
    if address.startswith("unix:") or address.endswith(".sock"):
        return Target.parse(address)
    if re.search(r"[\s/]", address):
        return None
    try:
        return Target.parse(address, NODE_PORT)
    except ValueError:
        host = address.rpartition(":")[0].strip("[]")
        return Target("tcp", host, NODE_PORT) if host else None


def listed_peer(text: str, tls: bool, cluster: str = "") -> Peer:
    """A node from the configuration's list: `NAME=ADDRESS`, or an address, which then is the name too.

    tls     nodes on TCP serve with TLS; the certificate must carry the node's name (rpc.tls.node_server_name), or the
            host of an address without name.
    Raises: Failure for an address that leads nowhere.
    """
    name, equals, address = text.partition("=")
    if not equals:
        name, address = "", text
    target = peer_target(address.removeprefix("tls://"))
    if target is None or (equals and not name):
        raise Failure(f"peer {text!r} is not NAME=ADDRESS with an address like 10.0.0.1:4244 or unix:///run/x.sock")
    encrypted = tls and target.kind == "tcp"
    server_name = ""
    if encrypted:
        of_cluster, _, node = name.rpartition("/")
        server_name = node_server_name(node, of_cluster or cluster) or target.host
    return Peer(name or address, str(target), encrypted, server_name)


NAP_PER_NODE_S: Final = 0.00025
LONGEST_NAP_S: Final = 0.05
"""Flows that trickle from many nodes are read in small batches: 4,000 reads a second over all nodes cost a fifth of a
core, and delay a flow by 1 ms with 4 nodes and by 50 ms with 200."""


@dataclass(frozen=True, slots=True)
class Dialling:
    """How nodes are dialled."""

    tls: ClientTls | None
    backoff_s: float
    backoff_max_s: float


class PeerConnection:
    """One node and the connection to it, which is kept up as long as the node exists."""

    def __init__(self, peer: Peer, dialling: Dialling, nap: Callable[[], float]) -> None:
        self.peer = peer
        self.channel: Channel | None = None
        self.problem = ""
        """Why the node is not usable."""
        self._dialling = dialling
        self._nap = nap
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    @property
    def usable(self) -> bool:
        """There is a connection, or the first attempt is still under way."""
        return self.channel is not None and not self.problem

    @property
    def connected(self) -> bool:
        """There is a connection."""
        return self.channel is not None and self.channel.state == "ready"

    def start(self) -> None:
        """Connect, and stay connected."""
        target = peer_target(self.peer.address)
        if target is None:
            self.problem = "no address"
            return
        try:
            tls = self._tls()
        except ValueError as error:
            self.problem = str(error)
            log.warning("node not usable", node=self.peer.name, reason=self.problem)
            return
        self.channel = Channel(
            target, tls=tls, stream_window=CHANNEL_WINDOW, user_agent="flowscope-relay", nap=self._nap
        )
        self._task = asyncio.create_task(self._keep(self.channel), name=f"peer {self.peer.name}")

    def hurry(self) -> None:
        """Do not wait out the current pause."""
        self._hurry.set()

    async def close(self) -> None:
        """Hang up."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.channel is not None:
            await self.channel.close()

    def _tls(self) -> ClientTls | None:
        ours = self._dialling.tls
        if self.peer.tls and ours is None:
            raise ValueError(f"node serves with TLS (server name {self.peer.server_name!r}) but client TLS is off")
        if not self.peer.tls or ours is None:
            return None
        if not self.peer.server_name:
            raise ValueError("TLS is on but the node has no server name")
        return ClientTls(
            ca_files=ours.ca_files, cert_file=ours.cert_file, key_file=ours.key_file, server_name=self.peer.server_name
        )

    async def _keep(self, channel: Channel) -> None:
        pause = self._dialling.backoff_s
        while True:
            try:
                await channel.connect()
            except RpcError as error:
                if self.problem != error.message:
                    log.warning(
                        "node not reachable", node=self.peer.name, address=self.peer.address, reason=error.message
                    )
                self.problem = error.message
                self._hurry.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._hurry.wait()
                pause = min(pause * 2, self._dialling.backoff_max_s)
                continue
            self.problem = ""
            log.info("node connected", node=self.peer.name, address=self.peer.address)
            await channel.disconnected()
            pause = self._dialling.backoff_s
            log.warning("node disconnected", node=self.peer.name)


class Peers:
    """All known nodes, by name."""

    def __init__(self, dialling: Dialling) -> None:
        self._dialling = dialling
        self._connections: dict[str, PeerConnection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.on_removed: set[Callable[[str], None]] = set()
        """Called with the name of a node that does not exist any more."""

    def __iter__(self) -> Iterator[PeerConnection]:
        return iter(list(self._connections.values()))

    def __len__(self) -> int:
        return len(self._connections)

    def usable(self) -> list[PeerConnection]:
        """Nodes that can be asked."""
        return [one for one in self if one.usable]

    def upsert(self, peer: Peer) -> None:
        """A node that is new or changed; an identical one changes nothing."""
        known = self._connections.get(peer.name)
        if known is not None:
            if known.peer == peer:
                return
            self._close(known)
        connection = PeerConnection(peer, self._dialling, self._nap)
        self._connections[peer.name] = connection
        connection.start()

    def delete(self, name: str) -> None:
        """A node that is gone for good."""
        known = self._connections.pop(name, None)
        if known is not None:
            for tell in list(self.on_removed):
                tell(name)
            self._close(known)
            log.info("node removed", node=name)

    def _nap(self) -> float:
        return min(len(self) * NAP_PER_NODE_S, LONGEST_NAP_S)

    def hurry(self) -> None:
        """Dial all that are down now."""
        for connection in self:
            connection.hurry()

    async def close(self) -> None:
        """Hang up everywhere."""
        for connection in self:
            self._close(connection)
        self._connections.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _close(self, connection: PeerConnection) -> None:
        task = asyncio.create_task(connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class PeerWatch:
    """Follows a Peer service; what it said stays true while it is down."""

    def __init__(self, config: RelayConfig, peers: Peers, tls: ClientTls | None) -> None:
        self.connected = False
        self._retry_s = config.retry_timeout_s
        self._peers = peers
        self._hurry = asyncio.Event()
        target = Target.parse(config.peer_service, NODE_PORT)
        if target.kind == "unix":
            tls = None
        elif tls is not None:
            name = node_server_name(PEER_NODE, config.cluster_name)
            tls = ClientTls(ca_files=tls.ca_files, cert_file=tls.cert_file, key_file=tls.key_file, server_name=name)
        self._channel = Channel(target, tls=tls, user_agent="flowscope-relay")

    async def run(self) -> None:
        """Never returns; cancel it."""
        try:
            while True:
                try:
                    await self._follow()
                    reason = "the stream ended"
                except RpcError as error:
                    reason = str(error)
                self.connected = False
                log.warning("peer service not available", address=str(self._channel.target), reason=reason)
                self._hurry.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._retry_s):
                        await self._hurry.wait()
        finally:
            self.connected = False
            await self._channel.close()

    def hurry(self) -> None:
        """Do not wait out the current pause."""
        self._hurry.set()

    async def _follow(self) -> None:
        async with self._channel.stream("/peer.Peer/Notify", peer_pb2.NotifyRequest()) as stream:
            await stream.open()
            self.connected = True
            async for change in stream.messages(peer_pb2.ChangeNotification):
                self._apply(change)

    def _apply(self, change: peer_pb2.ChangeNotification) -> None:
        if change.type in (peer_pb2.PEER_ADDED, peer_pb2.PEER_UPDATED):
            encrypted = change.HasField("tls")
            self._peers.upsert(Peer(change.name, change.address, encrypted, change.tls.server_name))
        elif change.type == peer_pb2.PEER_DELETED:
            self._peers.delete(change.name)
