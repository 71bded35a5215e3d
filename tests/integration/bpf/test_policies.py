"""Policy maps in the kernel: replaced whole, shared when equal, refused whole, there after a restart."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import maps
from bpf.datapath import Datapath
from bpf.handles import Map
from bpf.policies import MAX_ENTRIES, EndpointPolicy, PolicyEntry, PolicyTooLarge
from tests.support.testnet import SMALL_MAPS, Cluster
from tests.support.traffic import open_socket

pytestmark = pytest.mark.kernel

TCP = 6


def allow(*ports: int) -> EndpointPolicy:
    """Ingress from anybody to some ports."""
    entries = (PolicyEntry(False, 0, TCP, port, 16) for port in ports)
    return EndpointPolicy(tuple(sorted(entries)), enforced_ingress=True)


@pytest.fixture
def datapath(cluster: Cluster) -> Iterator[Datapath]:
    datapath = cluster.near.datapath
    yield datapath
    for number in datapath.policies():
        datapath.set_policy(number, EndpointPolicy())


def map_id(path: Path) -> int:
    table = Map.pinned(path)
    text = Path(f"/proc/self/fdinfo/{table.fd}").read_text()
    table.close()
    return int(text.split("map_id:")[1].split()[0])


def pin(datapath: Datapath, number: int) -> Path:
    return datapath.pin_dir / f"{maps.POLICY_PIN}{number}"


def test_the_kernel_has_what_it_was_given_under_the_endpoint_s_name(datapath: Datapath) -> None:
    policy = EndpointPolicy(
        tuple(
            sorted(
                [
                    PolicyEntry(False, 0, TCP, 80, 16, 7, cookie=3),
                    PolicyEntry(False, 1002, TCP, 8000, 10, 9, deny=True),
                    PolicyEntry(True, 1003, 17, 53, 16, 134, proxy_port=10001, auth=0x81),
                    PolicyEntry(True, 0),
                ]
            )
        ),
        enforced_ingress=True,
        enforced_egress=True,
        audit=True,
    )
    datapath.set_policy(7, policy)
    assert datapath.policies() == {7: policy}
    assert pin(datapath, 7).exists()
    datapath.set_policy(7, EndpointPolicy())
    assert datapath.policies() == {}
    assert not pin(datapath, 7).exists()


def test_endpoints_with_equal_policies_share_a_map(datapath: Datapath) -> None:
    datapath.set_policies({1: allow(80), 2: allow(80), 3: allow(81)})
    first, second, third = (map_id(pin(datapath, number)) for number in (1, 2, 3))
    assert first == second != third
    datapath.set_policy(2, allow(82))
    assert map_id(pin(datapath, 1)) == first
    assert datapath.policies()[1] == allow(80)


def test_what_is_there_already_is_left_alone(datapath: Datapath) -> None:
    datapath.set_policy(1, allow(80))
    before = map_id(pin(datapath, 1))
    datapath.set_policy(1, allow(80))
    assert map_id(pin(datapath, 1)) == before


def test_a_policy_too_large_is_refused_whole_and_with_it_its_whole_batch(datapath: Datapath) -> None:
    datapath.set_policies({1: allow(80), 2: allow(80)})
    large = allow(*range(1, MAX_ENTRIES))
    with pytest.raises(PolicyTooLarge, match="the old policy stays") as refused:
        datapath.set_policies({1: allow(81), 2: large})
    assert refused.value.errno == errno.E2BIG
    assert datapath.policies() == {1: allow(80), 2: allow(80)}
    datapath.set_policy(2, allow(*range(1, MAX_ENTRIES - 1)))
    assert len(datapath.policies()[2].entries) == MAX_ENTRIES - 2


def test_an_endpoint_that_goes_takes_its_policy_along(cluster: Cluster, datapath: Datapath) -> None:
    datapath.set_policy(99, allow(80))
    datapath.detach_endpoint(99)
    assert datapath.policies() == {}


def test_the_next_agent_finds_policies_in_force_and_may_write_them_again(cluster: Cluster, datapath: Datapath) -> None:
    datapath.set_policy(1, allow(80))
    with Datapath(cluster.near.netns, netns=cluster.near.netns, bpffs=cluster.net.bpffs, sizes=SMALL_MAPS) as other:
        other.ensure_loaded()
        assert other.policies() == {1: allow(80)}
        other.set_policy(1, allow(81))
    assert datapath.policies() == {1: allow(81)}


def test_no_packet_meets_half_a_policy(cluster: Cluster, datapath: Datapath) -> None:
    """Two policies that both allow port 4000 and both refuse 4001, swapped as fast as possible under traffic."""
    number = cluster.server.endpoint.endpoint_id
    noise = [allow(4000, *range(10000, 10000 + count)) for count in (500, 700)]
    datapath.set_policy(number, noise[0])
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            datapath.set_policy(number, noise[swaps % 2])
            swaps += 1

    server = cluster.server.netns
    client = cluster.client.netns
    swapper = threading.Thread(target=swap)
    allowed = refused = sent = 0
    with (
        open_socket(server, socket.SOCK_STREAM, "0.0.0.0", 4000) as good,
        open_socket(server, socket.SOCK_STREAM, "0.0.0.0", 4001) as bad,
    ):
        swapper.start()
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            with open_socket(client, socket.SOCK_STREAM) as sock, open_socket(client, socket.SOCK_STREAM) as other:
                sock.settimeout(0.5)
                other.setblocking(False)
                other.connect_ex((cluster.server.ipv4, 4001))
                sent += 1
                allowed += sock.connect_ex((cluster.server.ipv4, 4000)) == 0
                good.accept()[0].close()
        stop.set()
        swapper.join()
        bad.setblocking(False)
        with pytest.raises(BlockingIOError):
            bad.accept()
    assert swaps > 10
    assert (allowed, refused) == (sent, 0)
