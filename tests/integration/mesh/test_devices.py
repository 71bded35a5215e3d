"""The devices, routes and rules of a node, in a namespace of their own."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator

import pytest

from mesh.devices import NodeDevices
from mesh.resources.base import Metadata
from mesh.resources.cluster import Node, NodeSpec
from tests.support.testnet import inside, ip

pytestmark = pytest.mark.kernel


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"fst{secrets.token_hex(3)}"
    ip(f"netns add {name}")
    ip("link set lo up", "link add eth0 type veth peer name other", "link set eth0 up", netns=name)
    yield name
    ip(f"netns del {name}")


def shown(netns: str, family: str, *what: str) -> list[str]:
    command = ["ip", "-n", netns, family, *what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_restart_finds_the_ways_of_proxies_and_leaves_them_alone(netns: str, family: str) -> None:
    node = Node(
        api_version="v1",
        kind="Node",
        metadata=Metadata(name="worker"),
        spec=NodeSpec.model_validate({"podCIDRs": ["10.244.3.0/24", "fd00:10:244:3::/64"]}),
    )

    def prepare() -> None:
        devices = NodeDevices()
        devices.prepare(node, "eth0")
        devices.close()

    for _ in range(2):
        inside(netns, prepare)
    rules = [line for line in shown(netns, family, "rule") if "fwmark" in line]
    assert rules == [
        "9: from all fwmark 0x200/0xf00 lookup 2004",
        "10: from all fwmark 0x900/0xf00 lookup 2005",
    ]
    [to_proxies] = shown(netns, family, "route", "show", "table", "2004")
    assert to_proxies.startswith("local default dev lo")
    [from_proxies] = shown(netns, family, "route", "show", "table", "2005")
    assert from_proxies.startswith("default dev cilium_host")


def test_a_device_that_is_missing_is_told(netns: str) -> None:
    def told() -> dict[str, str]:
        devices = NodeDevices()
        found = devices.describe(["eth0"])
        devices.close()
        return found

    assert inside(netns, told)["message"].startswith("no device cilium_host, cilium_vxlan;")
    ip("link add cilium_host type veth peer name cilium_vxlan", netns=netns)
    assert inside(netns, told) == {"state": "ok", "message": "tunnel cilium_vxlan (UDP 8472), devices eth0"}


def test_a_node_may_have_a_range_of_one_ip_version_only(netns: str) -> None:
    node = Node(
        api_version="v1",
        kind="Node",
        metadata=Metadata(name="host"),
        spec=NodeSpec.model_validate({"podCIDRs": ["10.244.3.0/24"]}),
    )

    def prepare() -> None:
        devices = NodeDevices()
        devices.prepare(node, "eth0")
        devices.close()

    inside(netns, prepare)
    assert any("inet 10.244.3.1/32" in line for line in shown(netns, "-4", "addr", "show", "dev", "cilium_host"))
    assert not any("inet6 fd00" in line for line in shown(netns, "-6", "addr", "show", "dev", "cilium_host"))
