"""Which nodes there are, for relays that ask one of them.

In:        this node, the nodes of the configuration and of the state file.
Out:       peer.Peer/Notify: all nodes now, then every change.
Elsewhere: relay/ connects to the nodes.
Source:    API reference 7.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from proto.peer import peer_pb2
from rpc.call import Call, Service
from rpc.framing import frames
from rpc.status import RpcError, Status

LARGEST_BACKLOG: Final = 65_536
"""Notifications kept for one client."""


@dataclass(frozen=True, slots=True)
class PeerEntry:
    """A node as Peer.Notify tells of it."""

    name: str
    address: str = ""
    """`ip:port` or `unix:///path`; empty: cannot be reached."""
    server_name: str = ""
    """Name in its certificate; empty: no TLS."""


class Peers:
    """The known nodes, by name, and who wants to hear of changes."""

    def __init__(self) -> None:
        self._entries: dict[str, PeerEntry] = {}
        self._subscribers: set[Subscriber] = set()

    def set(self, entries: Iterable[PeerEntry]) -> None:
        """These are the nodes now; subscribers hear what changed. Of entries with one name the last one counts."""
        by_name = {entry.name: entry for entry in entries}
        changes = changes_between(self._entries, by_name)
        self._entries = by_name
        for subscriber in self._subscribers:
            subscriber.add(changes)

    def subscribe(self) -> Subscriber:
        """A view that begins with every known node as added."""
        subscriber = Subscriber()
        subscriber.add(changes_between({}, self._entries))
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """The client is gone."""
        self._subscribers.discard(subscriber)


class Subscriber:
    """What one client has still to be told."""

    def __init__(self) -> None:
        self.overflowed = False
        self._waiting: list[peer_pb2.ChangeNotification] = []
        self.changed = asyncio.Event()

    def add(self, changes: list[peer_pb2.ChangeNotification]) -> None:
        """Queue changes."""
        if len(self._waiting) + len(changes) > LARGEST_BACKLOG:
            self.overflowed = True
        else:
            self._waiting += changes
        self.changed.set()

    def take(self) -> list[peer_pb2.ChangeNotification]:
        """What is queued."""
        self.changed.clear()
        waiting, self._waiting = self._waiting, []
        return waiting


def changes_between(old: dict[str, PeerEntry], new: dict[str, PeerEntry]) -> list[peer_pb2.ChangeNotification]:
    """The notifications that turn one set of nodes into the other. A renamed node is deleted and added."""
    gone = [_notification(entry, "PEER_DELETED") for name, entry in old.items() if name not in new]
    added = [_notification(entry, "PEER_ADDED") for name, entry in new.items() if name not in old]
    updated = [_notification(entry, "PEER_UPDATED") for name, entry in new.items() if old.get(name, entry) != entry]
    return gone + added + updated


def _notification(entry: PeerEntry, change: str) -> peer_pb2.ChangeNotification:
    notification = peer_pb2.ChangeNotification(name=entry.name, address=entry.address, type=change)
    if entry.server_name:
        notification.tls.server_name = entry.server_name
    return notification


class PeerService(Service):
    """peer.Peer."""

    descriptor = peer_pb2.DESCRIPTOR.services_by_name["Peer"]

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def Notify(self, request: peer_pb2.NotifyRequest, call: Call) -> None:  # noqa: N802 (named by the protocol)
        """Every node as added, then changes until the client leaves or the server stops."""
        subscriber = self._peers.subscribe()
        stopping = asyncio.ensure_future(call.stop.wait())
        stopping.add_done_callback(lambda _: subscriber.changed.set())
        try:
            await call.start()
            while not call.stopping:
                await subscriber.changed.wait()
                if subscriber.overflowed:
                    raise RpcError(Status.UNKNOWN, "server stream send was blocked for too long")
                if waiting := subscriber.take():
                    await call.send(frames(waiting))
            raise RpcError(Status.UNAVAILABLE, "server is stopping")
        finally:
            stopping.cancel()
            self._peers.unsubscribe(subscriber)
