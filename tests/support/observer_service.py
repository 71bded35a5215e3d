"""An observer's services on a socket, over a ring that the test fills itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from model.ring import Ring
from model.row import Rows
from model.tables import Node
from observer.bell import Bell
from observer.cost import CostService
from observer.namespaces import Namespaces
from observer.peers import Peers, PeerService
from observer.service import VERSION, ColumnsService, ObserverService, Shared
from rpc.server import Server

NODE = Node("node-1", ("kubernetes.io/os=linux",), 0x1234_5678_9ABC_DEF0, VERSION)


@dataclass
class Served:
    """What a test needs of it."""

    address: str
    ring: Ring
    bell: Bell
    peers: Peers
    server: Server
    namespaces: Namespaces

    def add(self, rows: Rows) -> None:
        """Store rows as the pipeline does."""
        self.ring.append(rows)
        self.namespaces.keep_up()
        self.bell.ring()


@asynccontextmanager
async def serving(folder: Path, capacity: int = 1023) -> AsyncIterator[Served]:
    """Serve on a unix socket in `folder`."""
    ring, bell, peers = Ring(capacity), Bell(), Peers()
    node = ring.tables.nodes.intern(NODE)
    namespaces = Namespaces(ring)
    shared = Shared(
        ring=ring,
        bell=bell,
        namespaces=namespaces,
        node_name=lambda: NODE.name,
        node_index=lambda: node,
        started_ns=time.monotonic_ns(),
    )
    server = Server(
        [
            ObserverService(shared),
            ColumnsService(shared),
            PeerService(peers),
            CostService(shared.node_name, shared.started_ns, None),
        ],
        metadata={"hubble-server-version": VERSION, "flowscope-columns": "1"},
    )
    address = await server.listen(f"unix://{folder}/observer.sock")
    try:
        yield Served(address, ring, bell, peers, server, namespaces)
    finally:
        bell.stop()
        await server.close(0.2)
