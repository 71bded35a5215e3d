"""From rows to the messages of GetFlows, batch by batch.

In:        rows in any order, their tables, the mask of the request.
Out:       GetFlowsResponse messages, each behind its gRPC header, one behind the other: ready to be written.
Elsewhere: flow_parts.py makes the parts of messages; ingest.py is the way back; rpc/ writes the bytes.

A message is a head and seven parts that many flows share: names, event, aux, both addresses, both endpoints. Each
distinct part is made once and kept; a batch is their concatenation in the order of the rows, and then numpy writes what
differs from flow to flow (lengths, times, UUID, ports, MAC addresses) over the heads. So the cost of a flow hardly
depends on how many different flows there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from model import wire
from model.flow_id import hex_digits, uuid_bytes, uuid_halves, uuid_tail_bytes
from model.flow_parts import (
    LENGTH_WIDTH,
    MAC_CHARS,
    PORT_WIDTH,
    SECOND_NUMBER,
    SECOND_TEXT,
    SECONDS_WIDTH,
    FlowParts,
    HeadFlag,
    Slot,
)
from model.mask import FieldMask
from model.pieces import EMPTY, ByIndex, ByKey, PieceStore
from model.row import L4, NO_LATER_NS, ROW, Bit, Kind, Rows
from model.row_values import row_values
from model.tables import Tables
from model.whole_rows import take
from proto.flow import flow_pb2
from proto.observer import observer_pb2

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

PIECE_BYTES: Final = 16 << 20
"""Default bound of the parts that one encoder keeps."""
NS_PER_S: Final = 1_000_000_000

_CHUNK: Final = 8192
"""Rows whose parts are looked up at once, between two looks at the memory for parts."""

_WORDS: Final = ROW.itemsize // 8
_OFFSETS: Final[dict[str, int]] = {name: field[1] for name, field in (ROW.fields or {}).items()}
_NAMES_WORD, _SERVICES_WORD, _PLACE_WORD, _EVENT_WORD, _REASON_WORD, _PORTS_WORD, _BITS_WORD, _KIND_WORD, _LAST_WORD = (
    _OFFSETS[name] // 8
    for name in ("src_names", "src_svc", "iface", "event_type", "sub_type", "sport", "bits", "kind", "verdict")
)
_LOW: Final = np.uint64(0xFFFF_FFFF)
_EVENT_BITS: Final = np.uint64(
    Bit.HAS_ETHERNET | Bit.HAS_TCP_FLAGS | Bit.HAS_EVENT_TYPE | Bit.SUMMARY_IN_AUX | Bit.FOREIGN
)
_KIND_BITS: Final = np.uint64(0xFFFF << 48)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Messages one behind the other, each behind its gRPC header."""

    buffer: bytearray
    ends: I64
    """ends[i]: where the message of row i ends. Equal to the one before for rows that have none."""

    def __len__(self) -> int:
        return len(self.ends)

    def payload(self, index: int) -> bytes:
        """The message of one row without its header; b"" where it has none."""
        start = int(self.ends[index - 1]) if index else 0
        return bytes(self.buffer[start + wire.GRPC_HEADER_SIZE : int(self.ends[index])])


class Encoder:
    """Encodes rows that point into one set of tables. Not thread-safe.

    `piece_bytes` bounds the memory for parts; when it is used up, all are dropped and made again as needed.
    """

    def __init__(self, tables: Tables, mask: FieldMask | None = None, *, piece_bytes: int = PIECE_BYTES) -> None:
        self._tables = tables
        self._parts = FlowParts(tables, mask)
        self._limit = piece_bytes
        self._generation = tables.generation
        self._store = PieceStore()
        self._heads = ByKey(words=2)
        self._names = ByKey(words=3)
        self._events = ByKey(words=5)
        self._addresses = ByKey(words=3)
        self._sources = ByIndex(lambda index: self._store.add(self._parts.endpoint("source", index)))
        self._destinations = ByIndex(lambda index: self._store.add(self._parts.endpoint("destination", index)))
        self._auxes = ByIndex(lambda index: self._store.add(self._parts.aux(index, with_ip=True)))
        self._auxes_without_ip = ByIndex(lambda index: self._store.add(self._parts.aux(index, with_ip=False)))
        self._aux_ips = ByIndex(lambda index: self._store.add(self._parts.aux_ip(index)))
        self._slots = SlotTable()

    def responses(self, rows: Rows) -> Encoded:
        """One GetFlowsResponse for each FLOW and LOST row, in the order of the rows; nothing for other kinds."""
        buffers, lengths = [bytearray()], [np.empty(0, np.int64)]
        done = 0
        while done < len(rows):
            buffer, sizes = self._encode_some(rows[done:])
            buffers.append(buffer)
            lengths.append(sizes)
            done += len(sizes)
        # One buffer is the rule. A copy costs more than its bytes: fresh memory from the kernel.
        whole = buffers[1] if len(buffers) == 2 else bytearray().join(buffers)
        return Encoded(whole, np.cumsum(np.concatenate(lengths)))

    def templates(self, rows: Rows) -> tuple[Encoded, list[dict[Slot, int]]]:
        """As `responses`, and where the slots of each message begin; encode_few.py writes over them. For few rows."""
        self._refresh()
        pieces = self._pieces(np.ascontiguousarray(rows))
        buffer, sizes = self._assemble(rows, pieces)
        marks = self._store.marks[pieces[:, _HEAD]].tolist()
        return Encoded(buffer, np.cumsum(sizes)), [self._slots.arrangement(mark) for mark in marks]

    def flows(self, rows: Rows) -> list[flow_pb2.Flow]:
        """The FLOW rows as messages, for where speed does not matter."""
        encoded = self.responses(take(rows, rows["kind"] == Kind.FLOW))
        return [observer_pb2.GetFlowsResponse.FromString(encoded.payload(i)).flow for i in range(len(encoded))]

    def _encode_some(self, rows: Rows) -> tuple[bytearray, I64]:
        """Messages of the first rows, as many as the memory for parts suffices for, at least a chunk; their sizes."""
        self._refresh()
        pieces: list[I64] = []
        for start in range(0, len(rows), _CHUNK):
            if pieces and self._store.bytes > self._limit:
                break
            pieces.append(self._pieces(np.ascontiguousarray(rows[start : start + _CHUNK])))
        found = np.concatenate(pieces)
        return self._assemble(rows[: len(found)], found)

    def _pieces(self, rows: Rows) -> I64:
        """The numbers of the pieces of each message, in their order: (n, _PIECES)."""
        is_flow = rows["kind"] == Kind.FLOW
        pieces = np.full((len(rows), _PIECES), EMPTY, np.int64)
        pieces[:, _HEAD] = self._head_pieces(rows)
        if is_flow.all():
            self._find_shared(rows, pieces)
        else:
            of_flows = pieces[is_flow]
            self._find_shared(take(rows, is_flow), of_flows)
            pieces[is_flow] = of_flows
        return pieces

    def _assemble(self, rows: Rows, pieces: I64) -> tuple[bytearray, I64]:
        """Messages and their sizes."""
        lengths = self._store.lengths[pieces]
        sizes: I64 = lengths.sum(axis=1)
        starts = np.cumsum(sizes) - sizes
        buffer = self._store.join(pieces)
        slots = SlotWriter(buffer)
        ip_sizes: I64 = lengths[:, _SOURCE_ADDRESS] + lengths[:, _DESTINATION_ADDRESS] + lengths[:, _AUX_IP]
        values = SlotValues(rows, self._tables, sizes, ip_sizes)
        for slot, offsets in self._slots.of(self._store.marks[pieces[:, _HEAD]]):
            slots.write(starts + offsets, values.of(slot, offsets), offsets >= 0)
        return buffer, sizes

    def _head_pieces(self, rows: Rows) -> I64:
        bits, l4 = rows["bits"], rows["l4"]
        foreign = (bits & Bit.FOREIGN) != 0
        flags = np.full(len(rows), HeadFlag.HAS_TIME, np.uint64)
        if foreign.any():
            flags[foreign] = _foreign_flags(take(rows, foreign))
        icmp = (l4 == L4.ICMPV4) | (l4 == L4.ICMPV6)
        keys = np.empty((len(rows), 2), np.uint64)
        keys[:, 0] = np.where(foreign | (rows["kind"] == Kind.LOST), rows["aux"], 0)
        keys[:, 0] |= rows["node"].astype(np.uint64) << np.uint64(32)
        keys[:, 1] = flags | (bits & _HEAD_BITS).astype(np.uint64) << np.uint64(2)
        for shift, field in (
            (8, rows["kind"]),
            (10, l4),
            (18, rows["tcp_flags"] & _TCP_FLAG_BITS),
            (27, rows["ip_version"] != 0),
        ):
            keys[:, 1] |= field.astype(np.uint64) << np.uint64(shift)
        keys[:, 1] |= np.where(icmp, rows["sport"], 0).astype(np.uint64) << np.uint64(32)
        keys[:, 1] |= np.where(icmp, rows["dport"], 0).astype(np.uint64) << np.uint64(48)

        def make(at: int) -> int:
            head = self._parts.head(row_values(rows[at]), int(flags[at]))
            return self._store.add(head.data, self._slots.add(head.slots))

        return self._heads.pieces(keys, make)

    def _find_shared(self, rows: Rows, pieces: I64) -> None:
        """Fill in what stands behind the head, for FLOW rows."""
        has_ip = rows["ip_version"] != 0
        pieces[:, _NAMES] = self._name_pieces(rows)
        pieces[:, _EVENT] = self._event_pieces(rows)
        if self._parts.asks_ip and has_ip.any():
            pieces[:, _SOURCE_ADDRESS], pieces[:, _DESTINATION_ADDRESS] = self._address_pieces(rows)
            pieces[has_ip, _AUX_IP] = self._aux_ips.pieces(rows["aux"][has_ip])
            pieces[has_ip, _AUX] = self._auxes_without_ip.pieces(rows["aux"][has_ip])
            pieces[~has_ip, _AUX] = self._auxes.pieces(rows["aux"][~has_ip])
        else:
            pieces[:, _AUX] = self._auxes.pieces(rows["aux"])
        pieces[:, _SOURCE] = self._sources.pieces(rows["src"])
        pieces[:, _DESTINATION] = self._destinations.pieces(rows["dst"])

    def _name_pieces(self, rows: Rows) -> I64:
        keys = np.ascontiguousarray(_words(rows)[:, _NAMES_WORD : _PLACE_WORD + 1])
        return self._names.pieces(keys, lambda at: self._store.add(self._parts.names(row_values(rows[at]))))

    def _event_pieces(self, rows: Rows) -> I64:
        words, l4 = _words(rows), rows["l4"]
        keys = np.empty((len(rows), 5), np.uint64)
        # Aux is the lower half of this word; only the summaries of these layers depend on it.
        keys[:, 0] = np.where(l4 > L4.SCTP, words[:, _EVENT_WORD], words[:, _EVENT_WORD] & ~_LOW)
        keys[:, 1] = words[:, _REASON_WORD]
        # Ports are the lower half; of ICMP they are type and code, and stand in the summary.
        icmp = (l4 == L4.ICMPV4) | (l4 == L4.ICMPV6)
        keys[:, 2] = np.where(icmp, words[:, _PORTS_WORD], words[:, _PORTS_WORD] & ~_LOW)
        keys[:, 3] = (words[:, _BITS_WORD] & _EVENT_BITS) | (words[:, _KIND_WORD] & _KIND_BITS)
        keys[:, 4] = words[:, _LAST_WORD]
        return self._events.pieces(keys, lambda at: self._store.add(self._parts.event(row_values(rows[at]))))

    def _address_pieces(self, rows: Rows) -> I64:
        """Numbers of the pieces of source and destination address: (2, n)."""
        count, parts = len(rows), self._parts
        version = rows["ip_version"].astype(np.uint64)
        encrypted = (rows["bits"] & Bit.ENCRYPTED != 0).astype(np.uint64)
        foreign = (rows["bits"] & Bit.FOREIGN) != 0
        keys = np.empty((2, count, 3), np.uint64)
        for side, name in enumerate(("src", "dst")):
            keys[side, :, 0] = rows[f"{name}_ip_hi"]
            keys[side, :, 1] = rows[f"{name}_ip_lo"]
        unknown = foreign & ((keys[:, :, 0] | keys[:, :, 1]) == 0)
        keys[0, :, 2] = version | unknown[0].astype(np.uint64) << np.uint64(8)
        keys[1, :, 2] = version | unknown[1].astype(np.uint64) << np.uint64(8) | encrypted << np.uint64(9)
        keys[1, :, 2] |= np.uint64(1 << 10)

        def make(at: int) -> int:
            side, row = divmod(at, count)
            high, low = int(keys[side, row, 0]), int(keys[side, row, 1])
            number, known = int(version[row]), not unknown[side, row]
            if side == 0:
                return self._store.add(parts.source_address(high, low, number) if known else b"")
            address = parts.destination_address(high, low, number) if known else b""
            return self._store.add(address + parts.ip_rest(number, bool(encrypted[row])))

        pieces = self._addresses.pieces(keys.reshape(2 * count, 3), make).reshape(2, count)
        pieces[:, version == 0] = EMPTY
        return pieces

    def _refresh(self) -> None:
        """Forget what was made from indices that now mean something else, and what takes too much memory."""
        if self._generation != self._tables.generation or self._store.bytes > self._limit:
            self._generation = self._tables.generation
            self._drop_pieces()

    def _drop_pieces(self) -> None:
        self._store.clear()
        self._slots.clear()
        for cache in (self._heads, self._names, self._events, self._addresses):
            cache.clear()
        for table in (self._sources, self._destinations, self._auxes, self._auxes_without_ip, self._aux_ips):
            table.clear()


_PIECES: Final = 9
"""A message, piece by piece. Aux comes last: where it differs from the row it is right, and the last one counts."""
_HEAD, _SOURCE_ADDRESS, _DESTINATION_ADDRESS, _AUX_IP, _SOURCE, _DESTINATION, _NAMES, _EVENT, _AUX = range(_PIECES)
_HEAD_BITS: Final = Bit.HAS_ETHERNET | Bit.HAS_TCP_FLAGS | Bit.FOREIGN
_TCP_FLAG_BITS: Final = 0x1FF


class SlotTable:
    """Offsets of slots, for every distinct arrangement of them."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all arrangements."""
        self._numbers: dict[tuple[tuple[Slot, int], ...], int] = {}
        self._offsets: dict[Slot, I64] = {}

    def add(self, slots: dict[Slot, int]) -> int:
        """The number of an arrangement."""
        arrangement = tuple(slots.items())
        number = self._numbers.setdefault(arrangement, len(self._numbers))
        for slot in Slot:
            offsets = self._offsets.get(slot, np.empty(0, np.int64))
            if number >= len(offsets):
                offsets = np.concatenate([offsets, np.full(number + 1, -1, np.int64)])
            offsets[number] = slots.get(slot, -1)
            self._offsets[slot] = offsets
        return number

    def arrangement(self, number: int) -> dict[Slot, int]:
        """The slots of one arrangement, with their offsets."""
        return {slot: int(offsets[number]) for slot, offsets in self._offsets.items() if offsets[number] >= 0}

    def of(self, numbers: I64) -> list[tuple[Slot, I64]]:
        """The slots that rows with these arrangements have, with their offsets; -1 for rows without."""
        used = [(slot, offsets[numbers]) for slot, offsets in self._offsets.items() if (offsets >= 0).any()]
        return [(slot, offsets) for slot, offsets in used if (offsets >= 0).any()]


class SlotWriter:
    """Writes items of some bytes at many places of a buffer."""

    def __init__(self, buffer: bytearray) -> None:
        self._buffer = buffer

    def write(self, places: I64, values: U8, where: Bools) -> None:
        """Put values (n, width) at `places`, for the rows that `where` names."""
        width = values.shape[1]
        # One item of `width` bytes at every offset of the buffer: numpy then copies items, 15 times faster than bytes.
        items: npt.NDArray[np.void] = np.ndarray(len(self._buffer) - width + 1, f"V{width}", self._buffer, strides=1)
        new = np.ascontiguousarray(values).view(f"V{width}").ravel()
        if where.all():
            items[places] = new
        else:
            items[places[where]] = new[where]


class SlotValues:
    """What is written into the slots of a batch, worked out when the first slot asks for it."""

    def __init__(self, rows: Rows, tables: Tables, sizes: I64, ip_sizes: I64) -> None:
        self._rows = rows
        self._tables = tables
        self._sizes = sizes
        self._ip_sizes = ip_sizes

    def of(self, slot: Slot, offsets: I64) -> U8:
        """The bytes of that slot for each row: (n, SLOT_WIDTHS[slot])."""
        match slot:
            case Slot.GRPC_LENGTH:
                return _big_endian(self._sizes - wire.GRPC_HEADER_SIZE)
            case Slot.FLOW_LENGTH:
                flow_start = offsets + LENGTH_WIDTH
                return wire.varints((self._sizes - flow_start).astype(np.uint64), LENGTH_WIDTH)
            case Slot.IP_LENGTH:
                return wire.varints(self._ip_sizes.astype(np.uint64), LENGTH_WIDTH)
            case Slot.TIME | Slot.OUTER_TIME:
                return self._time
            case Slot.SECONDS | Slot.OUTER_SECONDS:
                return self._time[:, :SECONDS_WIDTH]
            case Slot.NANOS | Slot.OUTER_NANOS:
                return self._time[:, -SECONDS_WIDTH:]
            case Slot.UUID:
                return uuid_bytes(*self._uuid_halves)
            case Slot.UUID_TAIL:
                return uuid_tail_bytes(self._uuid_halves[1])
            case Slot.PORTS:
                return _two_values(self._port("sport"), SECOND_NUMBER, self._port("dport"))
            case Slot.SPORT:
                return self._port("sport")
            case Slot.DPORT:
                return self._port("dport")
            case Slot.MACS:
                return _two_values(self._mac("smac"), SECOND_TEXT + bytes([MAC_CHARS]), self._mac("dmac"))
            case Slot.SMAC:
                return self._mac("smac")
            case Slot.DMAC:
                return self._mac("dmac")

    @cached_property
    def _time(self) -> U8:
        seconds, nanos = np.divmod(np.maximum(self._rows["ts_ns"], 0), NS_PER_S)
        encoded = (wire.varints(part.astype(np.uint64), SECONDS_WIDTH) for part in (seconds, nanos))
        return _two_values(next(encoded), SECOND_NUMBER, next(encoded))

    @cached_property
    def _uuid_halves(self) -> tuple[U64, U64]:
        return uuid_halves(self._rows, self._tables)

    def _port(self, field: str) -> U8:
        return wire.varints(self._rows[field].astype(np.uint64), PORT_WIDTH)

    def _mac(self, field: str) -> U8:
        text = np.full((len(self._rows), MAC_CHARS), ord(":"), np.uint8)
        digits = hex_digits(self._rows[field])
        text[:, 0::3], text[:, 1::3] = digits[:, 0::2], digits[:, 1::2]
        return text


def _words(rows: Rows) -> U64:
    return rows.view(np.uint64).reshape(-1, _WORDS)


def _foreign_flags(rows: Rows) -> U64:
    times = rows["ts_ns"]
    flags = np.where((times > 0) & (times != NO_LATER_NS), np.uint64(HeadFlag.HAS_TIME), np.uint64(0))
    has_uuid = (rows["seq"] != 0) | rows["smac"].any(axis=1) | rows["dmac"][:, :2].any(axis=1)
    has_uuid &= (rows["bits"] & Bit.HAS_ETHERNET) == 0
    flags |= np.where(has_uuid, np.uint64(HeadFlag.HAS_UUID), np.uint64(0))
    return flags


def _two_values(first: U8, between: bytes, second: U8) -> U8:
    middle = np.broadcast_to(np.frombuffer(between, np.uint8), (len(first), len(between)))
    return np.concatenate([first, middle, second], axis=1)


def _big_endian(numbers: I64) -> U8:
    return numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
