"""Nodes that exist only as a gRPC service: for tests of the relay, and as its load in benchmarks.

In:        what each node shall deliver.
Out:       services for rpc.server.Server; flows of any size with the times that are asked for, made in batches.
Elsewhere: the real node is observer/.

Run as a process, it serves many nodes on unix sockets: python -m tests.support.fake_nodes FOLDER --nodes 4
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from proto.flow import flow_pb2
from proto.observer import observer_pb2
from proto.peer import peer_pb2
from rpc.framing import frame
from rpc.server import Call, Server, Service
from service import log

Int64s = npt.NDArray[np.int64]

FIRST_NS: Final = 1_700_000_000 * 10**9
"""Times of made-up flows begin here."""

NANOS_FLOOR: Final = 1 << 28
"""From here on nanoseconds take five bytes, so that all messages have one length."""

BATCH: Final = 1024

Flows = Callable[[observer_pb2.GetFlowsRequest, Call], Awaitable[None]]


class FakeObserver(Service):
    """A node whose GetFlows is given as a function."""

    descriptor = observer_pb2.DESCRIPTOR.services_by_name["Observer"]

    def __init__(self, name: str, flows: Flows) -> None:
        self.name = name
        self.flows = flows
        self.requests: list[observer_pb2.GetFlowsRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.status = observer_pb2.ServerStatusResponse(
            num_flows=10, max_flows=4095, seen_flows=20, uptime_ns=5 * 10**9, version=f"cilium {name}", flows_rate=2.0
        )
        self.namespaces: list[tuple[str, str]] = []

    async def GetFlows(self, request: observer_pb2.GetFlowsRequest, call: Call) -> None:  # noqa: N802
        self.requests.append(request)
        self.metadata.append(dict(call.metadata))
        await self.flows(request, call)

    async def ServerStatus(self, request: object, call: Call) -> observer_pb2.ServerStatusResponse:  # noqa: N802
        return self.status

    async def GetNamespaces(self, request: object, call: Call) -> observer_pb2.GetNamespacesResponse:  # noqa: N802
        return observer_pb2.GetNamespacesResponse(
            namespaces=[observer_pb2.Namespace(cluster=cluster, namespace=name) for cluster, name in self.namespaces]
        )


class FakePeers(Service):
    """A Peer service that says what is put into its queue."""

    descriptor = peer_pb2.DESCRIPTOR.services_by_name["Peer"]

    def __init__(self) -> None:
        self.changes: asyncio.Queue[peer_pb2.ChangeNotification | None] = asyncio.Queue()

    async def Notify(self, request: object, call: Call) -> None:  # noqa: N802
        while (change := await self.changes.get()) is not None:
            await call.send_message(change)


def response(node: str, time_ns: int, summary: str = "") -> observer_pb2.GetFlowsResponse:
    """One flow."""
    message = observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow(node_name=node, Summary=summary), node_name=node)
    message.time.FromNanoseconds(time_ns)
    message.flow.time.FromNanoseconds(time_ns)
    return message


def delivers(responses: list[observer_pb2.GetFlowsResponse]) -> Flows:
    """These, and then the end."""

    async def flows(request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        for one in responses:
            await call.send_message(one)

    return flows


class FlowMaker:
    """Messages of one size whose only difference is their time, made a thousand at once."""

    def __init__(self, node: str, size: int) -> None:
        """`size`: bytes of a message, with its prefix."""
        template = response(node, FIRST_NS + NANOS_FLOOR)
        template.flow.Summary = "x" * (size - len(frame(template)) - 8)
        template.flow.Summary += "x" * (size - len(frame(template)))
        self.template = np.frombuffer(frame(template), np.uint8)
        seconds = bytes([0x08]) + _varint(np.array([FIRST_NS // 10**9]), 5).tobytes() + bytes([0x10])
        message = self.template.tobytes()
        first = message.index(seconds)
        self.places = (first + 1, message.rindex(seconds) + 1)
        assert self.places[0] != self.places[1]

    def frames(self, times_ns: Int64s) -> bytes:
        """One message per time. Times from 2001 to 2106, nanoseconds of at least NANOS_FLOOR."""
        messages = np.tile(self.template, (len(times_ns), 1))
        seconds = _varint(times_ns // 10**9, 5)
        nanos = _varint(times_ns % 10**9, 5)
        for place in self.places:
            messages[:, place : place + 5] = seconds
            messages[:, place + 6 : place + 11] = nanos
        return messages.tobytes()


def spread_times(count: int, step_ns: int, offset_ns: int, start_ns: int = FIRST_NS) -> Int64s:
    """`count` rising times, `step_ns` apart at least, each with nanoseconds of at least NANOS_FLOOR."""
    numbers = np.arange(count, dtype=np.int64) * step_ns + offset_ns
    usable = 10**9 - NANOS_FLOOR
    return start_ns + (numbers // usable) * 10**9 + NANOS_FLOOR + numbers % usable


def _varint(values: Int64s, width: int) -> npt.NDArray[np.uint8]:
    parts = np.stack([(values >> (7 * index)) & 0x7F for index in range(width)], axis=1).astype(np.uint8)
    parts[:, :-1] |= 0x80
    return parts


def at_full_speed(maker: FlowMaker, number: int, of: int, count: int) -> Flows:
    """`count` flows whose times interleave with those of the `of - 1` other nodes."""

    async def flows(request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        for begin in range(0, count, BATCH):
            size = min(BATCH, count - begin)
            # 1 us per node and step, so that neighbours in time come from different nodes.
            times = spread_times(size, 1000 * of, begin * 1000 * of + 1000 * number)
            await call.send(maker.frames(times))

    return flows


def at_rate(maker: FlowMaker, per_s: float, every_s: float) -> Flows:
    """Live flows: each `every_s` those of the time since the last, then silence until then."""

    async def flows(request: observer_pb2.GetFlowsRequest, call: Call) -> None:
        told_ns = time.time_ns()
        while not call.stopping:
            await asyncio.sleep(every_s)
            now_ns = time.time_ns()
            count = max(1, round((now_ns - told_ns) * per_s / 1e9))
            times = np.linspace(told_ns, now_ns, count, endpoint=False, dtype=np.int64)
            times += np.maximum(NANOS_FLOOR - times % 10**9, 0)
            times.sort()
            told_ns = now_ns
            await call.send(maker.frames(times))

    return flows


async def serve_nodes(folder: Path, nodes: int, size: int, flows: int, per_s: float, every_s: float) -> None:
    """Serve until cancelled; prints NAME=ADDRESS of each node, then `serving`."""
    servers = []
    for number in range(nodes):
        name = f"node-{number}"
        maker = FlowMaker(name, size)
        source = at_rate(maker, per_s, every_s) if per_s else at_full_speed(maker, number, nodes, flows)
        server = Server([FakeObserver(name, source)])
        servers.append(server)
        print(f"{name}={await server.listen(f'unix://{folder}/{name}.sock')}", flush=True)
    print("serving", flush=True)
    await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--flows", type=int, default=100_000, help="per node and call")
    parser.add_argument("--per-s", type=float, default=0.0, help="flows per second and node, live; 0: at full speed")
    parser.add_argument("--every-s", type=float, default=0.05, help="with --per-s: seconds between two sends")
    options = parser.parse_args()
    log.setup("warning")
    asyncio.run(serve_nodes(options.folder, options.nodes, options.size, options.flows, options.per_s, options.every_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
