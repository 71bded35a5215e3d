"""One row in the making, for what is decoded one at a time.

In:        fields, by name.
Out:       the 128 bytes of a row.
Elsewhere: row.py says what the fields mean; decode/columns.py fills rows by column and does not need this.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from model.address import LOW_HALF, Address
from model.row import IP_NOT_USED, IPV4, IPV6, ROW
from model.tables import Tables
from proto.flow import flow_pb2

_CODES: Final = {"i8": "q", "u8": "Q", "u4": "I", "i4": "i", "u2": "H", "u1": "B"}
assert ROW.fields is not None
ROW_STRUCT: Final = struct.Struct(
    "<"
    + "".join(
        f"{ROW.fields[name][0].itemsize}s" if ROW.fields[name][0].subdtype else _CODES[ROW.fields[name][0].str[1:]]
        for name in ROW.names or ()
    )
)
assert ROW_STRUCT.size == ROW.itemsize

pack_fields = ROW_STRUCT.pack
"""The bytes of a row from all its fields, in the order of ROW."""

IP_VERSIONS: Final = {0: IP_NOT_USED, 4: IPV4, 6: IPV6}
"""flow.IPVersion by the version in the packet."""


@dataclass(slots=True)
class Draft:
    """The fields of a row, under their names."""

    ts_ns: int = 0
    seq: int = 0
    src_ip_hi: int = 0
    src_ip_lo: int = 0
    dst_ip_hi: int = 0
    dst_ip_lo: int = 0
    src: int = 0
    dst: int = 0
    src_names: int = 0
    dst_names: int = 0
    src_svc: int = 0
    dst_svc: int = 0
    iface: int = 0
    node: int = 0
    aux: int = 0
    event_type: int = 0
    sub_type: int = 0
    drop_reason: int = 0
    sport: int = 0
    dport: int = 0
    proxy_port: int = 0
    tcp_flags: int = 0
    bits: int = 0
    smac: bytes = bytes(6)
    dmac: bytes = bytes(6)
    kind: int = 0
    flow_type: int = 0
    verdict: int = 0
    ip_version: int = 0
    l4: int = 0
    is_reply: int = 0
    direction: int = 0
    obs_point: int = 0
    trace_reason: int = 0
    match_type: int = 0
    _more: flow_pb2.Flow | None = None

    @property
    def more(self) -> flow_pb2.Flow:
        """What the row has no column for. Asking for it makes it, which most events can do without."""
        if self._more is None:
            self._more = flow_pb2.Flow()
        return self._more

    def finish_aux(self, tables: Tables, usual: int = 0) -> None:
        """Set aux: entry `usual`, and whatever has been put into `more`."""
        if self._more is None:
            self.aux = usual
            return
        self._more.MergeFromString(tables.aux[usual] or b"")
        data = self._more.SerializeToString(deterministic=True)
        self.aux = tables.aux.intern(data) if data else 0

    def set_addresses(self, src: Address | None, dst: Address | None) -> None:
        """The addresses, as numbers; ip_version is set apart."""
        if src is not None:
            self.src_ip_hi, self.src_ip_lo = src.number >> 64, src.number & LOW_HALF
        if dst is not None:
            self.dst_ip_hi, self.dst_ip_lo = dst.number >> 64, dst.number & LOW_HALF

    def pack(self) -> bytes:
        """The row."""
        return pack_fields(*_FIELDS(self))


_FIELDS: Final = attrgetter(*(ROW.names or ()))
