"""One network for all policy cases."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bpf.datapath import OBJECTS, Aggregation
from tests.support.policynet import PolicyNet, build
from tests.support.testnet import network


@pytest.fixture(scope="session")
def shared_policies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicyNet]:
    subprocess.run(["make", "-s", "-C", str(OBJECTS.parent)], check=True)
    with ExitStack() as stack:
        net = stack.enter_context(network(tmp_path_factory.mktemp("policies")))
        yield build(stack, net)


@pytest.fixture
def mesh(shared_policies: PolicyNet) -> PolicyNet:
    """Without policies, at level medium."""
    for node in shared_policies.net.nodes:
        node.datapath.configure(aggregation=Aggregation.MEDIUM)
    shared_policies.apply()
    return shared_policies
