"""One monitor event, decoded on its own.

In:        the bytes of one record, and where they were seen.
Out:       the bytes of one row, or a DecodeError.
Elsewhere: columns.py does the same for the usual trace, drop and policy verdict events, a batch at a time; a property
           test holds the two together. packet.py reads the packet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from google.protobuf.wrappers_pb2 import Int32Value, UInt32Value

from model import layouts
from model.address import MAPPED, Address
from model.decode.debug_events import debug_message
from model.decode.draft import IP_VERSIONS, Draft
from model.decode.errors import DecodeError, ErrorClass
from model.decode.resolve import End, Outcome, Resolver, drop_place
from model.knowledge import PolicyKey, local_endpoint_message
from model.layouts import MessageType, NotifyFlag, TracePoint, TraceReason, VerdictFlag
from model.packet import Layer, Packet, Undecodable, decode_packet
from model.row import L4, Bit, Kind, Reply
from model.vocabulary import TRACE_POINT_TO_API, TRACE_REASON_TO_API
from proto.flow import flow_pb2

POLICY_PROTOCOLS: Final = {L4.TCP: 6, L4.UDP: 17, L4.ICMPV4: 1, L4.ICMPV6: 58, L4.SCTP: 132}
"""Protocol of a policy map key."""
_SUMMARIES: Final = {
    L4.TCP: Layer.TCP,
    L4.UDP: Layer.UDP,
    L4.SCTP: Layer.SCTP,
    L4.ICMPV4: Layer.ICMPV4,
    L4.ICMPV6: Layer.ICMPV6,
    L4.VRRP: Layer.VRRP,
    L4.IGMP: Layer.IGMP,
}
_LAYER_NAMES: Final = {
    Layer.ETHERNET: "Ethernet",
    Layer.IPV4: "IPv4",
    Layer.IPV6: "IPv6",
    Layer.VXLAN: "VXLAN",
    Layer.GENEVE: "Geneve",
}


class EventDecoder:
    """Decodes single events. `node` is the index of this node in Tables.nodes."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self.node = 0

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
        head, packet_at = _head(record, "trace", layouts.TRACE_LENGTHS)
        version, flags = int(head["version"]), int(head["trace_flags"])
        packet = _packet(record[packet_at:], flags)
        reason = int(head["reason"]) & layouts.REASON_MASK
        original = _original(head, flags) if version >= 1 else None
        aux = _show_packet(draft, packet)
        point, snat = int(head["sub_type"]), False
        src = packet.src and packet.src.unmapped()
        if original is not None:
            # The ingress program fills in the source of every packet that it delivers, translated or not. Only a
            # different address says that the packet was translated there.
            translated = original != src
            snat = translated or point not in (TracePoint.TO_ENDPOINT, TracePoint.TO_PROXY)
            if src is not None and translated:
                _show_translation(draft, packet, original, aux)
                src = original
        if packet.ip_version and int(head["reason"]) & layouts.REASON_ENCRYPTED:
            draft.bits |= Bit.ENCRYPTED
        if version >= 2:
            _add_ip_trace_id(aux, int(head["trace_ip_trace_id"]))

        labels = int(head["src_label"]), int(head["dst_label"])
        source, _ = self._add_ends(draft, (src, packet.dst), labels, _ports(packet))
        draft.verdict = flow_pb2.FORWARDED
        draft.obs_point = TRACE_POINT_TO_API.get(point, point)
        draft.trace_reason = TRACE_REASON_TO_API.get(reason, reason)
        if reason not in (TraceReason.UNKNOWN, TraceReason.SRV6_ENCAP, TraceReason.SRV6_DECAP):
            draft.is_reply = Reply.TRUE if reason == TraceReason.REPLY else Reply.FALSE
        emitter = int(head["source"])
        if emitter and reason != TraceReason.UNKNOWN:
            from_source = (emitter == source.id & 0xFFFF) != (reason == TraceReason.REPLY)
            draft.direction = flow_pb2.EGRESS if from_source or snat else flow_pb2.INGRESS
        draft.iface = self._resolver.interface(int(head["ifindex"]))
        if point == TracePoint.TO_PROXY:
            draft.proxy_port = int(head["dst_id"])
        self._finish(draft, MessageType.TRACE, point, aux)

    def _drop(self, record: bytes, draft: Draft, _cpu: int) -> None:
        head, packet_at = _head(record, "drop", layouts.DROP_LENGTHS)
        version = int(head["version"])
        packet = _packet(record[packet_at:], int(head["drop_flags"]) if version >= 2 else 0)
        aux = _show_packet(draft, packet)
        aux.MergeFrom(drop_place(int(head["file"]), int(head["line"])))
        if version >= 3:
            _add_ip_trace_id(aux, int(head["drop_ip_trace_id"]))
        labels = int(head["src_label"]), int(head["dst_label"])
        source, _ = self._add_ends(draft, (packet.src, packet.dst), labels, _ports(packet))
        draft.verdict = flow_pb2.DROPPED
        draft.drop_reason = int(head["sub_type"])
        emitter = int(head["source"])
        if emitter:
            draft.direction = flow_pb2.EGRESS if emitter == source.id & 0xFFFF else flow_pb2.INGRESS
        self._finish(draft, MessageType.DROP, int(head["sub_type"]), aux)

    def _policy_verdict(self, record: bytes, draft: Draft, _cpu: int) -> None:
        _need(record, layouts.POLICY_VERDICT_LENGTH, "policy verdict")
        head = _window(record)
        flags = int(head["verdict_flags"])
        packet = _packet(
            record[layouts.POLICY_VERDICT_LENGTH :],
            NotifyFlag.L3_DEVICE * bool(flags & VerdictFlag.L3_DEVICE)
            | NotifyFlag.IPV6 * bool(flags & VerdictFlag.IPV6),
        )
        aux = _show_packet(draft, packet)
        ingress = flags & VerdictFlag.DIRECTION == layouts.VERDICT_INGRESS
        remote = int(head["remote_label"])
        labels = (remote, 0) if ingress else (0, remote)
        ends = self._add_ends(draft, (packet.src, packet.dst), labels, _ports(packet))
        local, remote_end = (ends[1], ends[0]) if ingress else ends
        draft.direction = flow_pb2.INGRESS if ingress else flow_pb2.EGRESS
        draft.match_type = (flags & VerdictFlag.MATCH_TYPE) >> layouts.MATCH_TYPE_SHIFT
        verdict = int(head["verdict"])
        if verdict < 0:
            draft.verdict, draft.drop_reason = flow_pb2.DROPPED, -verdict
        else:
            draft.is_reply = Reply.FALSE
            if verdict > 0:
                draft.verdict = flow_pb2.REDIRECTED
            else:
                draft.verdict = flow_pb2.AUDIT if flags & VerdictFlag.AUDITED else flow_pb2.FORWARDED
        outcome = verdict_outcome(draft.verdict, draft.drop_reason)
        # An ICMP type stands for the port, as in the policy map.
        port = packet.sport if packet.l4 in (L4.ICMPV4, L4.ICMPV6) else packet.dport
        protocol = POLICY_PROTOCOLS.get(packet.l4, 0)
        key = policy_key(ingress, draft.match_type, remote_end.identity, protocol, port)
        if key is None:
            outcome = Outcome.NOTHING
        aux.MergeFrom(self._resolver.verdict(local.id, key or _NO_KEY, outcome, int(head["auth_type"])))
        self._finish(draft, MessageType.POLICY_VERDICT, int(head["sub_type"]), aux)

    def _capture(self, record: bytes, draft: Draft, _cpu: int) -> None:
        _need(record, layouts.DEBUG_CAPTURE.itemsize, "debug capture")
        head = np.frombuffer(record, layouts.DEBUG_CAPTURE, 1)[0]
        packet = _packet(record[layouts.DEBUG_CAPTURE.itemsize :], 0)
        aux = _show_packet(draft, packet)
        self._add_ends(draft, (packet.src, packet.dst), (0, 0), _ports(packet))
        point, arg = int(head["sub_type"]), int(head["arg1"])
        aux.debug_capture_point = point  # type: ignore[assignment]  # the API keeps numbers that it does not know
        if point in layouts.CAPTURES_WITH_IFINDEX:
            draft.iface = self._resolver.interface(arg)
        elif point in layouts.CAPTURES_WITH_PROXY_PORT:
            # Network byte order, and all 32 bits of it: a column for ports may be too narrow.
            port = int.from_bytes(arg.to_bytes(4, "little"), "big")
            if port <= 0xFFFF:
                draft.proxy_port = port
            else:
                aux.proxy_port = port
        self._finish(draft, MessageType.CAPTURE, point, aux)

    def _trace_sock(self, record: bytes, draft: Draft, _cpu: int) -> None:
        _need(record, layouts.TRACE_SOCK.itemsize, "sock trace")
        head = np.frombuffer(record, layouts.TRACE_SOCK, 1)[0]
        version = 6 if int(head["flags"]) & layouts.SOCK_IPV6 else 4
        ours = [a for a in self._resolver.knowledge.cgroups.get(int(head["cgroup_id"]), ()) if a.version == version]
        if not ours:
            raise DecodeError(ErrorClass.EVENT_SKIPPED, f"cgroup {int(head['cgroup_id'])} is not known")
        data = head["dst_ip"].tobytes()[: 16 if version == 6 else 4]
        theirs = Address(version, int.from_bytes(data, "big"))
        point = int(head["xlate_point"])
        src, dst, sport, dport = ours[0], theirs, 0, int(head["dst_port"])
        if point in (flow_pb2.SOCK_XLATE_POINT_PRE_DIRECTION_REV, flow_pb2.SOCK_XLATE_POINT_POST_DIRECTION_REV):
            src, dst, sport, dport = dst, src, dport, sport
        draft.ip_version, draft.l4 = IP_VERSIONS[version], _SOCK_PROTOCOLS.get(int(head["l4_proto"]), L4.NONE)
        if draft.l4:
            draft.sport, draft.dport = sport, dport
        draft.set_addresses(src, dst)
        self._add_ends(draft, (src, dst), (0, 0), (sport, dport))
        draft.verdict = _SOCK_VERDICTS.get(point, int(flow_pb2.VERDICT_UNKNOWN))
        draft.bits |= Bit.SUMMARY_IN_AUX
        aux = flow_pb2.Flow(
            socket_cookie=int(head["sock_cookie"]),
            cgroup_id=int(head["cgroup_id"]),
            Summary=L4(draft.l4).name if draft.l4 else "Unknown",
        )
        aux.sock_xlate_point = point  # type: ignore[assignment]  # the API keeps numbers that it does not know
        self._finish(draft, MessageType.TRACE_SOCK, point, aux)
        draft.flow_type = flow_pb2.SOCK

    def _debug(self, record: bytes, draft: Draft, cpu: int) -> None:
        _need(record, layouts.DEBUG.itemsize, "debug message")
        head = np.frombuffer(record, layouts.DEBUG, 1)[0]
        kind = int(head["sub_type"])
        args = [int(head[name]) for name in ("arg1", "arg2", "arg3")]
        event = flow_pb2.DebugEvent(
            hash=UInt32Value(value=int(head["hash"])),
            arg1=UInt32Value(value=args[0]),
            arg2=UInt32Value(value=args[1]),
            arg3=UInt32Value(value=args[2]),
            message=debug_message(kind, *args),
            cpu=Int32Value(value=cpu),
        )
        event.type = kind  # type: ignore[assignment]  # the API keeps numbers that it does not know
        source = int(head["source"])
        if source:
            event.source.CopyFrom(self._debug_source(source))
        draft.kind, draft.event_type, draft.sub_type = Kind.DEBUG, MessageType.DEBUG, kind
        draft.aux = self._resolver.tables.aux.intern(event.SerializeToString(deterministic=True))

    def _debug_source(self, endpoint_id: int) -> flow_pb2.Endpoint:
        local = self._resolver.knowledge.endpoints_by_id.get(endpoint_id)
        return local_endpoint_message(local, local.identity) if local else flow_pb2.Endpoint(ID=endpoint_id)

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

    def _finish(self, draft: Draft, event_type: MessageType, sub_type: int, aux: flow_pb2.Flow) -> None:
        draft.kind, draft.flow_type = Kind.FLOW, flow_pb2.L3_L4
        draft.event_type, draft.sub_type = event_type, sub_type
        draft.bits |= Bit.HAS_EVENT_TYPE
        draft.aux = self._resolver.aux(aux)


_SOCK_PROTOCOLS: Final = {1: L4.TCP, 2: L4.UDP}
_SOCK_VERDICTS: Final[dict[int, int]] = {
    flow_pb2.SOCK_XLATE_POINT_PRE_DIRECTION_FWD: flow_pb2.TRACED,
    flow_pb2.SOCK_XLATE_POINT_POST_DIRECTION_FWD: flow_pb2.TRANSLATED,
    flow_pb2.SOCK_XLATE_POINT_PRE_DIRECTION_REV: flow_pb2.TRACED,
    flow_pb2.SOCK_XLATE_POINT_POST_DIRECTION_REV: flow_pb2.TRANSLATED,
}
_NO_KEY: Final = PolicyKey(ingress=False, identity=0, protocol=0, port=0)


def verdict_outcome(verdict: int, drop_reason: int) -> Outcome:
    """Whether rules can be named for a policy verdict: not for audited ones, nor when no rule matched."""
    if verdict in (flow_pb2.FORWARDED, flow_pb2.REDIRECTED):
        return Outcome.ALLOWED
    if verdict == flow_pb2.DROPPED and drop_reason == layouts.DROP_POLICY_DENY:
        return Outcome.DENIED
    return Outcome.NOTHING


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


def policy_key(ingress: bool, match_type: int, identity: int, protocol: int, port: int) -> PolicyKey | None:
    """Key of the policy entry that decided; None for packets without a port (or ICMP type) above 0."""
    if not protocol or not port:
        return None
    by_identity, by_protocol, by_port = MATCHES[match_type]
    return PolicyKey(ingress, identity * by_identity, protocol * by_protocol, port * by_port)


def _ports(packet: Packet) -> tuple[int, int]:
    """Ports for services; a protocol without ports has port 0 there."""
    return (packet.sport, packet.dport) if packet.l4 in (L4.TCP, L4.UDP, L4.SCTP) else (0, 0)


def _need(record: bytes, size: int, what: str) -> None:
    if len(record) < size:
        raise Undecodable(f"{what}: {len(record)} bytes, expected at least {size}")


def _window(record: bytes) -> Any:
    """The header fields over the start of a record; what lies behind its end reads as 0."""
    size = layouts.HEAD.itemsize
    return np.frombuffer(record[:size].ljust(size, b"\0"), layouts.HEAD)[0]


def _head(record: bytes, what: str, lengths: dict[int, int]) -> tuple[Any, int]:
    """Header fields, and where the packet starts."""
    _need(record, lengths[0], what)
    head = _window(record)
    length = lengths.get(int(head["version"]))
    if length is None:
        raise Undecodable(f"{what}: version {int(head['version'])} is not known")
    _need(record, length, f"{what} of version {int(head['version'])}")
    return head, length


def _packet(data: bytes, flags: int) -> Packet:
    first = Layer.ETHERNET
    if flags & NotifyFlag.L3_DEVICE:
        first = Layer.IPV6 if flags & NotifyFlag.IPV6 else Layer.IPV4
    tunnel = None
    if flags & NotifyFlag.VXLAN:
        tunnel = Layer.VXLAN
    elif flags & NotifyFlag.GENEVE:
        tunnel = Layer.GENEVE
    return decode_packet(data, first, tunnel)


def _original(head: Any, flags: int) -> Address | None:
    """The source address before translation. A wrong family flag gives the first four bytes, as the reference does."""
    if flags & NotifyFlag.IPV6:
        address = Address(6, int(head["orig_ip6_hi"]) << 64 | int(head["orig_ip6_lo"]))
    else:
        address = Address(4, int(head["orig_ip4"]))
    return address if address.number else None


def _show_packet(draft: Draft, packet: Packet) -> flow_pb2.Flow:
    """Put the packet's layers into the row; what has no column comes back."""
    aux = flow_pb2.Flow()
    if packet.smac is not None and packet.dmac is not None:
        draft.bits |= Bit.HAS_ETHERNET
        draft.smac, draft.dmac = packet.smac, packet.dmac
    draft.ip_version, draft.l4 = IP_VERSIONS[packet.ip_version], packet.l4
    draft.set_addresses(packet.src, packet.dst)
    draft.sport, draft.dport = packet.sport, packet.dport
    if packet.l4 == L4.TCP:
        draft.bits |= Bit.HAS_TCP_FLAGS
        draft.tcp_flags = packet.tcp_flags
    elif packet.l4 == L4.VRRP:
        kind, vrid, priority = packet.vrrp
        aux.l4.VRRP.CopyFrom(flow_pb2.VRRP(type=kind, vrid=vrid, priority=priority))
    elif packet.l4 == L4.IGMP:
        aux.l4.IGMP.CopyFrom(flow_pb2.IGMP(type=packet.igmp[0], group_address=str(packet.igmp[1])))
    if packet.tunnel is not None:
        _add_tunnel(aux, packet, packet.tunnel)
    last = packet.last if packet.tunnel is None or len(packet.layers) > 1 else None
    if last is not _implied_last(packet):
        draft.bits |= Bit.SUMMARY_IN_AUX
        aux.Summary = _LAYER_NAMES[last] if last else ""
    return aux


def _implied_last(packet: Packet) -> Layer | None:
    """The last layer of a packet with these layers, one inside the other as usual. Summaries are made from it."""
    if packet.l4:
        return _SUMMARIES[packet.l4]
    if packet.ip_version:
        return Layer.IPV4 if packet.ip_version == 4 else Layer.IPV6
    return Layer.ETHERNET if packet.smac is not None else None


def _add_tunnel(aux: flow_pb2.Flow, packet: Packet, outer: Packet) -> None:
    vxlan = packet.layers[0] is Layer.VXLAN
    aux.tunnel.protocol = flow_pb2.Tunnel.VXLAN if vxlan else flow_pb2.Tunnel.GENEVE
    aux.tunnel.vni = packet.vni
    aux.tunnel.IP.source, aux.tunnel.IP.destination = str(outer.src), str(outer.dst)
    aux.tunnel.IP.ipVersion = IP_VERSIONS[outer.ip_version]  # type: ignore[assignment]
    aux.tunnel.l4.UDP.source_port, aux.tunnel.l4.UDP.destination_port = outer.sport, outer.dport


def _show_translation(draft: Draft, packet: Packet, original: Address, aux: flow_pb2.Flow) -> None:
    """Show the source before translation; the packet's own stands beside it."""
    aux.IP.source_xlated = str(packet.src)
    if packet.ip_version == 6 and original.version == 4:
        original = Address(6, MAPPED | original.number)
    elif packet.ip_version != original.version:
        aux.IP.source = str(original)  # a row's addresses are of the packet's family
    draft.set_addresses(original, None)


def _add_ip_trace_id(aux: flow_pb2.Flow, trace_id: int) -> None:
    if trace_id:
        aux.ip_trace_id.trace_id = trace_id


_DECODERS: Final[dict[int, Callable[[EventDecoder, bytes, Draft, int], None]]] = {
    MessageType.TRACE: EventDecoder._trace,
    MessageType.DROP: EventDecoder._drop,
    MessageType.POLICY_VERDICT: EventDecoder._policy_verdict,
    MessageType.CAPTURE: EventDecoder._capture,
    MessageType.TRACE_SOCK: EventDecoder._trace_sock,
    MessageType.DEBUG: EventDecoder._debug,
}
