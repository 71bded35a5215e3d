"""Messages become rows and the rows become the same messages again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.columns import from_arrow_ipc, to_arrow_ipc
from model.encode import Encoder
from model.flow_id import uuid_mask
from model.flow_parts import OUTER_TAG
from model.ingest import rows_from_responses, rows_from_wire
from model.mask import FieldMask
from model.row import Bit, Kind, Rows
from model.tables import Tables
from proto.flow import flow_pb2
from proto.observer import observer_pb2
from tests.support.plain_encoding import PATHS, decoded
from tests.support.rows import make_rows, responses, tables_and_rows

Response = observer_pb2.GetFlowsResponse


def messages_of(rows: Rows, tables: Tables) -> list[Response | None]:
    return decoded(Encoder(tables).responses(rows))


def flow_response(**fields: object) -> Response:
    response = Response(flow=flow_pb2.Flow(**fields))  # type: ignore[arg-type]
    response.node_name = response.flow.node_name
    if response.flow.HasField("time"):
        response.time.CopyFrom(response.flow.time)
    return response


UNKNOWN_INSIDE = flow_response(verdict=1)
UNKNOWN_INSIDE.flow.event_type.MergeFromString(b"\x08\x04\xf8\x06\x01")
UNKNOWN_INSIDE.flow.IP.MergeFromString(b"\x0a\x0810.0.0.1\x18\x01\xf8\x06\x01")
POSING_AS_OUTER = Response()
POSING_AS_OUTER.flow.MergeFromString(OUTER_TAG + b"\x02\x08\x01")


def of_ours_without_outer_time() -> Response:
    rows, tables = make_rows(1)
    message = messages_of(rows, tables)[0]
    assert message is not None
    message.ClearField("time")
    return message


@settings(max_examples=200)
@example([of_ours_without_outer_time()])
@example([flow_response()])
@example([flow_response(uuid="00000000-0000-0000-0000-000000000000")])
@example([flow_response(time={"seconds": -1})])
@example([flow_response(time={"seconds": 253402300799, "nanos": 5})])
@example([flow_response(IP={"source": "0.0.0.0", "ipVersion": 1})])
@example([flow_response(IP={"source": "10.1.1.1", "ipVersion": 2}, uuid="c0ffee00-0000-4000-8000-000000000001")])
@example([flow_response(IP={"source": "FD00::1", "destination": "::ffff:10.0.0.1", "ipVersion": 2})])
@example([flow_response(IP={"source": "fd00::1", "destination": "10.0.0.1", "ipVersion": 1})])
@example([flow_response(l4={"TCP": {"source_port": 70000, "destination_port": 5, "flags": {}}}, verdict=300)])
@example([UNKNOWN_INSIDE])
@given(st.lists(responses(), max_size=4))
def test_rows_of_messages_are_encoded_as_the_messages_they_were(messages: list[Response]) -> None:
    tables = Tables()
    rows = rows_from_responses(messages, tables)
    assert messages_of(rows, tables) == messages
    received = Tables()
    assert messages_of(from_arrow_ipc(to_arrow_ipc(rows, tables), received), received) == messages


@settings(max_examples=80)
@given(st.lists(responses().filter(lambda one: one.HasField("flow")), min_size=1, max_size=3), st.data())
def test_masks_cut_flows_of_other_servers_too(messages: list[Response], data: st.DataObject) -> None:
    mask = FieldMask.parse(data.draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=4)))
    assert mask is not None
    tables = Tables()
    rows = rows_from_responses(messages, tables)
    answers = decoded(Encoder(tables, mask).responses(rows))
    for message, answer in zip(messages, answers, strict=True):
        masked = mask.apply(message.flow)
        assert answer is not None
        assert answer.flow == masked
        assert answer.node_name == masked.node_name
        assert answer.HasField("time") == masked.HasField("time")
        assert answer.time == masked.time


@settings(max_examples=40)
@given(tables_and_rows())
def test_flows_of_our_own_come_back_as_the_rows_they_were(case: tuple[Tables, Rows]) -> None:
    tables, rows = case
    messages = [message for message in messages_of(rows, tables) if message]
    received = Tables()
    again = rows_from_responses(messages, received)
    assert messages_of(again, received) == messages
    for field in ("kind", "verdict", "l4", "sport", "dport", "ip_version", "src_ip_lo", "dst_ip_hi", "is_reply"):
        assert np.array_equal(rows[field], again[field]), field
    ours = (again["bits"] & Bit.FOREIGN) == 0
    assert np.array_equal(rows["seq"][ours & (rows["kind"] == Kind.FLOW)], again["seq"][ours & (again["kind"] == 0)])


def test_realistic_flows_of_our_own_need_no_aux_of_their_own() -> None:
    rows, tables = make_rows(2000, endpoints=200, nodes=2)
    received = Tables()
    again = rows_from_responses([message for message in messages_of(rows, tables) if message], received)
    assert not (again["bits"] & Bit.FOREIGN).any()
    assert len(received.aux) == len(np.unique(rows["aux"])) + (0 not in rows["aux"])
    for field in ("ts_ns", "seq", "smac", "dmac", "tcp_flags", "bits", "event_type", "drop_reason"):
        assert np.array_equal(rows[field], again[field]), field


def test_flows_of_others_that_differ_in_time_uuid_and_ports_share_one_aux_entry() -> None:
    messages = [
        flow_response(
            time={"seconds": 1_700_000_000 + number, "nanos": number},
            uuid=f"c0ffee00-0000-4000-8000-{number:012x}",
            emitter={"name": "Hubble", "version": "1.19.4"},
            ethernet={"source": "0a:58:0a:f4:00:01", "destination": "0a:58:0a:f4:00:02"},
            IP={"source": "10.0.0.1", "destination": "10.0.0.2", "ipVersion": 1},
            l4={"TCP": {"source_port": 1000 + number, "destination_port": 80}},
            node_name="east/worker-1",
        )
        for number in range(1, 50)
    ]
    tables = Tables()
    rows = rows_from_responses(messages, tables)
    assert len(tables.aux) == 2
    assert messages_of(rows, tables) == messages
    wanted = [messages[7].flow.uuid, messages[9].flow.uuid.upper()]
    assert uuid_mask(rows, tables, wanted).nonzero()[0].tolist() == [7]


def test_uuids_are_found_wherever_they_stand() -> None:
    texts = ["", "no uuid", "C0FFEE00-0000-4000-8000-000000000001", "c0ffee00-0000-4000-8000-000000000002"]
    ethernet = {"source": "0a:58:0a:f4:00:01", "destination": "0a:58:0a:f4:00:02"}
    tables = Tables()
    rows = rows_from_responses(
        [flow_response(uuid=text) for text in texts] + [flow_response(uuid=text, ethernet=ethernet) for text in texts],
        tables,
    )
    for number, text in enumerate(texts):
        assert uuid_mask(rows, tables, [text]).nonzero()[0].tolist() == [number, number + len(texts)]


def test_responses_that_are_no_rows_are_left_out() -> None:
    status = Response(node_status={"message": "x"})
    messages = [Response(), flow_response(verdict=2), status]
    rows = rows_from_responses(messages, Tables())
    assert rows["verdict"].tolist() == [2]
    assert rows_from_wire([one.SerializeToString() for one in messages], Tables()).tobytes() == rows.tobytes()


def test_a_field_that_poses_as_our_mark_in_aux_is_not_taken_for_it() -> None:
    tables = Tables()
    rows = rows_from_responses([POSING_AS_OUTER], tables)
    assert messages_of(rows, tables) == [Response(flow=flow_pb2.Flow())]


def test_bytes_that_are_no_response_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="not a GetFlowsResponse") as refusal:
        rows_from_wire([b"\xff\xff\xff"], Tables())
    assert "\n" not in str(refusal.value)
