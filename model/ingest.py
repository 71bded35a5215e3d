"""Rows from messages: flows of other servers and of files.

In:        GetFlowsResponse messages, parsed or as bytes.
Out:       rows and what they point at; nothing of a message is lost, so encoding the rows gives the messages again.
Elsewhere: encode.py is the way there; wire_reader.py reads bytes fast; columns.py is how our own programs send rows.

What filters, merge and printing ask for goes into the columns of the row. What columns cannot say, or would say
differently, stands in aux as the rest of the message. Times and UUIDs never do where that can be helped: they are all
that tells many flows apart, and aux entries are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np

from model import wire
from model.address_text import address_text, parse_address_text, parse_mac
from model.draft import Draft
from model.flow_id import boot_and_seq, parse_uuid_halves
from model.flow_parts import EMITTER, OUTER_TAG
from model.row import IPV4, IPV6, L4, NO_LATER_NS, ROW, Bit, Kind, Reply, Rows, TcpFlag
from model.summary import summary_text
from model.tables import Interface, Node, Service, Tables
from proto.flow import flow_pb2
from proto.observer import observer_pb2

NS_PER_S: Final = 1_000_000_000

_PORT_LAYERS: Final = {"TCP": L4.TCP, "UDP": L4.UDP, "SCTP": L4.SCTP}
_ICMP_LAYERS: Final = {"ICMPv4": L4.ICMPV4, "ICMPv6": L4.ICMPV6}
_LAYERS: Final = {**_PORT_LAYERS, **_ICMP_LAYERS, "VRRP": L4.VRRP, "IGMP": L4.IGMP}
_NO_NODE: Final = Node("")

_NUMBERS: Final = (
    ("verdict", "verdict", 0xFF),
    ("Type", "flow_type", 0xFF),
    ("traffic_direction", "direction", 0xFF),
    ("trace_observation_point", "obs_point", 0xFF),
    ("trace_reason", "trace_reason", 0xFF),
    ("policy_match_type", "match_type", 0xFF),
    ("proxy_port", "proxy_port", 0xFFFF),
    ("drop_reason_desc", "drop_reason", 2**31 - 1),
)
"""Fields of flow.Flow, columns of a row, and the largest number that the column holds."""

_MAPPED_PREFIX: Final = 0xFFFF << 32


def rows_from_responses(responses: Iterable[observer_pb2.GetFlowsResponse], tables: Tables) -> Rows:
    """One row for each response with a flow or lost events, in their order; other responses are left out."""
    drafts = (draft_from_response(response, tables) for response in responses)
    return np.frombuffer(b"".join(draft.pack() for draft in drafts if draft is not None), ROW).copy()


def rows_from_wire(messages: Sequence[bytes], tables: Tables) -> Rows:
    """As `rows_from_responses`, for messages as they came. Much faster where they resemble each other.

    Raises: ValueError for bytes that are no GetFlowsResponse.
    """
    from model.wire_reader import WireReader

    reader = _READERS.get(tables)
    if reader is None:
        reader = _READERS[tables] = WireReader()
    rows: Rows = reader.rows(messages, tables)
    return rows


def draft_from_response(response: observer_pb2.GetFlowsResponse, tables: Tables) -> Draft | None:
    """One row; None for a response without flow or lost events."""
    kind = response.WhichOneof("response_types")
    if kind == "flow":
        return _FlowReader(tables, response.flow).draft(response)
    if kind == "lost_events":
        return _lost_draft(response, tables)
    return None


class _FlowReader:
    """Takes a flow apart. `rest` is what is left of it: fields that went into the row are cleared there."""

    def __init__(self, tables: Tables, flow: flow_pb2.Flow) -> None:
        self._tables = tables
        self._row = Draft()
        self._rest = flow_pb2.Flow()
        self._rest.CopyFrom(flow)
        self._rest.DiscardUnknownFields()
        # A newer server's fields inside small messages: these then stay in aux as well, where they do no harm.
        self._keep = self._rest.ByteSize() != flow.ByteSize()
        if self._keep:
            self._rest.CopyFrom(flow)
        self._uuid = parse_uuid_halves(flow.uuid) if flow.uuid else None
        self._macs = _parsed_macs(flow.ethernet) if flow.HasField("ethernet") else None

    def draft(self, response: observer_pb2.GetFlowsResponse) -> Draft:
        row, rest = self._row, self._rest
        self._take_time()
        self._take_event()
        self._take_layer()
        self._take_names()
        ours = self._is_ours() and not _own_outer(response, rest.node_name, row.ts_ns, foreign=False)
        self._take_addresses(zero_is_known=ours)
        if ours:
            node = self._take_our_identity()
        else:
            node = self._take_foreign_identity()
        rest.ClearField("node_name")
        rest.ClearField("node_labels")
        self._take_summary()
        aux = _serialised(rest)
        outer = _own_outer(response, node.name if node else "", row.ts_ns, foreign=not ours)
        row.node = self._tables.nodes.intern(node) if node else 0
        row.aux = self._tables.aux.intern(outer + aux) if outer or aux else 0
        return row

    def _take_time(self) -> None:
        if self._rest.HasField("time"):
            self._row.ts_ns = _row_time(self._rest.time)
            if 0 < self._row.ts_ns < NO_LATER_NS:
                self._rest.ClearField("time")

    def _take_event(self) -> None:
        row, rest = self._row, self._rest
        for field, column, largest in _NUMBERS:
            value = getattr(rest, field)
            if 0 < value <= largest:
                setattr(row, column, value)
                rest.ClearField(field)
        if rest.HasField("is_reply"):
            row.is_reply = Reply.TRUE if rest.is_reply.value else Reply.FALSE
            self._clear("is_reply")
        if rest.HasField("event_type"):
            row.event_type, row.sub_type = rest.event_type.type, rest.event_type.sub_type
            row.bits |= Bit.HAS_EVENT_TYPE
            self._clear("event_type")

    def _take_layer(self) -> None:
        name = self._rest.l4.WhichOneof("protocol")
        if name is None:
            return
        self._row.l4 = _LAYERS[name]
        layer = getattr(self._rest.l4, name)
        if name in _PORT_LAYERS:
            if name == "TCP" and layer.HasField("flags"):
                self._row.tcp_flags = sum(flag for flag in TcpFlag if getattr(layer.flags, flag.name))
                self._row.bits |= Bit.HAS_TCP_FLAGS
            self._take_pair(layer.source_port, layer.destination_port, 0xFFFF)
        elif name in _ICMP_LAYERS:
            self._take_pair(layer.type, layer.code, 0xFF)

    def _take_pair(self, first: int, second: int, largest: int) -> None:
        """Ports, or type and code. Numbers that do not fit stay in aux and override the row's 0."""
        self._row.sport = first if first <= largest else 0
        self._row.dport = second if second <= largest else 0
        if max(first, second) <= largest:
            self._clear("l4")

    def _take_names(self) -> None:
        row, rest, tables = self._row, self._rest, self._tables
        if rest.HasField("source"):
            row.src = tables.endpoints.intern(rest.source.SerializeToString(deterministic=True))
            rest.ClearField("source")
        if rest.HasField("destination"):
            row.dst = tables.endpoints.intern(rest.destination.SerializeToString(deterministic=True))
            rest.ClearField("destination")
        if rest.source_names:
            row.src_names = tables.names.intern(tuple(rest.source_names))
            rest.ClearField("source_names")
        if rest.destination_names:
            row.dst_names = tables.names.intern(tuple(rest.destination_names))
            rest.ClearField("destination_names")
        if rest.HasField("source_service"):
            row.src_svc = tables.services.intern(Service(rest.source_service.name, rest.source_service.namespace))
            self._clear("source_service")
        if rest.HasField("destination_service"):
            service = rest.destination_service
            row.dst_svc = tables.services.intern(Service(service.name, service.namespace))
            self._clear("destination_service")
        if rest.HasField("interface"):
            row.iface = tables.ifaces.intern(Interface(rest.interface.index, rest.interface.name))
            self._clear("interface")

    def _is_ours(self) -> bool:
        """Whether our encoder would say by itself what FOREIGN rows leave to aux."""
        row, rest = self._row, self._rest
        return (
            self._uuid is not None
            and boot_and_seq(*self._uuid) is not None
            and rest.emitter.name == EMITTER
            and row.ts_ns > 0
            and not rest.HasField("time")
            and rest.drop_reason == row.drop_reason
            and rest.reply == (row.is_reply == Reply.TRUE)
            and (self._macs is not None or not rest.HasField("ethernet"))
            and (not ip_version(rest.IP) or (is_address(rest.IP.source) and is_address(rest.IP.destination)))
        )

    def _take_addresses(self, *, zero_is_known: bool) -> None:
        if not self._rest.HasField("IP"):
            return
        row, ip = self._row, self._rest.IP
        version = ip_version(ip)
        source, destination = address_halves(ip.source, version), address_halves(ip.destination, version)
        # A foreign row's 0 says nothing, and other spellings override what the row says.
        if source is not None:
            row.src_ip_hi, row.src_ip_lo = source
            if version and (any(source) or zero_is_known) and address_text(*source, version) == ip.source:
                ip.ClearField("source")
        if destination is not None:
            row.dst_ip_hi, row.dst_ip_lo = destination
            if (
                version
                and (any(destination) or zero_is_known)
                and address_text(*destination, version) == ip.destination
            ):
                ip.ClearField("destination")
        if version:
            row.ip_version = version
            row.bits |= Bit.ENCRYPTED if ip.encrypted else 0
            ip.ClearField("ipVersion")
            ip.ClearField("encrypted")
            if not ip.ByteSize():
                self._rest.ClearField("IP")

    def _take_our_identity(self) -> Node | None:
        assert self._uuid is not None
        rest = self._rest
        boot, self._row.seq = boot_and_seq(*self._uuid) or (0, 0)
        node = _node(rest.node_name, rest.node_labels, boot, rest.emitter.version)
        rest.ClearField("uuid")
        rest.ClearField("reply")
        rest.ClearField("drop_reason")
        self._clear("emitter")
        self._take_macs()
        return node

    def _take_foreign_identity(self) -> Node | None:
        row = self._row
        row.bits |= Bit.FOREIGN
        if self._uuid is not None and any(self._uuid) and (self._macs is None or row.ip_version):
            # With an IP layer nobody prints MAC addresses, and they repeat; the UUID does not.
            number, row.seq = self._uuid[0].to_bytes(8, "big"), self._uuid[1]
            row.smac, row.dmac = number[:6], number[6:] + bytes(4)
            self._rest.ClearField("uuid")
        else:
            self._take_macs()
        return _node(self._rest.node_name, self._rest.node_labels, 0, "")

    def _take_macs(self) -> None:
        if self._macs is not None:
            self._row.smac, self._row.dmac = self._macs
            self._row.bits |= Bit.HAS_ETHERNET
            self._clear("ethernet")

    def _take_summary(self) -> None:
        row, rest = self._row, self._rest
        derived = summary_text(
            flow_type=row.flow_type,
            ip_version=row.ip_version,
            l4=row.l4,
            sport=row.sport,
            dport=row.dport,
            tcp_flags=row.tcp_flags,
            bits=row.bits,
            aux=rest.SerializeToString() if row.l4 > L4.SCTP else None,
        )
        if rest.Summary == derived:
            rest.ClearField("Summary")
        else:
            row.bits |= Bit.SUMMARY_IN_AUX

    def _clear(self, field: str) -> None:
        if not self._keep:
            self._rest.ClearField(field)


def _node(name: str, labels: Iterable[str], boot: int, version: str) -> Node | None:
    node = Node(name, tuple(labels), boot, version)
    return node if node != _NO_NODE else None


def _lost_draft(response: observer_pb2.GetFlowsResponse, tables: Tables) -> Draft:
    time_ns = _row_time(response.time) if response.HasField("time") else 0
    foreign = not 0 < time_ns < NO_LATER_NS
    outer = _own_outer(response, response.node_name, time_ns, foreign=foreign)
    return Draft(
        kind=Kind.LOST,
        ts_ns=time_ns,
        bits=Bit.FOREIGN if foreign else 0,
        node=tables.nodes.intern(Node(response.node_name)) if response.node_name else 0,
        aux=tables.aux.intern(outer + _serialised(response.lost_events)),
    )


def _own_outer(response: observer_pb2.GetFlowsResponse, node_name: str, time_ns: int, *, foreign: bool) -> bytes:
    """What goes before an aux entry when node and time of the response are not those that an encoder puts there."""
    usual = observer_pb2.GetFlowsResponse(node_name=node_name)
    if not foreign or 0 < time_ns < NO_LATER_NS:
        usual.time.seconds, usual.time.nanos = divmod(time_ns, NS_PER_S)
        usual.time.SetInParent()
    own = observer_pb2.GetFlowsResponse(node_name=response.node_name)
    if response.HasField("time"):
        own.time.CopyFrom(response.time)
    if own == usual:
        return b""
    return wire.message(OUTER_TAG, own.SerializeToString(deterministic=True))


def _serialised(event: flow_pb2.Flow | flow_pb2.LostEvent) -> bytes:
    value: bytes = event.SerializeToString(deterministic=True)
    if value.startswith(OUTER_TAG):
        # A field of that number that is not ours would be taken for it.
        event.DiscardUnknownFields()
        value = event.SerializeToString(deterministic=True)
    return value


def _row_time(time: Any) -> int:
    """ts_ns for a google.protobuf.Timestamp: 0 or NO_LATER_NS when the row cannot hold it."""
    if not 0 <= time.nanos < NS_PER_S:
        return 0
    return min(max(int(time.seconds) * NS_PER_S + int(time.nanos), 0), NO_LATER_NS)


def ip_version(ip: flow_pb2.IP) -> int:
    """What a row says as ip_version."""
    return int(ip.ipVersion) if ip.ipVersion in (IPV4, IPV6) else 0


def is_address(text: str) -> bool:
    """Whether it is the text of an address, in any spelling."""
    return parse_address_text(text) is not None


def address_halves(text: str, version: int) -> tuple[int, int] | None:
    """A row's two halves for an address in a packet of that IP version (0: not said)."""
    parsed = parse_address_text(text) if text else None
    if parsed is None:
        return None
    family, high, low = parsed
    if family == IPV4 and version == IPV6:
        return 0, _MAPPED_PREFIX | low
    if family == IPV6 and version == IPV4:
        return None
    return high, low


def _parsed_macs(ethernet: flow_pb2.Ethernet) -> tuple[bytes, bytes] | None:
    source, destination = parse_mac(ethernet.source), parse_mac(ethernet.destination)
    return None if source is None or destination is None else (source, destination)


_READERS: Final[WeakKeyDictionary[Tables, Any]] = WeakKeyDictionary()
"""What `rows_from_wire` remembers about messages, as long as the tables live."""
