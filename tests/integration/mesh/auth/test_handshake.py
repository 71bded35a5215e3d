"""Two agents on loopback: who proves what to whom, and what is said when they do not."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from mesh.auth import handshake
from mesh.auth.certificates import Authority, Certificate, new_key, new_request
from mesh.auth.handshake import MOST_CLIENTS, Listener, NotProved, prove
from mesh.auth.keyring import Credential
from mesh.auth.spiffe import server_name_of
from tests.support.waiting import eventually_async

HERE = ip_address("127.0.0.1")
HOUR = timedelta(hours=1)
NOTHING = timedelta(0)


class Side:
    """An agent that answers: its credentials and its listener."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.trust = authority.trust
        self.credentials: dict[int, Credential] = {}
        self.listener = Listener(self.credentials.get, lambda: self.trust)
        self.port = self.listener.open("127.0.0.1", 0)

    def credential(
        self,
        identity: int,
        authority: Authority | None = None,
        lifetime: timedelta = HOUR,
        ago: timedelta = timedelta(0),
    ) -> Credential:
        key = new_key()
        signer = authority or self.authority
        pem = signer.sign(new_request(key, identity), identity, datetime.now(UTC) - ago, lifetime)
        file = self.folder / f"{identity}-{len(list(self.folder.iterdir()))}.pem"
        file.write_text(key + pem)
        return Credential(Certificate.parse(pem), file, self.trust)

    async def asked(self, own: Credential, remote: int) -> float:
        return await prove(HERE, self.port, own, remote)


async def ended(side: Side, how: str, count: int) -> None:
    """Wait until so many handshakes have ended this way."""
    await eventually_async(lambda: side.listener.counts[how] == count, timeout_s=30)


@pytest.fixture
def authority() -> Authority:
    return Authority.create(datetime.now(UTC) - timedelta(days=1))


@pytest.fixture
async def side(tmp_path: Path, authority: Authority) -> AsyncIterator[Side]:
    """Has pods of identity 300."""
    made = Side(tmp_path, authority)
    made.credentials[300] = made.credential(300, lifetime=2 * HOUR)
    yield made
    made.listener.close()
    await asyncio.sleep(0)


async def test_both_prove_who_they_are(side: Side) -> None:
    ends_s = await side.asked(side.credential(301), 300)
    assert ends_s == side.credentials[300].certificate.ends_s
    assert ends_s > time.time() + 3600
    await ended(side, "proved", 1)


async def test_an_identity_that_has_no_pods_there_is_not_proved(side: Side) -> None:
    with pytest.raises(NotProved, match="has no certificate of identity 302; do pods of it run there"):
        await side.asked(side.credential(301), 302)
    await ended(side, "refused", 1)


async def test_another_one_s_certificate_is_no_proof(side: Side) -> None:
    side.credentials[302] = side.credentials[300]
    with pytest.raises(NotProved, match="proved identity 300, and was asked for 302"):
        await side.asked(side.credential(301), 302)


async def test_certificates_of_another_authority_prove_nothing(side: Side) -> None:
    other = Authority.create(datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(NotProved, match="do not agree"):
        await side.asked(side.credential(301, other), 300)
    side.credentials[300] = side.credential(300, other)
    with pytest.raises(NotProved, match="do not agree"):
        await side.asked(side.credential(301), 300)
    await ended(side, "refused", 2)


async def test_certificates_that_are_over_prove_nothing(side: Side) -> None:
    with pytest.raises(NotProved, match="expired"):
        await side.asked(side.credential(301, ago=2 * HOUR), 300)
    side.credentials[300] = side.credential(300, ago=2 * HOUR)
    with pytest.raises(NotProved, match="expired"):
        await side.asked(side.credential(301), 300)


async def test_a_node_that_believes_nobody_yet_proves_nothing(side: Side) -> None:
    own = side.credential(301)
    side.trust = ""
    with pytest.raises(NotProved, match=r"has ended the connection|cannot be reached"):
        await side.asked(own, 300)
    await ended(side, "refused", 1)


async def test_who_does_not_run_cannot_be_reached(side: Side) -> None:
    own = side.credential(301)
    side.listener.close()
    with pytest.raises(NotProved, match=f"the agent at 127.0.0.1:{side.port} cannot be reached: .*; does it run"):
        await side.asked(own, 300)


async def test_who_shows_no_certificate_learns_nothing(side: Side) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=side.trust)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", side.port, ssl=context, server_hostname=server_name_of(300)
    )
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        await reader.read(1)
    writer.transport.abort()
    await ended(side, "refused", 1)


async def test_older_tls_is_refused(side: Side) -> None:
    context = side.credential(301).client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("127.0.0.1", side.port, ssl=context, server_hostname=server_name_of(300))
    await ended(side, "refused", 1)


async def test_whoever_says_something_else_is_counted_and_holds_up_nobody(side: Side) -> None:
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(1000)):
        _, writer = await asyncio.open_connection("127.0.0.1", side.port)
        writer.write(said)
        writer.transport.abort() if not said else writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    await ended(side, "refused", 3)
    assert await side.asked(side.credential(301), 300)


async def test_many_that_say_nothing_are_let_go(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "TIMEOUT_S", 0.2)
    silent = [await asyncio.open_connection("127.0.0.1", side.port) for _ in range(MOST_CLIENTS)]
    await ended(side, "refused", MOST_CLIENTS)
    monkeypatch.undo()
    assert await side.asked(side.credential(301), 300)
    for _, writer in silent:
        writer.transport.abort()


async def test_an_agent_that_is_killed_while_it_answers_has_proved_nothing(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = asyncio.Event()

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started.set()
        # The handshake is over, whom the client is has not been looked at.
        writer.transport.abort()

    server = await asyncio.start_server(dies, "127.0.0.1", 0, ssl=side.credentials[300].server_context())
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(NotProved):
        await prove(HERE, port, side.credential(301), 300)
    assert started.is_set()
    server.close()


async def test_an_agent_that_hangs_is_given_up(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "TIMEOUT_S", 0.1)
    server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(NotProved, match="does not answer within"):
        await prove(HERE, port, side.credential(301), 300)
    server.close()
