"""The summary is the text of the last layer, as the reference prints it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from model.encode import Encoder
from model.row import L4, Bit, Rows, TcpFlag
from model.summary import summaries, summary_text
from model.tables import Tables
from proto.flow import flow_pb2
from tests.support.rows import make_rows, tables_and_rows

VRRP = flow_pb2.Flow(l4={"VRRP": {"type": 1}}).SerializeToString()
IGMP = flow_pb2.Flow(l4={"IGMP": {"type": 22}}).SerializeToString()
ALL_FLAGS = sum(TcpFlag)

CASES: dict[str, dict[str, Any]] = {
    "": {},
    "Ethernet": {"bits": Bit.HAS_ETHERNET},
    "IPv4": {"bits": Bit.HAS_ETHERNET, "ip_version": 1},
    "IPv6": {"ip_version": 2},
    "UDP": {"ip_version": 1, "l4": L4.UDP},
    "SCTP": {"ip_version": 2, "l4": L4.SCTP},
    "TCP Flags: ": {"l4": L4.TCP, "bits": Bit.HAS_TCP_FLAGS},
    "TCP Flags: SYN, ACK, RST, FIN, PSH, URG, ECE, CWR, NS": {
        "l4": L4.TCP, "bits": Bit.HAS_TCP_FLAGS, "tcp_flags": ALL_FLAGS,
    },
    "ICMPv4 EchoReply": {"l4": L4.ICMPV4},
    "ICMPv4 EchoRequest(Code: 3)": {"l4": L4.ICMPV4, "sport": 8, "dport": 3},
    "ICMPv4 DestinationUnreachable(Port)": {"l4": L4.ICMPV4, "sport": 3, "dport": 3},
    "ICMPv4 TimeExceeded(Code: 9)": {"l4": L4.ICMPV4, "sport": 11, "dport": 9},
    "ICMPv4 42(7)": {"l4": L4.ICMPV4, "sport": 42, "dport": 7},
    "ICMPv6 NeighborSolicitation": {"l4": L4.ICMPV6, "sport": 135},
    "ICMPv6 200(0)": {"l4": L4.ICMPV6, "sport": 200},
    "VRRP VRRPv2 Advertisement": {"ip_version": 1, "l4": L4.VRRP, "aux": VRRP},
    "IGMP IGMPv2 Membership Report": {"ip_version": 1, "l4": L4.IGMP, "aux": IGMP},
    "TCP": {"flow_type": flow_pb2.SOCK, "ip_version": 1, "l4": L4.TCP},
    "Unknown": {"flow_type": flow_pb2.SOCK, "ip_version": 1},
    "said elsewhere": {"bits": Bit.SUMMARY_IN_AUX, "aux": flow_pb2.Flow(Summary="said elsewhere").SerializeToString()},
}  # fmt: skip
NOTHING: dict[str, Any] = {
    "flow_type": flow_pb2.L3_L4, "ip_version": 0, "l4": 0, "sport": 0, "dport": 0, "tcp_flags": 0, "bits": 0,
    "aux": None,
}  # fmt: skip


@pytest.mark.parametrize("text", CASES)
def test_the_last_layer_speaks(text: str) -> None:
    assert summary_text(**(NOTHING | CASES[text])) == text


def test_l7_flows_have_the_summary_of_their_decoder_or_none() -> None:
    assert summary_text(**(NOTHING | {"flow_type": flow_pb2.L7, "l4": L4.TCP, "ip_version": 1})) == ""


@settings(max_examples=50)
@given(tables_and_rows(kinds=(0,)))
def test_summaries_of_a_batch_are_those_of_its_flows(case: tuple[Tables, Rows]) -> None:
    tables, rows = case
    index, texts = summaries(rows, tables)
    assert [texts[at] for at in index.tolist()] == [flow.Summary for flow in Encoder(tables).flows(rows)]


def test_there_are_no_more_texts_than_combinations_of_layers() -> None:
    rows, tables = make_rows(5000)
    index, texts = summaries(rows, tables)
    assert len(index) == 5000
    assert len(texts) < 150
