"""What a service costs each new connection: beside nftables, which does the same with DNAT on the same machines.

In:        testnet.py's nodes with our datapath, plainnet.py's with nft; wrk with a connection per request, Envoy.
Out:       connections per second through a ClusterIP, with 1 and with 1,000 services; ratios from one run, by turns.
Elsewhere: throughput and latency without services are bench_datapath.py's.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from bpf.datapath import OBJECTS, MapSizes
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from tests.bench.bench_datapath import pods
from tests.support.plainnet import PlainNet, plain_network
from tests.support.testnet import ip, network, sysctl
from tests.support.web import serve_web, wrk

ROUNDS = 11
RUN_S = 1
CONNECTIONS = 4
PORT = 8080
SERVICES = (1, 1000)
FIRST = IPv4Address("10.96.0.1")
TCP = 6


def run() -> dict[str, object]:
    """All figures of this topic."""
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    figures: dict[str, object] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = stack.enter_context(plain_network())
        # As large as a node has them: small ones push connections out that are still needed.
        net = stack.enter_context(network(folder, MapSizes()))
        near, server, _ = pods(net)
        _, address = plain.pods["server"]
        route_services(plain)
        ways = {"nft": plain.pods["near"][0], "ours": near.netns}
        for netns in (plain.pods["server"][0], server.netns):
            stack.enter_context(serve_web(netns, PORT))
        for count in SERVICES:
            write_rules(plain, count, address)
            net.nodes[0].datapath.sync_services(services(count, server.ipv4))
            figures |= compare(count, ways)
        net.nodes[0].datapath.sync_services([])
    many, one = (figures[f"services_{count}_ours_connections_per_s"] for count in reversed(SERVICES))
    assert isinstance(many, float)
    assert isinstance(one, float)
    return figures | {"ours_many_to_one_ratio": round(many / one, 3)}


def compare(count: int, ways: dict[str, str]) -> dict[str, object]:
    """Connections per second to the last service, by turns; medians and their ratio."""
    url = f"http://{FIRST + count - 1}/"
    rates: dict[str, list[float]] = {way: [] for way in ways}
    errors = 0
    for number in range(ROUNDS):
        for way in sorted(ways, reverse=bool(number % 2)):
            told = wrk(ways[way], url, connections=CONNECTIONS, seconds=RUN_S, headers=("Connection: close",))
            rates[way].append(told.requests_per_s)
            errors += told.errors
    middle = {way: statistics.median(each) for way, each in rates.items()}
    figures: dict[str, object] = {
        f"services_{count}_{way}_connections_per_s": round(rate, 1) for way, rate in middle.items()
    }
    return figures | {
        f"services_{count}_ratio": round(middle["ours"] / middle["nft"], 3),
        f"services_{count}_errors": errors,
    }


def services(count: int, backend: str) -> list[ServiceFrontend]:
    """ClusterIP services, all with the same backend."""
    return [
        ServiceFrontend(
            frontend=Frontend(address=FIRST + number, port=80, protocol=TCP),
            backends=(Backend(address=ip_address(backend), port=PORT),),
            kind=FrontendKind.CLUSTER_IP,
        )
        for number in range(count)
    ]


def route_services(plain: PlainNet) -> None:
    """The node is its pods' gateway, as with us, and sees what passes its bridge."""
    ip("addr add 10.244.1.1/24 dev pods", netns=plain.netns(1))
    sysctl(plain.netns(1), ipv4__ip_forward=1, ipv4__conf__all__rp_filter=0, ipv4__conf__all__send_redirects=0)
    for netns, address in (plain.pods["near"], plain.pods["server"]):
        # Pods have their own address only: also neighbours are reached through the node, so that answers find back.
        ip(
            f"addr del {address}/24 dev eth0",
            f"addr add {address}/32 dev eth0",
            "route add 10.244.1.1 dev eth0 scope link",
            "route add default via 10.244.1.1",
            netns=netns,
        )


def write_rules(plain: PlainNet, count: int, backend: str) -> None:
    """One DNAT rule per service, one after the other, as kube-proxy's iptables mode has them."""
    rules = "".join(
        f"add rule ip lb pre ip daddr {FIRST + n} tcp dport 80 dnat to {backend}:{PORT}\n" for n in range(count)
    )
    script = (
        "add table ip lb\ndelete table ip lb\nadd table ip lb\n"
        "add chain ip lb pre { type nat hook prerouting priority dstnat; }\n" + rules
    )
    command = ["ip", "netns", "exec", plain.netns(1), "nft", "-f", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nft: {done.stderr.strip()[-300:]}")
