"""A made-up fleet and its traffic, for looking at the dashboard and for measuring it.

`Fleet.shop()` is a small shop with everything that the page can show: drops with reasons, audits, encryption, HTTP and
DNS with errors and latencies, the world by name, hosts. `Fleet.large()` has as many services and arrows as asked for.
Rows are made by column, so a fleet can talk faster than anything that listens.

    python -m tests.support.fleet --listen localhost:12099 --services 1000 --edges 10000 --per-second 10000

serves the dashboard over such a fleet, without observers or a relay.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from model.columns import from_arrow_ipc, to_arrow_ipc
from model.row import L4, Bit, Reply, Rows, TcpFlag, empty_rows
from model.tables import Node, Tables
from proto.flow import flow_pb2
from proto.flowscope.cost_pb2 import GetCostResponse, ProcessCost, ProgramCost
from ui.config import UiConfig
from ui.cost import Costs
from ui.hub import Hub

NS: Final = 1_000_000_000
POLICY_DENIED: Final = 133
NO_BACKEND: Final = 158
TO_ENDPOINT: Final = 101
MINUTE_S: Final = 60.0
HTTP: Final = 1
DNS: Final = 2
EVIL: Final = "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script>\"'`${window.pwned=1}"


@dataclass(frozen=True, slots=True)
class Arrow:
    """Traffic from one service to a port of another."""

    source: int
    target: int
    port: int
    share: float
    l4: L4 = L4.TCP
    l7: int = 0
    dropped: float = 0.0
    """Share of its flows that is dropped, for `reason`."""
    reason: int = POLICY_DENIED
    audited: bool = False
    encrypted: bool = False
    errors: float = 0.0
    """Share of answers that are errors."""
    latency_ms: float = 4.0
    before: float | None = None
    """Another share until a minute before the start: something to compare."""


ARROWS: Final[tuple[tuple[str, str, int, float, dict[str, Any]], ...]] = (
    ("load/client", "web/ingress-nginx", 443, 9, {"latency_ms": 30, "l7": HTTP, "errors": 0.01}),
    ("web/ingress-nginx", "shop/frontend", 8080, 8, {"latency_ms": 18, "l7": HTTP, "errors": 0.02}),
    ("shop/frontend", "shop/cart", 8080, 5, {"latency_ms": 6, "l7": HTTP}),
    ("shop/frontend", "shop/catalog", 8080, 6, {"latency_ms": 9, "l7": HTTP}),
    ("shop/frontend", "shop/recommendation", 8080, 2, {"before": 0.3, "latency_ms": 55, "l7": HTTP, "errors": 0.08}),
    ("shop/frontend", "shop/checkout", 8080, 2, {"latency_ms": 14, "l7": HTTP}),
    ("shop/checkout", "shop/payment", 9090, 2, {"encrypted": True}),
    ("shop/checkout", "data/kafka", 9092, 2, {}),
    ("shop/cart", "data/redis", 6379, 5, {}),
    ("shop/catalog", "data/postgres", 5432, 4, {}),
    ("shop/recommendation", "data/postgres", 5432, 1.2, {"dropped": 0.9}),
    ("shop/checkout", "data/postgres", 5432, 2, {"encrypted": True}),
    ("monitoring/prometheus", "data/postgres", 9187, 0.7, {"audited": True}),
    ("monitoring/prometheus", "shop/cart", 9102, 0.7, {}),
    ("monitoring/grafana", "monitoring/prometheus", 9090, 0.8, {}),
    ("shop/frontend", "kube-system/coredns", 53, 2, {"l4": L4.UDP, "l7": DNS}),
    ("shop/checkout", "kube-system/coredns", 53, 1, {"l4": L4.UDP, "l7": DNS, "errors": 0.9}),
    ("shop/payment", "world:api.payments.example", 443, 1.5, {"before": 0.0}),
    ("kube-system/coredns", "world:dns.example", 53, 1, {"l4": L4.UDP}),
    ("shop/recommendation", "world:models.example", 443, 0.5, {"dropped": 0.15, "reason": NO_BACKEND}),
    ("host", "shop/frontend", 8080, 0.5, {}),
    ("shop/cart", "data/postgres", 5432, 0, {"before": 1.5}),
)
HOSTS: Final[tuple[tuple[str, str, int, float, dict[str, Any]], ...]] = (
    ("host", "world:packages.example", 443, 2, {}),
    ("host", "world:time.example", 123, 0.5, {"l4": L4.UDP}),
    ("world", "host", 22, 1, {}),
    ("world", "host", 9999, 0.5, {"dropped": 1.0}),
)
"""What hosts without namespaces do."""
ROUTES: Final = ("/", "/api/cart/42", "/api/products?page=2", "/api/checkout", "/static/app.js", "/healthz")
KINDS: Final = {"data": "StatefulSet", "kube-system": "Deployment"}


class Fleet:
    """Services, the arrows between them, and rows of their traffic in `tables`."""

    def __init__(
        self, tables: Tables, names: Sequence[str], arrows: Sequence[Arrow], *, nodes: int = 3, evil: str = ""
    ) -> None:
        """`evil` is added to every text that is not a name already."""
        self._evil = evil
        self.names = list(names)
        self._tables = tables
        self._random = np.random.default_rng(7)
        self._ends = np.array([self._end(name) for name in names], np.uint32)
        self._names = np.array([self._dns_names(name) for name in names], np.uint32)
        self._nodes = np.array(
            [
                tables.nodes.intern(Node(f"node-{n + 1}{evil}", (f"zone={'abc'[n % 3]}",), 0xF1EE7 << 40 | n))
                for n in range(nodes)
            ],
            np.uint32,
        )
        self._arrows = list(arrows)
        shares = np.array([arrow.share for arrow in arrows])
        self._shares = shares / shares.sum()
        before = np.array([arrow.share if arrow.before is None else arrow.before for arrow in arrows])
        self._before = before / before.sum()
        self._columns = {
            name: np.array([getattr(arrow, name) for arrow in arrows])
            for name in ("source", "target", "port", "l4", "l7", "dropped", "reason", "audited", "encrypted")
        }
        self._answers = [self._answers_of(arrow) for arrow in arrows]
        self._seq = 0

    @classmethod
    def shop(cls, tables: Tables) -> Fleet:
        return cls._told(tables, ARROWS)

    @classmethod
    def hosts(cls, tables: Tables) -> Fleet:
        return cls._told(tables, HOSTS)

    @classmethod
    def _told(cls, tables: Tables, told: Sequence[tuple[str, str, int, float, dict[str, Any]]]) -> Fleet:
        names = list(dict.fromkeys(name for arrow in told for name in arrow[:2]))
        number = {name: index for index, name in enumerate(names)}
        arrows = [
            Arrow(number[source], number[target], port, share, **more) for source, target, port, share, more in told
        ]
        return cls(tables, names, arrows)

    @classmethod
    def like(cls, other: Fleet, tables: Tables) -> Fleet:
        """The same services and arrows in other tables."""
        return cls(tables, other.names, other._arrows, nodes=len(other._nodes), evil=other._evil)

    @classmethod
    def hostile(cls, tables: Tables) -> Fleet:
        """Script, markup and odd characters wherever a name or a path may stand."""
        names = [f"{EVIL}|web{EVIL}", "shop|\u202eevil\x00\n\x1b[31m", f"world:{EVIL}.example", "shop|" + "x" * 3000]
        arrows = [
            Arrow(0, 1, 8080, 3.0, l7=HTTP, errors=0.2), Arrow(1, 3, 53, 1.0, l4=L4.UDP, l7=DNS, errors=0.9),
            Arrow(1, 0, 443, 1.0, dropped=0.8), Arrow(0, 2, 443, 1.0),
        ]  # fmt: skip
        return cls(tables, names, arrows, evil=EVIL)

    @classmethod
    def large(cls, tables: Tables, services: int, edges: int, seed: int = 1) -> Fleet:
        random = np.random.default_rng(seed)
        islands = max(services // 40, 1)
        names = [f"team-{n % islands:02}/service-{n:04}" for n in range(services)]
        pairs: set[tuple[int, int]] = set()
        while len(pairs) < edges:
            ends = random.integers(0, services, (edges, 2))
            pairs.update((a, b) for a, b in ends.tolist() if a != b)
        chosen = sorted(pairs)[:edges] if len(pairs) > edges else sorted(pairs)
        arrows = [
            Arrow(a, b, 8000 + b % 20, 1.0, dropped=0.3 if n % 50 == 0 else 0.0) for n, (a, b) in enumerate(chosen)
        ]
        return cls(tables, names, arrows, nodes=50)

    def rows(self, count: int, start_ns: int, stop_ns: int, *, before: bool = False) -> Rows:
        """`count` flows spread evenly over a span."""
        random, columns = self._random, self._columns
        rows = empty_rows(count)
        which = random.choice(len(self._arrows), count, p=self._before if before else self._shares)
        rows["ts_ns"] = np.linspace(start_ns, stop_ns, count, endpoint=False).astype(np.int64)
        rows["node"] = self._nodes[columns["target"][which] % len(self._nodes)]
        rows["seq"] = np.arange(self._seq, self._seq + count)
        self._seq += count
        back = random.random(count) < 0.45
        dropped = random.random(count) < columns["dropped"][which]
        back &= ~dropped
        source, target = columns["source"][which], columns["target"][which]
        ephemeral = 32768 + (which * 131 + random.integers(0, 40, count)) % 28000
        for side, at, port, other in (
            ("src", source, ephemeral, target),
            ("dst", target, columns["port"][which], source),
        ):
            swapped = np.where(back, other, at)
            rows[side] = self._ends[swapped]
            rows[f"{side}_names"] = self._names[swapped]
            rows[f"{side}_ip_lo"] = 0x0A000000 + swapped + 10
            rows["sport" if side == "src" else "dport"] = np.where(
                back, columns["port"][which] if side == "src" else ephemeral, port
            )
        rows["ip_version"] = 1
        rows["l4"] = columns["l4"][which]
        rows["flow_type"] = flow_pb2.L3_L4
        rows["is_reply"] = np.where(back, Reply.TRUE, Reply.FALSE)
        rows["verdict"] = np.where(
            dropped, flow_pb2.DROPPED, np.where(columns["audited"][which], flow_pb2.AUDIT, flow_pb2.FORWARDED)
        )
        rows["drop_reason"] = np.where(dropped, columns["reason"][which], 0)
        rows["direction"] = flow_pb2.INGRESS
        rows["event_type"] = np.where(dropped, 1, 4)
        rows["sub_type"] = np.where(dropped, rows["drop_reason"], 0)
        rows["obs_point"] = np.where(dropped, 0, TO_ENDPOINT)
        tcp = rows["l4"] == L4.TCP
        kinds = np.array([TcpFlag.SYN, TcpFlag.ACK, TcpFlag.ACK | TcpFlag.PSH, TcpFlag.ACK | TcpFlag.FIN])
        flags = kinds[random.integers(0, 4, count)]
        rows["tcp_flags"] = np.where(tcp, np.where(dropped, TcpFlag.SYN, np.where(back, flags | TcpFlag.ACK, flags)), 0)
        rows["bits"] = (
            Bit.HAS_EVENT_TYPE
            | np.where(tcp, Bit.HAS_TCP_FLAGS, 0)
            | np.where(columns["encrypted"][which], Bit.ENCRYPTED, 0)
        )
        answered = back & (columns["l7"][which] > 0) & (random.random(count) < 0.5)
        for index in np.flatnonzero(answered).tolist():
            entries = self._answers[which[index]]
            rows["aux"][index] = entries[int(random.integers(0, len(entries)))]
        rows["flow_type"][answered] = flow_pb2.L7
        rows["event_type"][answered] = 129
        rows["bits"][answered] = Bit.HAS_EVENT_TYPE
        return rows

    def _end(self, name: str) -> int:
        endpoint = flow_pb2.Endpoint()
        namespace, slash, workload = name.partition("|" if self._evil else "/")
        if slash:
            endpoint.namespace, endpoint.pod_name = namespace, f"{workload}-6f7c9d8b5-{abs(hash(name)) % 90000 + 10000}"
            endpoint.identity, endpoint.cluster_name = 1000 + len(self._tables.endpoints), "default"
            endpoint.labels.extend(
                [f"k8s:app={workload}", f"k8s:io.kubernetes.pod.namespace={namespace}", f"k8s:tier=demo{self._evil}"]
            )
            endpoint.workloads.add(name=workload, kind=KINDS.get(namespace, "Deployment"))
        else:
            endpoint.identity = 1 if name == "host" else 2
            endpoint.labels.append(f"reserved:{'host' if name == 'host' else 'world'}")
        return self._tables.endpoints.intern(endpoint.SerializeToString(deterministic=True))

    def _dns_names(self, name: str) -> int:
        return self._tables.names.intern((name[6:],)) if name.startswith("world:") else 0

    def _answers_of(self, arrow: Arrow) -> list[int]:
        """A hundred different L7 answers."""
        random, found = self._random, []
        for _ in range(100 if arrow.l7 else 0):
            flow = flow_pb2.Flow()
            flow.l7.type = flow_pb2.RESPONSE
            flow.l7.latency_ns = int(arrow.latency_ms * 1e6 * random.lognormal(0, 0.7))
            bad = random.random() < arrow.errors
            if arrow.l7 == HTTP:
                flow.l7.http.method = ("GET" if random.random() < 0.8 else "POST") + self._evil
                flow.l7.http.url = f"http://svc:8080{ROUTES[int(random.integers(0, len(ROUTES)))]}{self._evil}"
                flow.l7.http.code, flow.l7.http.protocol = (503 if bad else 200), "HTTP/1.1"
            else:
                flow.l7.dns.query = (
                    f"payments{self._evil}.shop.svc.cluster.local." if bad else "postgres.data.svc.cluster.local."
                )
                flow.l7.dns.rcode, flow.l7.dns.observation_source = (3 if bad else 0), "proxy"
            found.append(self._tables.aux.intern(flow.SerializeToString(deterministic=True)))
        return found


async def talk(hub: Hub, fleet: Fleet, per_second: int, stop: asyncio.Event, history_s: float = 0) -> None:
    """Feed `hub` with a fleet's traffic in real time until `stop`; first with that of the past."""
    now = time.time_ns()
    await hub.set_relay(True, "live")
    await hub.set_nodes([node.name for node in hub.ring.tables.nodes.values if node], "connected")
    if history_s:
        recent = min(history_s, MINUTE_S)
        turn = now - round(recent * NS)
        await hub.add(
            fleet.rows(round(per_second * (history_s - recent)), now - round(history_s * NS), turn, before=True)
        )
        await hub.add(fleet.rows(round(per_second * recent), turn, now))
    while not stop.is_set():
        await asyncio.sleep(0.1)
        until = time.time_ns()
        count = round((until - now) * per_second / NS)
        if count:
            await hub.add(fleet.rows(count, now, until))
            now = until


async def cost(channel: object, costs: Costs) -> None:
    """What a relay would say of itself and three nodes, as ui.cost.follow_costs asks it."""
    began = time.monotonic()
    while True:
        await costs.wanted()
        up_ns = int((time.monotonic() - began + 600) * NS)
        relay = ProcessCost(
            node_name="relay-1", role="relay", cpu_ns=up_ns // 120, uptime_ns=up_ns, memory_bytes=96 << 20
        )
        nodes = [
            ProcessCost(
                node_name=f"node-{number}",
                role="observer",
                cpu_ns=up_ns // (40 + number),
                uptime_ns=up_ns,
                memory_bytes=(104 + number) << 20,
                programs=[
                    ProgramCost(name=name, runs=runs, run_ns=runs * (mean_ns + 11 * number))
                    for name, mean_ns, runs in (
                        ("from_container", 720, up_ns // 1_100_000),
                        ("to_container", 610, up_ns // 1_200_000),
                        ("from_overlay", 540, up_ns // 2_500_000),
                    )
                ],
            )
            for number in (1, 2, 3)
        ]
        costs.take(GetCostResponse(processes=[relay, *nodes]))
        await asyncio.sleep(1)


async def replay(hub: Hub, fleet: Fleet, per_second: int, lap_s: float = 2.0, batch_s: float = 0.1) -> None:
    """Feed `hub` as feed.py does, with Arrow batches made before: what a measurement sees is the dashboard alone."""
    tables = Tables()
    other = Fleet.like(fleet, tables)
    count = round(per_second * batch_s)
    span = round(batch_s * NS)
    batches = [to_arrow_ipc(other.rows(count, 0, span), tables) for _ in range(round(lap_s / batch_s))]
    await hub.set_relay(True, "live")
    begin, number = time.monotonic(), 0
    while True:
        rows = from_arrow_ipc(batches[number % len(batches)], hub.ring.tables)
        rows["ts_ns"] += time.time_ns() - span
        await hub.add(rows)
        number += 1
        await asyncio.sleep(max(begin + number * batch_s - time.monotonic(), 0))


async def serve(
    config: UiConfig, encoded: bool, kind: str, services: int, edges: int, per_second: int, history_s: float
) -> None:
    """The dashboard over a fleet, until it is killed."""
    from ui import main

    async def instead_of_a_relay(channel: object, hub: Hub, history: int) -> None:
        tables = hub.ring.tables
        small = {"shop": Fleet.shop, "hosts": Fleet.hosts, "hostile": Fleet.hostile}[kind]
        fleet = Fleet.large(tables, services, edges) if services else small(tables)
        if encoded:
            await replay(hub, fleet, per_second)
        await talk(hub, fleet, per_second, asyncio.Event(), history_s)

    setattr(main, "follow", instead_of_a_relay)  # noqa: B010 - the module does not offer its name
    setattr(main, "follow_costs", cost)  # noqa: B010
    await main.serve(config, asyncio.Event(), asyncio.Event())


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--listen", default="localhost:12099")
    words.add_argument("--services", type=int, default=0, help="0: the shop")
    words.add_argument("--edges", type=int, default=0)
    words.add_argument("--per-second", type=int, default=300)
    words.add_argument("--history-s", type=float, default=240)
    words.add_argument("--flows", type=int, default=262_143)
    kinds = words.add_mutually_exclusive_group()
    kinds.add_argument("--hostile", dest="kind", action="store_const", const="hostile", help="script in every name")
    kinds.add_argument("--hosts", dest="kind", action="store_const", const="hosts", help="hosts without namespaces")
    words.set_defaults(kind="shop")
    words.add_argument("--encoded", action="store_true", help="feed batches made before, as a relay sends them")
    words.add_argument("--token", default="")
    words.add_argument("--base-path", default="")
    given = words.parse_args()
    config = UiConfig(listen=given.listen, flows=given.flows, token=given.token, base_path=given.base_path)
    asyncio.run(
        serve(
            config,
            given.encoded,
            given.kind,
            given.services,
            given.edges,
            given.per_second,
            given.history_s,
        )
    )
