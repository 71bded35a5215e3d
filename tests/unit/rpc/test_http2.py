"""The client's end of a connection, against h2's server side and against bytes that no server should send."""

from __future__ import annotations

import asyncio
import struct

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rpc.framing import PREFIX
from rpc.http2 import FRAME_BYTES, MAX_MESSAGE_BYTES, Connection, Incoming
from rpc.status import RpcError, Status
from tests.support.transports import MemoryTransport

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "x"), ("te", "trailers")]
ANSWER = [(":status", "200"), ("content-type", "application/grpc"), ("hubble-server-version", "1.19.4")]
OK = [("grpc-status", "0")]
WINDOW = 100_000


def message(size: int, fill: bytes = b"m") -> bytes:
    return PREFIX.pack(0, size) + fill * size


class Pair:
    """Our connection and an h2 server, with a call open."""

    def __init__(self, window: int = WINDOW) -> None:
        self.lost = 0
        self.client = Connection(window, self.count_loss)
        self.transport = MemoryTransport()
        self.server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.events: list[h2.events.Event] = []
        self.server.initiate_connection()
        self.client.connection_made(self.transport)
        self.exchange()

    def count_loss(self) -> None:
        self.lost += 1

    def exchange(self) -> None:
        """Carry bytes both ways until there are none."""
        while True:
            ours, theirs = self.transport.take(), self.server.data_to_send()
            if not ours and not theirs:
                return
            if ours:
                self.events += self.server.receive_data(ours)
            if theirs and not self.transport.closed:
                self.client.data_received(theirs)

    def call(self, body: bytes = b"\0\0\0\0\0", window: int = 0) -> Incoming:
        incoming = self.client.request(REQUEST, body, window)
        self.exchange()
        self.server.send_headers(incoming.id, ANSWER)
        self.exchange()
        return incoming

    def send(self, incoming: Incoming, data: bytes) -> None:
        for start in range(0, len(data), 16_384):
            self.server.send_data(incoming.id, data[start : start + 16_384])
        self.exchange()

    def end(self, incoming: Incoming) -> None:
        self.server.send_headers(incoming.id, OK, end_stream=True)
        self.exchange()


async def test_messages_of_many_frames_come_as_one_batch() -> None:
    pair = Pair()
    incoming = pair.call()
    for _ in range(5):
        pair.send(incoming, message(1000) * 2)
    batch = incoming.take()
    assert batch is not None
    assert batch.buffer == message(1000) * 10
    assert batch.ends == [1005 * number for number in range(1, 11)]
    assert incoming.headers["hubble-server-version"] == "1.19.4"


@given(cuts=st.lists(st.integers(1, 700), max_size=30))
@settings(max_examples=60)
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    async def run() -> None:
        pair = Pair()
        incoming = pair.call()
        stream = b"".join(message(size, bytes([65 + size % 26])) for size in range(0, 200, 7))
        pair.server.send_data(incoming.id, stream[:900])
        pair.server.send_data(incoming.id, stream[900:], pad_length=17)
        pair.server.send_headers(incoming.id, OK, end_stream=True)
        data, got = pair.server.data_to_send(), b""
        for size in [*cuts, len(data)]:
            pair.client.data_received(data[:size])
            data = data[size:]
            batch = incoming.take()
            got += b"" if batch is None else batch.buffer
        assert got == stream
        assert incoming.ended
        incoming.check()

    asyncio.run(run())


async def test_the_server_may_send_a_window_and_more_only_when_it_was_read() -> None:
    pair = Pair()
    incoming = pair.call()
    pair.send(incoming, message(995) * 99)
    assert pair.server.local_flow_control_window(incoming.id) == WINDOW - 99_000
    assert incoming.take() is not None
    pair.exchange()
    assert pair.server.local_flow_control_window(incoming.id) == WINDOW


async def test_a_stream_may_get_a_window_of_its_own() -> None:
    pair = Pair()
    incoming = pair.call(window=3 * WINDOW)
    assert pair.server.local_flow_control_window(incoming.id) == 3 * WINDOW


async def test_a_message_larger_than_the_window_arrives() -> None:
    pair = Pair()
    incoming = pair.call()
    data = message(5 * WINDOW)
    batch = None
    while batch is None:
        room = min(pair.server.local_flow_control_window(incoming.id), 16_384, len(data))
        assert room or not data
        pair.send(incoming, data[:room])
        data = data[room:]
        batch = incoming.take()
    assert batch.buffer == message(5 * WINDOW)


async def test_a_server_that_ignores_the_window_is_cut_off() -> None:
    pair = Pair()
    incoming = pair.call()
    header = struct.pack(">HBBBI", WINDOW >> 8, (WINDOW & 0xFF) + 1, 0, 0, incoming.id)
    pair.client.data_received(header + b"x" * (WINDOW + 1))
    assert incoming.ended
    with pytest.raises(RpcError, match="more than its window"):
        incoming.check()


async def test_an_enormous_message_is_refused_before_it_arrives() -> None:
    pair = Pair()
    incoming = pair.call()
    pair.send(incoming, PREFIX.pack(0, MAX_MESSAGE_BYTES + 1))
    assert incoming.take() is None
    with pytest.raises(RpcError, match="larger than max") as caught:
        incoming.check()
    assert caught.value.code is Status.RESOURCE_EXHAUSTED


async def test_a_large_request_waits_for_the_servers_window() -> None:
    pair = Pair()
    body = message(200_000)
    incoming = pair.client.request(REQUEST, body)
    for _ in range(10):
        pair.exchange()
        for event in pair.events:
            if isinstance(event, h2.events.DataReceived):
                pair.server.acknowledge_received_data(event.flow_controlled_length, incoming.id)
                body = body.removeprefix(event.data)
        pair.events.clear()
    assert body == b""


async def test_the_status_of_trailers_is_raised() -> None:
    pair = Pair()
    incoming = pair.call()
    pair.server.send_headers(incoming.id, [("grpc-status", "2"), ("grpc-message", "no%20such%20field: %C3%A4")], True)
    pair.exchange()
    with pytest.raises(RpcError) as caught:
        incoming.check()
    assert (caught.value.code, caught.value.message) == (Status.UNKNOWN, "no such field: ä")


async def test_a_status_may_come_without_any_message() -> None:
    pair = Pair()
    incoming = pair.client.request(REQUEST, b"\0\0\0\0\0")
    pair.exchange()
    pair.server.send_headers(incoming.id, [*ANSWER, ("grpc-status", "12"), ("grpc-message", "nope")], True)
    pair.exchange()
    with pytest.raises(RpcError, match="code = Unimplemented desc = nope"):
        incoming.check()


async def test_a_stream_that_ends_inside_a_message_is_an_error() -> None:
    pair = Pair()
    incoming = pair.call()
    pair.send(incoming, message(100)[:50])
    pair.end(incoming)
    assert incoming.take() is None
    with pytest.raises(RpcError, match="inside a message"):
        incoming.check()


async def test_a_stream_may_end_with_its_last_data() -> None:
    pair = Pair()
    incoming = pair.call()
    pair.server.send_data(incoming.id, message(10), end_stream=True)
    pair.exchange()
    assert incoming.take() is not None
    with pytest.raises(RpcError, match="without sending trailers"):
        incoming.check()


async def test_a_reset_says_what_it_means() -> None:
    pair = Pair()
    incoming = pair.call()
    pair.server.reset_stream(incoming.id, 0xB)
    pair.exchange()
    with pytest.raises(RpcError) as caught:
        incoming.check()
    assert caught.value.code is Status.RESOURCE_EXHAUSTED


async def test_a_cancelled_stream_is_reset_and_what_still_comes_is_dropped() -> None:
    pair = Pair()
    incoming = pair.call()
    incoming.cancel()
    pair.server.send_data(incoming.id, message(10))
    pair.exchange()
    assert any(isinstance(event, h2.events.StreamReset) for event in pair.events)
    assert not pair.client.ended


async def test_goaway_lets_open_streams_finish_and_starts_none() -> None:
    pair = Pair()
    first = pair.call()
    pair.client.data_received(struct.pack(">HBBBIII", 0, 8, 7, 0, 0, first.id, 0))
    assert pair.client.ended
    assert pair.lost == 1
    assert not first.ended
    pair.send(first, message(10))
    pair.end(first)
    assert first.take() is not None
    first.check()
    assert pair.transport.closed


async def test_goaway_fails_the_streams_that_the_server_did_not_take() -> None:
    pair = Pair()
    first, second = pair.call(), pair.call()
    pair.client.data_received(struct.pack(">HBBBIII", 0, 8, 7, 0, 0, first.id, 0))
    assert not first.ended
    with pytest.raises(RpcError, match="leaving"):
        second.check()


async def test_a_lost_connection_fails_its_streams_with_unavailable() -> None:
    pair = Pair()
    incoming = pair.call()
    pair.client.connection_lost(None)
    with pytest.raises(RpcError, match="code = Unavailable desc = error reading from server: EOF"):
        incoming.check()
    assert pair.lost == 1


async def test_news_are_told_to_whoever_waits_for_many_streams() -> None:
    pair = Pair()
    incoming = pair.call()
    heard: list[int] = []
    incoming.on_news = lambda: heard.append(1)
    pair.send(incoming, message(10)[:3])
    assert not heard
    pair.send(incoming, message(10)[3:])
    assert heard


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\0\x02\x02\x46", b"\0" * 50],
)
async def test_a_server_that_speaks_something_else_is_named_in_one_line(greeting: bytes) -> None:
    client = Connection(WINDOW, lambda: None)
    transport = MemoryTransport()
    client.connection_made(transport)
    client.data_received(greeting)
    if not transport.closed:
        client.connection_lost(None)
    with pytest.raises(RpcError, match="error reading server preface"):
        await client.greeted()
    assert transport.closed or greeting.startswith(b"\x15")


async def test_a_server_that_hangs_up_at_once_is_named_in_one_line() -> None:
    client = Connection(WINDOW, lambda: None)
    client.connection_made(MemoryTransport())
    client.connection_lost(None)
    with pytest.raises(RpcError, match='desc = "error reading server preface: EOF"'):
        await client.greeted()


async def test_a_frame_beyond_the_limit_ends_the_connection() -> None:
    pair = Pair()
    incoming = pair.call()
    pair.client.data_received(struct.pack(">HBBBI", (FRAME_BYTES + 256) >> 8, 0, 1, 0, incoming.id))
    with pytest.raises(RpcError, match="a frame of"):
        incoming.check()
    assert pair.transport.closed


@given(junk=st.binary(max_size=400))
@settings(max_examples=150)
def test_no_bytes_make_the_connection_raise(junk: bytes) -> None:
    async def run() -> None:
        pair = Pair()
        incoming = pair.call()
        pair.client.data_received(junk)
        incoming.take()
        pair.client.connection_lost(None)
        assert incoming.ended

    asyncio.run(run())
