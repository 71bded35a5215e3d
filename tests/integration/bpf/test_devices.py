"""Where programs are put on devices: in the kernel's list, or as filters of tc where it has none."""

from __future__ import annotations

import ctypes
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import tcx
from bpf.datapath import Datapath
from bpf.devices import Hook, NodeNamespace
from bpf.handles import Program
from bpf.libbpf import libbpf
from tests.support.testnet import Network, Node, inside, network
from tests.support.traffic import exchange, open_socket

pytestmark = pytest.mark.kernel

SCHED_CLS = 3  # enum bpf_prog_type
NEXT = bytes.fromhex("b7000000ffffffff 9500000000000000")  # r0 = TCX_NEXT; exit


@pytest.fixture
def net(objects: Path, tmp_path: Path) -> Iterator[Network]:
    with network(tmp_path) as made:
        yield made


@pytest.fixture
def without_lists(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As on a kernel before Linux 6.6."""
    monkeypatch.setattr(tcx, "is_known", lambda: False)
    return monkeypatch


def filters(netns: str, device: str) -> str:
    """What tc says of a device."""
    command = ["tc", "-n", netns, "filter", "show", "dev", device]
    return "".join(
        subprocess.run([*command, hook], capture_output=True, text=True, check=False).stdout
        for hook in ("ingress", "egress")
    )


def take_over(node: Node, net: Network) -> Datapath:
    """What the next agent does."""
    datapath = Datapath(node.netns, netns=node.netns, bpffs=net.bpffs)
    datapath.ensure_loaded()
    for endpoint in datapath.endpoints().values():
        datapath.attach_endpoint(endpoint)
    return datapath


def other_program() -> Program:
    """Somebody else's, which leaves every packet to the next one."""
    fd = libbpf().lib.bpf_prog_load(SCHED_CLS, b"other", b"GPL", NEXT, ctypes.c_size_t(len(NEXT) // 8), None)
    assert fd > 0
    return Program("other", fd)


def names(netns: str, device: str) -> list[str]:
    """Programs in the list at a device's ingress."""

    def ask() -> list[str]:
        numbers = tcx.query(socket.if_nametoindex(device), tcx.Direction.INGRESS)[1]
        programs = [program for number in numbers if (program := Program.of_id(number))]
        for program in programs:
            program.close()
        return [program.name for program in programs]

    return inside(netns, ask)


def test_filters_serve_where_the_kernel_has_no_list(net: Network, without_lists: pytest.MonkeyPatch) -> None:
    node = net.add_node()
    client, server = node.add_pod(10, 1000), node.add_pod(11, 1001)
    assert "from_container" in filters(node.netns, "lxc10")
    assert len(exchange(client.netns, server.netns, server.ipv4, 8080)) == 64
    with take_over(node, net):
        assert len(exchange(client.netns, server.netns, server.ipv4, 8080)) == 64
    node.datapath.unload()
    assert "bpf" not in filters(node.netns, "lxc10")


def test_new_kernel_takes_the_filters_place_under_a_connection(net: Network, without_lists: pytest.MonkeyPatch) -> None:
    node = net.add_node()
    client, server = node.add_pod(10, 1000), node.add_pod(11, 1001)
    listener = open_socket(server.netns, socket.SOCK_STREAM, port=9007)
    with listener, open_socket(client.netns, socket.SOCK_STREAM) as caller:
        caller.connect((server.ipv4, 9007))
        answerer, _ = listener.accept()
        without_lists.undo()
        with answerer, take_over(node, net):
            assert "bpf" not in filters(node.netns, "lxc10")
            assert names(node.netns, "lxc10") == ["from_container"]
            caller.sendall(b"still there?")
            assert answerer.recv(100) == b"still there?"


def test_list_keeps_one_of_ours_and_whatever_others_put_there(net: Network) -> None:
    node = net.add_node()
    client, server = node.add_pod(10, 1000), node.add_pod(11, 1001)
    other = other_program()
    index = inside(node.netns, lambda: socket.if_nametoindex("lxc10"))
    inside(node.netns, lambda: tcx.attach(index, tcx.Direction.INGRESS, other))
    with take_over(node, net):
        assert names(node.netns, "lxc10") == ["from_container", "other"]
    assert len(exchange(client.netns, server.netns, server.ipv4, 8080)) == 64
    node.datapath.unload()
    assert names(node.netns, "lxc10") == ["other"]
    other.close()


def test_device_that_is_not_there_is_named(net: Network) -> None:
    node = net.add_node()
    namespace, program = NodeNamespace(node.netns), other_program()
    with pytest.raises(Exception, match=f"attach other: device nowhere in {node.netns} does not exist"):
        namespace.attach("nowhere", Hook.INGRESS, program)
    namespace.close()
    program.close()
