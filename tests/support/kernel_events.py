"""Monitor events read by the book (struct offsets), for tests of the programs that write them.

Not the product's decoder: a second, plain reading, so that a mistake shared by both sides would show.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from observer.perf import PerfReader

POINTS = {
    0: "to-endpoint",
    1: "to-proxy",
    2: "to-host",
    3: "to-stack",
    4: "to-overlay",
    5: "from-endpoint",
    6: "from-proxy",
    7: "from-host",
    9: "from-overlay",
    10: "from-network",
    11: "to-network",
}
REASONS = {0: "new", 1: "established", 2: "reply", 3: "related", 5: "unknown"}
FLAG_NAMES = ((2, "SYN"), (16, "ACK"), (4, "RST"), (1, "FIN"), (8, "PSH"))


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """One trace or drop event."""

    type: int
    what: str
    """Observation point, or "drop REASON"."""
    source: int
    src_identity: int
    dst_identity: int
    dst_id: int
    reason: str
    flags: int
    ifindex: int
    orig_ip: bytes
    line: int
    file: int
    ext_error: int
    len_orig: int
    packet: bytes
    cpu: int
    time_ns: int
    verdict: int = 0
    """Of a policy verdict, like the rest: 0, a proxy's port, or minus the drop reason."""
    match: int = 0
    dst_port: int = 0
    egress: bool = False
    audited: bool = False
    cookie: int = 0

    @property
    def src(self) -> str:
        return str(ip_address(self.packet[22:38] if self.is_ipv6 else self.packet[26:30]))

    @property
    def dst(self) -> str:
        return str(ip_address(self.packet[38:54] if self.is_ipv6 else self.packet[30:34]))

    @property
    def is_ipv6(self) -> bool:
        return self.packet[12:14] == b"\x86\xdd"

    @property
    def protocol(self) -> int:
        return self.packet[20] if self.is_ipv6 else self.packet[23]

    @property
    def l4(self) -> bytes:
        return self.packet[54:] if self.is_ipv6 else self.packet[14 + (self.packet[14] & 15) * 4 :]

    @property
    def tcp_flags(self) -> str:
        return ", ".join(name for bit, name in FLAG_NAMES if self.protocol == 6 and self.l4[13] & bit)


def read_event(record: bytes, cpu: int = 0, time_ns: int = 0) -> KernelEvent:
    """Take one record apart: spec/events.md, sections 3, 4, 8 and 9."""
    kind, subtype, source, _, len_orig, len_cap, version, ext = struct.unpack_from("<BBHIIHBB", record)
    assert ext == 0
    if kind == 5:
        return _read_verdict(record, cpu, time_ns)
    src_identity, dst_identity = struct.unpack_from("<II", record, 16)
    line = file = ext_error = 0
    orig_ip = b""
    if kind == 4:
        assert version == 1
        dst_id, reason, flags, ifindex = struct.unpack_from("<HBBI", record, 24)
        orig_ip = record[32:48]
        what, why, size = POINTS[subtype], REASONS[reason], 48
    else:
        assert (kind, version) == (1, 2)
        dst_id, line, file, ext_error, ifindex, flags = struct.unpack_from("<IHBbIB", record, 24)
        what, why, size = f"drop {subtype}", "", 40
    packet = record[size : size + len_cap]
    assert len(packet) == len_cap
    return KernelEvent(
        kind, what, source, src_identity, dst_identity, dst_id, why, flags, ifindex, orig_ip, line, file, ext_error,
        len_orig, packet, cpu, time_ns,
    )  # fmt: skip


def _read_verdict(record: bytes, cpu: int, time_ns: int) -> KernelEvent:
    """A policy verdict; the identity of the other side stands where it belongs, this side's is not known."""
    _, subtype, source, _, len_orig, len_cap, version, _ = struct.unpack_from("<BBHIIHBB", record)
    assert (subtype, version) == (0, 1)
    remote, verdict, dst_port, protocol, flags, auth, cookie = struct.unpack_from("<IiHBBB3xI4x", record, 16)
    packet = record[40 : 40 + len_cap]
    assert len(packet) == len_cap
    egress = flags & 3 == 2
    event = KernelEvent(
        5, "verdict", source, 0 if egress else remote, remote if egress else 0, 0, "", flags, 0, b"", 0, 0, auth,
        len_orig, packet, cpu, time_ns, verdict, flags >> 3 & 7, dst_port, egress, bool(flags & 0x40), cookie,
    )  # fmt: skip
    assert protocol == event.protocol
    return event


class EventLog:
    """Everything a reader delivers, as KernelEvents."""

    def __init__(self, reader: PerfReader) -> None:
        self.reader = reader
        self.events: list[KernelEvent] = []
        self.lost = 0

    def collect(self) -> list[KernelEvent]:
        """Add what waits in the rings; returns all events so far."""
        while (batch := self.reader.drain()) is not None:
            self.lost += sum(gap.count for gap in batch.lost)
            for index in range(len(batch)):
                record = batch.record(index)
                self.events.append(read_event(record, int(batch.cpus[index]), int(batch.times_ns[index])))
        return self.events

    def wait_for(self, enough: Callable[[list[KernelEvent]], bool], timeout_s: float = 3.0) -> list[KernelEvent]:
        """Collect until `enough` of the events is true; what came until then, either way."""
        deadline = time.monotonic() + timeout_s
        while not enough(self.collect()) and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.events

    def clear(self) -> None:
        """Forget what has come so far."""
        self.collect()
        self.events = []
