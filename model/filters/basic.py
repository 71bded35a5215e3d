"""Fields of a filter that are numbers in the row: verdict, direction, IP version, drop reason, reply, encryption, event
type, TCP flags, uuid.

In:        lists of a flow.FlowFilter.
Out:       terms (scan.py).
Elsewhere: semantics of every field: Hubble's, as the property test's reference evaluator spells them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.filters.scan import SLOW, Mask, Scan, byte_table
from model.flow_id import boot_and_seq, parse_uuid_halves, uuid_mask
from model.row import L4, Bit, Kind, Reply, TcpFlag
from proto.flow import flow_pb2

Numbers = npt.NDArray[np.integer[Any]]

SUB_TYPES: Final = 1 << 32
"""A type times this plus its sub type is one number for both."""


class VerdictTerm:
    """Membership in a list of verdicts."""

    cost = 1

    def __init__(self, verdicts: Sequence[int]) -> None:
        self._verdicts = frozenset(verdicts)
        self._answers = byte_table(verdicts)

    def test(self, scan: Scan) -> Mask:
        return self._answers.take(scan.column("verdict"))

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return flow.verdict in self._verdicts


class DirectionTerm:
    """Membership in a list of traffic directions; unknown is one of them."""

    cost = 1

    def __init__(self, directions: Sequence[int]) -> None:
        self._directions = frozenset(directions)
        self._answers = byte_table(directions)

    def test(self, scan: Scan) -> Mask:
        return self._answers.take(scan.column("direction"))

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return flow.traffic_direction in self._directions


class IPVersionTerm:
    """Membership in a list of IP versions; IP_NOT_USED is a flow without IP layer."""

    cost = 1

    def __init__(self, versions: Sequence[int]) -> None:
        self._versions = frozenset(versions)
        self._answers = byte_table(versions)

    def test(self, scan: Scan) -> Mask:
        return self._answers.take(scan.column("ip_version"))

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return flow.IP.ipVersion in self._versions


class DropReasonTerm:
    """Dropped for one of the reasons. An ERROR verdict carries a reason too and does not count."""

    cost = 1

    def __init__(self, reasons: Sequence[int]) -> None:
        self._reasons = frozenset(reasons)
        self._numbers = np.array(sorted(reason % (1 << 32) for reason in self._reasons), np.uint32)

    def test(self, scan: Scan) -> Mask:
        dropped: Mask = scan.column("verdict") == flow_pb2.DROPPED
        return dropped & np.isin(scan.column("drop_reason"), self._numbers)

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return flow.verdict == flow_pb2.DROPPED and flow.drop_reason_desc in self._reasons


class ReplyTerm:
    """is_reply; of a dropped flow, where it is never known, false is assumed."""

    cost = 1

    def __init__(self, wanted: Sequence[bool]) -> None:
        self._wanted = frozenset(wanted)
        self._answers = byte_table([Reply.TRUE if value else Reply.FALSE for value in self._wanted])

    def test(self, scan: Scan) -> Mask:
        reply = scan.column("is_reply")
        hits = self._answers.take(reply)
        if False in self._wanted:
            hits |= (reply == Reply.ABSENT) & (scan.column("verdict") == flow_pb2.DROPPED)
        return hits

    def matches(self, flow: flow_pb2.Flow) -> bool:
        if not flow.HasField("is_reply"):
            return flow.verdict == flow_pb2.DROPPED and False in self._wanted
        return flow.is_reply.value in self._wanted


class EncryptedTerm:
    """IP.encrypted; false for a flow without IP."""

    cost = 1

    def __init__(self, wanted: Sequence[bool]) -> None:
        self._wanted = frozenset(wanted)

    def test(self, scan: Scan) -> Mask:
        encrypted = scan.bits(Bit.ENCRYPTED)
        if len(self._wanted) == 2:
            return np.ones(len(scan), np.bool_)
        return encrypted if True in self._wanted else ~encrypted

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return flow.IP.encrypted in self._wanted


class EventTypeTerm:
    """Monitor message type and, where asked, sub type. The one field that agent and debug events have as well."""

    cost = 1

    def __init__(self, entries: Iterable[flow_pb2.EventTypeFilter]) -> None:
        self._wanted = {(entry.type, entry.sub_type if entry.match_sub_type else None) for entry in entries}
        self._anything = (0, None) in self._wanted
        self._types = _numbers(kind for kind, sub in self._wanted if sub is None)
        self._subs = _numbers(sub for kind, sub in self._wanted if kind == 0 and sub is not None)
        self._pairs = _numbers(kind * SUB_TYPES + sub for kind, sub in self._wanted if kind and sub is not None)

    def test(self, scan: Scan) -> Mask:
        hits = self._test(scan.column("event_type"), scan)
        has_type: Mask = scan.bits(Bit.HAS_EVENT_TYPE) | (scan.column("kind") != Kind.FLOW)
        return hits & has_type

    def _test(self, types: Numbers, scan: Scan) -> Mask:
        hits: Mask = np.full(len(types), self._anything)
        if self._anything:
            return hits
        if len(self._types):
            hits |= np.isin(types, self._types)
        if len(self._subs):
            hits |= np.isin(scan.column("sub_type"), self._subs)
        if len(self._pairs):
            pairs = types.astype(np.int64) * SUB_TYPES + scan.column("sub_type")
            hits |= np.isin(pairs, self._pairs)
        return hits

    def matches(self, flow: flow_pb2.Flow) -> bool:
        if not flow.HasField("event_type"):
            return False
        kind, sub = flow.event_type.type, flow.event_type.sub_type
        return not self._wanted.isdisjoint({(kind, sub), (kind, None), (0, sub), (0, None)})


def _numbers(values: Iterable[int]) -> Numbers:
    return np.array(sorted(set(values)), np.int64)


TCP_FLAG_COUNT: Final = 1 << 9


class TcpFlagsTerm:
    """All flags of an entry are set; others may be. Flows without flags never match."""

    cost = 1

    def __init__(self, entries: Iterable[flow_pb2.TCPFlags]) -> None:
        self._wanted = {frozenset(flag for flag in TcpFlag if getattr(entry, flag.name)) for entry in entries}
        flags = np.arange(TCP_FLAG_COUNT)
        masks = [sum(wanted) for wanted in self._wanted]
        self._answers: Mask = np.logical_or.reduce([(flags & mask) == mask for mask in masks])

    def test(self, scan: Scan) -> Mask:
        has_flags: Mask = scan.bits(Bit.HAS_TCP_FLAGS) & (scan.column("l4") == L4.TCP)
        return has_flags & self._answers.take(scan.column("tcp_flags") & (TCP_FLAG_COUNT - 1))

    def matches(self, flow: flow_pb2.Flow) -> bool:
        if not flow.l4.TCP.HasField("flags"):
            return False
        flags = flow.l4.TCP.flags
        return any(all(getattr(flags, flag.name) for flag in wanted) for wanted in self._wanted)


class UuidTerm:
    """Exact text. Rows hold the numbers that the text is made of, so those that cannot be meant drop out at once."""

    cost = SLOW

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = frozenset(texts)
        seqs = {0}  # also of rows of other servers whose uuid, if any, stands in aux
        for high, low in filter(None, map(parse_uuid_halves, self._texts)):
            ours = boot_and_seq(high, low)
            seqs |= {low, ours[1]} if ours else {low}
        self._seqs = np.array(sorted(seqs), np.uint64)

    def test(self, scan: Scan) -> Mask:
        hits: Mask = np.isin(scan.column("seq"), self._seqs)
        hits |= scan.bits(Bit.FOREIGN) & scan.bits(Bit.HAS_ETHERNET)
        if hits.any():
            hits[np.flatnonzero(hits)] = uuid_mask(scan.narrow(hits).selected(), scan.tables, self._texts)
        return hits

    def matches(self, flow: flow_pb2.Flow) -> bool:
        return flow.uuid in self._texts
