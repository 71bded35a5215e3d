"""The client, the guide and the notebook against a real observer that replays lab traffic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flowscope
from tests.support.process import ROOT, observer_process

RECORDING = ROOT / "lab" / "recordings" / "kind-worker.fsr"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("client")
    flags = ["--replay", str(RECORDING), "--replay-speed", "0", "--insecure"]
    with observer_process(folder, *flags, listen="127.0.0.1:0") as (
        process,
        address,
    ):
        process.wait_for("replay")
        yield address


def test_flows_are_the_same_one_by_one_in_columns_and_in_frames(server: str) -> None:
    with flowscope.connect(server) as client:
        wait_until_whole(client)
        flows = list(client.flows(from_pod="cilium-test/client2"))
        table = client.flows(from_pod="cilium-test/client2").to_arrow()
        frame = client.flows(from_pod="cilium-test/client2").to_pandas()
    assert len(flows) == table.num_rows == len(frame) > 100
    assert [flow.uuid for flow in flows] == table["uuid"].to_pylist() == list(frame["uuid"])
    assert {flow.source.namespace for flow in flows} == {"cilium-test"}


def test_first_last_and_exclude_choose(server: str) -> None:
    with flowscope.connect(server) as client:
        wait_until_whole(client)
        every = [flow.uuid for flow in client.flows()]
        assert [flow.uuid for flow in client.flows(first=5)] == every[:5]
        assert [flow.uuid for flow in client.flows(last=5)] == every[-5:]
        assert all(flow.l4.HasField("TCP") for flow in client.flows(exclude={"protocol": "udp"}, last=50))


def test_nothing_found_is_an_empty_table_with_all_columns(server: str) -> None:
    with flowscope.connect(server) as client:
        empty = client.flows(verdict="DROPPED", pod="nowhere/nobody").to_arrow()
        assert empty.num_rows == 0
        assert empty.schema.names == client.flows(last=1).to_arrow().schema.names


async def test_a_following_stream_is_left_when_enough_was_seen(server: str) -> None:
    async with flowscope.Client(server) as client:
        seen = 0
        async for _ in client.flows(follow=True, last=10):
            seen += 1
            if seen == 10:
                break
        assert (await client.status()).num_flows > 0
        assert "cilium-test" in await client.namespaces()


def test_a_refusal_and_an_absent_server_are_one_kind_of_error(server: str) -> None:
    with flowscope.connect(server) as client, pytest.raises(flowscope.FlowscopeError) as refused:
        client.nodes()
    assert (refused.value.code, refused.value.message) == ("Unimplemented", "GetNodes not implemented")
    with flowscope.connect("127.0.0.1:1") as client, pytest.raises(flowscope.FlowscopeError) as absent:
        client.status()
    assert absent.value.code == "Unavailable"


def test_the_notebook_runs_from_top_to_bottom(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSCOPE_SERVER", server)
    cells = json.loads((ROOT / "docs" / "flows.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert len(names["frame"]) > 100
    assert len(names["dns"]) > 0


def test_the_examples_of_the_guide_run(server: str) -> None:
    text = (ROOT / "docs" / "python.md").read_text().replace("localhost:4245", server)
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(example, names)
    assert Path(RECORDING).exists()


def wait_until_whole(client: flowscope.SyncClient) -> None:
    """The replay is as fast as it can be; it has ended when the count stands still."""
    import time

    before = -1
    while (now := client.status().num_flows) != before:
        before = now
        time.sleep(0.2)
