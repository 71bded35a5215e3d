"""Messages read by pattern give the rows that reading them one by one gives."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.encode import Encoder
from model.ingest import rows_from_responses, rows_from_wire
from model.row import Rows
from model.tables import Tables
from model.wire_reader import WireReader
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from tests.support.plain_encoding import decoded
from tests.support.rows import make_rows, responses, tables_and_rows

Response = observer_pb2.GetFlowsResponse


def read_twice(messages: list[bytes]) -> None:
    """Patterns are made by the first reading and used by the second."""
    slow_tables = Tables()
    slow = rows_from_responses(map(Response.FromString, messages), slow_tables)
    reader, tables = WireReader(), Tables()
    expected = decoded(Encoder(slow_tables).responses(slow))
    for _ in range(2):
        assert decoded(Encoder(tables).responses(reader.rows(messages, tables))) == expected


def as_go_writes(message: bytes, number: int, ours: bool) -> bytes:
    """The same message with fields by number, as other servers order them, and a UUID of their kind."""
    response = Response.FromString(message)
    if not ours:
        response.flow.uuid = f"c0ffee00-0000-4000-8000-{number:012x}"
    return response.SerializeToString(deterministic=True)


def usual_messages(count: int) -> list[bytes]:
    rows, tables = make_rows(count, endpoints=40, connections=20, nodes=2)
    encoded = Encoder(tables).responses(rows)
    return [encoded.payload(index) for index in range(count)]


@pytest.mark.parametrize("writer", ["ours", "others"])
def test_realistic_messages_are_read_by_few_patterns(writer: str) -> None:
    messages = usual_messages(3000)
    if writer == "others":
        messages = [as_go_writes(message, number, ours=False) for number, message in enumerate(messages, 1)]
    read_twice(messages)


@settings(max_examples=60)
@given(tables_and_rows(max_rows=4), st.booleans())
def test_odd_messages_of_our_own_are_read_exactly(case: tuple[Tables, Rows], reorder: bool) -> None:
    tables, rows = case
    encoded = Encoder(tables).responses(rows)
    messages = [encoded.payload(index) for index in range(len(rows))]
    read_twice([as_go_writes(message, 0, ours=True) for message in messages] if reorder else messages)


@settings(max_examples=60)
@given(st.lists(responses(), max_size=3))
def test_messages_of_anybody_are_read_exactly(messages: list[Response]) -> None:
    read_twice([message.SerializeToString() for message in messages])


TRICKY_FIELDS = {
    "another source": {"source": {"identity": 7}},
    "another time": {"time": {"seconds": 1_700_000_000}},
    "another address": {"IP": {"source": "192.0.2.1"}},
    "a translated address": {"IP": {"source_xlated": "192.0.2.1"}},
    "another port": {"l4": {"TCP": {"source_port": 9}}},
    "another protocol": {"l4": {"UDP": {"source_port": 9}}},
    "another UUID": {"uuid": "c0ffee00-0000-4000-8000-000000000001"},
    "a large port": {"l4": {"TCP": {"source_port": 70_000}}},
    "another MAC address": {"ethernet": {"source": "00:00:00:00:00:01"}},
    "a UUID tag in a text": {"source_names": ["\x12$" + "0" * 36, "x" * 30]},
}


@pytest.mark.parametrize("what", TRICKY_FIELDS)
@pytest.mark.parametrize("ours", [True, False])
def test_fields_that_come_again_count_as_they_do_for_every_decoder(what: str, ours: bool) -> None:
    more = flow_pb2.Flow(**TRICKY_FIELDS[what]).SerializeToString()  # type: ignore[arg-type]
    usual = [as_go_writes(message, number, ours) for number, message in enumerate(usual_messages(40), 1)]
    tricky = []
    for message in usual:
        response = Response.FromString(message)
        flow = response.flow.SerializeToString(deterministic=True) + more
        tricky.append(Response(node_name=response.node_name, time=response.time).SerializeToString())
        tricky[-1] = b"\x0a" + bytes([len(flow) & 0x7F | 0x80, len(flow) >> 7]) + flow + tricky[-1]
        assert Response.FromString(tricky[-1]).flow != response.flow or what == "another UUID"
    read_twice(usual + tricky + usual)
    read_twice(tricky + usual)


def test_a_second_flow_in_a_response_is_merged_as_every_decoder_does() -> None:
    usual = usual_messages(40)
    second = Response(flow=flow_pb2.Flow(source={"identity": 7}, IP={"source": "192.0.2.1"})).SerializeToString()
    read_twice(usual + [message + second for message in usual])


@pytest.mark.parametrize("field", [b"\x42", b"\x2a", b"\x22"])
def test_nonsense_in_place_of_an_endpoint_or_address_is_refused(field: bytes) -> None:
    message = Response.FromString(usual_messages(1)[0])
    for name in ("source", "destination", "IP", "ethernet"):
        message.flow.ClearField(name)
    flow = message.flow.SerializeToString() + field + b"\x02\xff\xff"
    message.ClearField("flow")
    broken = b"\x0a" + bytes([len(flow) & 0x7F | 0x80, len(flow) >> 7]) + flow + message.SerializeToString()
    reader, tables = WireReader(), Tables()
    reader.rows(usual_messages(20), tables)
    with pytest.raises(ValueError, match="not a GetFlowsResponse"):
        reader.rows([broken], tables)


@given(st.integers(0, 5), st.data())
@settings(max_examples=150)
def test_damaged_messages_are_refused_or_read_as_a_decoder_reads_them(seed: int, data: st.DataObject) -> None:
    messages = usual_messages(6)
    damaged = bytearray(messages[seed])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    reader, tables = WireReader(), Tables()
    reader.rows(messages, tables)
    try:
        expected = Response.FromString(bytes(damaged))
    except Exception:
        with pytest.raises(ValueError, match="not a GetFlowsResponse"):
            reader.rows([bytes(damaged)], tables)
        return
    if expected.WhichOneof("response_types") == "node_status":
        return
    rows = reader.rows([bytes(damaged)], tables)
    if expected.WhichOneof("response_types") is None:
        assert not len(rows)
        return
    again = decoded(Encoder(tables).responses(rows))[0]
    assert again is not None
    expected.DiscardUnknownFields()
    again.DiscardUnknownFields()
    assert again == expected


def test_what_is_remembered_is_bounded_and_dies_with_the_tables() -> None:
    messages = usual_messages(500)
    reader, tables = WireReader(remembered_bytes=20_000), Tables()
    for _ in range(3):
        assert len(reader.rows(messages, tables)) == len(messages)
    kept = weakref.ref(tables)
    rows_from_wire(messages, tables)
    del tables
    gc.collect()
    assert kept() is None


def test_patterns_of_compacted_tables_are_forgotten() -> None:
    messages = usual_messages(50)
    tables = Tables()
    reader = WireReader()
    reader.rows(messages, tables)
    tables.compact([reader.rows(messages[:3], tables)])
    expected = [Response.FromString(message) for message in messages]
    assert decoded(Encoder(tables).responses(reader.rows(messages, tables))) == expected
