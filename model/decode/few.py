"""A few events, for nodes where they trickle in.

In:        batches of a handful of events, most of them packets like earlier ones.
Out:       the same rows that decoder.py makes.
Elsewhere: columns.py, whose work per batch hardly depends on the number of events: 0.3 ms that a batch of thousands
           does not feel, and five events every five milliseconds do. event.py decodes one event, in 20 us.

A row is remembered under those bytes of its event that it shows; what remains is the time. This takes about 3 us per
event. Only the most usual packets are remembered: TCP and UDP over IPv4 or IPv6, without options but TCP's timestamps.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np

from model.decode.decoder import Decoded, Decoder
from model.decode.errors import DecodeError
from model.events import EventBatch
from model.layouts import DROP_LENGTHS, POLICY_VERDICT_LENGTH, TRACE_LENGTHS, MessageType
from model.row import ROW
from model.tables import Tables

FEW: Final = 48
"""Events from which on the columns are faster, even if half of the events are new."""
REMEMBERED: Final = 8192
"""Rows, about 400 bytes each."""

_TCP, _UDP = 6, 17
_TUNNEL_PORTS: Final = (b"\x12\xb5", b"\x17\xc1")
_ODD_FLAGS: Final[dict[int, tuple[int, int]]] = {
    MessageType.TRACE: (27, 0x0E),
    MessageType.DROP: (36, 0x0E),
    MessageType.POLICY_VERDICT: (27, 0x80),
}
"""Where the flags are, and which of them say that the packet has no Ethernet header, or is a tunnel's."""
_TIMESTAMPS: Final = b"\x01\x01\x08\x0a"
"""How TCP options begin that are two fillers and a timestamp (RFC 7323, appendix A): twelve bytes in all."""


def _headers() -> dict[tuple[int, int], int]:
    """Header lengths by message type and version. Drops below version 2 have no flags, and are left out."""
    lengths = {(int(MessageType.TRACE), version): length for version, length in TRACE_LENGTHS.items()}
    lengths |= {(int(MessageType.DROP), version): length for version, length in DROP_LENGTHS.items() if version >= 2}
    return lengths | {(int(MessageType.POLICY_VERDICT), 1): POLICY_VERDICT_LENGTH}


_HEADERS: Final = _headers()


class FewDecoder:
    """Decodes through `decoder`, remembering. Tell it (`forget`) when the decoder knows other things."""

    def __init__(self, decoder: Decoder, tables: Tables) -> None:
        self._decoder = decoder
        self._tables = tables
        self._generation = tables.generation
        self._known: dict[bytes, bytes] = {}

    def forget(self) -> None:
        """What the node knows has changed, or its index."""
        self._known.clear()

    def decode(self, batch: EventBatch) -> Decoded:
        """Rows of one drain of the perf rings."""
        if len(batch) > FEW or batch.lost:
            return self._decoder.decode(batch)
        if self._generation != self._tables.generation or len(self._known) > REMEMBERED:
            self._generation = self._tables.generation
            self._known.clear()
        rows: list[bytes] = []
        errors: Counter[str] = Counter()
        data, known = batch.data.tobytes(), self._known
        places = zip(batch.offsets.tolist(), batch.lengths.tolist(), batch.times_ns.tolist(), strict=True)
        for index, (start, length, ts_ns) in enumerate(places):
            event = data[start : start + length]
            key = usual(event)
            row = known.get(key) if key is not None else None
            if row is None:
                try:
                    one = self._decoder.decode_event(event, cpu=int(batch.cpus[index]), ts_ns=ts_ns)
                except DecodeError as error:
                    errors[error.error_class] += 1
                    continue
                row = one.tobytes()
                if key is not None:
                    known[key] = row
            rows.append(ts_ns.to_bytes(8, "little", signed=True) + row[8:])
        return Decoded(np.frombuffer(bytearray(b"".join(rows)), ROW), errors)


def usual(event: bytes) -> bytes | None:
    """All that a usual packet's row shows of its event but the time; None for any other event."""
    if len(event) < 62:
        return None
    kind = event[0]
    at = _HEADERS.get((kind, event[14]))
    if at is None or event[15]:
        return None
    flags_at, odd_flags = _ODD_FLAGS[kind]
    if event[flags_at] & odd_flags:
        return None
    ethertype = event[at + 12 : at + 14]
    if ethertype == b"\x08\x00":
        upper = at + 34
        if len(event) < upper + 8 or event[at + 14] != 0x45 or event[at + 20] & 0xBF or event[at + 21]:
            return None
        protocol = event[at + 23]
        size = event[at + 16] << 8 | event[at + 17]
        addresses = event[at + 23 : at + 24] + event[at + 26 : upper + 4]
        room = size - 20 if size else len(event) - upper
    elif ethertype == b"\x86\xdd":
        upper = at + 54
        if len(event) < upper + 8:
            return None
        protocol = event[at + 20]
        addresses = event[at + 20 : at + 21] + event[at + 22 : upper + 4]
        room = event[at + 18] << 8 | event[at + 19]
    else:
        return None
    room = min(room, len(event) - upper)
    if protocol == _TCP:
        if room < 20:
            return None
        words = event[upper + 12] & 0xF0
        if words != 0x50 and (words != 0x80 or room < 32 or event[upper + 20 : upper + 24] != _TIMESTAMPS):
            return None
        shown = event[upper + 12 : upper + 14]
    elif protocol == _UDP:
        length = event[upper + 4] << 8 | event[upper + 5]
        if room < 8 or 0 < length < 8:
            return None
        if event[upper : upper + 2] in _TUNNEL_PORTS or event[upper + 2 : upper + 4] in _TUNNEL_PORTS:
            return None
        shown = b""
    else:
        return None
    # The bytes left out of the header are the packet's hash and its lengths.
    return b"".join((event[0:4], event[14 : at + 14], addresses, shown))
