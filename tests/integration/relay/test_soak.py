"""The packed stream for long: nodes at full speed, a relay in between, nothing lost and nothing out of order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.relay_load import check_order, node_processes, relay_process

NODES = 4


@pytest.mark.parametrize("flows", [200_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_soak_of_a_relay_loses_and_reorders_nothing(tmp_path: Path, flows: int) -> None:
    with (
        node_processes(tmp_path, NODES, "--flows", str(flows // NODES), "--size", "1000") as (_, peers),
        relay_process(tmp_path, peers) as (relay, address),
    ):
        result = check_order(address, {}, seconds=300)
        # Every flow has a time of its own: as many as were sent, each newer than the one before, are all of them.
        assert result["flows"] == flows
        assert result["not_newer"] == 0
        assert result["others"] == 1  # which nodes were asked
        assert result["bytes"] > flows * 1000
        assert relay.rss_mib() < 300
