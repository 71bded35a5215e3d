"""Whole batches of rows as JSON lines.

In:        rows and their tables.
Out:       one text, a GetFlowsResponse per line, the same as tojson.py makes of the messages one by one.
Elsewhere: rows.py for the other outputs; pieces.py keeps the texts that rows share; model/encode.py says which message
           a row stands for.

A line is cut into pieces that depend on few fields each, so that each piece has few distinct texts, however many
combinations there are. Every piece brings the comma in front of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.address_text import address_text, mac_text
from model.flow_id import UUID_CHARS, uuid_bytes, uuid_halves
from model.flow_parts import EMITTER, OUTER_TAG
from model.row import L4, Bit, Reply, Rows, TcpFlag
from model.row_values import RowValues, row_values
from model.summary import summary_text
from model.tables import Tables
from model.text.flows import Look
from model.text.pieces import Column, TextByIndex, TextByKey, join_lines, number_texts
from model.text.rows import AuxKinds, Contradiction, SlowRows, flows_and_gaps
from model.text.times import json_time
from model.text.tojson import fields_json, json_text, to_json
from model.whole_rows import take
from proto.flow import flow_pb2

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

CHUNK: Final = 2_048
"""Rows handled at once: 4 MB of text, which the processor's cache still holds when it is written."""

LARGEST_ENUM: Final = (1 << 31) - 1

_AUX_PIECES: Final[tuple[tuple[str, ...], ...]] = (
    ("emitter",),
    ("drop_reason", "auth_type"),
    ("IP",),
    ("l4",),
    ("tunnel",),
    ("l7",),
    ("reply",),
    ("file", "ip_trace_id"),
    ("debug_capture_point",),
    ("trace_context", "sock_xlate_point", "socket_cookie", "cgroup_id"),
    ("Summary",),
    (
        "extensions",
        "egress_allowed_by",
        "ingress_allowed_by",
        "egress_denied_by",
        "ingress_denied_by",
        "policy_log",
        "aggregate",
    ),
)
"""What may stand in aux without contradicting the row, cut where fields of the row stand between."""

_PIECE_OF: Final = {name: piece for piece, names in enumerate(_AUX_PIECES) for name in names}
_NAMES: Final = [field.name for field in flow_pb2.Flow.DESCRIPTOR.fields]

# Words of a row, as laid out in row.py (little endian).
_NAMES_WORD, _SERVICES_WORD = 7, 8

_SUMMARY_BITS: Final = Bit.HAS_TCP_FLAGS | Bit.SUMMARY_IN_AUX | Bit.HAS_ETHERNET


class RowJson:
    """Makes JSON lines of rows that point into one set of tables."""

    def __init__(self, look: Look, tables: Tables) -> None:
        self._tables = tables
        self._times = json_time()
        self._sources = TextByIndex(lambda index: (self._endpoint("source", index),))
        self._destinations = TextByIndex(lambda index: (self._endpoint("destination", index),))
        self._nodes = TextByIndex(self._node_texts, texts=3)
        self._ifaces = TextByIndex(lambda index: (self._iface(index),))
        self._auxes = TextByIndex(self._aux_texts, texts=len(_AUX_PIECES))
        self._macs = TextByKey(words=2, texts=1)
        self._addresses = TextByKey(words=3, texts=1)
        self._layers = TextByKey(words=2, texts=3)
        self._verdicts = TextByKey(words=1, texts=1)
        self._names = TextByKey(words=1, texts=1)
        self._events = TextByKey(words=2, texts=2)
        self._services = TextByKey(words=1, texts=1)
        self._points = TextByKey(words=1, texts=1)
        self._reasons = TextByKey(words=1, texts=1)
        self._proxy_ports = TextByKey(words=1, texts=1)
        self._summaries = TextByKey(words=2, texts=1)
        self._aux_kinds = AuxKinds(tables, _contradiction)
        self._slow = SlowRows(look, tables, masked=False)

    def text(self, rows: Rows) -> str:
        """The lines of all flows and gaps."""
        return "".join(self.texts(rows))

    def texts(self, rows: Rows) -> Iterator[str]:
        """The same in parts, each to be written before the next is made."""
        rows = flows_and_gaps(rows)
        for start in range(0, len(rows), CHUNK):
            yield self._chunk(rows[start : start + CHUNK])

    def _chunk(self, rows: Rows) -> str:
        high, low = uuid_halves(rows, self._tables)
        slow = self._aux_kinds.contradicting(rows) | ((high | low) == 0) | _lacks_address(rows)
        replaced = self._slow.texts(rows, slow)
        if len(replaced) == len(rows):
            return "".join(replaced.values())
        if replaced:
            fast = ~slow
            return join_lines(self._columns(take(rows, fast), high[fast], low[fast]), len(rows), replaced)
        return join_lines(self._columns(rows, high, low), len(rows), replaced)

    def _columns(self, rows: Rows, high: U64, low: U64) -> list[Column | str]:
        times = self._times.columns(np.maximum(rows["ts_ns"], 0))
        foreign = (rows["bits"] & Bit.FOREIGN) != 0
        emitters, labels, outer = self._nodes.take(rows["node"])
        if foreign.any():
            emitters[foreign] = ""
        aux: Sequence[Column | str] = [""] * len(_AUX_PIECES)
        if rows["aux"].any():
            aux = self._auxes.take(rows["aux"])
        before, after = self._event_texts(rows, foreign)
        return [
            '{"flow":{"time":"',
            *times,
            '","uuid":"',
            _uuid_texts(high, low),
            '"',
            emitters,
            aux[0],
            self._verdict_texts(rows, foreign),
            aux[1],
            self._mac_texts(rows),
            self._address_texts(rows, "src"),
            aux[2],
            self._address_texts(rows, "dst"),
            *self._layer_texts(rows),
            aux[3],
            aux[4],
            *self._sources.take(rows["src"]),
            *self._destinations.take(rows["dst"]),
            before,
            labels,
            self._name_texts(rows),
            aux[5],
            aux[6],
            after,
            self._service_texts(rows),
            self._point_texts(rows),
            aux[7],
            self._reason_texts(rows),
            aux[8],
            *self._ifaces.take(rows["iface"]),
            self._proxy_texts(rows),
            aux[9],
            self._summary_texts(rows),
            aux[10],
            aux[11],
            outer,
            *times,
            '"}\n',
        ]

    # By table index.

    def _endpoint(self, name: str, index: int) -> str:
        value = self._tables.endpoints[index]
        return "" if value is None else f',"{name}":{to_json(flow_pb2.Endpoint.FromString(value))}'

    def _node_texts(self, index: int) -> tuple[str, str, str]:
        """Emitter, name with labels, and the end of the flow with the name once more."""
        node = self._tables.nodes[index]
        emitter = flow_pb2.Flow(emitter=flow_pb2.Emitter(name=EMITTER, version=node.version if node else ""))
        if node is None:
            return _fields(emitter), "", '},"time":"'
        outer = f'}},"node_name":{json_text(node.name)},"time":"' if node.name else '},"time":"'
        return _fields(emitter), _fields(flow_pb2.Flow(node_name=node.name, node_labels=node.labels)), outer

    def _iface(self, index: int) -> str:
        iface = self._tables.ifaces[index]
        if iface is None:
            return ""
        return _fields(flow_pb2.Flow(interface=flow_pb2.NetworkInterface(index=iface.index, name=iface.name)))

    def _aux_texts(self, index: int) -> Sequence[str]:
        flow = flow_pb2.Flow.FromString(self._tables.aux[index] or b"")
        texts = [""] * len(_AUX_PIECES)
        for place, text in fields_json(flow):
            name = _NAMES[place]
            if name == "IP":
                translated = flow.IP.source_xlated
                text = f'"source_xlated":{json_text(translated)}' if translated else ""
            # What contradicts its rows is never asked for.
            if text and name in _PIECE_OF:
                texts[_PIECE_OF[name]] += "," + text
        return texts

    # By key.

    def _verdict_texts(self, rows: Rows, foreign: Bools) -> Column:
        keys = rows["verdict"].astype(np.uint64) | rows["drop_reason"].astype(np.uint64) << np.uint64(8)
        keys |= foreign.astype(np.uint64) << np.uint64(40)

        def make(row: RowValues) -> str:
            flow = _with_enum(flow_pb2.Flow(), "verdict", row.verdict)
            if not row.bits & Bit.FOREIGN:
                flow.drop_reason = row.drop_reason
            return _fields(flow)

        return _take(self._verdicts, keys, rows, make)

    def _mac_texts(self, rows: Rows) -> Column:
        macs = np.zeros((len(rows), 16), np.uint8)
        macs[:, :6], macs[:, 8:14] = rows["smac"], rows["dmac"]
        macs[:, 15] = 1
        macs[(rows["bits"] & Bit.HAS_ETHERNET) == 0] = 0

        def make(row: RowValues) -> str:
            if not row.bits & Bit.HAS_ETHERNET:
                return ""
            return f',"ethernet":{{"source":"{mac_text(bytes(row.smac))}","destination":"{mac_text(bytes(row.dmac))}"}}'

        return _take(self._macs, macs.view(np.uint64), rows, make)

    def _address_texts(self, rows: Rows, side: str) -> Column:
        """`,"IP":{"source":"..."`, or `,"destination":"...",...}`."""
        keys = np.empty((len(rows), 3), np.uint64)
        keys[:, 0] = rows[f"{side}_ip_hi"]
        keys[:, 1] = rows[f"{side}_ip_lo"]
        keys[:, 2] = rows["ip_version"].astype(np.uint64) | np.uint64(256 if side == "src" else 512)
        if side == "dst":
            keys[:, 2] |= (rows["bits"] & Bit.ENCRYPTED).astype(np.uint64) << np.uint64(16)
        keys[rows["ip_version"] == 0] = 0
        return _take(self._addresses, keys, rows, _source_address if side == "src" else _destination_address)

    def _layer_texts(self, rows: Rows) -> list[Column]:
        """`,"l4":{...}`, around the ports."""
        l4 = rows["l4"]
        icmp = (l4 == L4.ICMPV4) | (l4 == L4.ICMPV6)
        has_ports = (l4 == L4.TCP) | (l4 == L4.UDP) | (l4 == L4.SCTP)
        sport, dport = rows["sport"], rows["dport"]
        keys = np.empty((len(rows), 2), np.uint64)
        keys[:, 0] = l4.astype(np.uint64) | (rows["tcp_flags"].astype(np.uint64) << np.uint64(16))
        keys[:, 0] |= (rows["bits"] & Bit.HAS_TCP_FLAGS).astype(np.uint64) << np.uint64(32)
        keys[:, 1] = np.where(icmp, sport, sport != 0)
        keys[:, 1] |= np.where(icmp, dport, dport != 0).astype(np.uint64) << np.uint64(16)
        before, between, behind = self._layers.take(keys, lambda new: (_layer(row_values(row)) for row in rows[new]))
        sources, destinations = (number_texts(np.where(has_ports, ports, 0)) for ports in (sport, dport))
        return [before, sources, between, destinations, behind]

    def _name_texts(self, rows: Rows) -> Column:
        def make(row: RowValues) -> str:
            names = self._tables.names
            flow = flow_pb2.Flow(source_names=names[row.src_names] or (), destination_names=names[row.dst_names] or ())
            return _fields(flow)

        return _take(self._names, _word(rows, _NAMES_WORD), rows, make)

    def _event_texts(self, rows: Rows, foreign: Bools) -> list[Column]:
        """Type; and behind labels and names, `reply` with the event type."""
        keys = np.empty((len(rows), 2), np.uint64)
        keys[:, 0] = rows["event_type"].astype(np.uint32)
        keys[:, 0] |= rows["sub_type"].astype(np.uint32).astype(np.uint64) << np.uint64(32)
        keys[:, 1] = (rows["bits"] & Bit.HAS_EVENT_TYPE).astype(np.uint64) | foreign.astype(np.uint64) << np.uint64(16)
        keys[:, 1] |= rows["flow_type"].astype(np.uint64) << np.uint64(24)
        keys[:, 1] |= rows["is_reply"].astype(np.uint64) << np.uint64(32)

        def make(row: RowValues) -> tuple[str, str]:
            flow = flow_pb2.Flow(reply=row.is_reply == Reply.TRUE and not row.bits & Bit.FOREIGN)
            if row.bits & Bit.HAS_EVENT_TYPE:
                flow.event_type.SetInParent()
                flow.event_type.type, flow.event_type.sub_type = row.event_type, row.sub_type
            return _fields(_with_enum(flow_pb2.Flow(), "Type", row.flow_type)), _fields(flow)

        return self._events.take(keys, lambda new: (make(row_values(row)) for row in rows[new]))

    def _service_texts(self, rows: Rows) -> Column:
        def make(row: RowValues) -> str:
            flow = flow_pb2.Flow()
            for index, target in ((row.src_svc, flow.source_service), (row.dst_svc, flow.destination_service)):
                service = self._tables.services[index]
                if service is not None:
                    target.SetInParent()
                    target.name, target.namespace = service.name, service.namespace
            return _fields(flow)

        return _take(self._services, _word(rows, _SERVICES_WORD), rows, make)

    def _point_texts(self, rows: Rows) -> Column:
        keys = rows["direction"].astype(np.uint64)
        for shift, field in ((8, "match_type"), (16, "obs_point"), (24, "trace_reason")):
            keys |= rows[field].astype(np.uint64) << np.uint64(shift)

        def make(row: RowValues) -> str:
            flow = flow_pb2.Flow(policy_match_type=row.match_type)
            _with_enum(flow, "traffic_direction", row.direction)
            _with_enum(flow, "trace_observation_point", row.obs_point)
            return _fields(_with_enum(flow, "trace_reason", row.trace_reason))

        return _take(self._points, keys, rows, make)

    def _reason_texts(self, rows: Rows) -> Column:
        keys = rows["drop_reason"].astype(np.uint64) | rows["is_reply"].astype(np.uint64) << np.uint64(32)

        def make(row: RowValues) -> str:
            flow = _with_enum(flow_pb2.Flow(), "drop_reason_desc", min(row.drop_reason, LARGEST_ENUM))
            if row.is_reply != Reply.ABSENT:
                flow.is_reply.value = row.is_reply == Reply.TRUE
            return _fields(flow)

        return _take(self._reasons, keys, rows, make)

    def _proxy_texts(self, rows: Rows) -> Column | str:
        ports = rows["proxy_port"]
        if not ports.any():
            return ""
        return _take(
            self._proxy_ports,
            ports.astype(np.uint64),
            rows,
            lambda row: f',"proxy_port":{row.proxy_port}' if row.proxy_port else "",
        )

    def _summary_texts(self, rows: Rows) -> Column:
        """Those that are derived from the layers; empty where the text stands in aux."""
        l4, in_aux = rows["l4"], (rows["bits"] & Bit.SUMMARY_IN_AUX) != 0
        icmp = (l4 == L4.ICMPV4) | (l4 == L4.ICMPV6)
        keys = np.empty((len(rows), 2), np.uint64)
        keys[:, 0] = np.where((l4 == L4.VRRP) | (l4 == L4.IGMP), rows["aux"], 0)
        keys[:, 0] |= np.where(icmp, rows["sport"], rows["tcp_flags"]).astype(np.uint64) << np.uint64(32)
        keys[:, 0] |= np.where(icmp, rows["dport"], 0).astype(np.uint64) << np.uint64(48)
        keys[:, 1] = (rows["bits"] & _SUMMARY_BITS).astype(np.uint64) | l4.astype(np.uint64) << np.uint64(16)
        keys[:, 1] |= rows["ip_version"].astype(np.uint64) << np.uint64(24)
        keys[:, 1] |= rows["flow_type"].astype(np.uint64) << np.uint64(32)
        if in_aux.any():
            keys[in_aux] = 0
            keys[in_aux, 1] = int(Bit.SUMMARY_IN_AUX)

        def make(row: RowValues) -> str:
            if row.bits & Bit.SUMMARY_IN_AUX:
                return ""
            text = summary_text(
                flow_type=row.flow_type,
                ip_version=row.ip_version,
                l4=row.l4,
                sport=row.sport,
                dport=row.dport,
                tcp_flags=row.tcp_flags,
                bits=row.bits,
                aux=self._tables.aux[row.aux],
            )
            return f',"Summary":{json_text(text)}' if text else ""

        return _take(self._summaries, keys, rows, make)


def _take(texts: TextByKey, keys: U64, rows: Rows, make: Any) -> Column:
    keys = keys.reshape(len(rows), -1)
    (column,) = texts.take(keys, lambda new: ((make(row_values(row)),) for row in rows[new]))
    return column


def _word(rows: Rows, word: int) -> U64:
    words: U64 = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), -1)[:, word]
    return words


def _fields(flow: flow_pb2.Flow) -> str:
    return "".join(["," + text for _, text in fields_json(flow)])


def _with_enum(flow: flow_pb2.Flow, name: str, number: int) -> flow_pb2.Flow:
    # The enums are open: numbers without a name are shown as numbers.
    setattr(flow, name, number)
    return flow


def _source_address(row: RowValues) -> str:
    if not row.ip_version:
        return ""
    return f',"IP":{{"source":"{address_text(row.src_ip_hi, row.src_ip_lo, row.ip_version)}"'


def _destination_address(row: RowValues) -> str:
    if not row.ip_version:
        return ""
    ip = flow_pb2.IP(encrypted=bool(row.bits & Bit.ENCRYPTED))
    ip.ipVersion = row.ip_version  # type: ignore[assignment]
    rest = "".join(["," + text for _, text in fields_json(ip)])
    return f',"destination":"{address_text(row.dst_ip_hi, row.dst_ip_lo, row.ip_version)}"{rest}}}'


def _layer(row: RowValues) -> tuple[str, str, str]:
    """`,"l4":{...}` before, between and behind the two ports."""
    if row.l4 in (L4.ICMPV4, L4.ICMPV6):
        layer = flow_pb2.Layer4()
        icmp = layer.ICMPv4 if row.l4 == L4.ICMPV4 else layer.ICMPv6
        icmp.SetInParent()
        icmp.type, icmp.code = row.sport, row.dport
        return f',"l4":{to_json(layer)}', "", ""
    if row.l4 not in (L4.TCP, L4.UDP, L4.SCTP):
        return "", "", ""
    flags = ""
    if row.l4 == L4.TCP and row.bits & Bit.HAS_TCP_FLAGS:
        flags = '"flags":' + to_json(flow_pb2.TCPFlags(**{flag.name: bool(row.tcp_flags & flag) for flag in TcpFlag}))
    source = '"source_port":' if row.sport else ""
    destination = '"destination_port":' if row.dport else ""
    between = ("," if source and destination else "") + destination
    behind = ("," if (source or destination) and flags else "") + flags
    return f',"l4":{{"{L4(row.l4).name}":{{{source}', between, behind + "}}"


def _contradiction(aux: bytes) -> Contradiction:
    if aux.startswith(OUTER_TAG):
        return Contradiction.ROW
    found = Contradiction.NONE
    for field, value in flow_pb2.Flow.FromString(aux).ListFields():
        if field.name not in _PIECE_OF:
            return Contradiction.ROW
        if field.name == "IP":
            found = Contradiction.IP
            if any(inner.name != "source_xlated" for inner, _ in value.ListFields()):
                return Contradiction.ROW
        if field.name == "l4" and value.WhichOneof("protocol") not in ("VRRP", "IGMP"):
            return Contradiction.ROW
    return found


def _lacks_address(rows: Rows) -> Bools:
    """Foreign flows with an IP layer that does not say both ends."""
    lacking: Bools = (rows["src_ip_hi"] | rows["src_ip_lo"]) == 0
    lacking |= (rows["dst_ip_hi"] | rows["dst_ip_lo"]) == 0
    lacking &= ((rows["bits"] & Bit.FOREIGN) != 0) & (rows["ip_version"] != 0)
    return lacking


def _uuid_texts(high: U64, low: U64) -> Column:
    texts = uuid_bytes(high, low).view(f"S{UUID_CHARS}").ravel()
    column: Column = texts.astype(f"U{UUID_CHARS}").astype(object)
    return column
