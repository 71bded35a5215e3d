"""The command line and our own servers: the same text by either call, over a real socket."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cli.command import Call
from cli.connection import Server
from cli.globals import command_tree
from cli.observe import request as requests
from cli.observe.columns import ColumnText
from cli.observe.stream import columns_pay
from cli.settings import load_settings
from model.text.flows import FlowText, Look, Output
from proto.flowscope import columns_pb2
from proto.observer import observer_pb2
from rpc.client import Channel
from tests.support.observer_service import serving
from tests.support.rows import make_rows

PROGRAM = Path(sys.executable).parent / "flowscope"


async def run(*arguments: str) -> tuple[str, str, int]:
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return out.decode(), errors.decode(), process.returncode


@pytest.mark.parametrize("output", ["compact", "dict", "table", "json"])
async def test_columns_read_like_messages(output: str, tmp_path: Path) -> None:
    async with serving(tmp_path, capacity=8191) as served:
        rows, _ = make_rows(8_000, tables=served.ring.tables)
        served.add(rows)
        in_columns = await run("observe", "--all", "-o", output, "--server", served.address)
        as_messages = await run("observe", "--last", "4000", "-o", output, "--server", served.address)
    assert (in_columns[1:], as_messages[1:]) == (("", 0), ("", 0))
    few = as_messages[0]
    if output == "table":
        # Widths are those of all rows, so compare words.
        assert [line.split() for line in in_columns[0].splitlines()][-4_000:] == [
            line.split() for line in few.splitlines()
        ][1:]
    else:
        assert len(in_columns[0]) > len(few)
        assert in_columns[0].endswith(few)


async def test_filters_apply_to_columns(tmp_path: Path) -> None:
    async with serving(tmp_path, capacity=8191) as served:
        rows, _ = make_rows(8_000, tables=served.ring.tables)
        served.add(rows)
        out, errors, code = await run("observe", "--all", "--verdict", "DROPPED", "--server", served.address)
    assert (errors, code) == ("", 0)
    lines = out.splitlines()
    assert len(lines) == int((rows["verdict"] == 2).sum())
    assert all(" DROPPED " in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "pays"),
    [
        ((), False),
        (("--last", "100"), False),
        (("--last", "10000"), True),
        (("--all",), True),
        (("--since", "1h"), True),
        (("-f",), False),
        (("--all", "-o", "json"), True),
        (("--all", "-o", "json", "--field-mask", "time"), False),
    ],
)
def test_columns_are_for_large_answers(arguments: tuple[str, ...], pays: bool) -> None:
    call: Call = command_tree().call(["observe", *arguments])
    settings = load_settings(call, {})
    look = requests.look_of(call, settings, flows=True)
    assert columns_pay(requests.flows_request(call, settings, look, 0), look) is pays


def test_what_a_relay_says_about_nodes_is_shown() -> None:
    look = Look(output=Output.COMPACT)
    response = columns_pb2.ColumnsResponse(
        node_status={"state_change": "NODE_UNAVAILABLE", "node_names": ["a"]},
        node_name="relay",
    )
    chunks = list(ColumnText(look, FlowText(look), masked=False).chunks(response))
    assert [(chunk.text, chunk.error) for chunk in chunks] == [("N/A [relay]: 1 nodes are unavailable: a\n", True)]


Ask = Callable[[Server], Awaitable[None]]


async def test_status_nodes_namespaces_and_the_api_are_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        rows, _ = make_rows(100, tables=served.ring.tables)
        served.add(rows)
        status = await run("status", "--server", served.address)
        namespaces = await run("list", "namespaces", "--server", served.address)
        nodes = await run("list", "nodes", "--server", served.address)
        described = await run("reflect", "--server", served.address)
    assert status[0].startswith(f"Healthcheck (via {served.address}): Ok\nCurrent/Max Flows: 100/")
    assert "ns-00" in namespaces[0]
    assert nodes[1] == "rpc error: code = Unimplemented desc = GetNodes not implemented\n"
    assert '"name":"observer/observer.proto"' in described[0]


async def test_a_follower_ends_with_ctrl_c_and_no_complaint(tmp_path: Path) -> None:
    import signal

    async with serving(tmp_path) as served:
        rows, _ = make_rows(10, tables=served.ring.tables)
        served.add(rows)
        process = await asyncio.create_subprocess_exec(
            PROGRAM, "observe", "-f", "--last", "3", "--server", served.address,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(3):
            assert b"ns-" in await asyncio.wait_for(process.stdout.readline(), 20)
        process.send_signal(signal.SIGINT)
        out, errors = await asyncio.wait_for(process.communicate(), 20)
    assert (out, errors, process.returncode) == (b"", b"", 0)


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    out, errors, code = await run("observe", "--server", "127.0.0.1:1")
    assert (out, code) == ("", 1)
    assert errors == (
        'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: '
        'dial tcp 127.0.0.1:1: connect: connection refused"\n'
    )


async def test_garbage_for_an_answer_is_one_line() -> None:
    async def babble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for arguments in (("observe",), ("status",), ("list", "nodes")):
            out, errors, code = await run(*arguments, "--server", f"127.0.0.1:{port}")
            assert (out, code) == ("", 1)
            assert errors.count("\n") == 1
            assert "Traceback" not in errors


async def test_basic_auth_without_tls_is_refused_before_anything_is_sent() -> None:
    out, errors, code = await run(
        "observe", "--basic-auth-username", "u", "--basic-auth-password", "p", "--server", "127.0.0.1:1"
    )
    assert code == 1
    assert "grpc: the credentials require transport level security" in errors
    assert out == ""


async def test_certificates_are_read_even_when_nothing_is_asked() -> None:
    _, errors, code = await run("version", "--tls", "--tls-ca-cert-files", "/nonexistent.pem")
    assert (errors, code) == (
        "cannot load cert '/nonexistent.pem': open /nonexistent.pem: no such file or directory\n",
        1,
    )


async def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    async with serving(tmp_path, capacity=8191) as served:
        rows, _ = make_rows(8_000, tables=served.ring.tables)
        served.add(rows)
        process = await asyncio.create_subprocess_shell(
            f"{PROGRAM} observe --all --server {served.address} | head -1",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (out.count(b"\n"), errors) == (1, b"")


async def test_channels_are_closed(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, Channel(served.address) as channel:
        server = Server(channel, 5.0)
        reply = await server.unary(
            "/observer.Observer/ServerStatus", observer_pb2.ServerStatusRequest(), observer_pb2.ServerStatusResponse
        )
        assert reply.max_flows > 0
