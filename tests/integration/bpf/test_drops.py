"""Packets no pod would send by itself, run through the programs without a network (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from random import Random

import pytest

from bpf import maps
from bpf.datapath import Datapath, Endpoint, IpcacheEntry
from bpf.handles import Map, Program, RunResult
from observer.perf import PerfReader
from tests.support.kernel_events import EventLog
from tests.support.testnet import SMALL_MAPS, inside, network
from tests.support.traffic import ethernet, ipv4_packet, udp_datagram

pytestmark = pytest.mark.kernel

LOOPBACK = 1
PASS, SHOT, REDIRECT = 0, 2, 7
OWN = IPv4Address("10.244.1.10")
OWN6 = IPv6Address("fd00:10:244:1::a")
REMOTE = IPv4Address("10.244.2.10")


class Bench:
    """A datapath whose one endpoint sits on the loopback device of a namespace, where packets are run and not sent."""

    def __init__(self, netns: str, bpffs: Path) -> None:
        self.netns = netns
        self.datapath = Datapath("bench", netns=netns, bpffs=bpffs, sizes=SMALL_MAPS)
        self.datapath.ensure_loaded()
        self.endpoint = Endpoint(
            endpoint_id=5,
            identity=500,
            ifname="lo",
            pod_mac="02:00:00:00:00:05",
            host_mac="02:00:00:00:00:01",
            ipv4=OWN,
            ipv6=OWN6,
        )
        self.datapath.attach_endpoint(self.endpoint)
        self.log = EventLog(PerfReader(self.datapath.pin_dir, 16))

    def run(self, frame: bytes, name: str = "from_container") -> RunResult:
        [path] = self.datapath.pin_dir.glob(f"programs-*/{name}")
        program = Program.pinned(path)
        try:
            return inside(self.netns, lambda: program.test_run(frame, ifindex=LOOPBACK))
        finally:
            program.close()

    def close(self) -> None:
        self.log.reader.close()
        self.datapath.unload()
        self.datapath.close()


@pytest.fixture(scope="module")
def shared_bench(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with network(tmp_path_factory.mktemp("bench")) as net:
        bench = Bench(net.name, net.bpffs)
        yield bench
        bench.close()


@pytest.fixture
def bench(shared_bench: Bench) -> Bench:
    shared_bench.log.clear()
    return shared_bench


def ipv6_packet(payload: bytes, next_header: int, src: IPv6Address = OWN6) -> bytes:
    dst = IPv6Address("fd00:10:244:2::a")
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64) + src.packed + dst.packed + payload


def to_remote(payload: bytes, protocol: int = 17, fragment: int = 0) -> bytes:
    return ethernet(ipv4_packet(str(OWN), str(REMOTE), payload, protocol, fragment=fragment))


DESTINATION_OPTIONS = bytes([60, 0, 1, 4, 0, 0, 0, 0])

CASES: dict[str, tuple[int, Callable[[], bytes]]] = {
    "another protocol than IP": (139, lambda: ethernet(bytes(50), 0x88CC)),
    "an IP version that does not fit": (134, lambda: ethernet(b"\x65" + bytes(60))),
    "a TCP header that is cut": (135, lambda: to_remote(bytes(6), protocol=6)),
    "a transport nobody can track": (137, lambda: to_remote(bytes(40), protocol=47)),
    "ICMPv6 in IPv4": (137, lambda: to_remote(b"\x80" + bytes(39), protocol=58)),
    "a later fragment whose first never came": (175, lambda: to_remote(bytes(64), fragment=100)),
    "more IPv6 extensions than are followed": (
        156,
        lambda: ethernet(ipv6_packet(DESTINATION_OPTIONS * 5 + bytes(40), 60), 0x86DD),
    ),
    "an IPv6 extension that is cut": (156, lambda: ethernet(ipv6_packet(DESTINATION_OPTIONS[:6], 60), 0x86DD)),
    "another pod's IPv6 address": (
        132,
        lambda: ethernet(ipv6_packet(udp_datagram(1, 2), 17, src=IPv6Address("fd00::1")), 0x86DD),
    ),
    "no address at all": (132, lambda: ethernet(ipv4_packet("0.0.0.0", "255.255.255.255", udp_datagram(68, 67)))),
}


@pytest.mark.parametrize("name", CASES)
def test_packet_is_dropped_for_its_reason(bench: Bench, name: str) -> None:
    reason, frame = CASES[name]
    assert bench.run(frame()).result == SHOT
    [event] = bench.log.collect()
    assert (event.what, event.source, event.src_identity) == (f"drop {reason}", 5, 500)
    assert event.packet == frame()[:128]
    source = next(Path(maps.__file__).parent.rglob(maps.DROP_FILES[event.file])).read_text().splitlines()
    assert "DROP_" in source[event.line - 1]


def test_tunnel_without_a_device_is_dropped(bench: Bench) -> None:
    node = IpcacheEntry(identity=600, tunnel_endpoint=IPv4Address("172.18.0.2"))
    bench.datapath.set_ipcache(ip_network(f"{REMOTE}/32"), node)
    try:
        assert bench.run(to_remote(udp_datagram(1, 2))).result == SHOT
    finally:
        bench.datapath.delete_ipcache(REMOTE)
    trace, drop = bench.log.collect()
    assert (trace.what, drop.what, drop.dst_identity) == ("to-overlay", "drop 160", 600)


def test_endpoint_without_its_ingress_program_gets_nothing(bench: Bench) -> None:
    table = Map.pinned(bench.datapath.pin_dir / maps.CALL_POLICY)
    frame = ethernet(ipv4_packet(str(OWN), str(OWN), udp_datagram(1, 2)))
    assert bench.run(frame).result == REDIRECT
    table.delete((5).to_bytes(4, "little"))
    bench.log.clear()
    assert bench.run(frame).result == SHOT
    bench.datapath.attach_endpoint(bench.endpoint)
    table.close()
    assert [event.what for event in bench.log.collect()] == ["drop 203"]


def test_packet_that_never_came_through_a_tunnel_has_no_key(bench: Bench) -> None:
    frame = to_remote(udp_datagram(1, 2))
    assert bench.run(frame, "from_overlay").result == SHOT
    assert bench.run(frame, "to_overlay").result == SHOT
    assert [event.what for event in bench.log.collect()] == ["drop 147", "drop 160"]


def test_arp_is_answered_with_the_mac_of_the_host_side(bench: Bench) -> None:
    pod = bytes.fromhex("020000000005")
    wanted = IPv4Address("10.244.1.1")
    question = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + pod + OWN.packed + bytes(6) + wanted.packed
    done = bench.run(ethernet(question, 0x0806, dst="ff:ff:ff:ff:ff:ff", src=bench.endpoint.pod_mac))
    host = bytes.fromhex("020000000001")
    answer = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + host + wanted.packed + pod + OWN.packed
    assert (done.result, done.packet) == (REDIRECT, pod + host + b"\x08\x06" + answer)
    own = question[:-4] + OWN.packed
    assert bench.run(ethernet(own, 0x0806)).result == SHOT, "nobody else has the pod's own address"
    assert not bench.log.collect()


def test_no_bytes_get_past_unseen(bench: Bench) -> None:
    """Mutated and cut packets end in an action; each one that is shot has an event, but for the link's own talk."""
    random = Random(4711)
    seeds = [to_remote(udp_datagram(1, 2)), to_remote(bytes(40), protocol=6), to_remote(bytes(40), protocol=1)]
    seeds += [
        ethernet(ipv6_packet(bytes([kind]) + bytes(47), header), 0x86DD) for kind, header in ((0, 0), (3, 58), (60, 43))
    ]
    for _ in range(600):
        frame = bytearray(random.choice(seeds))
        for _ in range(random.randint(1, 4)):
            frame[random.randrange(14, len(frame))] = random.randrange(256)
        shortest = 34 if frame[12:14] == b"\x08\x00" else 54  # the kernel runs nothing that ends in its IP header
        frame = frame[: random.randint(shortest, len(frame))]
        bench.log.clear()
        result = bench.run(bytes(frame)).result
        events = bench.log.collect()
        assert result in (PASS, SHOT, REDIRECT)
        drops = [event for event in events if event.type == 1]
        is_icmp6 = frame[12:14] == b"\x86\xdd"
        assert len(drops) == (result == SHOT) or (is_icmp6 and not drops), bytes(frame).hex()
        assert all(event.packet == frame[:128] or event.type == 4 for event in events)
