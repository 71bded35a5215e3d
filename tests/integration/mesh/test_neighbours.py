"""The kernel of a neighbour learns where an address is now."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address

import pytest

from mesh.services.neighbours import tell_neighbours
from tests.support.testnet import inside, ip
from tests.support.waiting import eventually

pytestmark = pytest.mark.kernel

OLD, NEW = "02:00:00:00:00:aa", "02:00:00:00:00:bb"


@pytest.fixture
def nets() -> Iterator[tuple[str, str]]:
    """Two namespaces with one wire: the one that tells, the one that is told."""
    names = [f"fst{secrets.token_hex(3)}" for _ in range(2)]
    ip(*(f"netns add {name}" for name in names))
    try:
        ip(f"link add eth0 address {NEW} type veth peer name eth0 netns {names[1]}", netns=names[0])
        for name in names:
            ip("link set eth0 up", netns=name)
        yield names[0], names[1]
    finally:
        ip(*(f"netns del {name}" for name in names))


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_who_knew_the_address_elsewhere_knows_its_new_place(nets: tuple[str, str], address: str) -> None:
    here, there = nets

    def known() -> str:
        command = ["ip", "-n", there, "neigh", "show", address, "dev", "eth0"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    ip(f"addr add {'192.0.2.1/24' if '.' in address else '2001:db8::1/64 nodad'} dev eth0", netns=there)
    ip(f"neigh add {address} lladdr {OLD} dev eth0 nud stale", netns=there)

    def told() -> bool:
        # Repeated because a kernel may keep an entry for a moment after it was made (`locktime`).
        inside(here, partial(tell_neighbours, [ip_address(address)], ["eth0"]))
        return NEW in known()

    eventually(told)


def test_a_device_that_is_not_there_harms_nobody() -> None:
    tell_neighbours([ip_address("192.0.2.7")], ["fstmissing0"])
