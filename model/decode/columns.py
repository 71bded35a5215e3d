"""Trace, drop and policy verdict events of usual packets, decoded by column.

In:        a batch of records.
Out:       their rows, and which records are unusual and need event.py: other message types, tunnels, IP options,
           hop-by-hop headers, IP in IP, VRRP, IGMP, IPv4-mapped addresses, trace ids, and everything malformed.
Elsewhere: packet_columns.py reads the packets in them; event.py is the reference for what comes out; layouts.py has
           the offsets.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from model import layouts
from model.decode.cache import U64, Indices
from model.decode.event import FLAGS_OF_VERDICT, MATCHES, POLICY_PROTOCOLS
from model.decode.packet_columns import HAS_PORTS, Bytes, Column, Mask, Packets, Windows, lookup, read_packets
from model.decode.resolve import FAMILY_SHIFT, Mark, Outcome, Resolver
from model.layouts import MessageType, NotifyFlag, TracePoint, TraceReason, VerdictFlag
from model.row import L4, ROW, Bit, Kind, Reply, Rows
from model.vocabulary import TRACE_POINT_TO_API, TRACE_REASON_TO_API
from model.whole_rows import put, take
from proto.flow import flow_pb2

CHUNK: Final = 4096
"""Records that are decoded at once: few enough for windows and rows to stay in the processor's cache."""

assert ROW.fields is not None
_MAC_OFFSETS: Final = [ROW.fields[name][1] for name in ("smac", "dmac")]
# Six bytes at a time: numpy copies arrays of u1 one by one.
_MACS: Final = np.dtype(
    {"names": ["smac", "dmac"], "formats": ["V6", "V6"], "offsets": _MAC_OFFSETS, "itemsize": ROW.itemsize}
)

# Plain numbers: with a member of an enum numpy leaves the column's own type, which makes it six times slower.
_TRACE, _DROP, _VERDICT = int(MessageType.TRACE), int(MessageType.DROP), int(MessageType.POLICY_VERDICT)
_IPV6_FLAG: Final = int(NotifyFlag.IPV6)
_TUNNEL_FLAGS: Final = int(NotifyFlag.VXLAN | NotifyFlag.GENEVE)
_TCP, _ICMPV4, _ICMPV6 = int(L4.TCP), int(L4.ICMPV4), int(L4.ICMPV6)
_TO_ENDPOINT, _TO_PROXY = int(TracePoint.TO_ENDPOINT), int(TracePoint.TO_PROXY)
_UNKNOWN_REASON, _REPLY_REASON = int(TraceReason.UNKNOWN), int(TraceReason.REPLY)
_DIRECTION_BITS, _AUDITED = int(VerdictFlag.DIRECTION), int(VerdictFlag.AUDITED)
_MATCH_BITS: Final = int(VerdictFlag.MATCH_TYPE)
_VERDICT_REPLIES: Final = np.array([Reply.FALSE, Reply.ABSENT], np.uint8)
_FAMILY_SHIFT: Final = np.uint64(FAMILY_SHIFT)
_NAMED, _FRONTEND = int(Mark.NAMED), int(Mark.FRONTEND)
_NOTHING, _ALLOWED, _DENIED = int(Outcome.NOTHING), int(Outcome.ALLOWED), int(Outcome.DENIED)

_VERSIONS: Final = 8
"""Versions that the tables below tell apart; all above count as this minus one."""
_HEADER_LENGTHS: Final = np.zeros((256, _VERSIONS), np.int64)
for _version in range(_VERSIONS):
    _HEADER_LENGTHS[_TRACE, _version] = layouts.TRACE_LENGTHS.get(_version, 0)
    _HEADER_LENGTHS[_DROP, _version] = layouts.DROP_LENGTHS.get(_version, 0)
    _HEADER_LENGTHS[_VERDICT, _version] = layouts.POLICY_VERDICT_LENGTH
_FLAGS_OF_VERDICT: Final = np.array(FLAGS_OF_VERDICT, np.uint8)
_POINTS: Final = lookup(256, {n: n for n in range(256)} | TRACE_POINT_TO_API)
_REASONS: Final = lookup(128, {n: n for n in range(128)} | TRACE_REASON_TO_API)
_REPLIES: Final = lookup(
    128,
    {
        TraceReason.REPLY: Reply.TRUE,
        TraceReason.UNKNOWN: Reply.ABSENT,
        TraceReason.SRV6_ENCAP: Reply.ABSENT,
        TraceReason.SRV6_DECAP: Reply.ABSENT,
    },
    default=Reply.FALSE,
)
_DIRECTIONS: Final = np.array([flow_pb2.INGRESS, flow_pb2.EGRESS], np.uint8)
"""By "is it egress"."""

_POLICY_PROTOCOLS: Final = lookup(8, {int(l4): protocol for l4, protocol in POLICY_PROTOCOLS.items()}, dtype="u8")
_MATCHES: Final = np.array([MATCHES[n] for n in range(8)], np.uint64)
_VERDICTS: Final = np.array(
    [flow_pb2.FORWARDED, flow_pb2.AUDIT, flow_pb2.REDIRECTED, flow_pb2.DROPPED, flow_pb2.DROPPED], np.uint8
)
_OUTCOMES: Final = np.array([_ALLOWED, _NOTHING, _ALLOWED, _NOTHING, _DENIED], np.uint64)
"""By what a policy verdict was: allowed, audited, redirected, denied, denied by a rule."""

_EVENT_BITS: Final = np.array([Bit.HAS_EVENT_TYPE, Bit.HAS_EVENT_TYPE | Bit.HAS_ETHERNET], np.uint16)
_TCP_BIT, _ENCRYPTED_BIT = np.uint16(Bit.HAS_TCP_FLAGS), np.uint16(Bit.ENCRYPTED)


def decode_columns(
    resolver: Resolver, node: int, windows: Windows, offsets: Indices, lengths: Indices, times_ns: Indices, rows: Rows
) -> Mask:
    """Fill `rows` (zeros, one per record); says which are done, the rest is event.py's. `node`: index of the table."""
    head = windows.at(offsets, layouts.HEAD)
    kind = head["type"].copy()
    version = np.minimum(head["version"], _VERSIONS - 1)
    header = _HEADER_LENGTHS[kind, version]
    usual: Mask = (header > 0) & (lengths > header)
    flags = _notify_flags(head, kind, version) * usual
    usual &= flags & _TUNNEL_FLAGS == 0
    usual &= ~((kind == _TRACE) & (version >= 2) & (head["trace_ip_trace_id"] != 0))
    usual &= ~((kind == _DROP) & (version >= 3) & (head["drop_ip_trace_id"] != 0))

    packets, fine = read_packets(windows, offsets + header, lengths - header, flags)
    usual &= fine
    original, translated, unusual = _originals(head, packets, (kind == _TRACE) & (version >= 1), flags)
    usual &= ~unusual
    if usual.all():
        _fill(resolver, node, head, packets, times_ns, original, translated, rows)
        return usual
    at = np.flatnonzero(usual)
    if len(at):
        some = np.zeros(len(at), ROW)
        _fill(resolver, node, take(head, at), packets.take(at), times_ns[at], original[at], translated[at], some)
        put(rows, at, some)
    return usual


def _notify_flags(head: Column, kind: Bytes, version: Bytes) -> Bytes:
    """Flags of any message, as NotifyFlag."""
    flags: Bytes = head["trace_flags"] * (kind == _TRACE)
    at = np.flatnonzero((kind == _DROP) & (version >= 2))
    flags[at] = head["drop_flags"][at]
    at = np.flatnonzero(kind == _VERDICT)
    flags[at] = _FLAGS_OF_VERDICT[head["verdict_flags"][at]]
    return flags


def _originals(head: Column, packets: Packets, may_have: Mask, flags: Bytes) -> tuple[Mask, Mask, Mask]:
    """Which events have an address before translation, for which of them it is another one, and which are unusual."""
    given = may_have & ((head["orig_ip6_hi"] != 0) | (head["orig_ip6_lo"] != 0))
    if not given.any():
        return given, given, given
    six = flags & _IPV6_FLAG != 0
    given &= six | (head["orig_ip4"] != 0)
    unusual = given & np.where(six, ~packets.six, ~packets.four)
    other = np.where(
        six,
        (head["orig_ip6_hi"] != packets.src_hi) | (head["orig_ip6_lo"] != packets.src_lo),
        head["orig_ip4"] != packets.src_lo,
    )
    return given, given & other, unusual


def _fill(
    resolver: Resolver,
    node: int,
    head: Column,
    packets: Packets,
    times_ns: Indices,
    original: Mask,
    translated: Mask,
    rows: Rows,
) -> None:
    """Rows of usual events."""
    kind = head["type"].copy()
    rows["ts_ns"], rows["node"] = times_ns, node
    rows["event_type"], rows["sub_type"] = kind, head["sub_type"]
    rows["kind"], rows["flow_type"] = int(Kind.FLOW), flow_pb2.L3_L4
    bits = _EVENT_BITS[packets.has_ethernet.view(np.uint8)]
    _fill_layers(rows, packets, bits)

    src_hi, src_lo = packets.src_hi, packets.src_lo
    at = np.flatnonzero(translated)
    if len(at):
        family = packets.family[at] >> _FAMILY_SHIFT
        rows["aux"][at] = resolver.xlated_column(src_hi[at], src_lo[at], family)
        src_hi, src_lo, six = src_hi.copy(), src_lo.copy(), packets.six[at]
        src_hi[at] = np.where(six, head["orig_ip6_hi"][at], 0)
        src_lo[at] = np.where(six, head["orig_ip6_lo"][at], head["orig_ip4"][at])
    rows["src_ip_hi"], rows["src_ip_lo"] = src_hi, src_lo
    rows["dst_ip_hi"], rows["dst_ip_lo"] = packets.dst_hi, packets.dst_lo

    verdicts = np.flatnonzero(kind == _VERDICT)
    ingress = head["verdict_flags"][verdicts] & _DIRECTION_BITS == layouts.VERDICT_INGRESS
    who = np.concatenate([packets.family, packets.family])
    source, destination = who[: len(rows)], who[len(rows) :]
    src_label, dst_label = head["src_label"].astype(np.uint64), head["dst_label"].astype(np.uint64)
    remote = src_label[verdicts]
    src_label[verdicts], dst_label[verdicts] = remote * ingress, remote * ~ingress
    source |= src_label
    destination |= dst_label
    ends = resolver.ends(np.concatenate([src_hi, packets.dst_hi]), np.concatenate([src_lo, packets.dst_lo]), who)
    src, dst = ends[: len(rows)], ends[len(rows) :]
    rows["src"], rows["dst"] = src["endpoint"], dst["endpoint"]
    _fill_names(resolver, rows, src, dst, packets.family)
    _fill_services(resolver, rows, src, dst, packets.family)

    at = np.flatnonzero(kind == _TRACE)
    if len(at):
        own = take(head, at)
        snat = translated[at]
        if original.any():
            # As in event.py: where every event has an original address, only a different one means translation.
            always = (own["sub_type"] == _TO_ENDPOINT) | (own["sub_type"] == _TO_PROXY)
            snat = snat | (original[at] & ~always)
        _fill_traces(resolver, rows, bits, own, at, src["id"][at], snat)
    at = np.flatnonzero(kind == _DROP)
    if len(at):
        _fill_drops(resolver, rows, take(head, at), at, src["id"][at])
    if len(verdicts):
        _fill_verdicts(
            resolver, rows, take(head, verdicts), verdicts, ingress, take(src, verdicts), take(dst, verdicts)
        )
    rows["bits"] = bits


def _fill_layers(rows: Rows, packets: Packets, bits: npt.NDArray[np.uint16]) -> None:
    """Ethernet, IP version, L4."""
    macs, frame, segment, l4 = rows.view(_MACS), packets.frame, packets.segment, packets.l4
    if packets.has_ethernet.all():
        macs["smac"], macs["dmac"] = frame["smac"], frame["dmac"]
    else:
        at = np.flatnonzero(packets.has_ethernet)
        macs["smac"][at], macs["dmac"][at] = frame["smac"][at], frame["dmac"][at]
    rows["ip_version"] = packets.four + packets.six * np.uint8(2)
    rows["l4"] = l4
    ported = HAS_PORTS[l4]
    rows["sport"], rows["dport"] = segment["sport"] * ported, segment["dport"] * ported
    at = np.flatnonzero((l4 == _ICMPV4) | (l4 == _ICMPV6))
    rows["sport"][at], rows["dport"][at] = segment["icmp_type"][at], segment["icmp_code"][at]
    tcp = l4 == _TCP
    rows["tcp_flags"] = (segment["tcp_flags"] & 0x1FF) * tcp
    bits |= tcp * _TCP_BIT


def _fill_names(resolver: Resolver, rows: Rows, src: Column, dst: Column, family: U64) -> None:
    """DNS names: those that the other side got for an address."""
    for side, own, other in (("src", src, dst), ("dst", dst, src)):
        at = np.flatnonzero(own["marks"] & _NAMED)
        at = at[other["id"][at] != 0]
        if len(at):
            hi, lo = rows[f"{side}_ip_hi"][at], rows[f"{side}_ip_lo"][at]
            rows[f"{side}_names"][at] = resolver.names_column(hi, lo, family[at] | other["id"][at])


def _fill_services(resolver: Resolver, rows: Rows, src: Column, dst: Column, family: U64) -> None:
    for side, own, port in (("src", src, "sport"), ("dst", dst, "dport")):
        at = np.flatnonzero(own["marks"] & _FRONTEND)
        if len(at):
            ports = rows[port][at] * HAS_PORTS[rows["l4"][at]]
            hi, lo = rows[f"{side}_ip_hi"][at], rows[f"{side}_ip_lo"][at]
            rows[f"{side}_svc"][at] = resolver.services_column(hi, lo, family[at] | ports)


def _fill_traces(
    resolver: Resolver,
    rows: Rows,
    bits: npt.NDArray[np.uint16],
    head: Column,
    at: Indices,
    source_id: npt.NDArray[np.uint32],
    snat: Mask,
) -> None:
    raw, point, emitter = head["reason"], head["sub_type"], head["source"]
    reason = raw & layouts.REASON_MASK
    rows["verdict"][at] = flow_pb2.FORWARDED
    rows["obs_point"][at] = _POINTS[point]
    rows["trace_reason"][at] = _REASONS[reason]
    rows["is_reply"][at] = _REPLIES[reason]
    egress = ((emitter == source_id.astype(np.uint16)) != (reason == _REPLY_REASON)) | snat
    known = (emitter != 0) & (reason != _UNKNOWN_REASON)
    rows["direction"][at] = _DIRECTIONS[egress.view(np.uint8)] * known
    encrypted = raw & layouts.REASON_ENCRYPTED != 0
    if encrypted.any():
        bits[at] |= (encrypted & (rows["ip_version"][at] != 0)) * _ENCRYPTED_BIT
    rows["iface"][at] = resolver.interfaces_column(head["ifindex"].astype(np.uint64))
    to_proxy = point == _TO_PROXY
    if to_proxy.any():
        rows["proxy_port"][at] = head["dst_id"] * to_proxy


def _fill_drops(resolver: Resolver, rows: Rows, head: Column, at: Indices, source_id: npt.NDArray[np.uint32]) -> None:
    rows["verdict"][at] = flow_pb2.DROPPED
    rows["drop_reason"][at] = head["sub_type"]
    emitter = head["source"]
    egress = emitter == source_id.astype(np.uint16)
    rows["direction"][at] = _DIRECTIONS[egress.view(np.uint8)] * (emitter != 0)
    rows["aux"][at] = resolver.drop_places_column(head["file"].astype(np.uint64) << np.uint64(16) | head["line"])


def _fill_verdicts(
    resolver: Resolver, rows: Rows, head: Column, at: Indices, ingress: Mask, src: Column, dst: Column
) -> None:
    flags, verdict = head["verdict_flags"], head["verdict"].astype(np.int64)
    denied = verdict < 0
    what = (verdict > 0) * np.uint8(2)
    what += ((verdict == 0) & (flags & _AUDITED != 0)) * np.uint8(1)
    what += denied * np.uint8(3)
    what += verdict == -layouts.DROP_POLICY_DENY
    rows["verdict"][at] = _VERDICTS[what]
    rows["drop_reason"][at] = -verdict * denied
    rows["is_reply"][at] = _VERDICT_REPLIES[denied.view(np.uint8)]
    rows["direction"][at] = _DIRECTIONS[(~ingress).view(np.uint8)]
    match = (flags & _MATCH_BITS) >> layouts.MATCH_TYPE_SHIFT
    rows["match_type"][at] = match

    l4 = rows["l4"][at]
    icmp = (l4 == _ICMPV4) | (l4 == _ICMPV6)
    port = np.where(icmp, rows["sport"][at], rows["dport"][at]).astype(np.uint64)
    protocol = _POLICY_PROTOCOLS[l4]
    outcome = _OUTCOMES[what] * ((port != 0) & (protocol != 0))
    told = outcome != _NOTHING
    counts = _MATCHES[match]
    identity = np.where(ingress, src["identity"], dst["identity"]).astype(np.uint64)
    key = identity * counts[:, 0] << np.uint64(32)
    key |= protocol * counts[:, 1] << np.uint64(16)
    key |= port * counts[:, 2]
    about = np.where(ingress, dst["id"], src["id"]).astype(np.uint64) * told << np.uint64(32)
    about |= head["auth_type"].astype(np.uint64) << np.uint64(16)
    about |= ingress.astype(np.uint64) << np.uint64(8)
    about |= outcome
    rows["aux"][at] = resolver.verdicts_column(key * told, about)
