"""What the DNS proxy costs: queries per second of one core, and the time it adds to a query.

Client, proxy and server are real and share the machine, in namespaces, behind the kernel's redirection; the same client
asks the same server without the proxy in the same run.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import tempfile
import threading
import time
from pathlib import Path

from bpf.datapath import Datapath
from bpf.policies import EndpointPolicy
from mesh.dns.wire import pack_name
from tests.support.dnsnet import DnsNet, dns_net, redirecting

NAMES = 500
IN_FLIGHT = 64
LOAD = 40_000
SINGLE = 3000
ROUNDS = 3
TICKS = os.sysconf("SC_CLK_TCK")


def run() -> dict[str, object]:
    """All figures."""
    with tempfile.TemporaryDirectory() as folder, dns_net(Path(folder)) as net:
        net.start_proxy()
        net.agent.give(net.rules("*.example.com"))
        reader = Reader(net)
        with Datapath(net.node_netns, netns=net.node_netns, bpffs=Path(folder) / "bpffs") as datapath:
            datapath.ensure_loaded()
            endpoint = net.client.endpoint.endpoint_id
            single: dict[str, list[float]] = {"direct": [], "proxied": []}
            for _ in range(ROUNDS):
                for way, policy in (("direct", EndpointPolicy()), ("proxied", redirecting())):
                    datapath.set_policy(endpoint, policy)
                    single[way] += latencies(net, SINGLE)
            before_s, began = cpu_s(net), time.perf_counter()
            flood(net, LOAD)
            took_s, used_s = time.perf_counter() - began, cpu_s(net) - before_s
        time.sleep(0.5)
        direct, proxied = (sorted(single[way]) for way in ("direct", "proxied"))
        asked = LOAD + ROUNDS * SINGLE
        return {
            "queries_per_s": round(LOAD / took_s),
            "queries_per_s_of_one_core": round(LOAD / used_s),
            "cpu_us_per_query": round(used_s / LOAD * 1e6, 1),
            "direct_p50_us": round(statistics.median(direct) * 1e6),
            "proxied_p50_us": round(statistics.median(proxied) * 1e6),
            "added_p50_us": round((statistics.median(proxied) - statistics.median(direct)) * 1e6),
            "direct_p99_us": round(direct[len(direct) * 99 // 100] * 1e6),
            "proxied_p99_us": round(proxied[len(proxied) * 99 // 100] * 1e6),
            "flows": reader.flows,
            "flows_wanted": 2 * asked,
            "flows_told_lost": reader.lost,
        }


class Reader:
    """Takes the records, as an observer would."""

    def __init__(self, net: DnsNet) -> None:
        self.flows = 0
        self.lost = 0
        self._socket = net.records
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(1 << 18)
            except OSError:
                return
            for line in datagram.splitlines():
                if line.startswith(b'{"type":"Lost"'):
                    self.lost += json.loads(line)["count"]
                else:
                    self.flows += 1


def queries(count: int) -> list[bytes]:
    """Different names, different ids."""
    tails = [pack_name(f"host{number}.example.com") + struct.pack(">HH", 1, 1) for number in range(NAMES)]
    head = struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0)
    return [struct.pack(">H", number & 0xFFFF) + head + tails[number % NAMES] for number in range(count)]


def latencies(net: DnsNet, count: int) -> list[float]:
    """One query after the other, in seconds."""
    found = []
    with net.udp() as sock:
        for packet in queries(count):
            began = time.perf_counter()
            sock.send(packet)
            sock.recv(4096)
            found.append(time.perf_counter() - began)
    return found


def flood(net: DnsNet, count: int) -> None:
    """Many at once, from one client; raises TimeoutError when an answer is lost."""
    with net.udp() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        packets = queries(count)
        sent = got = 0
        while got < count:
            while sent < count and sent - got < IN_FLIGHT:
                sock.send(packets[sent])
                sent += 1
            sock.recv(4096)
            got += 1


def cpu_s(net: DnsNet) -> float:
    """Processor time of the proxy."""
    assert net.process is not None
    fields = Path(f"/proc/{net.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
