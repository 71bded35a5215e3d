"""What details of flows mean to a count: asked or answered, good or bad, how long it took, who was authenticated.

In:        aux entries of L7 flows and of policy verdicts.
Out:       small numbers per row, worked out once per entry.
Elsewhere: views.py shows requests and DNS names one by one; rollup.py adds up.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from model.flow_parts import split_aux
from model.layouts import MessageType
from model.row import Rows
from model.tables import Tables
from proto.flow import flow_pb2

U8 = npt.NDArray[np.uint8]

REQUEST: Final = 1
RESPONSE: Final = 2
BAD: Final = 4
"""An answer that tells of a failure: HTTP 500 and up, a DNS rcode, a Kafka error."""
AUTHENTICATED: Final = 8
"""A policy verdict that rests on a proof of who the peers are; whether it let them pass is in the row."""
SEEN: Final = 128

BINS: Final = 120
PER_OCTAVE: Final = 4
"""Latency bins: quarter octaves from 1 µs up, so a percentile is off by a tenth at most."""


class L7Facts:
    """Facts by aux index; dropped when indices change their meaning."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._generation = -1
        self._facts = np.zeros(0, np.uint8)
        self._bins = np.zeros(0, np.uint8)

    def of(self, rows: Rows) -> tuple[U8, U8]:
        """Facts and latency bin (0: not known) of each row; 0 for rows that are neither L7 nor policy verdicts."""
        if self._generation != self._tables.generation:
            self._generation = self._tables.generation
            self._facts = self._bins = np.zeros(0, np.uint8)
        missing = len(self._tables.aux) - len(self._facts)
        if missing > 0:
            more = np.zeros(missing, np.uint8)
            self._facts, self._bins = np.concatenate([self._facts, more]), np.concatenate([self._bins, more])
        aux = rows["aux"]
        told = (rows["flow_type"] == flow_pb2.L7) | (rows["event_type"] == MessageType.POLICY_VERDICT)
        wanted = np.unique(aux[told])
        for index in wanted[self._facts[wanted] == 0].tolist():
            self._facts[index], self._bins[index] = facts_of(self._tables.aux[index] or b"")
        return np.where(told, self._facts[aux] & ~np.uint8(SEEN), 0), np.where(told, self._bins[aux], 0)


def facts_of(aux: bytes) -> tuple[int, int]:
    """Facts and latency bin of one entry."""
    flow = flow_pb2.Flow.FromString(split_aux(aux)[0])
    l7 = flow.l7
    facts = SEEN | (AUTHENTICATED if flow.auth_type == flow_pb2.SPIRE else 0)
    if l7.type == flow_pb2.REQUEST:
        facts |= REQUEST
    elif l7.type == flow_pb2.RESPONSE:
        facts |= RESPONSE
        facts |= BAD if is_bad(l7) else 0
    return facts, latency_bin(l7.latency_ns)


def is_bad(l7: flow_pb2.Layer7) -> bool:
    return l7.http.code >= 500 or l7.dns.rcode != 0 or l7.kafka.error_code != 0


def latency_bin(latency_ns: int) -> int:
    """0 when not known."""
    if latency_ns <= 0:
        return 0
    return int(np.clip(np.log2(max(latency_ns, 1000) / 1000) * PER_OCTAVE, 0, BINS - 2)) + 1


def bin_ms(number: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Milliseconds in the middle of a bin; 0 for bin 0."""
    found: npt.NDArray[np.float64] = np.where(number > 0, 2 ** ((number - 0.5) / PER_OCTAVE) / 1000, 0.0)
    return found
