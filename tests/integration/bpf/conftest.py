"""What the tests of the kernel programs share: built objects, a small network, and the events it makes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bpf.datapath import Aggregation
from observer.perf import PerfReader
from tests.support.kernel_events import EventLog
from tests.support.testnet import Cluster, network

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def objects() -> Path:
    """Folder of the built programs, made now if it is not current."""
    done = subprocess.run(["make", "-s", "-C", str(REPOSITORY / "bpf")], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"make -C bpf: {done.stderr.strip()[-500:]}")
    return REPOSITORY / "bpf" / "build"


@pytest.fixture(scope="module")
def shared_cluster(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        net = stack.enter_context(network(tmp_path_factory.mktemp("cluster")))
        near, away = net.add_node(), net.add_node()
        client, server = near.add_pod(1017, 33333), near.add_pod(2044, 44444)
        far = away.add_pod(777, 55555)
        net.share_ipcache()
        logs = [EventLog(stack.enter_context(PerfReader(node.datapath.pin_dir, 256))) for node in (near, away)]
        yield Cluster(net, near, away, client, server, far, *logs)


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """The module's cluster, at level medium and with its events read so far forgotten."""
    for node in (shared_cluster.near, shared_cluster.away):
        node.datapath.configure(aggregation=Aggregation.MEDIUM)
    shared_cluster.log.clear()
    shared_cluster.away_log.clear()
    return shared_cluster
