"""Connections that are encrypted, and who is on the other end."""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proto.observer import observer_pb2
from rpc.call import Call, Service
from rpc.health import Health
from rpc.server import Server
from rpc.tls import ServerTls
from tests.support.certificates import Authority

PROGRAM = Path(sys.executable).parent / "flowscope"
NAME = "relay.example.org"


class Status(Service):
    """Answers about itself, and remembers what it was sent along."""

    descriptor = observer_pb2.DESCRIPTOR.services_by_name["Observer"]

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}

    async def ServerStatus(  # noqa: N802
        self, request: observer_pb2.ServerStatusRequest, call: Call
    ) -> observer_pb2.ServerStatusResponse:
        del request
        self.metadata = dict(call.metadata)
        return observer_pb2.ServerStatusResponse(max_flows=7)


@asynccontextmanager
async def serving(tls: ServerTls) -> AsyncIterator[tuple[str, Status]]:
    status = Status()
    server = Server([status, Health()], metadata={"hubble-relay-version": "1.20.3"})
    address = await server.listen("127.0.0.1:0", tls=tls)
    try:
        yield address, status
    finally:
        await server.close(0)


async def status(*arguments: str) -> tuple[str, str, int]:
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "status", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return out.decode(), errors.decode(), process.returncode


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_both_ends_show_certificates_and_the_password_goes_along(authority: Authority) -> None:
    theirs, ours = authority.issue("server", NAME), authority.issue("client")
    tls = ServerTls(cert_file=theirs.cert, key_file=theirs.key, client_ca_files=(authority.ca,))
    async with serving(tls) as (address, service):
        out, errors, code = await status(
            *("--server", f"tls://{address}", "--tls-ca-cert-files", authority.ca, "--tls-server-name", NAME),
            *("--tls-client-cert-file", ours.cert, "--tls-client-key-file", ours.key),
            *("--basic-auth-username", "user", "--basic-auth-password", "pass:word"),
        )
    assert code == 0, errors
    assert out.startswith(f"Healthcheck (via {address}): Ok\nCurrent/Max Flows: 0/7 (0.00%)\n")
    assert service.metadata["authorization"] == "Basic " + base64.b64encode(b"user:pass:word").decode()
    assert errors.count("Hubble CLI version is lower than Hubble Relay") == 1
    assert "hubble-relay-version=1.20.3" in errors


async def test_a_server_with_another_name_is_not_trusted(authority: Authority) -> None:
    theirs = authority.issue("server", NAME)
    async with serving(ServerTls(cert_file=theirs.cert, key_file=theirs.key)) as (address, _):
        flags = ("--server", address, "--tls", "--tls-ca-cert-files", authority.ca)
        out, errors, code = await status(*flags, "--tls-server-name", "else.example.org")
        trusted = await status("--server", address, "--tls", "--tls-allow-insecure")
    assert (out, code) == ("", 1)
    assert errors.startswith("failed getting status: rpc error: code = Unavailable desc = ")
    assert errors.count("\n") == 1
    assert trusted[2] == 0


async def test_a_plain_client_of_an_encrypted_server_gets_one_line(authority: Authority) -> None:
    theirs = authority.issue("server", NAME)
    async with serving(ServerTls(cert_file=theirs.cert, key_file=theirs.key)) as (address, _):
        out, errors, code = await status("--server", address)
    assert (out, code, errors.count("\n")) == ("", 1, 1)
