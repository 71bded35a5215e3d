"""Both forms of a stream keep what they were given: messages as bytes, columns as rows of one set of tables."""

from __future__ import annotations

import numpy as np

from model.columns import from_arrow_ipc, to_arrow_ipc
from model.encode import Encoder
from model.row import Bit, Rows
from model.tables import Tables
from proto.flow import flow_pb2
from proto.flowscope import columns_pb2
from proto.observer import observer_pb2
from proto.relay import relay_pb2
from relay.columns import ColumnsForm
from relay.forms import COLUMNS_PATH, HUBBLE_PATH, SMALL_BATCH, MessagesForm, groups, join, last_of
from rpc.client import Batch
from rpc.framing import PREFIX_SIZE, frame, split
from tests.support.rows import make_rows


def batch_of(*messages: observer_pb2.GetFlowsResponse | columns_pb2.ColumnsResponse) -> Batch:
    buffer = b"".join(map(frame, messages))
    return Batch(buffer, split(buffer, 2**30)[0])


def flow(time_ns: int, text: str = "") -> observer_pb2.GetFlowsResponse:
    message = observer_pb2.GetFlowsResponse(flow=flow_pb2.Flow(Summary=text))
    message.time.FromNanoseconds(time_ns)
    return message


def progress(time_ns: int) -> observer_pb2.GetFlowsResponse:
    message = observer_pb2.GetFlowsResponse()
    message.time.FromNanoseconds(time_ns)
    return message


def columns(rows: Rows, tables: Tables) -> columns_pb2.ColumnsResponse:
    return columns_pb2.ColumnsResponse(batch=to_arrow_ipc(rows, tables))


def test_messages_come_out_as_they_came_in_and_are_forgotten_when_dropped() -> None:
    form = MessagesForm()
    first, second = batch_of(flow(1, "a"), flow(3, "b")), batch_of(flow(2, "c"))
    reading = form.read([(HUBBLE_PATH, first), (HUBBLE_PATH, second)])
    assert reading.counts == [2, 1]
    items = reading.items[np.argsort(reading.items["ts_ns"])]
    assert form.encode(items) == batch_of(flow(1, "a"), flow(2, "c"), flow(3, "b")).buffer
    assert len(form._buffers) == 1
    form.drop(items[:2])
    assert form.encode(items[2:]) == batch_of(flow(3, "b")).buffer
    form.drop(items[2:])
    assert not form._buffers


def test_progress_is_taken_out_of_the_messages_it_came_with() -> None:
    form = MessagesForm()
    batches = [batch_of(flow(1), progress(7)), batch_of(progress(9), progress(8)), batch_of(flow(2))]
    reading = form.read([(HUBBLE_PATH, batch) for batch in batches])
    assert reading.counts == [1, 0, 1]
    assert reading.complete_ns == [7, 9, 0]
    assert reading.items["ts_ns"].tolist() == [1, 2]


def test_only_small_neighbours_are_put_together() -> None:
    small, large = Batch(b"s", [1]), Batch(b"l" * SMALL_BATCH, [SMALL_BATCH])
    assert groups([small, small, large, small, large]) == [[small, small], [large], [small], [large]]
    assert join([small, large]).ends == [1, 1 + SMALL_BATCH]


def test_the_last_messages_of_a_batch_are_a_batch() -> None:
    batch = batch_of(flow(1), flow(2), flow(3))
    assert last_of(batch, 2) == batch_of(flow(2), flow(3))
    assert last_of(batch, 5) is batch


def test_messages_after_a_break_are_recognised() -> None:
    form = MessagesForm()
    batch = batch_of(flow(1, "a"), flow(5, "b"), flow(6, "c"))
    memory = form.memory(batch, form.read([(HUBBLE_PATH, batch)]).items)
    again = form.read([(HUBBLE_PATH, batch_of(flow(5, "b"), flow(5, "new")))]).items
    seen = form.remembered([memory], 5)
    assert [one in seen for one in form.identities(again)] == [True, False]


def test_rows_of_several_nodes_share_one_set_of_tables() -> None:
    form = ColumnsForm()
    rows, tables = make_rows(100, seed=1)
    others, their_tables = make_rows(50, seed=2)
    batches = [batch_of(columns(rows, tables)), batch_of(columns(others, their_tables))]
    reading = form.read([(COLUMNS_PATH, batch) for batch in batches])
    assert reading.counts == [100, 50]
    data = form.encode(reading.items)
    response = columns_pb2.ColumnsResponse.FromString(data[PREFIX_SIZE:])
    mine = Tables()
    got = from_arrow_ipc(response.batch, mine)
    assert Encoder(mine).responses(got[:100]).buffer == Encoder(tables).responses(rows).buffer
    assert Encoder(mine).responses(got[100:]).buffer == Encoder(their_tables).responses(others).buffer


def test_messages_of_a_node_without_columns_become_rows() -> None:
    form = ColumnsForm()
    rows, tables = make_rows(30)
    encoded = Encoder(tables).responses(rows)
    buffer = bytes(encoded.buffer)
    batch = Batch(buffer + frame(progress(77)), [*encoded.ends.tolist(), len(buffer) + len(frame(progress(77)))])
    reading = form.read([(HUBBLE_PATH, batch)])
    assert reading.counts == [30]
    assert reading.complete_ns == [77]
    assert reading.items["ts_ns"].tolist() == rows["ts_ns"].tolist()


def test_a_node_that_sends_junk_is_told_apart_from_the_others() -> None:
    form = ColumnsForm()
    rows, tables = make_rows(10)
    junk = columns_pb2.ColumnsResponse(batch=b"junk")
    reading = form.read([(COLUMNS_PATH, batch_of(junk)), (COLUMNS_PATH, batch_of(columns(rows, tables)))])
    assert reading.counts == [0, 10]
    assert "not a batch of flows" in reading.broken[0]
    assert list(reading.broken) == [0]


def test_late_rows_carry_a_mark() -> None:
    form = ColumnsForm()
    rows, tables = make_rows(5)
    items = form.read([(COLUMNS_PATH, batch_of(columns(rows, tables)))]).items
    marked = form.mark_late(items, 2)
    assert [bool(bits & Bit.LATE) for bits in marked["bits"].tolist()] == [True, True, False, False, False]


def test_tables_that_grew_are_compacted_and_pending_rows_keep_their_meaning() -> None:
    form = ColumnsForm()
    rows, tables = make_rows(200)
    items = form.read([(COLUMNS_PATH, batch_of(columns(rows, tables)))]).items[:20].copy()
    before = form.encode(items)
    size = form._tables.size()
    form._tidy_at = 0
    form.tidy(lambda: [items])
    assert form._tables.size() < size
    mine, theirs = Tables(), Tables()
    first = from_arrow_ipc(columns_pb2.ColumnsResponse.FromString(before[PREFIX_SIZE:]).batch, mine)
    second = from_arrow_ipc(columns_pb2.ColumnsResponse.FromString(form.encode(items)[PREFIX_SIZE:]).batch, theirs)
    assert Encoder(mine).responses(first).buffer == Encoder(theirs).responses(second).buffer


def test_news_of_nodes_have_the_relays_name_and_a_time() -> None:
    event = relay_pb2.NodeStatusEvent(state_change=relay_pb2.NODE_GONE, node_names=["a"])
    response = observer_pb2.GetFlowsResponse.FromString(MessagesForm().status(event, "relay", 5)[PREFIX_SIZE:])
    assert (response.node_status, response.node_name, response.time.nanos) == (event, "relay", 5)
    other = columns_pb2.ColumnsResponse.FromString(ColumnsForm().status(event, "relay", 5)[PREFIX_SIZE:])
    assert (other.node_status, other.node_name, other.time.nanos) == (event, "relay", 5)
