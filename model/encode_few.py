"""Messages of a few rows, for streams that trickle.

In:        a handful of rows at a time, most of them like earlier ones but for time, name and ports.
Out:       the same bytes that encode.py makes.
Elsewhere: encode.py, whose work per batch hardly depends on the number of rows: 0.2 ms that a batch of thousands does
           not feel, and a stream of five flows every five milliseconds does.

A message is remembered under the bytes of its row that do not differ from flow to flow, and written over. This takes
about 4 us per row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model.encode import Encoder
from model.flow_id import flow_uuid
from model.flow_parts import SECOND_NUMBER, Slot
from model.row import L4, ROW, Bit, Kind, Rows
from model.tables import Tables

FEW: Final = 64
"""Rows from which on encode.py is faster."""
REMEMBERED: Final = 4096
"""Messages, about 1 KB each."""

_SIZE: Final = ROW.itemsize
_FIELDS: Final = ROW.fields
assert _FIELDS is not None
_AT: Final = {name: _FIELDS[name][1] for name in ("ts_ns", "seq", "src_ip_hi", "sport", "dport", "proxy_port", "bits")}
_KIND, _L4 = _FIELDS["kind"][1], _FIELDS["l4"][1]
assert [_AT["ts_ns"], _AT["seq"], _AT["src_ip_hi"]] == [0, 8, 16]
assert [_AT["dport"], _AT["proxy_port"]] == [_AT["sport"] + 2, _AT["sport"] + 4]

_PORTS, _BEHIND_PORTS = _AT["sport"], _AT["proxy_port"]
_HAS_PORTS: Final = frozenset((L4.TCP, L4.UDP, L4.SCTP))
_TIMES: Final = (Slot.TIME, Slot.OUTER_TIME)
_WRITTEN: Final = frozenset(
    (
        *(Slot.TIME, Slot.OUTER_TIME, Slot.SECONDS, Slot.OUTER_SECONDS, Slot.NANOS, Slot.OUTER_NANOS),
        *(Slot.UUID, Slot.UUID_TAIL, Slot.PORTS, Slot.SPORT, Slot.DPORT),
    )
)
"""Slots that differ between rows of one key; the others (lengths, MACs) do not."""

NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Message:
    """One message and what differs in its next one."""

    data: bytes
    slots: tuple[tuple[Slot, int], ...]
    uuid_head: str
    """The first three groups of the uuid, and their dash."""
    uuid_low: int
    """The lower half of the uuid of sequence number 0."""


class FewEncoder:
    """Encodes through `encoder`, remembering."""

    def __init__(self, encoder: Encoder, tables: Tables) -> None:
        self._encoder = encoder
        self._tables = tables
        self._generation = tables.generation
        self._known: dict[bytes, _Message] = {}

    def responses(self, rows: Rows) -> bytes | bytearray:
        """One GetFlowsResponse behind its gRPC header for each FLOW and LOST row, one behind the other."""
        if len(rows) > FEW or not len(rows):
            return self._encoder.responses(rows).buffer
        if self._generation != self._tables.generation or len(self._known) > REMEMBERED:
            self._generation = self._tables.generation
            self._known.clear()
        data = rows.tobytes()
        parts = []
        for at in range(0, len(data), _SIZE):
            row = data[at : at + _SIZE]
            known = self._known.get(_key(row))
            if known is None:
                # The large encoder does all rows for the price of one.
                return self._learn(rows, data)
            parts.append(_written(known, row))
        return b"".join(parts)

    def _learn(self, rows: Rows, data: bytes) -> bytearray:
        encoded, arrangements = self._encoder.templates(rows)
        for number, slots in enumerate(arrangements):
            row = data[number * _SIZE : (number + 1) * _SIZE]
            if row[_KIND] != Kind.FLOW or row[_AT["bits"]] & Bit.FOREIGN or row[7] & 0x80:
                continue
            key = _key(row)
            if key not in self._known:
                start = int(encoded.ends[number - 1]) if number else 0
                uuid = flow_uuid(self._tables.nodes[int(rows["node"][number])], 0)
                self._known[key] = _Message(
                    bytes(encoded.buffer[start : int(encoded.ends[number])]),
                    tuple(one for one in slots.items() if one[0] in _WRITTEN),
                    uuid[:19],
                    int(uuid[19:].replace("-", ""), 16),
                )
        return encoded.buffer


def _key(row: bytes) -> bytes:
    return row[16:_PORTS] + row[_BEHIND_PORTS:] if row[_L4] in _HAS_PORTS else row[16:]


def _written(known: _Message, row: bytes) -> bytearray:
    """The message of a row, made of one with the same key."""
    message = bytearray(known.data)
    ts_ns, seq = int.from_bytes(row[0:8], "little"), int.from_bytes(row[8:16], "little")
    seconds, nanos = divmod(ts_ns, NS_PER_S)
    for slot, at in known.slots:
        if slot in _TIMES:
            message[at : at + 11] = _five(seconds) + SECOND_NUMBER + _five(nanos)
        elif slot is Slot.UUID_TAIL:
            digits = f"{known.uuid_low | seq:016x}"
            message[at : at + 17] = f"{digits[:4]}-{digits[4:]}".encode()
        elif slot is Slot.PORTS:
            message[at : at + 7] = (
                _three(row[_PORTS : _PORTS + 2]) + SECOND_NUMBER + _three(row[_PORTS + 2 : _BEHIND_PORTS])
            )
        elif slot is Slot.SECONDS or slot is Slot.OUTER_SECONDS:
            message[at : at + 5] = _five(seconds)
        elif slot is Slot.NANOS or slot is Slot.OUTER_NANOS:
            message[at : at + 5] = _five(nanos)
        elif slot is Slot.UUID:
            digits = f"{known.uuid_low | seq:016x}"
            message[at : at + 36] = f"{known.uuid_head}{digits[:4]}-{digits[4:]}".encode()
        elif slot is Slot.SPORT:
            message[at : at + 3] = _three(row[_PORTS : _PORTS + 2])
        else:
            message[at : at + 3] = _three(row[_PORTS + 2 : _BEHIND_PORTS])
    return message


def _five(number: int) -> bytes:
    """A padded varint of five bytes."""
    return bytes(
        (number & 127 | 128, number >> 7 & 127 | 128, number >> 14 & 127 | 128, number >> 21 & 127 | 128, number >> 28)
    )


def _three(port: bytes) -> bytes:
    """A padded varint of three bytes, of a port as it stands in a row."""
    low, high = port
    return bytes((low & 127 | 128, (low >> 7 | high << 1) & 127 | 128, high >> 6))
