"""The parts of which GetFlowsResponse messages are put together, as bytes.

In:        values of a row, tables, the mask of the request.
Out:       a head, which holds everything that differs from flow to flow at known offsets, and parts without such.
Elsewhere: encode.py joins parts and writes what differs over the heads; ingest.py is the way back.
Source:    flow API 1.19 for the fields; Protocol Buffers encoding guide: fields may come in any order. A message field
           comes only once all the same, since some decoders (protobuf.js) keep the last one and do not merge.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from model import wire
from model.address_text import address_text
from model.flow_id import TAIL_CHARS, UUID_CHARS, flow_uuid
from model.mask import WHOLE, FieldMask, Tree, cut_message
from model.row import L4, Bit, Kind, Reply, TcpFlag
from model.row_values import RowValues
from model.summary import summary_text
from model.tables import Tables
from proto.flow import flow_pb2
from proto.observer import observer_pb2


class Slot(IntEnum):
    """Bytes of a head that are written anew for every flow."""

    GRPC_LENGTH = 0
    FLOW_LENGTH = 1
    OUTER_TIME = 2
    OUTER_SECONDS = 3
    OUTER_NANOS = 4
    TIME = 5
    SECONDS = 6
    NANOS = 7
    UUID = 8
    UUID_TAIL = 9
    PORTS = 10
    SPORT = 11
    DPORT = 12
    MACS = 13
    SMAC = 14
    DMAC = 15
    IP_LENGTH = 16
    """Of the message that begins where the head ends: the addresses follow."""


LENGTH_WIDTH: Final = 4
"""Bytes of a length whose value is not known beforehand, as padded varint: 28 bits."""
SECONDS_WIDTH: Final = 5
"""35 bits, until the year 3058. Nanoseconds take as much."""
PORT_WIDTH: Final = 3
MAC_CHARS: Final = 17

SLOT_WIDTHS: Final = {
    Slot.GRPC_LENGTH: 4,
    Slot.FLOW_LENGTH: LENGTH_WIDTH,
    Slot.OUTER_TIME: 2 * SECONDS_WIDTH + 1,
    Slot.OUTER_SECONDS: SECONDS_WIDTH,
    Slot.OUTER_NANOS: SECONDS_WIDTH,
    Slot.TIME: 2 * SECONDS_WIDTH + 1,
    Slot.SECONDS: SECONDS_WIDTH,
    Slot.NANOS: SECONDS_WIDTH,
    Slot.UUID: UUID_CHARS,
    Slot.UUID_TAIL: TAIL_CHARS,
    Slot.PORTS: 2 * PORT_WIDTH + 1,
    Slot.SPORT: PORT_WIDTH,
    Slot.DPORT: PORT_WIDTH,
    Slot.MACS: 2 * MAC_CHARS + 2,
    Slot.SMAC: MAC_CHARS,
    Slot.DMAC: MAC_CHARS,
    Slot.IP_LENGTH: LENGTH_WIDTH,
}
"""Slots of two values hold the first, the tag (and length) of the second, the second."""

NO_SLOTS: Final[dict[Slot, int]] = {}

EMITTER: Final = "Hubble"
"""flow.Emitter.name, which clients look for."""

OUTER_TAG: Final = wire.tag(200_000, wire.BYTES)
"""Begins the aux of a foreign row whose response says another node or time than its flow. What follows, a
GetFlowsResponse without the flow, is for the encoder only; all other readers of aux see an unknown field."""


class HeadFlag(IntEnum):
    """What a foreign row may lack."""

    HAS_TIME = 1
    HAS_UUID = 2
    """In the row."""


_RESPONSE: Final = observer_pb2.GetFlowsResponse.DESCRIPTOR.fields_by_name
_FLOW: Final = flow_pb2.Flow.DESCRIPTOR.fields_by_name
_T_FLOW: Final = wire.tag(_RESPONSE["flow"].number, wire.BYTES)
_T_LOST: Final = wire.tag(_RESPONSE["lost_events"].number, wire.BYTES)
_T_OUTER_NODE: Final = wire.tag(_RESPONSE["node_name"].number, wire.BYTES)
_T_OUTER_TIME: Final = wire.tag(_RESPONSE["time"].number, wire.BYTES)
_T_TIME: Final = wire.tag(_FLOW["time"].number, wire.BYTES)
_T_UUID: Final = wire.tag(_FLOW["uuid"].number, wire.BYTES)
_T_ETHERNET: Final = wire.tag(_FLOW["ethernet"].number, wire.BYTES)
_T_IP: Final = wire.tag(_FLOW["IP"].number, wire.BYTES)
_T_L4: Final = wire.tag(_FLOW["l4"].number, wire.BYTES)
_T_ENDPOINTS: Final = {name: wire.tag(_FLOW[name].number, wire.BYTES) for name in ("source", "destination")}
_T_TCP_FLAGS: Final = wire.tag(flow_pb2.TCP.DESCRIPTOR.fields_by_name["flags"].number, wire.BYTES)
_T_IP_VERSION: Final = wire.tag(flow_pb2.IP.DESCRIPTOR.fields_by_name["ipVersion"].number, wire.VARINT)
_T_ENCRYPTED: Final = wire.tag(flow_pb2.IP.DESCRIPTOR.fields_by_name["encrypted"].number, wire.VARINT)
# Source and destination of IP and Ethernet, ports, ICMP type and code, seconds and nanos: always fields 1 and 2.
FIRST_NUMBER: Final = wire.tag(1, wire.VARINT)
SECOND_NUMBER: Final = wire.tag(2, wire.VARINT)
FIRST_TEXT: Final = wire.tag(1, wire.BYTES)
SECOND_TEXT: Final = wire.tag(2, wire.BYTES)

_PORT_LAYERS: Final = (L4.TCP, L4.UDP, L4.SCTP)
_ICMP_LAYERS: Final = (L4.ICMPV4, L4.ICMPV6)


class Head(NamedTuple):
    """The beginning of a message, from the gRPC header on."""

    data: bytes
    slots: dict[Slot, int]
    """Where the slots begin. What follows FLOW_LENGTH is counted by it."""


class FlowParts:
    """Makes parts for one set of tables and one mask. Remembers nothing."""

    def __init__(self, tables: Tables, mask: FieldMask | None) -> None:
        self._tables = tables
        self._mask = mask

    def head(self, row: RowValues, flags: int) -> Head:
        """Everything before the parts that flows share; all of a message without a flow."""
        if row.kind == Kind.FLOW:
            return self._flow_head(row, flags)
        if row.kind == Kind.LOST:
            return self._lost_head(row, flags)
        return Head(b"", NO_SLOTS)

    def event(self, row: RowValues) -> bytes:
        """What was seen and decided."""
        flow = flow_pb2.Flow(policy_match_type=row.match_type, proxy_port=row.proxy_port)
        # The enums are open: a number without a name goes through.
        for name, value in (
            ("verdict", row.verdict),
            ("drop_reason_desc", min(row.drop_reason, _LARGEST_ENUM)),
            ("Type", row.flow_type),
            ("traffic_direction", row.direction),
            ("trace_observation_point", row.obs_point),
            ("trace_reason", row.trace_reason),
        ):
            setattr(flow, name, value)
        if row.bits & Bit.HAS_EVENT_TYPE:
            flow.event_type.SetInParent()
            flow.event_type.type, flow.event_type.sub_type = row.event_type, row.sub_type
        if row.is_reply != Reply.ABSENT:
            flow.is_reply.value = row.is_reply == Reply.TRUE
        if not row.bits & Bit.FOREIGN:
            flow.drop_reason = row.drop_reason
            flow.reply = row.is_reply == Reply.TRUE
        if not row.bits & Bit.SUMMARY_IN_AUX:
            flow.Summary = _summary(row, self._tables.aux[row.aux])
        return self._cut(flow)

    def names(self, row: RowValues) -> bytes:
        """Node, interface, services, DNS names."""
        tables = self._tables
        flow = flow_pb2.Flow(
            source_names=tables.names[row.src_names] or (),
            destination_names=tables.names[row.dst_names] or (),
        )
        for index, target in ((row.src_svc, flow.source_service), (row.dst_svc, flow.destination_service)):
            service = tables.services[index]
            if service is not None:
                target.SetInParent()
                target.name, target.namespace = service.name, service.namespace
        iface = tables.ifaces[row.iface]
        if iface is not None:
            flow.interface.SetInParent()
            flow.interface.index, flow.interface.name = iface.index, iface.name
        node = tables.nodes[row.node]
        if node is not None:
            flow.node_name = node.name
            flow.node_labels.extend(node.labels)
        return self._cut(flow)

    @property
    def asks_ip(self) -> bool:
        """Whether anything of flow.IP is wanted."""
        return self._tree("IP") is not None

    def source_address(self, high: int, low: int, version: int) -> bytes:
        """The first field inside flow.IP."""
        return _text_field(FIRST_TEXT, address_text(high, low, version)) if self._asks("IP", "source") else b""

    def destination_address(self, high: int, low: int, version: int) -> bytes:
        """The second field inside flow.IP."""
        asked = self._asks("IP", "destination")
        return _text_field(SECOND_TEXT, address_text(high, low, version)) if asked else b""

    def ip_rest(self, version: int, encrypted: bool) -> bytes:
        """The fields inside flow.IP that are no addresses."""
        rest = wire.number(_T_IP_VERSION, version) if self._asks("IP", "ipVersion") else b""
        return rest + (wire.number(_T_ENCRYPTED, 1) if encrypted and self._asks("IP", "encrypted") else b"")

    def endpoint(self, name: str, index: int) -> bytes:
        """`source` or `destination`."""
        tree = self._tree(name)
        value = self._tables.endpoints[index]
        if tree is None or value is None:
            return b""
        if tree:
            value = cut_message(flow_pb2.Endpoint.FromString(value), tree).SerializeToString(deterministic=True)
        return wire.message(_T_ENDPOINTS[name], value)

    def aux(self, index: int, *, with_ip: bool) -> bytes:
        """What stands in aux; without IP it is for a message that has another part of flow.IP already."""
        flow = self._aux_flow(index)
        if not with_ip:
            flow.ClearField("IP")
        return bytes(flow.SerializeToString(deterministic=True))

    def aux_ip(self, index: int) -> bytes:
        """What aux says inside flow.IP."""
        return bytes(self._aux_flow(index).IP.SerializeToString(deterministic=True))

    def _aux_flow(self, index: int) -> flow_pb2.Flow:
        value, _ = split_aux(self._tables.aux[index] or b"")
        flow = flow_pb2.Flow.FromString(value)
        return self._mask.cut(flow) if self._mask else flow

    # Heads.

    def _flow_head(self, row: RowValues, flags: int) -> Head:
        own_outer = None
        aux_time: bytes = b""
        if row.bits & Bit.FOREIGN and row.aux:
            own_outer, aux_time = self._outer_of_aux(row.aux)
        head = _HeadBuilder()
        if own_outer is not None:
            head.add(own_outer)
        else:
            outer_slots = (Slot.OUTER_TIME, Slot.OUTER_SECONDS, Slot.OUTER_NANOS)
            head.add(*_time(_T_OUTER_TIME, outer_slots, self._tree("time") if flags & HeadFlag.HAS_TIME else None))
            head.add(aux_time or self._made_up_outer_time(flags))
            node = self._tables.nodes[row.node]
            if node is not None and self._tree("node_name") is not None:
                head.add(_text_field(_T_OUTER_NODE, node.name))
        head.add(_T_FLOW + bytes(LENGTH_WIDTH), {Slot.FLOW_LENGTH: len(_T_FLOW)})
        # Made-up parents come first, so that what the flow really has stays when both are members of one oneof.
        head.add(self._mask.skeleton if self._mask else b"")
        slots = (Slot.TIME, Slot.SECONDS, Slot.NANOS)
        head.add(*_time(_T_TIME, slots, self._tree("time") if flags & HeadFlag.HAS_TIME else None))
        head.add(*self._uuid(row, flags))
        head.add(self._emitter(row))
        head.add(*self._ethernet(row))
        head.add(*self._l4(row))
        if row.ip_version and self.asks_ip:
            head.add(_T_IP + bytes(LENGTH_WIDTH), {Slot.IP_LENGTH: len(_T_IP)})
        return head.built()

    def _lost_head(self, row: RowValues, flags: int) -> Head:
        value, own_outer = split_aux(self._tables.aux[row.aux] or b"")
        head = _HeadBuilder()
        if own_outer is not None:
            head.add(own_outer)
        else:
            # Masks are about flows.
            outer_slots = (Slot.OUTER_TIME, Slot.OUTER_SECONDS, Slot.OUTER_NANOS)
            head.add(*_time(_T_OUTER_TIME, outer_slots, WHOLE if flags & HeadFlag.HAS_TIME else None))
            node = self._tables.nodes[row.node]
            head.add(_text_field(_T_OUTER_NODE, node.name) if node else b"")
        head.add(wire.message(_T_LOST, value))
        return head.built()

    def _outer_of_aux(self, index: int) -> tuple[bytes | None, bytes]:
        """Node and time of the response where they are not those of the flow; its time where the row has none."""
        value, own_outer = split_aux(self._tables.aux[index] or b"")
        if not self._mask:
            return own_outer, b""
        # With a mask the response repeats what is left of the flow, whatever it said before.
        cut = self._mask.cut(flow_pb2.Flow.FromString(value))
        if not cut.HasField("time"):
            return None, b""
        return None, wire.message(_T_OUTER_TIME, cut.time.SerializeToString(deterministic=True))

    def _made_up_outer_time(self, flags: int) -> bytes:
        """Of a flow without time whose mask makes one up, by asking for a part of it."""
        return wire.message(_T_OUTER_TIME, b"") if self._tree("time") and not flags & HeadFlag.HAS_TIME else b""

    def _uuid(self, row: RowValues, flags: int) -> tuple[bytes, dict[Slot, int]]:
        if self._tree("uuid") is None:
            return b"", NO_SLOTS
        start = len(_T_UUID) + 1
        if not row.bits & Bit.FOREIGN:
            text = flow_uuid(self._tables.nodes[row.node], 0)
            return _text_field(_T_UUID, text), {Slot.UUID_TAIL: start + UUID_CHARS - TAIL_CHARS}
        if flags & HeadFlag.HAS_UUID:
            return wire.message(_T_UUID, bytes(UUID_CHARS)), {Slot.UUID: start}
        return b"", NO_SLOTS

    def _emitter(self, row: RowValues) -> bytes:
        if row.bits & Bit.FOREIGN:
            return b""
        node = self._tables.nodes[row.node]
        emitter = flow_pb2.Emitter(name=EMITTER, version=node.version if node else "")
        return self._cut(flow_pb2.Flow(emitter=emitter))

    def _ethernet(self, row: RowValues) -> tuple[bytes, dict[Slot, int]]:
        if not row.bits & Bit.HAS_ETHERNET:
            return b"", NO_SLOTS
        text = bytes([MAC_CHARS]) + bytes(MAC_CHARS)
        fields = (("source", Slot.SMAC, FIRST_TEXT + text), ("destination", Slot.DMAC, SECOND_TEXT + text))
        return _pair(_T_ETHERNET, Slot.MACS, fields, MAC_CHARS, self._tree("ethernet"))

    def _l4(self, row: RowValues) -> tuple[bytes, dict[Slot, int]]:
        tree = self._tree("l4")
        if tree is None or row.l4 not in (*_PORT_LAYERS, *_ICMP_LAYERS):
            return b"", NO_SLOTS  # VRRP and IGMP stand in aux
        name = flow_pb2.Layer4.DESCRIPTOR.fields_by_number[row.l4].name
        if tree and name not in tree:
            return b"", NO_SLOTS
        asked = tree[name] if tree else WHOLE
        member_tag = wire.tag(row.l4, wire.BYTES)
        if row.l4 in _ICMP_LAYERS:
            return wire.message(_T_L4, wire.message(member_tag, _icmp_fields(row, asked))), NO_SLOTS
        port = bytes(PORT_WIDTH)
        fields = (
            ("source_port", Slot.SPORT, FIRST_NUMBER + port),
            ("destination_port", Slot.DPORT, SECOND_NUMBER + port),
        )
        rest = _tcp_flags(row, asked)
        member, slots = _pair(member_tag, Slot.PORTS, fields, PORT_WIDTH, asked, rest=rest, even_empty=True)
        layer = wire.message(_T_L4, member)
        return layer, {slot: offset + len(layer) - len(member) for slot, offset in slots.items()}

    # Masks.

    def _tree(self, name: str) -> Tree | None:
        return self._mask.below(name) if self._mask else WHOLE

    def _asks(self, name: str, field: str) -> bool:
        tree = self._tree(name)
        return tree is not None and (not tree or field in tree)

    def _cut(self, flow: flow_pb2.Flow) -> bytes:
        return (self._mask.cut(flow) if self._mask else flow).SerializeToString(deterministic=True)


def split_aux(value: bytes) -> tuple[bytes, bytes | None]:
    """The event in an aux entry and, where it stands before it, the outer part of its response."""
    if not value.startswith(OUTER_TAG):
        return value, None
    size, start = wire.read_varint(value, len(OUTER_TAG))
    return value[start + size :], value[start : start + size]


class _HeadBuilder:
    """Puts fields one behind the other and counts offsets."""

    def __init__(self) -> None:
        self._data = bytearray(wire.GRPC_HEADER_SIZE)
        self._slots = {Slot.GRPC_LENGTH: 1}

    def add(self, data: bytes, slots: dict[Slot, int] = NO_SLOTS) -> None:
        self._slots.update({slot: len(self._data) + offset for slot, offset in slots.items()})
        self._data += data

    def built(self) -> Head:
        return Head(bytes(self._data), self._slots)


def _time(field_tag: bytes, slots: tuple[Slot, Slot, Slot], tree: Tree | None) -> tuple[bytes, dict[Slot, int]]:
    both, seconds, nanos = slots
    number = bytes(SECONDS_WIDTH)
    fields = (("seconds", seconds, FIRST_NUMBER + number), ("nanos", nanos, SECOND_NUMBER + number))
    return _pair(field_tag, both, fields, SECONDS_WIDTH, tree)


def _pair(
    field_tag: bytes,
    both: Slot,
    fields: tuple[tuple[str, Slot, bytes], tuple[str, Slot, bytes]],
    width: int,
    tree: Tree | None,
    *,
    rest: bytes = b"",
    even_empty: bool = False,
) -> tuple[bytes, dict[Slot, int]]:
    """A message of two fields that are written later, each the last `width` bytes of what is given; then `rest`."""
    asked = [(slot, field) for name, slot, field in fields if tree is not None and (not tree or name in tree)]
    body = b"".join(field for _, field in asked) + rest
    if not body and not even_empty:
        return b"", NO_SLOTS
    message = wire.message(field_tag, body)
    first = len(message) - len(body) + (len(asked[0][1]) - width if asked else 0)
    if len(asked) == len(fields):
        return message, {both: first}
    return message, {slot: first for slot, _ in asked}


def _tcp_flags(row: RowValues, asked: Tree) -> bytes:
    if not row.bits & Bit.HAS_TCP_FLAGS or row.l4 != L4.TCP or (asked and "flags" not in asked):
        return b""
    flags = flow_pb2.TCPFlags(**{flag.name: bool(row.tcp_flags & flag) for flag in TcpFlag})
    cut = cut_message(flags, asked["flags"] if asked else WHOLE)
    return wire.message(_T_TCP_FLAGS, cut.SerializeToString(deterministic=True))


def _icmp_fields(row: RowValues, asked: Tree) -> bytes:
    kind = wire.number(FIRST_NUMBER, row.sport) if not asked or "type" in asked else b""
    code = wire.number(SECOND_NUMBER, row.dport) if not asked or "code" in asked else b""
    return kind + code


def _summary(row: RowValues, aux: bytes | None) -> str:
    return summary_text(
        flow_type=row.flow_type,
        ip_version=row.ip_version,
        l4=row.l4,
        sport=row.sport,
        dport=row.dport,
        tcp_flags=row.tcp_flags,
        bits=row.bits,
        aux=aux,
    )


def _text_field(field_tag: bytes, text: str) -> bytes:
    return wire.message(field_tag, text.encode()) if text else b""


_LARGEST_ENUM: Final = 2**31 - 1
