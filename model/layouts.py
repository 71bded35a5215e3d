"""Monitor messages as the kernel programs write them: offsets, lengths, flag bits.

In:        nothing.
Out:       numpy dtypes that overlay the headers, header lengths by message type and version.
Elsewhere: decode/ turns messages into rows; packet.py reads the packet behind a header.
Source:    Cilium 1.19 monitor messages. Numbers are little endian, packet bytes as on the wire. A message may be longer
           than its fields; what a version does not have must not be read, since other records follow in the buffer.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final

import numpy as np


class MessageType(IntEnum):
    """First byte of every record."""

    DROP = 1
    DEBUG = 2
    CAPTURE = 3
    TRACE = 4
    POLICY_VERDICT = 5
    TRACE_SOCK = 7
    ACCESS_LOG = 129
    """Made in user space: L7 records."""
    AGENT = 130
    """Made in user space: what the agent did."""


class NotifyFlag(IntFlag):
    """Flags of trace messages, and of drop messages from version 2 on."""

    IPV6 = 0x01
    L3_DEVICE = 0x02
    """No Ethernet header: packet bytes start with the IP header of the family that IPV6 tells."""
    VXLAN = 0x04
    GENEVE = 0x08


class VerdictFlag(IntFlag):
    """Flags of policy verdict messages."""

    DIRECTION = 0x03
    """1 ingress, 2 egress."""
    IPV6 = 0x04
    MATCH_TYPE = 0x38
    AUDITED = 0x40
    L3_DEVICE = 0x80


MATCH_TYPE_SHIFT: Final = 3
VERDICT_INGRESS: Final = 1

REASON_MASK: Final = 0x7F
REASON_ENCRYPTED: Final = 0x80
"""Set in a trace reason when the packet is or was encrypted."""


class TraceReason(IntEnum):
    """Trace reasons with a rule of their own; all others are conntrack results."""

    REPLY = 2
    UNKNOWN = 5
    SRV6_ENCAP = 6
    SRV6_DECAP = 7


class TracePoint(IntEnum):
    """Observation points with a rule of their own."""

    TO_ENDPOINT = 0
    TO_PROXY = 1


DROP_POLICY_DENY: Final = 181
"""A deny rule matched; 133 is "no rule allows it"."""

HEAD: Final = np.dtype(
    {
        "names": [
            # Common header, all messages.
            "type", "sub_type", "source", "hash",
            # Capture header.
            "len_orig", "len_cap", "version", "ext_version",
            # Trace and drop; a policy verdict has remote_label and verdict there.
            "src_label", "dst_label", "remote_label", "verdict",
            # Trace.
            "dst_id", "reason", "trace_flags", "ifindex",
            "orig_ip4", "orig_ip6_hi", "orig_ip6_lo", "trace_ip_trace_id",
            # Drop.
            "line", "file", "drop_flags", "drop_ip_trace_id",
            # Policy verdict.
            "dst_port", "protocol", "verdict_flags", "auth_type",
        ],
        "formats": [
            "u1", "u1", "<u2", "<u4",
            "<u4", "<u2", "u1", "u1",
            "<u4", "<u4", "<u4", "<i4",
            "<u2", "u1", "u1", "<u4",
            ">u4", ">u8", ">u8", "<u8",
            "<u2", "u1", "u1", "<u8",
            "<u2", "u1", "u1", "u1",
        ],
        "offsets": [
            0, 1, 2, 4,
            8, 12, 14, 15,
            16, 20, 16, 20,
            24, 26, 27, 28,
            32, 32, 40, 48,
            28, 30, 36, 40,
            24, 26, 27, 28,
        ],
        "itemsize": 56,
    }
)  # fmt: skip
"""All fields of trace, drop and policy verdict headers over one window; which of them mean something, the type says."""

TRACE_LENGTHS: Final = {0: 32, 1: 48, 2: 56}
"""Header length by version. Versions above are not known and rejected."""
DROP_LENGTHS: Final = {0: 36, 1: 36, 2: 40, 3: 48}
POLICY_VERDICT_LENGTH: Final = 40
"""Any version: the version byte does not tell the layouts of this message apart."""

DEBUG: Final = np.dtype(
    {
        "names": ["type", "sub_type", "source", "hash", "arg1", "arg2", "arg3"],
        "formats": ["u1", "u1", "<u2", "<u4", "<u4", "<u4", "<u4"],
        "offsets": [0, 1, 2, 4, 8, 12, 16],
        "itemsize": 20,
    }
)
DEBUG_CAPTURE: Final = np.dtype(
    {
        "names": ["type", "sub_type", "source", "hash", "len_orig", "len_cap", "arg1", "arg2"],
        "formats": ["u1", "u1", "<u2", "<u4", "<u4", "<u2", "<u4", "<u4"],
        "offsets": [0, 1, 2, 4, 8, 12, 16, 20],
        "itemsize": 24,
    }
)
TRACE_SOCK: Final = np.dtype(
    {
        "names": ["type", "xlate_point", "l4_proto", "flags", "dst_port", "sock_cookie", "cgroup_id", "dst_ip"],
        "formats": ["u1", "u1", "u1", "u1", "<u2", "<u8", "<u8", "V16"],
        "offsets": [0, 1, 2, 3, 4, 8, 16, 24],
        "itemsize": 40,
    }
)
SOCK_IPV6: Final = 0x01
"""Flag of a trace-sock message."""


class CapturePoint(IntEnum):
    """Debug captures whose arg1 is an interface or a proxy port."""

    DELIVERY = 4
    FROM_LB = 5
    AFTER_V46 = 6
    AFTER_V64 = 7
    PROXY_PRE = 8
    PROXY_POST = 9
    SNAT_PRE = 10
    SNAT_POST = 11


CAPTURES_WITH_IFINDEX: Final = frozenset(
    {
        CapturePoint.DELIVERY,
        CapturePoint.FROM_LB,
        CapturePoint.AFTER_V46,
        CapturePoint.AFTER_V64,
        CapturePoint.SNAT_PRE,
        CapturePoint.SNAT_POST,
    }
)
CAPTURES_WITH_PROXY_PORT: Final = frozenset({CapturePoint.PROXY_PRE, CapturePoint.PROXY_POST})

ETHERNET_LENGTH: Final = 14
FRAME: Final = np.dtype(
    {
        "names": [
            "dmac", "smac", "ethertype",
            "ip4_ihl", "ip4_length", "ip4_fragment", "ip4_protocol", "ip4_src", "ip4_dst",
            "ip6_length", "ip6_next", "ip6_src_hi", "ip6_src_lo", "ip6_dst_hi", "ip6_dst_lo",
        ],
        "formats": [
            "V6", "V6", ">u2",
            "u1", ">u2", ">u2", "u1", ">u4", ">u4",
            ">u2", "u1", ">u8", ">u8", ">u8", ">u8",
        ],
        "offsets": [
            0, 6, 12,
            14, 16, 20, 23, 26, 30,
            18, 20, 22, 30, 38, 46,
        ],
        "itemsize": 54,
    }
)  # fmt: skip
"""Ethernet with IPv4 (without options) or IPv6 behind it. Source: IEEE 802.3, RFC 791, RFC 8200."""

SEGMENT: Final = np.dtype(
    {
        "names": ["sport", "dport", "udp_length", "tcp_flags", "icmp_type", "icmp_code"],
        "formats": [">u2", ">u2", ">u2", ">u2", "u1", "u1"],
        "offsets": [0, 2, 4, 12, 0, 1],
        "itemsize": 20,
    }
)
"""First bytes of TCP, UDP, SCTP and ICMP. tcp_flags: 4 bits of data offset, 3 reserved, 9 flags in TcpFlag's order."""
