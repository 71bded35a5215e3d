"""One network for all tests of the proxy."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from bpf.datapath import OBJECTS
from tests.support.dnsnet import DnsNet, dns_net


@pytest.fixture(scope="module")
def shared_dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsNet]:
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    with dns_net(tmp_path_factory.mktemp("dns")) as net:
        net.start_proxy("--upstream-timeout-s=1", "--max-waiting-per-client=50")
        yield net


@pytest.fixture
def net(shared_dns: DnsNet) -> DnsNet:
    """Everything may be asked, nothing was told yet."""
    shared_dns.agent.prompt = True
    shared_dns.agent.give(shared_dns.rules("*"))
    shared_dns.agent.learned.clear()
    shared_dns.forget_flows()
    return shared_dns
