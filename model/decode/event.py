"""One monitor event, decoded on its own.

In:        the bytes of one record, and where they were seen.
Out:       the bytes of one row, or a DecodeError.
Elsewhere: columns.py does the same for the usual trace, drop and policy verdict events, a batch at a time; a property
           test holds the two together. heads.py reads headers, shown.py shows the packet behind them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.wrappers_pb2 import Int32Value, UInt32Value

from model import layouts
from model.address import Address
from model.decode import heads
from model.decode.debug_events import debug_message
from model.decode.errors import DecodeError, ErrorClass
from model.decode.resolve import End, Outcome, Resolver
from model.decode.shown import read_packet, show_packet, show_translation
from model.draft import IP_VERSIONS, Draft
from model.knowledge import PolicyKey, local_endpoint_message
from model.layouts import MessageType, NotifyFlag, TracePoint, TraceReason, VerdictFlag
from model.packet import Packet, Undecodable
from model.row import L4, Bit, Kind, Reply
from model.vocabulary import TRACE_POINT_TO_API, TRACE_REASON_TO_API
from proto.flow import flow_pb2

# Plain numbers: operations with members of flag enums make new members, which takes longer than decoding a header.
_HAS_EVENT_TYPE, _ENCRYPTED, _SUMMARY_IN_AUX = (
    int(bit) for bit in (Bit.HAS_EVENT_TYPE, Bit.ENCRYPTED, Bit.SUMMARY_IN_AUX)
)
_DIRECTION, _MATCH_TYPE, _AUDITED = (
    int(flag) for flag in (VerdictFlag.DIRECTION, VerdictFlag.MATCH_TYPE, VerdictFlag.AUDITED)
)
_ALWAYS_ORIGINAL: Final = (int(TracePoint.TO_ENDPOINT), int(TracePoint.TO_PROXY))
_TO_PROXY: Final = int(TracePoint.TO_PROXY)
_UNKNOWN, _REPLY = int(TraceReason.UNKNOWN), int(TraceReason.REPLY)
_NOT_SAID: Final = (_UNKNOWN, int(TraceReason.SRV6_ENCAP), int(TraceReason.SRV6_DECAP))
"""Reasons that leave open whether a packet is a reply."""

_WITH_PORTS: Final = frozenset({L4.TCP, L4.UDP, L4.SCTP})
POLICY_PROTOCOLS: Final = {L4.TCP: 6, L4.UDP: 17, L4.ICMPV4: 1, L4.ICMPV6: 58, L4.SCTP: 132}
"""Protocol of a policy map key."""
MATCHES: Final = {
    # match type: (identity, protocol, port) count in the key
    0: (True, True, True),
    1: (True, False, False),
    2: (True, True, True),
    3: (False, True, True),
    4: (False, False, False),
    5: (True, True, False),
    6: (False, True, False),
    7: (True, True, True),
}
"""Which parts of a packet were in the policy entry that matched."""
FLAGS_OF_VERDICT: Final = tuple(
    int(bool(flags & VerdictFlag.L3_DEVICE) * NotifyFlag.L3_DEVICE | bool(flags & VerdictFlag.IPV6) * NotifyFlag.IPV6)
    for flags in range(256)
)
"""NotifyFlag bits by the flags of a policy verdict."""
_NO_KEY: Final = PolicyKey(ingress=False, identity=0, protocol=0, port=0)

_SOCK_PROTOCOLS: Final = {1: L4.TCP, 2: L4.UDP}
_SOCK_VERDICTS: Final[dict[int, int]] = {
    flow_pb2.SOCK_XLATE_POINT_PRE_DIRECTION_FWD: flow_pb2.TRACED,
    flow_pb2.SOCK_XLATE_POINT_POST_DIRECTION_FWD: flow_pb2.TRANSLATED,
    flow_pb2.SOCK_XLATE_POINT_PRE_DIRECTION_REV: flow_pb2.TRACED,
    flow_pb2.SOCK_XLATE_POINT_POST_DIRECTION_REV: flow_pb2.TRANSLATED,
}


class EventDecoder:
    """Decodes single events."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self.node = 0
        """Index of this node in Tables.nodes."""

    def decode(self, record: bytes, *, cpu: int, ts_ns: int) -> bytes:
        """The row of one event. Raises: DecodeError."""
        if not record:
            raise DecodeError(ErrorClass.EMPTY_DATA, "empty data")
        decode = _DECODERS.get(record[0])
        if decode is None:
            raise DecodeError(ErrorClass.INVALID_TYPE, f"no perf event has message type {record[0]}")
        draft = Draft(ts_ns=ts_ns, node=self.node)
        try:
            decode(self, record, draft, cpu)
        except Undecodable as error:
            raise DecodeError(ErrorClass.DECODE_ERROR, str(error)) from error
        return draft.pack()

    def _trace(self, record: bytes, draft: Draft, _cpu: int) -> None:
        head, packet_at = heads.read_trace(record)
        packet = read_packet(record[packet_at:], head.trace_flags)
        show_packet(draft, packet)
        src, snat = packet.src and packet.src.unmapped(), False
        original = head.original()
        if original is not None:
            # The ingress program fills in the source of every packet that it delivers, translated or not. Only a
            # different address says that the packet was translated there.
            translated = original != src
            snat = translated or head.sub_type not in _ALWAYS_ORIGINAL
            if src is not None and translated:
                show_translation(draft, packet, original)
                src = original
        if packet.ip_version and head.reason & layouts.REASON_ENCRYPTED:
            draft.bits |= _ENCRYPTED
        if head.version >= 2 and head.trace_ip_trace_id:
            draft.more.ip_trace_id.trace_id = head.trace_ip_trace_id
        source, _ = self._add_ends(draft, (src, packet.dst), (head.src_label, head.dst_label), _ports(packet))

        draft.verdict = flow_pb2.FORWARDED
        draft.obs_point = TRACE_POINT_TO_API.get(head.sub_type, head.sub_type)
        reason = head.reason & layouts.REASON_MASK
        draft.trace_reason = TRACE_REASON_TO_API.get(reason, reason)
        if reason not in _NOT_SAID:
            draft.is_reply = Reply.TRUE if reason == _REPLY else Reply.FALSE
        if head.source and reason != _UNKNOWN:
            from_source = (head.source == source.id & 0xFFFF) != (reason == _REPLY)
            draft.direction = flow_pb2.EGRESS if from_source or snat else flow_pb2.INGRESS
        draft.iface = self._resolver.interface(head.ifindex)
        if head.sub_type == _TO_PROXY:
            draft.proxy_port = head.dst_id
        self._finish(draft, MessageType.TRACE, head.sub_type)

    def _drop(self, record: bytes, draft: Draft, _cpu: int) -> None:
        head, packet_at = heads.read_drop(record)
        packet = read_packet(record[packet_at:], head.drop_flags if head.version >= 2 else 0)
        show_packet(draft, packet)
        if head.version >= 3 and head.drop_ip_trace_id:
            draft.more.ip_trace_id.trace_id = head.drop_ip_trace_id
        labels = (head.src_label, head.dst_label)
        source, _ = self._add_ends(draft, (packet.src, packet.dst), labels, _ports(packet))
        draft.verdict, draft.drop_reason = flow_pb2.DROPPED, head.sub_type
        if head.source:
            draft.direction = flow_pb2.EGRESS if head.source == source.id & 0xFFFF else flow_pb2.INGRESS
        self._finish(draft, MessageType.DROP, head.sub_type, self._resolver.drop_place(head.file, head.line))

    def _policy_verdict(self, record: bytes, draft: Draft, _cpu: int) -> None:
        head, packet_at = heads.read_policy_verdict(record)
        flags, remote, verdict = head.verdict_flags, head.remote_label, head.verdict
        packet = read_packet(record[packet_at:], FLAGS_OF_VERDICT[flags])
        show_packet(draft, packet)
        ingress = flags & _DIRECTION == layouts.VERDICT_INGRESS
        labels = (remote, 0) if ingress else (0, remote)
        source, destination = self._add_ends(draft, (packet.src, packet.dst), labels, _ports(packet))
        draft.direction = flow_pb2.INGRESS if ingress else flow_pb2.EGRESS
        draft.match_type = (flags & _MATCH_TYPE) >> layouts.MATCH_TYPE_SHIFT
        if verdict < 0:
            draft.verdict, draft.drop_reason = flow_pb2.DROPPED, -verdict
        else:
            draft.is_reply = Reply.FALSE
            if verdict > 0:
                draft.verdict = flow_pb2.REDIRECTED
            else:
                draft.verdict = flow_pb2.AUDIT if flags & _AUDITED else flow_pb2.FORWARDED
        local, far = (destination, source) if ingress else (source, destination)
        key, outcome = _policy_key(packet, ingress, draft.match_type, far.identity), _outcome(draft)
        if key is None or outcome is Outcome.NOTHING:
            key, outcome, local = _NO_KEY, Outcome.NOTHING, End(0, 0, 0)
        rules = self._resolver.verdict(local.id, key, outcome, head.auth_type)
        self._finish(draft, MessageType.POLICY_VERDICT, head.sub_type, rules)

    def _capture(self, record: bytes, draft: Draft, _cpu: int) -> None:
        head, packet_at = heads.read_capture(record)
        packet = read_packet(record[packet_at:], 0)
        show_packet(draft, packet)
        self._add_ends(draft, (packet.src, packet.dst), (0, 0), _ports(packet))
        draft.more.debug_capture_point = head.sub_type  # type: ignore[assignment]  # unknown numbers are kept
        if head.sub_type in layouts.CAPTURES_WITH_IFINDEX:
            draft.iface = self._resolver.interface(head.arg1)
        elif head.sub_type in layouts.CAPTURES_WITH_PROXY_PORT:
            # Network byte order, and all 32 bits of it: a column for ports may be too narrow.
            port = int.from_bytes(head.arg1.to_bytes(4, "little"), "big")
            if port <= 0xFFFF:
                draft.proxy_port = port
            else:
                draft.more.proxy_port = port
        self._finish(draft, MessageType.CAPTURE, head.sub_type)

    def _trace_sock(self, record: bytes, draft: Draft, _cpu: int) -> None:
        head = heads.read_trace_sock(record)
        version = 6 if head.flags & layouts.SOCK_IPV6 else 4
        ours = [a for a in self._resolver.knowledge.cgroups.get(head.cgroup_id, ()) if a.version == version]
        if not ours:
            raise DecodeError(ErrorClass.EVENT_SKIPPED, f"cgroup {head.cgroup_id} is not known")
        theirs = Address(version, int.from_bytes(head.dst_ip[: 16 if version == 6 else 4], "big"))
        src, dst, sport, dport = ours[0], theirs, 0, head.dst_port
        point = head.xlate_point
        if point in (flow_pb2.SOCK_XLATE_POINT_PRE_DIRECTION_REV, flow_pb2.SOCK_XLATE_POINT_POST_DIRECTION_REV):
            src, dst, sport, dport = dst, src, dport, sport
        draft.ip_version, draft.l4 = IP_VERSIONS[version], _SOCK_PROTOCOLS.get(head.l4_proto, L4.NONE)
        if draft.l4:
            draft.sport, draft.dport = sport, dport
        draft.set_addresses(src, dst)
        self._add_ends(draft, (src, dst), (0, 0), (sport, dport))
        draft.verdict = _SOCK_VERDICTS.get(point, int(flow_pb2.VERDICT_UNKNOWN))
        draft.bits |= _SUMMARY_IN_AUX
        draft.more.Summary = L4(draft.l4).name if draft.l4 else "Unknown"
        draft.more.sock_xlate_point = point  # type: ignore[assignment]  # unknown numbers are kept
        draft.more.socket_cookie, draft.more.cgroup_id = head.sock_cookie, head.cgroup_id
        self._finish(draft, MessageType.TRACE_SOCK, point)
        draft.flow_type = flow_pb2.SOCK

    def _debug(self, record: bytes, draft: Draft, cpu: int) -> None:
        head = heads.read_debug(record)
        event = flow_pb2.DebugEvent(
            hash=UInt32Value(value=head.hash),
            arg1=UInt32Value(value=head.arg1),
            arg2=UInt32Value(value=head.arg2),
            arg3=UInt32Value(value=head.arg3),
            message=debug_message(head.sub_type, head.arg1, head.arg2, head.arg3),
            cpu=Int32Value(value=cpu),
        )
        event.type = head.sub_type  # type: ignore[assignment]  # unknown numbers are kept
        if head.source:
            local = self._resolver.knowledge.endpoints_by_id.get(head.source)
            known = local_endpoint_message(local, local.identity) if local else flow_pb2.Endpoint(ID=head.source)
            event.source.CopyFrom(known)
        draft.kind, draft.event_type, draft.sub_type = Kind.DEBUG, MessageType.DEBUG, head.sub_type
        draft.aux = self._resolver.tables.aux.intern(event.SerializeToString(deterministic=True))

    def _add_ends(
        self,
        draft: Draft,
        addresses: tuple[Address | None, Address | None],
        labels: tuple[int, int],
        ports: tuple[int, int],
    ) -> tuple[End, End]:
        """Who talks to whom, by what names and services; everything in the order source, destination."""
        src, dst = (address and address.unmapped() for address in addresses)
        resolver = self._resolver
        source, destination = resolver.end(src, labels[0]), resolver.end(dst, labels[1])
        draft.src, draft.dst = source.endpoint, destination.endpoint
        # Names are those that the other side got from DNS.
        draft.src_names = resolver.names(destination.id, src)
        draft.dst_names = resolver.names(source.id, dst)
        draft.src_svc = resolver.service(src, ports[0])
        draft.dst_svc = resolver.service(dst, ports[1])
        return source, destination

    def _finish(self, draft: Draft, event_type: MessageType, sub_type: int, aux: int = 0) -> None:
        draft.kind, draft.flow_type = Kind.FLOW, flow_pb2.L3_L4
        draft.event_type, draft.sub_type = event_type, sub_type
        draft.bits |= _HAS_EVENT_TYPE
        draft.finish_aux(self._resolver.tables, aux)


def _ports(packet: Packet) -> tuple[int, int]:
    """Ports for services; a protocol without ports has port 0 there."""
    return (packet.sport, packet.dport) if packet.l4 in _WITH_PORTS else (0, 0)


def _outcome(draft: Draft) -> Outcome:
    """Whether rules can be named for a policy verdict: not for audited ones, nor when no rule matched."""
    if draft.verdict == flow_pb2.DROPPED:
        return Outcome.DENIED if draft.drop_reason == layouts.DROP_POLICY_DENY else Outcome.NOTHING
    return Outcome.NOTHING if draft.verdict == flow_pb2.AUDIT else Outcome.ALLOWED


def _policy_key(packet: Packet, ingress: bool, match_type: int, identity: int) -> PolicyKey | None:
    """Key of the policy entry that decided; None for packets without a port above 0. ICMP types count as ports."""
    protocol = POLICY_PROTOCOLS.get(packet.l4, 0)
    port = packet.sport if packet.l4 in (L4.ICMPV4, L4.ICMPV6) else packet.dport
    if not protocol or not port:
        return None
    by_identity, by_protocol, by_port = MATCHES[match_type]
    return PolicyKey(ingress, identity * by_identity, protocol * by_protocol, port * by_port)


_DECODERS: Final[dict[int, Callable[[EventDecoder, bytes, Draft, int], None]]] = {
    MessageType.TRACE: EventDecoder._trace,
    MessageType.DROP: EventDecoder._drop,
    MessageType.POLICY_VERDICT: EventDecoder._policy_verdict,
    MessageType.CAPTURE: EventDecoder._capture,
    MessageType.TRACE_SOCK: EventDecoder._trace_sock,
    MessageType.DEBUG: EventDecoder._debug,
}
