"""What `observe` can do that Hubble's cannot: counting, columns, port ranges, words for filters, reconnecting."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.observer_service import serving
from tests.support.rows import make_rows

PROGRAM = Path(sys.executable).parent / "flowscope"


def observe(*arguments: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run([PROGRAM, "observe", *arguments], input=stdin, capture_output=True, timeout=30, check=False)
    assert (done.stderr, done.returncode) == (b"", 0)
    return done.stdout


@pytest.fixture
def mixed(golden: Path) -> str:
    return str(golden / "cli" / "input" / "mixed.jsonl")


def test_flows_are_counted_by_fields(mixed: str) -> None:
    lines = observe("--input-file", mixed, "--group-by", "verdict,protocol", "--top", "2").decode().splitlines()
    assert lines[0].split() == ["VERDICT", "PROTOCOL", "FLOWS", "SHARE"]
    assert lines[1].startswith("FORWARDED   TCP ")
    assert len(lines) == 3
    counted = [
        json.loads(line) for line in observe("--input-file", mixed, "--group-by", "verdict", "-o", "json").splitlines()
    ]
    assert sum(one["flows"] for one in counted) == 56
    assert [one["flows"] for one in counted] == sorted((one["flows"] for one in counted), reverse=True)


def test_a_field_that_does_not_exist_is_named(mixed: str) -> None:
    done = subprocess.run(
        [PROGRAM, "observe", "--input-file", mixed, "--group-by", "elephant"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("invalid --group-by field: elephant; known are time, node_name")


def test_flows_come_as_columns_for_programs(mixed: str) -> None:
    table = pa.ipc.open_stream(observe("--input-file", mixed, "-o", "arrow")).read_all()
    parquet = pq.read_table(io.BytesIO(observe("--input-file", mixed, "-o", "parquet")))
    rows = list(csv.DictReader(io.StringIO(observe("--input-file", mixed, "-o", "csv").decode())))
    assert table.num_rows == parquet.num_rows == len(rows) == 56
    assert (
        table.column("verdict").to_pylist() == parquet.column("verdict").to_pylist() == [row["verdict"] for row in rows]
    )


def test_no_flows_are_columns_without_rows() -> None:
    assert pa.ipc.open_stream(observe("--input-file", "-", "-o", "arrow")).read_all().num_rows == 0
    assert observe("--input-file", "-", "-o", "csv").startswith(b'"time",')


def test_ports_may_be_ranges(mixed: str) -> None:
    some = observe("--input-file", mixed, "--to-port", "5000-6000")
    assert some == observe("--input-file", mixed, "--to-port", "5432")
    assert some


def test_filters_are_put_into_words() -> None:
    text = observe("--explain-filter", "--pod", "shop/cart", "--not", "--verdict", "DROPPED").decode()
    assert "namespace shop" in text
    assert "DROPPED" in text


async def test_servers_count_and_give_columns_too(tmp_path: Path) -> None:
    async with serving(tmp_path, capacity=8191) as served:
        rows, _ = make_rows(8_000, tables=served.ring.tables)
        served.add(rows)
        counted = await asyncio.to_thread(observe, "--group-by", "verdict", "-o", "json", "--server", served.address)
        table = pa.ipc.open_stream(
            await asyncio.to_thread(observe, "--all", "-o", "arrow", "--server", served.address)
        ).read_all()
        last = await asyncio.to_thread(observe, "--last", "7", "-o", "csv", "--server", served.address)
        ranges = await asyncio.to_thread(
            observe, "--all", "--to-port", "5000-6000", "-o", "jsonpb", "--server", served.address
        )
    assert sum(json.loads(line)["flows"] for line in counted.splitlines()) == 8_000
    assert table.num_rows == 8_000
    assert last.count(b"\n") == 8
    assert ranges.count(b"\n") == ((rows["dport"] >= 5000) & (rows["dport"] <= 6000)).sum()


async def test_a_follower_connects_again_and_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        rows, _ = make_rows(10, tables=served.ring.tables)
        served.add(rows)
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "observe", "-f", "--last", "1", "--server", served.address,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"ns-" in await asyncio.wait_for(process.stdout.readline(), 20)
    assert b'msg="connection lost, connecting again"' in await asyncio.wait_for(process.stderr.readline(), 20)
    async with serving(tmp_path) as served:
        assert b'msg="connected again"' in await asyncio.wait_for(process.stderr.readline(), 20)
        late, _ = make_rows(2, tables=served.ring.tables, start_ns=2_000_000_000_000_000_000)
        served.add(late)
        assert (await asyncio.wait_for(process.stdout.readline(), 20)).startswith(b"May 18 03:33:20.000")
        process.terminate()
        await process.wait()


async def test_without_reconnect_a_lost_connection_is_the_end(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        rows, _ = make_rows(10, tables=served.ring.tables)
        served.add(rows)
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "observe", "-f", "--last", "1", "--reconnect=false", "--server", served.address,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        await asyncio.wait_for(process.stdout.readline(), 20)
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert errors.count(b"\n") <= 1
    assert b"Traceback" not in errors


def test_columns_on_a_terminal_do_not_control_it(tmp_path: Path) -> None:
    file = tmp_path / "flows.json"
    file.write_text('{"flow":{"time":"2026-01-02T03:04:05Z","Summary":"a\\u001b[31m\\u009bb\\u202ec"}}\n')
    words = ("--input-file", str(file), "-o", "csv")
    assert "a\x1b[31m\x9bb\u202ec" in observe(*words).decode(), "a program gets it as it is"
    ours, theirs = pty.openpty()
    done = subprocess.run([PROGRAM, "observe", *words], stdout=theirs, timeout=30, check=False)
    os.close(theirs)
    with open(ours, "rb") as terminal:
        shown = terminal.read1(2**16).decode()
    assert done.returncode == 0
    assert "a^[[31m\\u009bb\\u202ec" in shown
