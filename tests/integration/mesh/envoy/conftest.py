"""The network of the policy cases, with a real Envoy on each node."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bpf.datapath import OBJECTS
from mesh.policy.node import NodePolicies
from tests.support.policynet import PolicyNet, build
from tests.support.proxied import EnvoyHost
from tests.support.testnet import network


@pytest.fixture(scope="session")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyNet]:
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    with ExitStack() as stack:
        found = build(stack, stack.enter_context(network(tmp_path_factory.mktemp("proxied"))))
        for node in found.net.nodes:
            policies = found.policies.setdefault(node.number, NodePolicies())
            folder = tmp_path_factory.mktemp(f"n{node.number}")
            host = EnvoyHost(node.netns, folder, policies.proxies.port)
            found.envoys[node.number] = host
            stack.callback(host.close)
        yield found


@pytest.fixture
def mesh(proxied: PolicyNet) -> PolicyNet:
    """Without policies."""
    proxied.apply()
    for host in proxied.envoys.values():
        host.records()
    return proxied
