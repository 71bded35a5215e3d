"""The stream of a relay: who is asked, in what order flows come, what is said when nodes come and go."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from proto.flow import flow_pb2
from proto.observer import observer_pb2
from proto.peer import peer_pb2
from proto.relay import relay_pb2
from relay.collect import LATE_FLOWS
from rpc.client import Stream
from rpc.framing import frame
from rpc.server import Call, Server
from rpc.status import RpcError, Status
from tests.support.fake_nodes import FakePeers, Flows, delivers, response
from tests.support.relay_service import FLOWS, RELAY, everything, make_node, relaying, running, statuses, texts
from tests.support.waiting import eventually_async

Request = observer_pb2.GetFlowsRequest
Response = observer_pb2.GetFlowsResponse

S = 10**9
BASE = 1_700_000_000 * S


def at(node: str, *seconds: int) -> list[Response]:
    """Flows of a node, named after it and their second."""
    return [response(node, BASE + second * S, f"{node}{second}") for second in seconds]


class Script:
    """A node whose stream the test drives: `send` responses, `end` it, or `fail` it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[list[Response] | RpcError | None] = asyncio.Queue()

    async def __call__(self, request: Request, call: Call) -> None:
        while (said := await self.queue.get()) is not None:
            if isinstance(said, RpcError):
                raise said
            await call.send(b"".join(map(frame, said)))

    def send(self, *responses: Response) -> None:
        self.queue.put_nowait(list(responses))

    def fail(self, code: Status, message: str) -> None:
        self.queue.put_nowait(RpcError(code, message))

    def end(self) -> None:
        self.queue.put_nowait(None)


class Reader:
    """Collects a stream that does not end."""

    def __init__(self, stream: Stream) -> None:
        self.responses: list[Response] = []
        self.ended = False
        self._task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: Stream) -> None:
        async for one in stream.messages(Response):
            self.responses.append(one)
        self.ended = True

    async def until_texts(self, *wanted: str) -> None:
        await eventually_async(lambda: set(wanted) <= set(texts(self.responses)))

    async def until_status(self, state: str, *nodes: str) -> None:
        await eventually_async(lambda: (state, list(nodes)) in statuses(self.responses))


async def test_flows_of_all_nodes_come_by_time_behind_the_list_of_nodes(tmp_path: Path) -> None:
    nodes = [
        make_node(tmp_path, "a", delivers(at("a", 1, 4, 5))),
        make_node(tmp_path, "b", delivers(at("b", 2, 3, 6))),
    ]
    async with relaying(tmp_path, nodes) as channel:
        responses = await everything(channel, Request(number=3))
    assert texts(responses) == ["a1", "b2", "b3", "a4", "a5", "b6"]
    assert responses[0].node_status.state_change == relay_pb2.NODE_CONNECTED
    assert sorted(responses[0].node_status.node_names) == ["a", "b"]
    assert responses[0].node_name == RELAY
    assert abs(responses[0].time.ToNanoseconds() - time.time_ns()) < 60 * S


async def test_every_node_gets_the_same_request_and_the_clients_metadata(tmp_path: Path) -> None:
    nodes = [make_node(tmp_path, name, delivers([])) for name in "ab"]
    request = Request(number=7, whitelist=[flow_pb2.FlowFilter(source_pod=["x/y"])])
    async with (
        relaying(tmp_path, nodes) as channel,
        channel.stream(FLOWS, request, metadata=[("authorization", "Basic eDp5")]) as stream,
    ):
        assert [len(batch) async for batch in stream]
    for node in nodes:
        assert node.observer.requests == [request]
        assert node.observer.metadata[0]["authorization"] == "Basic eDp5"
        assert not any(key.startswith("flowscope-") for key in node.observer.metadata[0])


async def test_a_node_that_cannot_be_reached_is_said_to_be_unavailable(tmp_path: Path) -> None:
    node = make_node(tmp_path, "a", delivers(at("a", 1)))
    peers = (f"a={node.address}", f"gone=unix://{tmp_path}/gone.sock")
    async with relaying(tmp_path, [node], peers=peers) as channel:
        await asyncio.sleep(0.05)
        responses = await everything(channel, Request())
    assert statuses(responses) == [("NODE_CONNECTED", ["a"]), ("NODE_UNAVAILABLE", ["gone"])]
    assert texts(responses) == ["a1"]


async def test_without_a_usable_node_the_stream_ends_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, peers=(f"gone=unix://{tmp_path}/gone.sock",)) as channel:
        await asyncio.sleep(0.05)
        responses = await everything(channel, Request(follow=True))
    assert statuses(responses) == [("NODE_UNAVAILABLE", ["gone"])]


async def test_a_node_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    async def fails(request: Request, call: Call) -> None:
        await call.send_message(at("b", 2)[0])
        raise RpcError(Status.INTERNAL, "oops")

    nodes = [make_node(tmp_path, "a", delivers(at("a", 1, 3))), make_node(tmp_path, "b", fails)]
    async with relaying(tmp_path, nodes) as channel:
        responses = await everything(channel, Request())
    assert texts(responses) == ["a1", "b2", "a3"]
    status = responses[-1].node_status
    assert (status.state_change, list(status.node_names)) == (relay_pb2.NODE_ERROR, ["b"])
    assert status.message == "rpc error: code = Internal desc = oops"


async def test_a_filter_that_all_nodes_refuse_makes_one_error_with_its_plain_text(tmp_path: Path) -> None:
    async def refuses(request: Request, call: Call) -> None:
        raise RpcError(Status.UNKNOWN, "invalid filter")

    nodes = [make_node(tmp_path, name, refuses) for name in "abc"]
    async with relaying(tmp_path, nodes, error_window_s=10.0) as channel:
        responses = await everything(channel, Request())
    assert statuses(responses)[1:] == [("NODE_ERROR", ["a", "b", "c"])]
    assert responses[-1].node_status.message == "invalid filter"


async def test_first_with_follow_is_refused(tmp_path: Path) -> None:
    async with relaying(tmp_path, [make_node(tmp_path, "a", delivers([]))]) as channel:
        with pytest.raises(RpcError, match="code = InvalidArgument desc = first cannot be specified with follow"):
            await everything(channel, Request(first=True, follow=True))


async def test_a_silent_node_is_waited_for_no_longer_than_the_drain_timeout(tmp_path: Path) -> None:
    silent, speaks = Script(), Script()
    nodes = [make_node(tmp_path, "a", silent), make_node(tmp_path, "b", speaks)]
    async with relaying(tmp_path, nodes) as channel, channel.stream(FLOWS, Request(follow=True)) as stream:
        reader = Reader(stream)
        started = time.monotonic()
        speaks.send(*at("b", 1, 2))
        await reader.until_texts("b1", "b2")
        assert 0.1 < time.monotonic() - started < 2


async def test_what_a_node_says_too_late_comes_all_the_same_and_is_counted(tmp_path: Path) -> None:
    slow, fast = Script(), Script()
    nodes = [make_node(tmp_path, "a", slow), make_node(tmp_path, "b", fast)]
    async with relaying(tmp_path, nodes) as channel, channel.stream(FLOWS, Request()) as stream:
        reader = Reader(stream)
        fast.send(*at("b", 5, 9))
        await reader.until_texts("b5", "b9")
        slow.send(*at("a", 3, 7, 10))
        slow.end()
        fast.end()
        await eventually_async(lambda: reader.ended)
        assert texts(reader.responses) == ["b5", "b9", "a3", "a7", "a10"]
        assert stream.trailers[LATE_FLOWS] == "2"


async def test_a_node_that_says_it_is_up_to_date_holds_nothing_back(tmp_path: Path) -> None:
    idle, busy = Script(), Script()
    nodes = [make_node(tmp_path, "a", idle), make_node(tmp_path, "b", busy)]
    async with (
        relaying(tmp_path, nodes, sort_buffer_drain_timeout_s=30.0) as channel,
        channel.stream(FLOWS, Request(follow=True)) as stream,
    ):
        reader = Reader(stream)
        busy.send(*at("b", 1, 2, 3))
        progress = Response()
        progress.time.FromNanoseconds(BASE + 2 * S)
        idle.send(progress)
        await reader.until_texts("b1", "b2")
        assert "b3" not in texts(reader.responses)
        assert all(one.WhichOneof("response_types") for one in reader.responses)
    assert nodes[0].observer.metadata[0]["flowscope-progress"] == "1"


async def test_lost_events_keep_their_place(tmp_path: Path) -> None:
    lost = Response(lost_events=flow_pb2.LostEvent(num_events_lost=7), node_name="a")
    lost.time.FromNanoseconds(BASE + 2 * S)
    flows = at("a", 1, 3)
    nodes = [
        make_node(tmp_path, "a", delivers([flows[0], lost, flows[1]])),
        make_node(tmp_path, "b", delivers(at("b", 0, 4))),
    ]
    async with relaying(tmp_path, nodes) as channel:
        responses = await everything(channel, Request())
    kinds = [one.WhichOneof("response_types") for one in responses[1:]]
    assert kinds == ["flow", "flow", "lost_events", "flow", "flow"]
    assert responses[3].lost_events.num_events_lost == 7


async def test_a_killed_node_is_reported_and_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    first, second, other = Script(), Script(), Script()
    scripts = iter([first, second])

    async def flows(request: Request, call: Call) -> None:
        await next(scripts)(request, call)

    node, steady = make_node(tmp_path, "a", flows), make_node(tmp_path, "b", other)
    async with (
        relaying(tmp_path, [node, steady]) as channel,
        channel.stream(FLOWS, Request(follow=True, number=20)) as stream,
    ):
        reader = Reader(stream)
        first.send(*at("a", 1, 2))
        other.send(*at("b", 3))
        await reader.until_texts("a1", "a2", "b3")
        await node.kill()
        await reader.until_status("NODE_ERROR", "a")
        other.send(*at("b", 4))
        await reader.until_texts("b4")
        await node.start()
        await eventually_async(lambda: len(node.observer.requests) == 2)
        resumed = node.observer.requests[1]
        assert (resumed.number, resumed.follow) == (0, True)
        # The node keeps its ring: what it repeats was seen, what is new was not.
        second.send(*at("a", 2), response("a", BASE + 2 * S, "new"), *at("a", 5))
        other.send(*at("b", 6))
        await reader.until_texts("new", "a5")
        assert BASE + 1 * S < resumed.since.ToNanoseconds() <= BASE + 2 * S
        assert texts(reader.responses).count("a2") == 1
        assert not reader.ended


async def test_a_stream_that_ends_normally_is_not_asked_for_again(tmp_path: Path) -> None:
    ends, goes_on = Script(), Script()
    nodes = [make_node(tmp_path, "a", ends), make_node(tmp_path, "b", goes_on)]
    async with relaying(tmp_path, nodes) as channel, channel.stream(FLOWS, Request(follow=True)) as stream:
        reader = Reader(stream)
        ends.send(*at("a", 1))
        ends.end()
        goes_on.send(*at("b", 2))
        await reader.until_texts("a1")
        await asyncio.sleep(0.2)
        assert len(nodes[0].observer.requests) == 1
        assert not reader.ended
        goes_on.end()
        await eventually_async(lambda: reader.ended)


async def test_a_peer_service_brings_nodes_and_takes_them_away(tmp_path: Path) -> None:
    scripts = {name: Script() for name in "ab"}
    nodes = {name: make_node(tmp_path, name, script) for name, script in scripts.items()}
    peers = FakePeers()
    server = Server([peers])
    await server.listen(f"unix://{tmp_path}/peers.sock")

    def notify(kind: peer_pb2.ChangeNotificationType, name: str) -> None:
        peers.changes.put_nowait(
            peer_pb2.ChangeNotification(type=kind, name=name, address=nodes[name].address.removeprefix("unix://"))
        )

    for node in nodes.values():
        await node.start()
    notify(peer_pb2.PEER_ADDED, "a")
    async with running(tmp_path, peer_service=f"unix://{tmp_path}/peers.sock") as channel:
        await eventually_async(lambda: bool(nodes["a"].server and nodes["a"].server.connections))
        async with channel.stream(FLOWS, Request(follow=True)) as stream:
            reader = Reader(stream)
            await reader.until_status("NODE_CONNECTED", "a")
            notify(peer_pb2.PEER_ADDED, "b")
            await eventually_async(lambda: len(nodes["b"].observer.requests) == 1)
            scripts["b"].send(*at("b", 1))
            await reader.until_texts("b1")
            notify(peer_pb2.PEER_DELETED, "b")
            await reader.until_status("NODE_GONE", "b")
            scripts["a"].send(*at("a", 2))
            await reader.until_texts("a2")
    peers.changes.put_nowait(None)
    for node in nodes.values():
        assert node.server is not None
        await node.server.close(0)
    await server.close(0)


async def test_known_nodes_stay_while_the_peer_service_is_down(tmp_path: Path) -> None:
    node = make_node(tmp_path, "a", delivers(at("a", 1)))
    peers = FakePeers()
    server = Server([peers])
    await server.listen(f"unix://{tmp_path}/peers.sock")
    peers.changes.put_nowait(
        peer_pb2.ChangeNotification(type=peer_pb2.PEER_ADDED, name="a", address=node.address.removeprefix("unix://"))
    )
    async with relaying(tmp_path, [node], peers=(), peer_service=f"unix://{tmp_path}/peers.sock") as channel:
        peers.changes.put_nowait(None)
        await server.close(0)
        assert texts(await everything(channel, Request())) == ["a1"]


async def test_a_client_that_does_not_read_holds_the_nodes_back(tmp_path: Path) -> None:
    sent = 0

    async def endless(request: Request, call: Call) -> None:
        nonlocal sent
        second = 0
        while True:
            await call.send(b"".join(frame(response("a", BASE + second * S, "x" * 9000)) for _ in range(20)))
            sent += 20 * 9000
            second += 1

    flows: Flows = endless
    async with (
        relaying(tmp_path, [make_node(tmp_path, "a", flows)], client_buffer_mib=4) as channel,
        channel.stream(FLOWS, Request(follow=True)) as stream,
    ):
        await stream.start()
        held = -1
        while held != sent:  # for ever, if nothing held the nodes back
            assert sent < 24 * 2**20
            held = sent
            await asyncio.sleep(0.5)
        # The client's own window, the relay's share, sockets on the way.
        assert sent < 24 * 2**20


async def test_more_flows_at_one_moment_than_a_share_holds_do_not_stop_the_stream(tmp_path: Path) -> None:
    burst = [response(name, BASE + number, "x" * 900) for name in "a" for number in range(3000)]
    nodes = [make_node(tmp_path, name, delivers(burst)) for name in "ab"]
    settings = {"client_buffer_mib": 1, "sort_buffer_len_max": 500, "sort_disorder_s": 1.0}
    async with relaying(tmp_path, nodes, **settings) as channel:
        responses = await everything(channel, Request())
    times = [one.time.ToNanoseconds() for one in responses if one.HasField("flow")]
    assert len(times) == 6000
    assert times == sorted(times)


async def test_a_stopping_relay_ends_its_streams(tmp_path: Path) -> None:
    script = Script()
    async with relaying(tmp_path, [make_node(tmp_path, "a", script)]) as channel:
        stream = channel.stream(FLOWS, Request(follow=True))
        await stream.start()
    with pytest.raises(RpcError) as caught:
        async for _ in stream:
            pass
    assert caught.value.code in (Status.UNAVAILABLE, Status.CANCELLED)
