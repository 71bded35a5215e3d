"""Debug messages of the datapath, in words.

In:        sub type and three numbers of a debug message.
Out:       its text.
Elsewhere: decode/event.py reads the message and finds its endpoint.
Source:    monitor output of Cilium 1.19: its number of a message is that of the API up to 65; the API has one more
           ("skip policy", 66), so that the texts of 66 and 67 are those of the loopback translations there.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from typing import Final

from model.vocabulary import DROP_REASONS

_CT_STATES: Final = {0: "New", 1: "Established", 2: "Reply", 3: "Related"}
_TUPLE_FLAGS: Final = {1: "OUT", 2: "RELATED"}
_DIRECTIONS: Final = {0: "egress", 1: "ingress"}


def debug_message(sub_type: int, arg1: int, arg2: int, arg3: int) -> str:
    """What the datapath wants to say."""
    text = _TEXTS.get(sub_type)
    if text is None:
        return f"Unknown message type={sub_type} arg1={arg1} arg2={arg2}"
    return text(arg1, arg2, arg3)


def _swap16(number: int) -> int:
    """The low 16 bits in host byte order; the datapath stores ports and indices as in the packet."""
    return (number & 0xFF) << 8 | number >> 8 & 0xFF


def _ip4(number: int) -> str:
    return str(ipaddress.IPv4Address(number.to_bytes(4, "little")))


def _ip6_tail(number: int) -> str:
    data = number.to_bytes(4, "little")
    return f"{int.from_bytes(data[:2], 'big'):x}:{int.from_bytes(data[2:], 'big'):x}"


def _tuple(a: int, b: int) -> str:
    flags = ", ".join(name for bit, name in _TUPLE_FLAGS.items() if b & 0xFF & bit)
    return f"sport={a >> 16} dport={a & 0xFFFF} nexthdr={b >> 8} flags={flags}"


def _ct_state(number: int) -> str:
    if number in _CT_STATES:
        return _CT_STATES[number]
    reason = number & 0xFF
    return DROP_REASONS.get(reason, f"{reason}, 0")


def _lookup4(a: int, b: int, c: int) -> str:
    return f"src={_ip4(a)}:{c & 0xFFFF} dst={_ip4(b)}:{c >> 16}"


def _lookup6(a: int, b: int, c: int) -> str:
    return f"src=[::{_ip6_tail(a)}]:{c & 0xFFFF} dst=[::{_ip6_tail(b)}]:{c >> 16}"


def _lookup2(a: int, b: int, c: int) -> str:
    return f"Conntrack lookup 2/2: nexthdr={a >> 8} flags={a & 0xFF} dir={b} scope={c}"


def _proxy(a: int, b: int, c: int) -> str:
    return f"sport={_swap16(a >> 16)} dport={_swap16(a)} saddr={_ip4(b)} nexthdr={c}"


def _created(a: int, b: int) -> str:
    return f"proxy-port={a >> 16} revnat={_swap16(a)} src-identity={b}"


def _errno(number: int) -> str:
    if number == 0:
        return "Success"
    text = os.strerror(number) if number < 1 << 31 else "Unknown error"
    if text.startswith("Unknown error"):
        return f"errno {number}"
    return text[0].lower() + text[1:] if text[1:2].islower() else text


def _slot(a: int, b: int, _c: int) -> str:
    return f"Service backend slot lookup: slot={a}, dport={_swap16(b)}"


def _slot_failed(a: int, b: int, _c: int) -> str:
    return f"Service backend slot lookup failed: slot={a}, dport={_swap16(b)}"


def _backend_failed(a: int, _b: int, _c: int) -> str:
    return f"Backend service lookup failed: backend_id={a}"


def _reverse_nat_lookup(a: int, _b: int, _c: int) -> str:
    return f"Reverse NAT lookup, index={_swap16(a)}"


_TEXTS: Final[dict[int, Callable[[int, int, int], str]]] = {
    1: lambda a, b, c: f"No message, arg1={a} ({a:#x}) arg2={b} ({b:#x})",
    2: lambda a, b, c: f"Attempting local delivery for container id {a} from seclabel {b}",
    3: lambda a, b, c: f"Encapsulating to node {a} ({a:#x}) from seclabel {b}",
    4: lambda a, b, c: f"Local container found ifindex  seclabel {_swap16(b)}",
    5: lambda a, b, c: f"Policy evaluation would deny packet from {a} to {b}",
    6: lambda a, b, c: f"CT lookup: {_tuple(a, b)}",
    7: lambda a, b, c: f"CT reverse lookup: {_tuple(a, b)}",
    8: lambda a, b, c: f"CT entry found lifetime={a}, revnat={_swap16(b)}",
    9: lambda a, b, c: f"CT created 1/2: {_tuple(a, b)} revnat={_swap16(c)}",
    10: lambda a, b, c: f"CT created 2/2: {_ip4(a)} revnat={_swap16(b)}",
    11: lambda a, b, c: f"Handling ICMPv6 type={a}",
    12: lambda a, b, c: f"ICMPv6 echo request for router offset={a}",
    13: lambda a, b, c: f"ICMPv6 neighbour soliciation for address {a:x}:{b:x}",
    14: lambda a, b, c: "Sending ICMPv6 time exceeded",
    15: lambda a, b, c: f"CT verdict: {_ct_state(a)}, revnat={_swap16(b)}",
    16: lambda a, b, c: f"Tunnel decap: id={a} flowlabel={b:x}",
    17: lambda a, b, c: f"Mapping port from={a} to={b}",
    18: lambda a, b, c: f"BPF function {a} returned error {b}",
    19: lambda a, b, c: f"Going to host, policy-skip={a}",
    20: lambda a, b, c: f"Going to the stack, policy-skip={a}",
    21: lambda a, b, c: f"Packet hash={a} ({a:#x}), selected_service={b}",
    22: lambda a, b, c: f"Frontend service lookup, addr.p4={a:x} key.dport={_swap16(b)}",
    23: lambda a, b, c: f"Frontend service lookup failed, addr.p2={a:x} addr.p3={b:x}",
    24: _slot,
    25: lambda a, b, c: f"Service backend slot lookup result: target.p4={a:x} port={_swap16(b)}",
    26: _slot_failed,
    27: _backend_failed,
    28: _reverse_nat_lookup,
    29: lambda a, b, c: f"Performing reverse NAT, address.p4={a:x} port={_swap16(b)}",
    30: lambda a, b, c: f"Frontend service lookup, addr={_ip4(a)} key.dport={_swap16(b)}",
    31: lambda a, b, c: "Frontend service lookup failed",
    32: _slot,
    33: lambda a, b, c: f"Service backend slot lookup result: target={_ip4(a)} port={_swap16(b)}",
    34: _slot_failed,
    35: _backend_failed,
    36: _reverse_nat_lookup,
    37: lambda a, b, c: f"Performing reverse NAT, address={_ip4(a)} port={_swap16(b)}",
    38: lambda a, b, c: f"Loopback SNAT from={_ip4(a)} to={_ip4(b)}",
    39: lambda a, b, c: f"Loopback reverse SNAT from={_ip4(a)} to={_ip4(b)}",
    40: lambda a, b, c: f"CT lookup address: {_ip4(a)}",
    41: lambda a, b, c: f"RR backend slot selection hash={a} ({a:#x}), selected_service={b}",
    42: lambda a, b, c: f"Reverse proxy lookup {_proxy(a, b, c)}",
    43: lambda a, b, c: f"Reverse proxy entry found, orig-daddr={_ip4(a)} orig-dport={b}",
    44: lambda a, b, c: f"Reverse proxy updated {_proxy(a, b, c)}",
    45: lambda a, b, c: f"Resolved L4 policy to: {_swap16(a)} / {_DIRECTIONS.get(b, '')}",
    46: lambda a, b, c: f"Destination is inside cluster prefix, source identity: {a}",
    47: lambda a, b, c: f"Attempting encapsulation, lookup key: {_ip4(a)}, identity: {b}",
    48: lambda a, b, c: f"Conntrack lookup 1/2: {_lookup4(a, b, c)}",
    49: _lookup2,
    50: lambda a, b, c: f"Conntrack create: {_created(a, b)} lb={_ip4(c)}",
    51: lambda a, b, c: f"Conntrack lookup 1/2: {_lookup6(a, b, c)}",
    52: _lookup2,
    53: lambda a, b, c: f"Conntrack create: {_created(a, b)}",
    54: lambda a, b, c: f"Skipping proxy, tc_index is set={a:x}",
    55: lambda a, b, c: (
        f"Matched L4 policy; creating conntrack src={a} dst={b} dport={_swap16(c >> 16)} proto={c & 0xFF}"
    ),
    56: lambda a, b, c: f"Failed to map addr={_ip4(a)} to identity",
    57: lambda a, b, c: f"Failed to map addr.p4=[::{_ip6_tail(a)}] to identity",
    58: lambda a, b, c: f"Successfully mapped addr={_ip4(a)} to identity={b}",
    59: lambda a, b, c: f"Successfully mapped addr.p4=[::{_ip6_tail(a)}] to identity={b}",
    60: lambda a, b, c: f"Stale CT entry found stale_ct.rev_nat_id={b}, svc.rev_nat_id={a}",
    61: lambda a, b, c: f"Inheriting identity={a} from stack",
    62: lambda a, b, c: f"Socket lookup: {_lookup4(a, b, c)}",
    63: lambda a, b, c: f"Socket lookup: {_lookup6(a, b, c)}",
    64: lambda a, b, c: f"Socket assign: {_errno(a)}",
    65: lambda a, b, c: f"L7 LB from {_ip4(a)} to {_ip4(b)}: proxy port {c}",
    66: lambda a, b, c: f"Loopback SNAT from.p4={a:x} to.p4={b:x}",
    67: lambda a, b, c: f"Loopback reverse SNAT from.p4={a:x} to.p4={b:x}",
}
