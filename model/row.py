"""The row: one flow (or gap, or agent/debug event) as a fixed-size record of small integers.

In:        decoders (decode.py, accesslog.py, ingest.py) fill rows in batches.
Out:       filters, encoders, merge and printing read rows in batches; nothing handles one flow at a time.
Elsewhere: what a row points at (endpoints, names, services, nodes, L7 details) lives in tables.py.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.void]
"""One-dimensional array of ROW."""

ROW: Final = np.dtype(
    [
        # When and where. (node, seq) name the flow: flow_id.py derives its UUID from them.
        ("ts_ns", "<i8"),  # event time, ns since the epoch (realtime); the flow's `time` and the order of merging
        ("seq", "<u8"),  # number of the event on its node since that node's boot id began
        # Addresses as 128-bit numbers in two halves, host byte order; IPv4 has hi = 0 and lo < 2**32. 0 when absent.
        ("src_ip_hi", "<u8"),
        ("src_ip_lo", "<u8"),
        ("dst_ip_hi", "<u8"),
        ("dst_ip_lo", "<u8"),
        # Table indices; 0 is the "absent" entry of each table (tables.py).
        ("src", "<u4"),  # Tables.endpoints: flow.Endpoint of the source
        ("dst", "<u4"),
        ("src_names", "<u4"),  # Tables.names: source_names
        ("dst_names", "<u4"),
        ("src_svc", "<u4"),  # Tables.services: source_service
        ("dst_svc", "<u4"),
        ("iface", "<u4"),  # Tables.ifaces
        ("node", "<u4"),  # Tables.nodes: node_name, node_labels, uuid prefix
        ("aux", "<u4"),  # Tables.aux: rare parts (L7, policy, tunnel, ...); see Tables
        # What it was.
        ("event_type", "<i4"),  # flow.CiliumEventType.type; 0 when the flow has no event_type
        ("sub_type", "<i4"),  # flow.CiliumEventType.sub_type
        ("drop_reason", "<u4"),  # flow.Flow.drop_reason and drop_reason_desc
        ("sport", "<u2"),  # host byte order; ICMP: the type
        ("dport", "<u2"),  # host byte order; ICMP: the code
        ("proxy_port", "<u2"),
        ("tcp_flags", "<u2"),  # TcpFlag bits; meaningful when l4 is TCP and HAS_TCP_FLAGS is set
        ("bits", "<u2"),  # Bit
        ("smac", "u1", (6,)),
        ("dmac", "u1", (6,)),
        ("kind", "u1"),  # Kind
        ("flow_type", "u1"),  # flow.FlowType
        ("verdict", "u1"),  # flow.Verdict
        ("ip_version", "u1"),  # flow.IPVersion; 0: no IP layer
        ("l4", "u1"),  # L4
        ("is_reply", "u1"),  # Reply
        ("direction", "u1"),  # flow.TrafficDirection
        ("obs_point", "u1"),  # flow.TraceObservationPoint
        ("trace_reason", "u1"),  # flow.TraceReason
        ("match_type", "u1"),  # flow.Flow.policy_match_type
    ],
    align=False,
)


class Kind(IntEnum):
    """What a row is. One ring keeps all kinds, as Hubble's does."""

    FLOW = 0
    LOST = 1
    """aux: a serialised flow.LostEvent."""
    AGENT = 2
    """aux: a serialised flow.AgentEvent; event_type 130, sub_type its AgentEventType."""
    DEBUG = 3
    """aux: a serialised flow.DebugEvent; event_type 2, sub_type its DebugEventType."""


class L4(IntEnum):
    """Which member of flow.Layer4 is set; the numbers are its field numbers."""

    NONE = 0
    TCP = 1
    UDP = 2
    ICMPV4 = 3
    ICMPV6 = 4
    SCTP = 5
    VRRP = 6
    """Details in aux."""
    IGMP = 7
    """Details in aux."""


class Reply(IntEnum):
    """The three values of flow.Flow.is_reply."""

    ABSENT = 0
    FALSE = 1
    TRUE = 2


class TcpFlag(IntEnum):
    """Bits of tcp_flags: the order of the TCP header (RFC 9293, section 3.1; NS: RFC 3540)."""

    FIN = 0x001
    SYN = 0x002
    RST = 0x004
    PSH = 0x008
    ACK = 0x010
    URG = 0x020
    ECE = 0x040
    CWR = 0x080
    NS = 0x100


class Bit(IntEnum):
    """Bits of the field `bits`."""

    HAS_ETHERNET = 0x01
    ENCRYPTED = 0x02
    """flow.IP.encrypted."""
    HAS_TCP_FLAGS = 0x04
    """flow.TCP.flags is present (packet events); L7 and socket flows have ports only."""
    HAS_EVENT_TYPE = 0x08
    """flow.Flow.event_type is present."""
    SUMMARY_IN_AUX = 0x10
    """Summary is not the one derived from the layers (summary.py); the text stands in aux."""
    FOREIGN = 0x20
    """Came from a server that names flows its own way. Its uuid stands in the row all the same, so that flows that
    differ only in uuid and time share one aux entry: `seq` is the low half, smac and dmac[:2] are the high half (big
    endian; all 0: no uuid), unless HAS_ETHERNET claims those fields: then uuid stands in aux. Emitter, the mirrors
    `reply` and `drop_reason`, and whatever else the row would tell differently stand in aux; an address of 0 is not
    known; a ts_ns of at most 0 or of the largest number says that time, if any, stands in aux (flow_id.py, ingest.py).
    """
    LATE = 0x40
    """Came out of a merge behind newer flows (relay/merge.py)."""


NO_LATER_NS: Final = 2**63 - 1
"""ts_ns of a foreign flow whose time is beyond what a row can hold."""

IP_NOT_USED: Final = 0
IPV4: Final = 1
IPV6: Final = 2

assert ROW.itemsize == 128, ROW.itemsize


def empty_rows(count: int) -> Rows:
    """`count` rows of zeros: flows about which nothing is known."""
    return np.zeros(count, ROW)
