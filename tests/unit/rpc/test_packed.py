"""The packed writer keeps to HTTP/2: frames, windows, stalls, resets. The peer is h2, which checks every byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.observer import observer_pb2
from rpc.packed import CHUNK
from rpc.server import Call, ClientGone, Server, Service
from tests.support.transports import MemoryTransport

FRAME = h2.settings.SettingCodes.MAX_FRAME_SIZE
WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/observer.Observer/GetFlows"),
    (":authority", "x"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]


class Echo(Service):
    """Sends what the test says."""

    descriptor = observer_pb2.DESCRIPTOR.services_by_name["Observer"]

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks
        self.sent = 0
        self.error: BaseException | None = None

    async def GetFlows(self, request: object, call: Call) -> None:  # noqa: N802
        try:
            for chunk in self.chunks:
                await call.send(chunk)
                self.sent += 1
        except BaseException as error:
            self.error = error
            raise


class Peer:
    """A client of h2, whose bytes go straight into the server's protocol and back."""

    def __init__(self, chunks: list[bytes], values: dict[h2.settings.SettingCodes, int] | None = None) -> None:
        self.service = Echo(chunks)
        self.protocol = Server([self.service])._protocol()
        self.transport = MemoryTransport()
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http2.local_settings = h2.settings.Settings(client=True, initial_values=values or {})
        # h2 takes over what it announces only when it is acknowledged, which comes after the first frames here.
        self.http2.max_inbound_frame_size = (values or {}).get(FRAME, 16_384)
        self.received = bytearray()
        self.frames: list[int] = []
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.ended = False

    def start(self) -> None:
        self.protocol.connection_made(self.transport)
        self.http2.initiate_connection()
        self.call(1)

    def call(self, stream: int) -> None:
        self.http2.send_headers(stream, HEADERS)
        self.http2.send_data(stream, b"\0\0\0\0\0", end_stream=True)
        self.push()

    def push(self) -> None:
        self.protocol.data_received(self.http2.data_to_send())

    async def settle(self, until: Callable[[], bool] = lambda: False) -> None:
        """Let both sides run until nothing moves."""
        for _ in range(200):
            await asyncio.sleep(0)
            data = self.transport.take()
            for event in self.http2.receive_data(data) if data else []:
                self.take(event)
            if outgoing := self.http2.data_to_send():
                self.protocol.data_received(outgoing)
            if until():
                return

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self.received += event.data
            self.frames.append(len(event.data))
        elif isinstance(event, h2.events.ResponseReceived):
            self.headers = fields(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers = fields(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended = True


def fields(headers: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in headers}  # type: ignore[attr-defined]


async def test_frames_are_as_large_as_the_peer_allows() -> None:
    data = bytes(range(256)) * 200  # 51,200 bytes
    peer = Peer([data], {FRAME: 20_000})
    peer.start()
    await peer.settle()
    assert peer.frames == [20_000, 20_000, 11_200]
    assert bytes(peer.received) == data
    assert peer.trailers["grpc-status"] == "0"


async def test_many_messages_leave_in_one_write() -> None:
    peer = Peer([b"m" * 40_000])
    peer.start()
    peer.transport.writes.clear()
    await peer.settle()
    assert max(peer.transport.writes) == 40_000 + 3 * 9


async def test_a_write_is_never_larger_than_a_chunk() -> None:
    peer = Peer([b"m" * (3 * CHUNK)], {WINDOW: 2**31 - 1, FRAME: 2**20})
    peer.start()
    peer.http2.increment_flow_control_window(2**31 - 1 - 65535)
    peer.push()
    await peer.settle()
    assert len(peer.received) == 3 * CHUNK
    assert max(peer.transport.writes) <= CHUNK + 9


async def test_the_stream_window_stops_the_stream_and_an_update_moves_it_on() -> None:
    peer = Peer([b"a" * 50_000, b"b" * 50_000], {WINDOW: 30_000})
    peer.start()
    await peer.settle()
    assert len(peer.received) == 30_000
    assert peer.service.sent == 0
    peer.http2.increment_flow_control_window(25_000, 1)
    peer.push()
    await peer.settle()
    assert len(peer.received) == 55_000
    assert peer.service.sent == 1


async def test_the_connection_window_stops_the_stream_too() -> None:
    peer = Peer([b"a" * 100_000], {WINDOW: 1_000_000})
    peer.start()
    await peer.settle()
    assert len(peer.received) == 65_535
    peer.http2.increment_flow_control_window(100_000)
    peer.push()
    await peer.settle()
    assert len(peer.received) == 100_000
    assert peer.ended


async def test_a_window_that_settings_make_negative_is_waited_out() -> None:
    peer = Peer([b"a" * 60_000, b"b" * 40_000], {WINDOW: 65_535})
    peer.start()
    await peer.settle()
    assert len(peer.received) == 65_535
    peer.http2.update_settings({WINDOW: 1_000})
    peer.push()
    peer.http2.increment_flow_control_window(100_000)
    peer.push()
    await peer.settle()
    assert len(peer.received) == 65_535
    peer.http2.increment_flow_control_window(99_000, 1)
    peer.push()
    await peer.settle()
    assert len(peer.received) == 100_000


async def test_streams_share_a_connection() -> None:
    peer = Peer([b"a" * 30_000])
    peer.start()
    peer.call(3)
    await peer.settle()
    assert len(peer.received) == 60_000


async def test_a_full_socket_stops_the_writer() -> None:
    peer = Peer([b"a" * 1000] * 100)
    peer.start()
    peer.protocol.pause_writing()
    await peer.settle()
    assert not peer.received
    peer.protocol.resume_writing()
    await peer.settle()
    assert len(peer.received) == 65_535


async def test_a_reset_stream_ends_its_handler() -> None:
    peer = Peer([b"a" * 100_000])
    peer.start()
    await peer.settle()
    peer.http2.reset_stream(1)
    peer.push()
    await peer.settle()
    assert isinstance(peer.service.error, asyncio.CancelledError)
    assert not peer.transport.closed


async def test_a_lost_connection_ends_its_handlers() -> None:
    peer = Peer([b"a" * 100_000])
    peer.start()
    await peer.settle()
    peer.protocol.connection_lost(None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert isinstance(peer.service.error, asyncio.CancelledError | ClientGone)


async def test_goaway_from_the_client_ends_the_connection() -> None:
    peer = Peer([b"a" * 100_000])
    peer.start()
    await peer.settle()
    peer.http2.close_connection()
    peer.push()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert peer.transport.closed
    assert isinstance(peer.service.error, asyncio.CancelledError | ClientGone)


async def test_frames_of_types_that_nobody_knows_are_ignored() -> None:
    peer = Peer([b"a" * 1000])
    peer.start()
    peer.protocol.data_received(b"\0\0\3\xbe\0\0\0\0\0abc")
    await peer.settle()
    assert len(peer.received) == 1000
    assert not peer.transport.closed


@pytest.mark.parametrize("method", ["/observer.Observer/Nothing", "/nothing.Nothing/GetFlows"])
async def test_an_unknown_method_is_unimplemented_in_a_form_that_clients_accept(method: str) -> None:
    peer = Peer([])
    peer.protocol.connection_made(peer.transport)
    peer.http2.initiate_connection()
    headers = [(key, method if key == ":path" else value) for key, value in HEADERS]
    peer.http2.send_headers(1, headers, end_stream=True)
    peer.push()
    await peer.settle()
    assert peer.headers["content-type"] == "application/grpc"
    assert peer.trailers["grpc-status"] == "12"
    assert peer.trailers["grpc-message"].startswith("unknown ")


@given(junk=st.binary(max_size=300), preface=st.booleans())
@settings(max_examples=150)
def test_no_bytes_make_the_protocol_raise(junk: bytes, preface: bool) -> None:
    async def feed() -> None:
        peer = Peer([b"a"])
        peer.protocol.connection_made(peer.transport)
        if preface:
            peer.http2.initiate_connection()
            peer.push()
        peer.protocol.data_received(junk)
        await asyncio.sleep(0)
        if not peer.transport.closed:
            peer.protocol.connection_lost(None)

    asyncio.run(feed())
