"""The client against a real observer that replays lab traffic, with the guide and the notebook."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

import flowscope
from tests.support.notebook import run_notebook
from tests.support.process import ROOT, observer_process

RECORDING = ROOT / "lab" / "recordings" / "kind-worker.fsr"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("client")
    with observer_process(folder, "--replay", str(RECORDING), "--replay-speed", "0") as (process, address):
        process.wait_for("replay")
        with flowscope.connect(address) as client:
            wait_until_whole(client)
        yield address


def test_flows_are_the_same_one_by_one_in_columns_and_in_frames(server: str) -> None:
    with flowscope.connect(server) as client:
        stream = client.flows(from_pod="cilium-test/client2")
        flows = list(stream)
        table = stream.to_arrow()
        frame = stream.to_pandas()
        batches = list(stream.batches())
    assert len(flows) == table.num_rows == len(frame) == sum(batch.num_rows for batch in batches) > 100
    assert [flow.uuid for flow in flows] == table["uuid"].to_pylist() == list(frame["uuid"])
    assert {flow.source.namespace for flow in flows} == {"cilium-test"}


def test_first_last_and_exclude_choose(server: str) -> None:
    with flowscope.connect(server) as client:
        every = [flow.uuid for flow in client.flows()]
        assert [flow.uuid for flow in client.flows(first=5)] == every[:5]
        assert [flow.uuid for flow in client.flows(last=5)] == every[-5:]
        assert all(flow.l4.HasField("TCP") for flow in client.flows(exclude={"protocol": "udp"}, type="l7", last=50))


def test_nothing_found_is_an_empty_table_with_all_columns(server: str) -> None:
    with flowscope.connect(server) as client:
        empty = client.flows(verdict="DROPPED", pod="nowhere/nobody").to_arrow()
        assert empty.num_rows == 0
        assert empty.schema.names == client.flows(last=1).to_arrow().schema.names


def test_only_the_fields_of_a_mask_come(server: str) -> None:
    with flowscope.connect(server) as client:
        stream = client.flows(last=3, field_mask=["verdict", "source.pod_name"])
        assert all(flow.verdict and not flow.uuid and not flow.HasField("IP") for flow in stream)
        assert stream.to_arrow()["source_ip"].null_count == 3


async def test_a_following_stream_is_left_when_enough_was_seen(server: str) -> None:
    async with flowscope.Client(server) as client:
        seen = 0
        async for _ in client.flows(follow=True, last=10):
            seen += 1
            if seen == 10:
                break
        assert (await client.status()).num_flows > 0
        assert "cilium-test" in await client.namespaces()
        with pytest.raises(flowscope.FlowscopeError, match="has no end"):
            await client.flows(follow=True).to_pandas()


async def test_a_notebook_whose_own_loop_runs_may_ask_too(server: str) -> None:
    with flowscope.connect(server) as client:
        assert len(client.flows(last=5).to_pandas()) == 5
        assert len(list(islice(client.flows(follow=True, last=5), 5))) == 5


def test_a_refusal_and_an_absent_server_are_one_kind_of_error(server: str) -> None:
    with flowscope.connect(server) as client:
        with pytest.raises(flowscope.FlowscopeError) as refused:
            client.nodes()
        with pytest.raises(flowscope.FlowscopeError, match="invalid rune in pattern"):
            list(client.flows(node_name="a b"))
    assert (refused.value.code, refused.value.message) == ("Unimplemented", "GetNodes not implemented")
    with flowscope.connect("127.0.0.1:1") as client, pytest.raises(flowscope.FlowscopeError) as absent:
        client.status()
    assert absent.value.code == "Unavailable"


def test_the_notebook_runs_from_top_to_bottom(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWSCOPE_SERVER", server)
    run = run_notebook(ROOT / "docs" / "flows.ipynb")
    assert len(run.names["frame"]) > 1000
    assert len(run.names["dns"]) > 0
    assert "8080" in run.shown["services"]
    assert "coredns" in run.shown["dns"]


def test_the_examples_of_the_guide_run_and_print_what_they_say(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWSCOPE_SERVER", server)
    names: dict[str, Any] = {}
    examples = re.findall(
        r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", (ROOT / "docs" / "python.md").read_text(), re.S
    )
    assert len(examples) > 4
    for code, printed in examples:
        exec(code, names)
        shown = capsys.readouterr().out
        # Counts and times differ from replay to replay; the words do not.
        for word in re.findall(r"[A-Za-z_-]{4,}", printed):
            assert word in shown, code


def wait_until_whole(client: flowscope.SyncClient) -> None:
    """The replay is as fast as it can be; it has ended when the count stands still."""
    before = -1
    while (now := client.status().num_flows) != before:
        before = now
        time.sleep(0.2)
