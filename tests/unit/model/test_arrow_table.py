"""The table for people says what the flows say."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from hypothesis import given, settings

from model.arrow_table import rows_to_arrow_table
from model.encode import Encoder
from model.row import Kind, Rows
from model.tables import Tables
from proto.flow import flow_pb2
from tests.support.rows import make_rows, tables_and_rows


@settings(max_examples=50)
@given(tables_and_rows())
def test_each_line_is_its_flow(case: tuple[Tables, Rows]) -> None:
    tables, rows = case
    lines = rows_to_arrow_table(rows, tables).to_pylist()
    flows = Encoder(tables).flows(rows)
    assert len(lines) == len(flows)
    for line, flow in zip(lines, flows, strict=True):
        assert line["uuid"] == flow.uuid
        assert line["summary"] == (flow.Summary or None)
        assert line["node_name"] == (flow.node_name or None)
        assert line["source_ip"] == (flow.IP.source or None)
        assert line["destination_pod"] == (flow.destination.pod_name or None)
        assert line["source_labels"] == list(flow.source.labels)
        assert line["destination_names"] == list(flow.destination_names)
        assert line["destination_service"] == (flow.destination_service.name or None)
        assert line["is_reply"] == (flow.is_reply.value if flow.HasField("is_reply") else None)
        assert line["source_mac"] == (flow.ethernet.source or None)
        assert line["dns_query"] == (flow.l7.dns.query or None)
        assert line["protocol"] == flow.l4.WhichOneof("protocol") or line["protocol"] in ("VRRP", "IGMP")


def test_time_is_exact_and_names_are_words() -> None:
    rows, tables = make_rows(1000)
    rows["kind"][0] = Kind.LOST
    table = rows_to_arrow_table(rows, tables)
    assert table["time"].cast(pa.int64()).to_pylist() == rows["ts_ns"][1:].tolist()
    verdicts = [flow_pb2.Verdict.Name(number) for number in rows["verdict"][1:].tolist()]
    assert table["verdict"].to_pylist() == verdicts
    assert table["verdict"].type == pa.dictionary(pa.int32(), pa.string())


def test_pandas_parquet_and_csv_take_it() -> None:
    rows, tables = make_rows(500)
    frame = rows_to_arrow_table(rows, tables).to_pandas()
    assert frame.groupby("verdict", observed=True).size().sum() == 500
    sink = io.BytesIO()
    pa.parquet.write_table(rows_to_arrow_table(rows, tables), sink)
    assert pa.parquet.read_table(io.BytesIO(sink.getvalue()))["uuid"].to_pylist() == frame["uuid"].tolist()
    text = io.BytesIO()
    pa.csv.write_csv(rows_to_arrow_table(rows, tables, join_lists=True), text)
    assert text.getvalue().count(b"\n") == 501


def test_no_rows_give_an_empty_table_with_the_same_columns() -> None:
    rows, tables = make_rows(5)
    assert rows_to_arrow_table(rows[:0], tables).schema.names == rows_to_arrow_table(rows, tables).schema.names
