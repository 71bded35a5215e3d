"""A hub with a few flows of a made-up shop, for tests of the dashboard's server."""

from __future__ import annotations

import time
from typing import Any

from model.row import L4, Bit, Kind, Reply, Rows, TcpFlag, empty_rows
from model.tables import Node
from model.whole_rows import joined
from proto.flow import flow_pb2
from ui.hub import Hub

NS = 1_000_000_000
SYN = int(TcpFlag.SYN)


class Shop:
    """Rows between `client`, `cart` and `db` of namespace shop; one node."""

    def __init__(self, flows: int = 4095) -> None:
        self.hub = Hub(flows)
        self.tables = self.hub.ring.tables
        self.node = self.tables.nodes.intern(Node("kind-worker", ("zone=a",), 0x1234_5678_9ABC_DEF0))
        self.now_ns = time.time_ns()
        self.seq = 0

    def pod(self, name: str, namespace: str = "shop", **fields: Any) -> int:
        """Index of a pod's endpoint."""
        endpoint = flow_pb2.Endpoint(
            namespace=namespace, pod_name=f"{name}-0", identity=300 + len(name), labels=[f"k8s:app={name}"], **fields
        )
        return self.tables.endpoints.intern(endpoint.SerializeToString(deterministic=True))

    def end(self, **fields: Any) -> int:
        return self.tables.endpoints.intern(flow_pb2.Endpoint(**fields).SerializeToString(deterministic=True))

    def row(self, src: int, dst: int, sport: int = 40000, dport: int = 80, ago_s: float = 0, **fields: Any) -> Rows:
        """One forwarded TCP flow; `fields` are fields of a row."""
        one = empty_rows(1)
        self.seq += 1
        values = {
            "src": src, "dst": dst, "sport": sport, "dport": dport, "l4": L4.TCP, "verdict": flow_pb2.FORWARDED,
            "node": self.node, "ts_ns": self.now_ns - int(ago_s * NS), "seq": self.seq, "ip_version": 1,
            "src_ip_lo": 0x0A000000 + src, "dst_ip_lo": 0x0A000000 + dst, "event_type": 4, "flow_type": flow_pb2.L3_L4,
            "bits": Bit.HAS_EVENT_TYPE | Bit.HAS_TCP_FLAGS, "is_reply": Reply.FALSE, **fields,
        }  # fmt: skip
        for name, value in values.items():
            one[name] = value
        return one

    def answer(self, src: int, dst: int, ms: float, **http: Any) -> Rows:
        """An HTTP answer of `src` to `dst`."""
        flow = flow_pb2.Flow(l7=flow_pb2.Layer7(type=flow_pb2.RESPONSE, latency_ns=int(ms * 1e6)))
        flow.l7.http.MergeFrom(flow_pb2.HTTP(**http))
        return self.l7(flow, src, dst, 80, 40000)

    def dns(self, src: int, dst: int, query: str, rcode: int) -> Rows:
        """A DNS answer of `src` to `dst`."""
        flow = flow_pb2.Flow(l7=flow_pb2.Layer7(type=flow_pb2.RESPONSE))
        flow.l7.dns.MergeFrom(flow_pb2.DNS(query=query, rcode=rcode, observation_source="proxy"))
        return self.l7(flow, src, dst, 53, 40000, l4=L4.UDP)

    def l7(self, flow: flow_pb2.Flow, src: int, dst: int, sport: int, dport: int, **fields: Any) -> Rows:
        aux = self.tables.aux.intern(flow.SerializeToString(deterministic=True))
        kinds = {"is_reply": Reply.TRUE, "flow_type": flow_pb2.L7, "event_type": 129, "aux": aux}
        return self.row(src, dst, sport, dport, **{**kinds, "bits": Bit.HAS_EVENT_TYPE, **fields})

    def lost(self, count: int, ago_s: float = 0) -> Rows:
        event = flow_pb2.LostEvent(num_events_lost=count, source=flow_pb2.PERF_EVENT_RING_BUFFER)
        aux = self.tables.aux.intern(event.SerializeToString(deterministic=True))
        return self.row(0, 0, ago_s=ago_s, kind=Kind.LOST, aux=aux)

    async def add(self, *rows: Rows) -> None:
        await self.hub.add(joined(list(rows)))

    def add_now(self, *rows: Rows) -> None:
        """As `add`, for tests without an event loop."""
        self.hub.ring.append(joined(list(rows)))
