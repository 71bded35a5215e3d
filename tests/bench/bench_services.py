"""What a service costs each new connection: beside nftables, which does the same with DNAT on the same machines.

In:        testnet.py's nodes with our datapath, plainnet.py's with nft; connects.py's client and server.
Out:       connections per second and CPU time per connection through a ClusterIP, with 1 and with 1,000 services;
           ratios to nft from one run, by turns. Ways:
             ours     a pod's packets through our programs
             nft      one rule per service, one after the other, as kube-proxy's iptables mode has them
             nft_map  one rule that looks the service up, as kube-proxy's nftables mode does
             routed   no service: the same network as nft's, asked by the backend's own address, nothing tracked
Elsewhere: throughput and latency without services are bench_datapath.py's.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from bpf.datapath import OBJECTS, MapSizes
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from tests.bench.bench_datapath import pods
from tests.support.connects import Connects, Spent, many_ports
from tests.support.plainnet import PlainNet, plain_network
from tests.support.testnet import ip, network, sysctl

ROUNDS = 11
CONNECTIONS = 2000
"""Per turn. All turns of a server together use less than every port once: no connection is mistaken for an old one."""
PORT = 8080
SERVICES = (1, 1000)
FIRST = IPv4Address("10.96.0.1")
TCP = 6
RULES = {"nft": "rules", "nft_map": "map", "routed": "none"}


@dataclass(frozen=True, slots=True)
class Way:
    """One of the compared networks."""

    client: str
    server: str
    backend: str
    """Address of the server."""
    offer: Callable[[int, int], None]
    """Have this many services, of which the backend has this port."""
    direct: bool = False
    """Without a service."""


def run() -> dict[str, object]:
    """All figures of this topic."""
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    figures: dict[str, object] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = Connects.build(folder)
        # As large as a node has them: small ones push connections out that are still needed.
        net = stack.enter_context(network(folder, MapSizes()))
        near, server, _ = pods(net)
        ways = {
            "ours": Way(
                near.netns,
                server.netns,
                server.ipv4,
                lambda count, port: net.nodes[0].datapath.sync_services(services(count, server.ipv4, port)),
            )
        }
        for name, form in RULES.items():
            ways[name] = translated(stack.enter_context(plain_network()), form)
        for way in ways.values():
            many_ports(way.client)
        for number, count in enumerate(SERVICES):
            figures |= compare(program, count, PORT + number, ways)
        net.nodes[0].datapath.sync_services([])
    many, one = (figures[f"services_{count}_ours_cpu_us"] for count in reversed(SERVICES))
    assert isinstance(many, float)
    assert isinstance(one, float)
    return figures | {"ours_many_to_one_cpu_ratio": round(many / one, 3)}


def compare(program: Connects, count: int, port: int, ways: dict[str, Way]) -> dict[str, object]:
    """Connections to the service in the middle, by turns; medians, and their ratios to nft's."""
    spent: dict[str, list[Spent]] = {way: [] for way in ways}
    address = str(FIRST + count // 2)
    with ExitStack() as stack:
        servers = {}
        for name, way in ways.items():
            way.offer(count, port)
            servers[name] = stack.enter_context(program.serve(way.server, port))
        order = list(ways)
        for _ in range(ROUNDS):
            for name in order:
                way = ways[name]
                asked = (way.backend, port) if way.direct else (address, 80)
                spent[name].append(program.ask(way.client, *asked, CONNECTIONS, servers[name]))
            order = order[1:] + order[:1]
    figures: dict[str, object] = {}
    rates, costs = {}, {}
    for name, turns in spent.items():
        rates[name] = statistics.median(turn.per_s for turn in turns)
        costs[name] = statistics.median(turn.cpu_us for turn in turns)
        figures[f"services_{count}_{name}_connections_per_s"] = round(rates[name], 1)
        figures[f"services_{count}_{name}_cpu_us"] = round(costs[name], 1)
        figures[f"services_{count}_{name}_machine_us"] = round(statistics.median(turn.machine_us for turn in turns), 1)
    for name in ("nft", "nft_map"):
        figures[f"services_{count}_ratio_to_{name}"] = round(rates["ours"] / rates[name], 3)
        figures[f"services_{count}_cpu_ratio_to_{name}"] = round(costs[name] / costs["ours"], 3)
    return figures


def translated(plain: PlainNet, form: str) -> Way:
    """A network with nft in the place of our programs."""
    client, (server, address) = plain.pods["near"][0], plain.pods["server"]
    route_services(plain)
    return Way(
        client, server, address, lambda count, port: write_rules(plain, form, count, address, port), form == "none"
    )


def services(count: int, backend: str, port: int) -> list[ServiceFrontend]:
    """ClusterIP services, all with the same backend."""
    return [
        ServiceFrontend(
            frontend=Frontend(address=FIRST + number, port=80, protocol=TCP),
            backends=(Backend(address=ip_address(backend), port=port),),
            kind=FrontendKind.CLUSTER_IP,
        )
        for number in range(count)
    ]


def route_services(plain: PlainNet) -> None:
    """Pods hang on the node itself, as with us, which routes between them: no bridge costs nft what it costs nobody."""
    sysctl(plain.netns(1), ipv4__ip_forward=1, ipv4__conf__all__rp_filter=0, ipv4__conf__all__send_redirects=0)
    for netns, address in (plain.pods["near"], plain.pods["server"]):
        device = f"lxc{netns.rpartition('p')[2]}"
        ip(
            f"link set {device} nomaster",
            f"addr add 10.244.1.1/32 dev {device}",
            f"route add {address}/32 dev {device}",
            netns=plain.netns(1),
        )
        ip(
            f"addr del {address}/24 dev eth0",
            f"addr add {address}/32 dev eth0",
            "route add 10.244.1.1 dev eth0 scope link",
            "route add default via 10.244.1.1",
            netns=netns,
        )


def write_rules(plain: PlainNet, form: str, count: int, backend: str, port: int) -> None:
    """DNAT, by a rule for each service or by one for all; none: no table at all, so nothing is tracked either."""
    addresses = [FIRST + number for number in range(count)]
    match form:
        case "rules":
            rules = "".join(
                f"add rule ip lb pre ip daddr {each} tcp dport 80 dnat to {backend}:{port}\n" for each in addresses
            )
        case "map":
            found = ", ".join(f"{each} . 80 : {backend} . {port}" for each in addresses)
            rules = f"add rule ip lb pre dnat to ip daddr . tcp dport map {{ {found} }}\n"
        case _:
            return
    script = (
        "add table ip lb\ndelete table ip lb\nadd table ip lb\n"
        "add chain ip lb pre { type nat hook prerouting priority dstnat; }\n" + rules
    )
    command = ["ip", "netns", "exec", plain.netns(1), "nft", "-f", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nft: {done.stderr.strip()[-300:]}")
