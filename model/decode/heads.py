"""Headers of single monitor messages.

In:        the bytes of a record.
Out:       their fields, and where the packet starts.
Elsewhere: layouts.py has offsets and versions.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from model import layouts
from model.address import Address
from model.packet import Undecodable


class Head(NamedTuple):
    """Fields of trace, drop and policy verdict messages; which of them mean something, type and version say."""

    type: int
    sub_type: int
    source: int
    hash: int
    len_orig: int
    len_cap: int
    version: int
    ext_version: int
    src_label: int
    dst_label: int
    remote_label: int
    verdict: int
    dst_id: int
    reason: int
    trace_flags: int
    ifindex: int
    orig_ip4: int
    orig_ip6_hi: int
    orig_ip6_lo: int
    trace_ip_trace_id: int
    line: int
    file: int
    drop_flags: int
    drop_ip_trace_id: int
    dst_port: int
    protocol: int
    verdict_flags: int
    auth_type: int

    def original(self) -> Address | None:
        """The source address before translation; None when there is none.

        A wrong family flag gives the first four bytes, as the reference does.
        """
        if self.version < 1:
            return None
        if self.trace_flags & _IPV6:
            address = Address(6, self.orig_ip6_hi << 64 | self.orig_ip6_lo)
        else:
            address = Address(4, self.orig_ip4)
        return address if address.number else None


assert Head._fields == layouts.HEAD.names
_IPV6: Final = int(layouts.NotifyFlag.IPV6)
_WINDOW: Final = layouts.HEAD.itemsize


class DebugMessage(NamedTuple):
    """A debug message."""

    type: int
    sub_type: int
    source: int
    hash: int
    arg1: int
    arg2: int
    arg3: int


class DebugCapture(NamedTuple):
    """A captured packet."""

    type: int
    sub_type: int
    source: int
    hash: int
    len_orig: int
    len_cap: int
    arg1: int
    arg2: int


class TraceSock(NamedTuple):
    """A translation at a socket."""

    type: int
    xlate_point: int
    l4_proto: int
    flags: int
    dst_port: int
    sock_cookie: int
    cgroup_id: int
    dst_ip: bytes


assert DebugMessage._fields == layouts.DEBUG.names
assert DebugCapture._fields == layouts.DEBUG_CAPTURE.names
assert TraceSock._fields == layouts.TRACE_SOCK.names


def read_trace(record: bytes) -> tuple[Head, int]:
    """Fields, and where the packet starts. Raises: Undecodable."""
    return _versioned(record, "trace", layouts.TRACE_LENGTHS)


def read_drop(record: bytes) -> tuple[Head, int]:
    """Fields, and where the packet starts. Raises: Undecodable."""
    return _versioned(record, "drop", layouts.DROP_LENGTHS)


def read_policy_verdict(record: bytes) -> tuple[Head, int]:
    """Fields, and where the packet starts. Raises: Undecodable."""
    _need(record, layouts.POLICY_VERDICT_LENGTH, "policy verdict")
    return _head(record), layouts.POLICY_VERDICT_LENGTH


def read_debug(record: bytes) -> DebugMessage:
    """Raises: Undecodable."""
    _need(record, layouts.DEBUG.itemsize, "debug message")
    return DebugMessage._make(np.frombuffer(record, layouts.DEBUG, 1)[0].item())


def read_capture(record: bytes) -> tuple[DebugCapture, int]:
    """Fields, and where the packet starts. Raises: Undecodable."""
    _need(record, layouts.DEBUG_CAPTURE.itemsize, "debug capture")
    head = DebugCapture._make(np.frombuffer(record, layouts.DEBUG_CAPTURE, 1)[0].item())
    return head, layouts.DEBUG_CAPTURE.itemsize


def read_trace_sock(record: bytes) -> TraceSock:
    """Raises: Undecodable."""
    _need(record, layouts.TRACE_SOCK.itemsize, "sock trace")
    return TraceSock._make(np.frombuffer(record, layouts.TRACE_SOCK, 1)[0].item())


def _versioned(record: bytes, what: str, lengths: dict[int, int]) -> tuple[Head, int]:
    _need(record, lengths[0], what)
    head = _head(record)
    length = lengths.get(head.version)
    if length is None:
        raise Undecodable(f"{what}: version {head.version} is not known")
    _need(record, length, f"{what} of version {head.version}")
    return head, length


def _head(record: bytes) -> Head:
    """All fields over the start of a record; what lies behind its end reads as 0."""
    if len(record) < _WINDOW:
        record = record.ljust(_WINDOW, b"\0")
    return Head._make(np.frombuffer(record, layouts.HEAD, 1)[0].item())


def _need(record: bytes, size: int, what: str) -> None:
    if len(record) < size:
        raise Undecodable(f"{what}: {len(record)} bytes, expected at least {size}")
