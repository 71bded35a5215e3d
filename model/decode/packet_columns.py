"""Packets of many records at once: headers into columns.

In:        the bytes of a batch, and where in it each record's packet lies.
Out:       `Packets`, a column for each field of the usual headers, and which packets are usual.
Elsewhere: columns.py makes rows of them; event.py reads the packets that are not usual.

Headers are copied into windows of fixed size, one line per record, so that a field is a strided column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model import layouts
from model.decode.cache import U64, Indices
from model.decode.resolve import FAMILY_SHIFT
from model.layouts import NotifyFlag
from model.packet import ETHERTYPES, IP_PROTOCOLS, Layer
from model.row import L4
from model.whole_rows import put, take

Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[Any]

_SLACK: Final = 128
"""Bytes that a window may reach behind the end of a record: at least as many as the largest window has."""
_MAPPED_PREFIX: Final = 0xFFFF

# Plain numbers: with a member of an enum numpy leaves the column's own type, which makes it six times slower.
_IPV6_FLAG, _L3_FLAG = int(NotifyFlag.IPV6), int(NotifyFlag.L3_DEVICE)
_NO_L4, _TCP, _UDP, _ICMPV4, _ICMPV6 = int(L4.NONE), int(L4.TCP), int(L4.UDP), int(L4.ICMPV4), int(L4.ICMPV6)
_FAMILY_SHIFT: Final = np.uint64(FAMILY_SHIFT)
_KEY_OF_4, _KEY_OF_6 = np.uint64(4) << _FAMILY_SHIFT, np.uint64(6) << _FAMILY_SHIFT
_OTHER: Final = 255


def lookup(size: int, entries: dict[int, int], default: int = 0, dtype: str = "u1") -> Column:
    """A column of `size` numbers, indexed by another column: `entries`, else `default`."""
    table = np.full(size, default, dtype)
    for number, value in entries.items():
        table[number] = value
    return table


_PORTED: Final = {Layer.TCP: L4.TCP, Layer.UDP: L4.UDP, Layer.SCTP: L4.SCTP}
_WITH_DECODER: Final = {number: int(_PORTED.get(layer, _OTHER)) for number, layer in IP_PROTOCOLS.items()}
_UPPER4: Final = lookup(256, _WITH_DECODER | {1: _ICMPV4})
"""L4 by IPv4 protocol; 0 where nothing above IP can be read anyway, 255 where event.py must read it."""
_UPPER6: Final = lookup(256, _WITH_DECODER | {58: _ICMPV6, 0: _OTHER})
_SMALLEST: Final = lookup(
    256, {L4.TCP: 20, L4.UDP: 8, L4.SCTP: 12, L4.ICMPV4: 8, L4.ICMPV6: 4, _OTHER: 1 << 30}, dtype="i8"
)
"""Bytes of the smallest header by L4; more than any packet has where event.py must read it."""
HAS_PORTS: Final = lookup(256, {L4.TCP: 1, L4.UDP: 1, L4.SCTP: 1}, dtype="u2")
_UNUSUAL_ETHERTYPES: Final = [number for number, layer in ETHERTYPES.items() if number not in (0x0800, 0x86DD)]


@dataclass(slots=True)
class Packets:
    """The packet columns of some records."""

    frame: Column
    segment: Column
    has_ethernet: Mask
    four: Mask
    six: Mask
    family: npt.NDArray[np.uint64]
    """IP version (4, 6, or 0) where keys have it: above 32 other bits."""
    l4: npt.NDArray[np.uint8]
    src_hi: U64
    src_lo: U64
    dst_hi: U64
    dst_lo: U64

    def take(self, at: Indices) -> Packets:
        columns: list[Any] = [getattr(self, name) for name in self.__slots__]
        taken: list[Any] = [take(column, at) if column.dtype.names else column[at] for column in columns]
        return Packets(*taken)


class Windows:
    """Views of fixed size into a buffer, one per record."""

    def __init__(self, data: Bytes) -> None:
        self._data = np.ascontiguousarray(data)
        self._end = len(data) - _SLACK
        # Windows near the end would reach behind the buffer: those look into a longer copy of its last bytes.
        self._tail_at = max(0, self._end)
        self._tail = np.concatenate([self._data[self._tail_at :], np.zeros(_SLACK * 2, np.uint8)])

    def at(self, offsets: Indices, dtype: np.dtype[Any]) -> Column:
        """One `dtype` at each offset."""
        assert dtype.itemsize <= _SLACK
        inside = offsets < self._end
        if inside.all():
            return _gather(self._data, offsets, dtype)
        columns = np.empty(len(offsets), dtype)
        put(columns, inside, _gather(self._data, offsets[inside], dtype))
        put(columns, ~inside, _gather(self._tail, np.minimum(offsets[~inside] - self._tail_at, _SLACK), dtype))
        return columns


def _gather(data: Bytes, offsets: Indices, dtype: np.dtype[Any]) -> Column:
    if not len(offsets):
        return np.empty(0, dtype)
    count = len(data) - dtype.itemsize + 1
    opaque: Column = np.ndarray((count,), f"V{dtype.itemsize}", data, strides=(1,))
    return opaque[offsets].view(dtype)


def read_packets(windows: Windows, offsets: Indices, lengths: Indices, flags: Bytes) -> tuple[Packets, Mask]:
    """What the packets at `offsets` are, and which of them are usual."""
    has_ethernet = flags & _L3_FLAG == 0
    if not has_ethernet.all():
        # A packet without Ethernet is read as if it had one: the fields then stand where all others have them.
        missing = ~has_ethernet * layouts.ETHERNET_LENGTH
        offsets, lengths = offsets - missing, lengths + missing
    frame = windows.at(offsets, layouts.FRAME)
    ethertype = frame["ethertype"].astype(np.uint16)
    if not has_ethernet.all():
        ethertype = np.where(has_ethernet, ethertype, np.where(flags & _IPV6_FLAG, 0x86DD, 0x0800)).astype(np.uint16)
    four = ethertype == 0x0800
    # IPv4, for all; where it is none the result is not used.
    carried = lengths - layouts.ETHERNET_LENGTH
    total = frame["ip4_length"].astype(np.int64)
    fine = (carried >= 20) & (frame["ip4_ihl"] & 0x0F == 5) & ((total >= 20) | (total == 0))
    total[total == 0] = 1 << 32
    carried = np.minimum(carried, total)
    carried -= 20
    l4 = _UPPER4[frame["ip4_protocol"]]
    fragment = frame["ip4_fragment"].astype(np.uint16) & 0x3FFF
    if fragment.any():
        l4[fragment != 0] = _NO_L4
    src_hi, dst_hi = np.zeros(len(offsets), np.uint64), np.zeros(len(offsets), np.uint64)
    src_lo, dst_lo = frame["ip4_src"].astype(np.uint64), frame["ip4_dst"].astype(np.uint64)
    segment_at = offsets + (layouts.ETHERNET_LENGTH + 20)
    family = four * _KEY_OF_4
    if four.all():
        six = ~four
    else:
        six = ethertype == 0x86DD
        no_ip = ~(four | six)
        fine[no_ip] = lengths[no_ip] >= layouts.ETHERNET_LENGTH
        fine[no_ip] &= ~np.isin(ethertype[no_ip], _UNUSUAL_ETHERTYPES)
        l4[no_ip], carried[no_ip], src_lo[no_ip], dst_lo[no_ip] = _NO_L4, 0, 0, 0
        family += six * _KEY_OF_6
        at = np.flatnonzero(six)
        own = take(frame, at)
        total, available = own["ip6_length"].astype(np.int64), lengths[at] - layouts.ETHERNET_LENGTH - 40
        src_hi[at], src_lo[at] = own["ip6_src_hi"], own["ip6_src_lo"]
        dst_hi[at], dst_lo[at] = own["ip6_dst_hi"], own["ip6_dst_lo"]
        l4[at], carried[at] = _UPPER6[own["ip6_next"]], np.minimum(available, total)
        mapped = _mapped(src_hi[at], src_lo[at]) | _mapped(dst_hi[at], dst_lo[at])
        fine[at] = (available >= 0) & (total != 0) & ~mapped
        segment_at[at] += 20

    segment = windows.at(segment_at, layouts.SEGMENT)
    # No byte behind IP: the flow ends there, whatever should have followed. Rare enough for event.py.
    fine &= (carried >= _SMALLEST[l4]) & ((carried > 0) | (l4 == _NO_L4))
    tcp = l4 == _TCP
    data_offset = ((segment["tcp_flags"] >> 10).astype(np.int64) & 0x3C) * tcp
    fine &= data_offset <= carried
    at = np.flatnonzero(data_offset != tcp * np.int64(20))
    if len(at):
        long_enough = data_offset[at] > 20
        fine[at] &= long_enough
        at = at[fine[at]]
        fine[at] = _options_are_valid(windows, segment_at[at], data_offset[at])
    at = np.flatnonzero(l4 == _UDP)
    if len(at):
        length = segment["udp_length"][at]
        fine[at] &= (length >= 8) | (length == 0)
    return Packets(frame, segment, has_ethernet, four, six, family, l4, src_hi, src_lo, dst_hi, dst_lo), fine


def _mapped(hi: U64, lo: U64) -> Mask:
    """Whether these are IPv4-mapped addresses."""
    mapped: Mask = (hi == 0) & (lo >> np.uint64(32) == _MAPPED_PREFIX)
    return mapped


_OPTIONS: Final = np.dtype([("before", "V20"), ("first", ">u4"), ("others", "V36")])
_OPTION_BYTES: Final = np.dtype([("before", "V20"), ("options", "u1", (40,))])


def _options_are_valid(windows: Windows, offsets: Indices, ends: Indices) -> Mask:
    """Whether TCP options can be walked through. `ends`: where the payload starts, seen from the TCP header."""
    window = windows.at(offsets, _OPTIONS)
    valid = np.ones(len(offsets), bool)
    # By far the most packets of a connection have two no-ops and a timestamp.
    at = np.flatnonzero((window["first"] != 0x0101_080A) | (ends != 32))
    options = take(window, at).view(_OPTION_BYTES)["options"]
    ends = ends[at] - 20
    line, place = np.arange(len(at)), np.zeros(len(at), np.int64)
    while len(line):
        kind = options[line, place]
        single = kind == 1  # no-op
        size = np.where(single, 1, options[line, np.minimum(place + 1, 39)]).astype(np.int64)
        broken = ~single & ((place + 1 >= ends) | (size < 2))
        place = place + size
        broken |= place > ends
        broken &= kind != 0  # end of the list
        valid[at[line[broken]]] = False
        walking = ~broken & (kind != 0) & (place < ends)
        line, place, ends = line[walking], place[walking], ends[walking]
    return valid
