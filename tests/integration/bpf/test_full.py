"""Maps at their limits: the newest connections get in, what is in use stays, and what had to go is counted."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import numpy as np
import pytest

from bpf import maps
from bpf.census import census
from bpf.datapath import Datapath, Endpoint, MapSizes
from bpf.handles import Map, Program
from bpf.services import Backend, Frontend, FrontendKind, ServiceFrontend
from observer.perf import PerfReader
from tests.support.kernel_events import EventLog
from tests.support.testnet import inside, network
from tests.support.traffic import ethernet, ipv4_packet, udp_datagram

pytestmark = pytest.mark.kernel

OWN, NODE, WORLD = IPv4Address("10.244.1.10"), IPv4Address("192.0.2.7"), IPv4Address("198.51.100.9")
LOOPBACK, SHOT = 1, 2
NAT_PORTS = range(1024, 30000)


class Bench:
    """A datapath whose one endpoint sits on a loopback device, where packets are run and not sent."""

    def __init__(self, netns: str, bpffs: Path, objects: Path, sizes: MapSizes) -> None:
        self.netns = netns
        self.datapath = Datapath("full", netns=netns, bpffs=bpffs, sizes=sizes, objects=objects)
        self.datapath.ensure_loaded()
        macs = ("02:00:00:00:00:05", "02:00:00:00:00:01")
        self.datapath.attach_endpoint(
            Endpoint(endpoint_id=5, identity=500, ifname="lo", ipv4=OWN, pod_mac=macs[0], host_mac=macs[1])
        )
        self.datapath.set_masquerade(NODE, None, [ip_network("10.244.0.0/16")])
        self.log = EventLog(PerfReader(self.datapath.pin_dir, 16))

    def run(self, frame: bytes, name: str) -> tuple[int, bytes]:
        [path] = self.datapath.pin_dir.glob(f"programs-*/{name}")
        program = Program.pinned(path)
        try:
            done = inside(self.netns, lambda: program.test_run(frame, ifindex=LOOPBACK))
        finally:
            program.close()
        return done.result, done.packet

    def close(self) -> None:
        self.log.reader.close()
        self.datapath.unload()
        self.datapath.close()


def bench(objects: Path, tmp_path: Path, **sizes: int) -> Iterator[Bench]:
    with network(tmp_path) as net:
        found = Bench(net.name, net.bpffs, objects, MapSizes(ipcache=64, affinity=64, fragments=64, **sizes))
        yield found
        found.close()


@pytest.fixture
def tight(objects: Path, tmp_path: Path) -> Iterator[Bench]:
    """Few connections, all ports of translation."""
    yield from bench(objects, tmp_path, conntrack_tcp=512, conntrack_any=512, nat=65536)


@pytest.fixture
def stubborn(objects: Path, tmp_path: Path) -> Iterator[Bench]:
    """Connection tracking that throws nothing out: kernels do so only when all CPUs insert at once."""
    folder = tmp_path / "objects"
    folder.mkdir()
    for path in objects.glob("*.o"):
        (folder / path.name).write_bytes(without_eviction(path.read_bytes()))
    yield from bench(folder, tmp_path, conntrack_tcp=64, conntrack_any=1, nat=64)


def without_eviction(program: bytes) -> bytes:
    """The object with plain hashes instead of LRU ones: BTF says a map's type as the length of an array type."""
    found = np.frombuffer(program, np.uint8).copy()
    head = (0).to_bytes(4, "little") + (3 << 24).to_bytes(4, "little") + (0).to_bytes(4, "little")
    at = program.find(head)
    while at >= 0:
        if program[at + 20 : at + 24] == (9).to_bytes(4, "little"):
            found[at + 20] = 1
        at = program.find(head, at + 1)
    return found.tobytes()


def to_world(sport: int, protocol: int = 17, payload: bytes = b"") -> bytes:
    return ethernet(ipv4_packet(str(OWN), str(WORLD), payload or udp_datagram(sport, 53), protocol))


def test_connection_that_cannot_be_remembered_is_dropped(stubborn: Bench) -> None:
    assert stubborn.run(to_world(1), "from_container")[0] != SHOT
    assert stubborn.run(to_world(2), "from_container")[0] == SHOT
    [event] = [event for event in stubborn.log.collect() if event.type == 1]
    assert (event.what, event.source, event.ext_error) == ("drop 155", 5, -7)
    counters = stubborn.datapath.packet_counters()
    assert [one.packets for one in counters if one.reason == 155] == [1]


def expire(table: Map) -> None:
    for key, value in table.items():
        entry = np.frombuffer(value, maps.CT_ENTRY).copy()
        entry["lifetime_s"] = 0
        table.update(key, entry.tobytes())


def test_new_connections_get_in_and_what_they_push_out_is_counted(tight: Bench) -> None:
    for number in range(5):
        tight.run(to_world(1024 + number), "from_container")
    table = Map.pinned(tight.datapath.pin_dir / maps.CT4_ANY)
    expire(table)
    table.close()
    assert tight.datapath.collect_garbage() == 6, "one per datagram, and one for errors about them"
    assert not any(tight.datapath.evictions().values()), "what was collected was not thrown out"
    for number in range(2000):
        result, _ = tight.run(to_world(1024 + number), "from_container")
        assert result != SHOT
    uses = {one.name: one for one in census(tight.datapath.pin_dir)}
    full = uses[maps.CT4_ANY]
    assert full.entries is not None
    assert full.entries <= full.max_entries == 512
    assert (full.evicted or 0) + full.entries >= 2000
    assert uses[maps.CT4_TCP].evicted == 0


@pytest.mark.parametrize("port", [2000, 40000], ids=["of its own", "of another"])
def test_translation_that_was_lost_is_made_again(tight: Bench, port: int) -> None:
    """One half of it or both: the world sees the port it knows."""
    _, first = tight.run(to_world(port), "to_netdev")
    assert IPv4Address(first[26:30]) == NODE
    table = Map.pinned(tight.datapath.pin_dir / maps.NAT4)
    whole = set(dict(table.items()))
    assert len(whole) == 2
    for lost in ([], *([half] for half in whole), whole):
        for key in lost:
            table.delete(key)
        assert tight.run(to_world(port), "to_netdev")[1] == first
        assert set(dict(table.items())) == whole
    table.close()


def test_what_full_tables_of_clients_and_fragments_throw_out_is_counted(tight: Bench) -> None:
    backend = Backend(address=IPv4Address("10.244.2.10"), port=53)
    tight.datapath.sync_services(
        [
            ServiceFrontend(
                frontend=Frontend(address=WORLD, port=53, protocol=17),
                backends=(backend,),
                kind=FrontendKind.LOAD_BALANCER,
                affinity_s=100,
            )
        ]
    )
    for number in range(500):
        client = IPv4Address("203.0.113.0") + number
        question = ipv4_packet(str(client), str(WORLD), udp_datagram(1000, 53), 17)
        tight.run(ethernet(question), "from_netdev")
        piece = ipv4_packet(str(client), str(NODE), udp_datagram(1000, 54), 17, fragment=0x2000)
        tight.run(ethernet(piece), "from_netdev")
    uses = {one.name: one for one in census(tight.datapath.pin_dir)}
    for name in (maps.LB4_AFFINITY, maps.FRAGMENTS):
        assert (uses[name].evicted or 0) + (uses[name].entries or 0) == 500
        assert uses[name].evicted
    assert uses[maps.LB6_AFFINITY].evicted == 0


def test_packets_that_cannot_be_translated_are_dropped_for_their_reasons(tight: Bench) -> None:
    assert tight.run(to_world(1, protocol=47, payload=bytes(32)), "to_netdev")[0] == SHOT
    table = Map.pinned(tight.datapath.pin_dir / maps.NAT4)
    key, value = np.zeros(1, maps.NAT_KEY), np.zeros(1, maps.NAT_ENTRY)
    key["daddr"][0, :4], key["saddr"][0, :4] = list(NODE.packed), list(WORLD.packed)
    key["sport"], key["protocol"], key["direction"] = 53, 17, maps.NAT_IN
    for port in NAT_PORTS:
        key["dport"] = port
        table.update(key.tobytes(), value.tobytes())
    table.close()
    assert tight.run(to_world(2000), "to_netdev")[0] == SHOT
    assert [event.what for event in tight.log.collect() if event.type == 1] == ["drop 168", "drop 167"]
