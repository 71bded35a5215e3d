"""observer/pipeline.py: whatever comes in, it goes on, and everything is accounted for."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decode import Decoder
from model.decode.lines import SEPARATOR
from model.events import EventBatch, LostSamples
from model.knowledge import Knowledge
from model.ring import Ring
from model.row import Kind
from model.tables import Node
from observer import pipeline as pipeline_module
from observer.namespaces import Namespaces
from observer.pipeline import Pipeline
from observer.recording import Item, JsonRecords, State
from observer.state import NodeState
from proto.flow import flow_pb2
from tests.support.batches import make_batch


class Script:
    """A source that hands out one list of items after the other."""

    def __init__(self, *turns: Sequence[Item], patient: bool = False, fails: bool = False) -> None:
        self.patient = patient
        self.ended = False
        self.closed = False
        self._turns = [list(turn) for turn in turns]
        self._fails = fails

    def take(self) -> list[Item]:
        if self._turns:
            return self._turns.pop(0)
        if self._fails:
            raise OSError("gone")
        self.ended = True
        return []

    def wait(self, timeout_s: float) -> None:
        time.sleep(0.0001)

    def close(self) -> None:
        self.closed = True


class Setup:
    """A pipeline on a small node."""

    def __init__(self, queue_events: int = 10_000, capacity: int = 4095) -> None:
        self.ring = Ring(capacity)
        node = Node("n")
        decoder = Decoder(self.ring.tables, Knowledge.from_json({}), self.ring.tables.nodes.intern(node))
        self.pipeline = Pipeline(self.ring, decoder, node, Namespaces(self.ring), queue_events=queue_events)

    def kinds(self) -> Counter[int]:
        return Counter(row for _, rows in self.ring.backwards(4096, 4096) for row in rows["kind"].tolist())

    def lost(self) -> Counter[int]:
        """Events reported lost, by source."""
        found: Counter[int] = Counter()
        for _, rows in self.ring.backwards(4096, 4096):
            for row in rows[rows["kind"] == Kind.LOST]:
                event = flow_pb2.LostEvent.FromString(self.ring.tables.aux[int(row["aux"])] or b"")
                found[event.source] += event.num_events_lost
        return found


def trace(length: int = 48 + 14) -> bytes:
    """A trace event of an Ethernet frame without more."""
    return bytes([4, 0]) + bytes(12) + bytes([1, 0]) + bytes(length - 16)


def batch(events: int, lost: tuple[LostSamples, ...] = ()) -> EventBatch:
    return make_batch([trace()] * events, [1] * events, lost=lost)


async def test_events_become_rows_and_wake_who_waits() -> None:
    setup = Setup()
    waiting = asyncio.create_task(setup.pipeline.bell.wait())
    await asyncio.sleep(0)
    source = Script([batch(3)], [], [batch(2)])
    await setup.pipeline.run(source)
    await asyncio.wait_for(waiting, 1)
    assert setup.kinds() == {Kind.FLOW: 5}
    assert source.closed


async def test_a_rush_is_read_on_a_thread_and_nothing_changes_but_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "RUSH_EVENTS", 10)
    setup = Setup()
    await setup.pipeline.run(Script(*[[batch(20, (LostSamples(5, 1, 7, 0),))]] * 20))
    assert setup.kinds() == {Kind.FLOW: 400, Kind.LOST: 20}
    assert setup.lost() == {flow_pb2.PERF_EVENT_RING_BUFFER: 140}
    first = next(setup.ring.backwards(4096, 4096))[1]["kind"].tolist()
    assert first[:7] == [Kind.FLOW] * 5 + [Kind.LOST, Kind.FLOW]


async def test_what_the_queue_has_no_room_for_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "RUSH_EVENTS", 10)
    setup = Setup(queue_events=500)
    await setup.pipeline.run(Script([batch(10)], [batch(100, (LostSamples(0, 2, 3, 0),))] * 30))
    lost = setup.lost()
    assert setup.pipeline.dropped > 0
    assert lost[flow_pb2.OBSERVER_EVENTS_QUEUE] == setup.pipeline.dropped
    assert lost[flow_pb2.PERF_EVENT_RING_BUFFER] == 90
    assert setup.kinds()[Kind.FLOW] + setup.pipeline.dropped == 3010


async def test_a_source_that_can_wait_loses_nothing() -> None:
    setup = Setup(queue_events=300)
    await setup.pipeline.run(Script(*[[batch(100)] * 5] * 6, patient=True))
    assert setup.kinds() == {Kind.FLOW: 3000}
    assert setup.pipeline.dropped == 0


@pytest.mark.parametrize("patient", [True, False])
async def test_a_source_that_fails_ends_the_pipeline_with_its_reason(patient: bool) -> None:
    setup = Setup()
    with pytest.raises(OSError, match="gone"):
        await setup.pipeline.run(Script([batch(3)], patient=patient, fails=True))
    assert setup.kinds() == {Kind.FLOW: 3}


async def test_records_keep_their_order_among_events_and_each_other() -> None:
    setup = Setup()
    agent = b'{"type": 2, "message": {"time": "2026-01-15T10:00:00Z"}}'
    proxy = json.dumps({"type": "Request", "dns": {"query": "a."}, "verdict": "Forwarded"}).encode()
    records = JsonRecords(5, (agent, proxy, agent, b"{", b"[]", b"7"))
    await setup.pipeline.run(Script([batch(1), records, batch(1)]))
    rows = next(setup.ring.backwards(100, 100))[1]
    assert rows["kind"].tolist()[0] == rows["kind"].tolist()[-1] == Kind.FLOW
    assert rows["kind"].tolist().count(Kind.AGENT) == 2
    assert setup.pipeline.errors["malformed_record"] == 3


WORDS = "5 5 1 r - http://h/ Request Forwarded Egress HTTP/1.1 200 10.0.0.1 10.0.0.2 80 GET agent"
REQUEST = SEPARATOR.join(WORDS.split()).encode()


@pytest.mark.parametrize("live", [True, False])
async def test_lines_of_our_own_envoy_and_records_in_json_may_come_together(live: bool) -> None:
    setup = Setup()
    proxy = b'{"type": "Request", "timestamp": "2026-01-15T10:00:00Z", "dns": {"Query": "a."}}'
    lost = b'{"type":"Lost","count":3}'
    records = JsonRecords(5, (lost, REQUEST, proxy, REQUEST, b"x" + SEPARATOR.encode(), b"{"))
    if live:
        setup.pipeline.receive(records)
    else:
        await setup.pipeline.run(Script([records]))
    assert setup.kinds() == {Kind.FLOW: 3, Kind.LOST: 1}
    assert setup.lost() == {flow_pb2.OBSERVER_EVENTS_QUEUE: 3}
    assert setup.pipeline.errors == {"malformed_record": 2}


async def test_a_new_node_name_shows_in_the_rows_that_follow() -> None:
    setup = Setup()
    await setup.pipeline.run(Script([batch(1)]))
    setup.pipeline.set_node(Node("m"))
    await setup.pipeline.run(Script([batch(1)]))
    rows = next(setup.ring.backwards(100, 100))[1]
    assert [setup.ring.tables.nodes[int(index)] for index in rows["node"]] == [Node("n"), Node("m")]
    setup.ring.compact()
    await setup.pipeline.run(Script([batch(1)]))
    rows = next(setup.ring.backwards(100, 100))[1]
    assert setup.ring.tables.nodes[int(rows["node"][-1])] == Node("m")


async def test_a_state_in_the_stream_is_known_from_there_on() -> None:
    setup = Setup()
    state = json.dumps({"links": {"7": "lxc7"}}).encode()
    event = bytearray(trace())
    event[28] = 7
    with_link = make_batch([bytes(event)], [1])
    await setup.pipeline.run(Script([with_link, State(b"{broken"), State(state), with_link]))
    rows = next(setup.ring.backwards(100, 100))[1]
    named = [interface and interface.name for interface in map(setup.ring.tables.ifaces.__getitem__, rows["iface"])]
    assert named == ["", "lxc7"]
    setup.pipeline.set_state(NodeState(b"{}", Knowledge.from_json({})))


RECORDS = st.lists(st.binary(max_size=120) | st.builds(lambda n: trace()[:n], st.integers(0, 70)), max_size=8)
KEYS = st.sampled_from(
    [
        *("type", "message", "http", "dns", "kafka", "url", "headers", "code", "qtypes", "ips", "verdict", "timestamp"),
        *(
            "source_endpoint",
            "destination_endpoint",
            "ipv4",
            "port",
            "labels",
            "observation_point",
            "transport_protocol",
        ),
    ]
)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(RECORDS, st.lists(st.dictionaries(KEYS, JSON, max_size=6), max_size=4))
@settings(max_examples=150)
def test_no_bytes_and_no_record_stop_it(events: list[bytes], records: list[dict[str, Any]]) -> None:
    async def feed() -> None:
        setup = Setup()
        lines = tuple(json.dumps(record).encode() for record in records)
        await setup.pipeline.run(Script([make_batch(events, [1] * len(events))]))
        setup.pipeline.receive(JsonRecords(1, lines))
        became = sum(setup.kinds().values())
        assert became + sum(setup.pipeline.errors.values()) == len(events) + len(records)
        assert setup.pipeline.errors["internal_error"] == 0

    asyncio.run(feed())
