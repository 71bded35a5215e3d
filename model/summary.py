"""`Summary` of a flow: the text of the last layer that was decoded.

In:        the layers of a row.
Out:       one text per distinct combination of them.
Elsewhere: decoders set Bit.SUMMARY_IN_AUX where the text is another one (L7); encode.py and the CLI use this module.
Source:    flow API 1.19; the text of ICMP types as packet decoders print them (vocabulary.py).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from model.row import IPV4, IPV6, L4, Bit, Rows, TcpFlag
from model.tables import Tables
from model.vocabulary import ICMPV4_CODES, ICMPV4_TYPES, ICMPV6_CODES, ICMPV6_TYPES, IGMP_TYPES, VRRP_TYPES
from proto.flow import flow_pb2

FLAG_ORDER: Final = (
    TcpFlag.SYN,
    TcpFlag.ACK,
    TcpFlag.RST,
    TcpFlag.FIN,
    TcpFlag.PSH,
    TcpFlag.URG,
    TcpFlag.ECE,
    TcpFlag.CWR,
    TcpFlag.NS,
)
"""The order in which flags are printed."""

_AUX_L4: Final = (L4.VRRP, L4.IGMP)
_ICMP: Final = (L4.ICMPV4, L4.ICMPV6)
_LAYER_BITS: Final = Bit.HAS_ETHERNET | Bit.HAS_TCP_FLAGS | Bit.SUMMARY_IN_AUX


def tcp_flags_text(flags: int) -> str:
    """Names of the set flags, in the order of printing: `SYN, ACK`."""
    return ", ".join(flag.name for flag in FLAG_ORDER if flags & flag)


def icmp_text(version: int, kind: int, code: int) -> str:
    """`ICMPv4 DestinationUnreachable(Port)`; numbers where there is no name."""
    names, codes = (ICMPV4_TYPES, ICMPV4_CODES) if version == IPV4 else (ICMPV6_TYPES, ICMPV6_CODES)
    layer = "ICMPv4" if version == IPV4 else "ICMPv6"
    name = names.get(kind)
    if name is None:
        return f"{layer} {kind}({code})"
    code_name = codes.get(kind, {}).get(code)
    if code_name is not None:
        return f"{layer} {name}({code_name})"
    if code or kind in codes:
        return f"{layer} {name}(Code: {code})"
    return f"{layer} {name}"


def summary_text(
    *,
    flow_type: int,
    ip_version: int,
    l4: int,
    sport: int,
    dport: int,
    tcp_flags: int,
    bits: int,
    aux: bytes | None,
) -> str:
    """Summary of a flow with these fields of a row; "" where it has none.

    `aux` is looked at only for VRRP and IGMP and with Bit.SUMMARY_IN_AUX.
    """
    if bits & Bit.SUMMARY_IN_AUX:
        return flow_pb2.Flow.FromString(aux or b"").Summary
    if flow_type == flow_pb2.SOCK:
        return {L4.TCP: "TCP", L4.UDP: "UDP"}.get(L4(l4), "Unknown") if l4 <= L4.IGMP else "Unknown"
    if flow_type == flow_pb2.L7:
        return ""
    if l4 == L4.TCP:
        return f"TCP Flags: {tcp_flags_text(tcp_flags)}" if bits & Bit.HAS_TCP_FLAGS else ""
    if l4 in _ICMP:
        return icmp_text(IPV4 if l4 == L4.ICMPV4 else IPV6, sport, dport)
    if l4 in _AUX_L4:
        return _routing_text(flow_pb2.Flow.FromString(aux or b"").l4, l4)
    if l4 in (L4.UDP, L4.SCTP):
        return "UDP" if l4 == L4.UDP else "SCTP"
    if ip_version:
        return "IPv4" if ip_version == IPV4 else "IPv6"
    return "Ethernet" if bits & Bit.HAS_ETHERNET else ""


def summaries(rows: Rows, tables: Tables) -> tuple[npt.NDArray[np.int64], list[str]]:
    """For flows: an index per row into a list of texts, one for each distinct combination of layers."""
    l4, bits = rows["l4"], rows["bits"] & _LAYER_BITS
    icmp = (l4 == L4.ICMPV4) | (l4 == L4.ICMPV6)
    from_aux = (l4 == L4.VRRP) | (l4 == L4.IGMP) | ((bits & Bit.SUMMARY_IN_AUX) != 0)
    key = np.zeros((len(rows), 2), np.uint64)
    key[:, 0] = np.where(from_aux, rows["aux"], 0)
    key[:, 0] |= np.where(icmp, rows["sport"], rows["tcp_flags"]).astype(np.uint64) << np.uint64(32)
    key[:, 0] |= np.where(icmp, rows["dport"], 0).astype(np.uint64) << np.uint64(48)
    for shift, field in ((0, bits), (16, l4), (24, rows["ip_version"]), (32, rows["flow_type"])):
        key[:, 1] |= field.astype(np.uint64) << np.uint64(shift)
    # Two rounds of one-word sorting are several times faster than sorting pairs.
    _, first = np.unique(key[:, 1], return_inverse=True)
    values, second = np.unique(key[:, 0], return_inverse=True)
    _, example, index = np.unique(first * len(values) + second, return_index=True, return_inverse=True)
    return index, [_row_summary(rows[at], tables) for at in example.tolist()]


def _row_summary(row: np.void, tables: Tables) -> str:
    fields = ("flow_type", "ip_version", "l4", "sport", "dport", "tcp_flags", "bits")
    return summary_text(**{field: int(row[field]) for field in fields}, aux=tables.aux[int(row["aux"])])


def _routing_text(layer: flow_pb2.Layer4, l4: int) -> str:
    if l4 == L4.VRRP:
        return f"VRRP {VRRP_TYPES.get(layer.VRRP.type, '')}"
    return f"IGMP {IGMP_TYPES.get(layer.IGMP.type, '')}"
