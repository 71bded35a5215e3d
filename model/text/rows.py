"""Whole batches of rows as text: compact, dict and table output.

In:        rows and their tables.
Out:       one text for all of them, the same as parts.py and flows.py make one by one.
Elsewhere: rows_json.py for JSON; pieces.py keeps the texts that rows share.

A line is put together from columns: host, port, identity, type with verdict and summary. Each text is made once per
distinct value, then taken by number. Rows that contradict themselves (foreign ones whose aux says something else than
the row) go the slow way, as messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from model.address_text import address_text, mac_text
from model.encode import Encoder
from model.mask import FieldMask
from model.row import L4, Bit, Kind, Reply, Rows
from model.row_values import RowValues, row_values
from model.summary import summary_text
from model.tables import Tables
from model.text.flows import SEPARATOR, SHOWN_FIELDS, Look, Output, flow_text, lost_text
from model.text.parts import (
    event_type_text,
    host_name,
    identity_text,
    l7_type_text,
    policy_names,
    verdict_word,
    with_port,
    wrap_summary,
)
from model.text.pieces import Column, TextByIndex, TextByKey, join_lines, number_texts
from model.text.style import CYAN
from model.whole_rows import take
from proto.flow import flow_pb2
from proto.observer import observer_pb2

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

CHUNK: Final = 16_384
"""Rows handled at once: their columns stay in the processor's cache."""

LATEST_NS: Final = (1 << 63) - 1
"""ts_ns of a foreign flow whose time is beyond what a row can hold."""

_PORT: Final = "\0"
"""Stands for the port where text around it is made."""

_IN_ROW: Final = frozenset(
    (
        "time",
        "verdict",
        "ethernet",
        "source",
        "destination",
        "node_name",
        "source_names",
        "destination_names",
        "is_reply",
        "event_type",
        "source_service",
        "destination_service",
        "traffic_direction",
        "policy_match_type",
    )
)
"""Fields of which the row is asked. When aux has one, the row is not the last word."""

_ADDRESSES: Final = frozenset(("source", "destination", "ipVersion"))


class RowText:
    """Makes text of rows that point into one set of tables."""

    def __init__(self, look: Look, tables: Tables, *, masked: bool = False) -> None:
        """With `masked`, only what Hubble's default field mask lets through is shown, whatever the rows know."""
        self._look = look
        self.tables = self._tables = tables
        self._masked = masked
        self._hosts = TextByKey(words=4, texts=2)
        self._tails = TextByKey(words=4, texts=1)
        self._identities = TextByIndex(lambda index: (self._identity(index),))
        self._nodes = TextByIndex(lambda index: (self._node(index),))
        self._aux = AuxKinds(tables, _contradiction)
        self._slow = SlowRows(look, tables, masked=masked)

    def text(self, rows: Rows, given: Mapping[int, str] | None = None) -> str:
        """The records of all flows and gaps; in dict form without a separator before the first.

        given  records that were made elsewhere, by the row in whose place they stand; that row is not looked at.
        """
        if given is None:
            rows, given = flows_and_gaps(rows), {}
        starts = range(0, len(rows), CHUNK)
        text = "".join(self._chunk(rows[start : start + CHUNK], start, given) for start in starts)
        return text.removeprefix(f"{SEPARATOR}\n") if self._look.output is Output.DICT else text

    def _chunk(self, rows: Rows, start: int, given: Mapping[int, str]) -> str:
        slow = self._aux.contradicting(rows)
        here = [row for row in given if start <= row < start + len(rows)] if given else []
        for row in here:
            slow[row - start] = False
        replaced = self._slow.texts(rows, slow)
        replaced.update((row - start, given[row]) for row in here)
        if self._look.output is Output.DICT:
            replaced = {row: f"{SEPARATOR}\n{text}" for row, text in replaced.items()}
        if not replaced:
            return join_lines(self._columns(rows), len(rows), replaced)
        if len(replaced) == len(rows):
            return "".join(replaced[row] for row in range(len(rows)))
        slow[[row - start for row in here]] = True
        return join_lines(self._columns(take(rows, ~slow)), len(rows), replaced)

    def _columns(self, rows: Rows) -> list[Column | str]:
        has_ports = (rows["l4"] == L4.TCP) | (rows["l4"] == L4.UDP) | (rows["l4"] == L4.SCTP)
        has_ports &= rows["ip_version"] != 0
        sides = [self._side(rows, side, has_ports) for side in ("src", "dst")]
        times = self._look.times.columns(np.minimum(rows["ts_ns"], LATEST_NS))
        (tails,) = self._tails.take(
            self._tail_keys(rows), lambda new: ((self._tail(row_values(rows[at])),) for at in new)
        )
        node = self._nodes.take(rows["node"]) if self._look.node_names else []
        if self._look.output is Output.DICT:
            return [
                f"{SEPARATOR}\n  TIMESTAMP: ",
                *times,
                *node,
                "\n     SOURCE: ",
                *sides[0],
                "\nDESTINATION: ",
                *sides[1],
                tails,
            ]
        if self._look.output is Output.TABLE:
            return [*times, *node, "\t", *sides[0], "\t", *sides[1], tails]
        reply = rows["is_reply"]
        back = reply == Reply.TRUE
        left, right = (
            [np.where(back, theirs, ours) for ours, theirs in zip(sides[one], sides[1 - one], strict=True)]
            for one in (0, 1)
        )
        asked, answering = (
            self._identities.take(np.where(back, rows[b], rows[a])) for a, b in (("src", "dst"), ("dst", "src"))
        )
        return [*times, *node, ": ", *left, *asked, _ARROWS.take(reply), *right, *answering, tails]

    # Ends.

    def _side(self, rows: Rows, side: str, has_ports: Bools) -> list[Column]:
        """Text before the port, the port, and with colours text behind it."""
        ports = np.where(has_ports, rows["sport" if side == "src" else "dport"], 0)
        no_ip = rows["ip_version"] == 0
        keys = np.zeros((len(rows), 4), np.uint64)
        keys[:, 0] = rows[f"{side}_ip_hi"]
        keys[:, 1] = rows[f"{side}_ip_lo"]
        keys[:, 2] = rows[side].astype(np.uint64) | rows[f"{side}_names"].astype(np.uint64) << np.uint64(32)
        keys[:, 3] = rows[f"{side}_svc"].astype(np.uint64) | rows["ip_version"].astype(np.uint64) << np.uint64(32)
        keys[:, 3] |= ((rows["bits"] & Bit.FOREIGN) != 0).astype(np.uint64) << np.uint64(40)
        keys[:, 3] |= (ports != 0).astype(np.uint64) << np.uint64(41)
        if no_ip.any():
            keys[no_ip] = 0
            ethernet = no_ip & ((rows["bits"] & Bit.HAS_ETHERNET) != 0)
            macs = np.zeros((len(rows), 8), np.uint8)
            macs[:, :6] = rows["smac" if side == "src" else "dmac"]
            macs[:, 6] = 1
            keys[ethernet, 1] = macs.view(np.uint64).ravel()[ethernet]

        before, behind = self._hosts.take(keys, lambda new: (self._host(rows[at], side, bool(ports[at])) for at in new))
        texts = [before, number_texts(ports.astype(np.uint16))]
        return [*texts, behind] if self._look.style.colour else texts

    def _host(self, row: np.void, side: str, has_port: bool) -> tuple[str, str]:
        values = row_values(row)
        style, tables = self._look.style, self._tables
        if not values.ip_version:
            mac = values.smac if side == "src" else values.dmac
            return (style.paint(mac_text(bytes(mac)), CYAN) if values.bits & Bit.HAS_ETHERNET else ""), ""
        source = side == "src"
        high, low = (values.src_ip_hi, values.src_ip_lo) if source else (values.dst_ip_hi, values.dst_ip_lo)
        unknown = values.bits & Bit.FOREIGN and not high | low
        host = "" if unknown else address_text(high, low, values.ip_version)
        if self._look.flows.translate:
            endpoint = self._endpoint(values.src if source else values.dst)
            service = tables.services[values.src_svc if source else values.dst_svc]
            names = None if self._masked else tables.names[values.src_names if source else values.dst_names]
            shown = None if service is None else flow_pb2.Service(name=service.name, namespace=service.namespace)
            host = host_name(host, endpoint, shown, names or ())
        text = with_port(host, _PORT if has_port else "", style)
        # The last one: names from the network may hold the same character.
        before, _, behind = text.rpartition(_PORT) if has_port else (text, "", "")
        return before, behind

    def _endpoint(self, index: int) -> flow_pb2.Endpoint:
        return flow_pb2.Endpoint.FromString(self._tables.endpoints[index] or b"")

    def _identity(self, index: int) -> str:
        return " " + identity_text(self._endpoint(index).identity, self._look.style)

    def _node(self, index: int) -> str:
        node = self._tables.nodes[index]
        name = "" if node is None else node.name
        if self._look.output is Output.DICT:
            return f"\n       NODE: {name}"
        return f"\t{name}" if self._look.output is Output.TABLE else f" [{name}]"

    # What happened.

    def _tail_keys(self, rows: Rows) -> U64:
        icmp = (rows["l4"] == L4.ICMPV4) | (rows["l4"] == L4.ICMPV6)
        keys = np.empty((len(rows), 4), np.uint64)
        keys[:, 0] = rows["aux"].astype(np.uint64) | (rows["event_type"].astype(np.uint64) << np.uint64(32))
        keys[:, 1] = rows["sub_type"].astype(np.uint32)
        keys[:, 1] |= (rows["bits"] & _TAIL_BITS).astype(np.uint64) << np.uint64(32)
        keys[:, 1] |= rows["tcp_flags"].astype(np.uint64) << np.uint64(48)
        keys[:, 2] = np.where(icmp, rows["sport"], 0).astype(np.uint64)
        keys[:, 2] |= np.where(icmp, rows["dport"], 0).astype(np.uint64) << np.uint64(16)
        keys[:, 2] |= rows["flow_type"].astype(np.uint64) << np.uint64(32)
        keys[:, 3] = 0
        for shift, field in ((0, "verdict"), (8, "ip_version"), (16, "l4"), (24, "direction"), (32, "match_type")):
            keys[:, 3] |= rows[field].astype(np.uint64) << np.uint64(shift)
        return keys

    def _tail(self, row: RowValues) -> str:
        look = self._look
        partial = flow_pb2.Flow.FromString(self._tables.aux[row.aux] or b"")
        masked = self._masked
        has_type = row.bits & Bit.HAS_EVENT_TYPE
        event_type = row.event_type if has_type else 0
        if partial.HasField("l7"):
            kind = l7_type_text(partial.l7)
        else:
            kind = event_type_text(
                event_type,
                row.sub_type if has_type else 0,
                0 if masked else row.match_type,
                0 if masked else row.direction,
                0 if masked else partial.debug_capture_point,
                0 if masked else partial.sock_xlate_point,
            )
        by = ""
        of_policy = event_type == _POLICY_VERDICT
        if look.flows.policy_names and of_policy and not masked:
            partial.verdict = row.verdict  # type: ignore[assignment]
            partial.traffic_direction = row.direction  # type: ignore[assignment]
            by = policy_names(partial)
        verdict = verdict_word(row.verdict, of_policy, by, look.style)
        auth_type = 0 if masked else partial.auth_type
        summary = wrap_summary(self._summary(row, partial), partial.ip_trace_id.trace_id, auth_type, look.style)
        if look.output is Output.DICT:
            return f"\n       TYPE: {kind}\n    VERDICT: {verdict}\n    SUMMARY: {summary}\n"
        if look.output is Output.TABLE:
            return f"\t{kind}\t{verdict}\t{summary}\n"
        return f" {kind} {verdict} ({summary})\n"

    def _summary(self, row: RowValues, partial: flow_pb2.Flow) -> str:
        if row.bits & Bit.SUMMARY_IN_AUX:
            return partial.Summary
        return summary_text(
            flow_type=row.flow_type,
            ip_version=row.ip_version,
            l4=row.l4,
            sport=row.sport,
            dport=row.dport,
            tcp_flags=row.tcp_flags,
            bits=row.bits,
            aux=self._tables.aux[row.aux],
        )


_ARROWS: Final = np.array([" <> ", " -> ", " <- "], dtype=object)
_POLICY_VERDICT: Final = 5
_TAIL_BITS: Final = Bit.HAS_EVENT_TYPE | Bit.HAS_TCP_FLAGS | Bit.SUMMARY_IN_AUX | Bit.HAS_ETHERNET


def flows_and_gaps(rows: Rows) -> Rows:
    """The rows that a stream of flows shows."""
    kinds = rows["kind"]
    return take(rows, (kinds == Kind.FLOW) | (kinds == Kind.LOST)) if kinds.any() else rows


class Contradiction(IntEnum):
    """What an aux entry does to its rows."""

    NONE = 0
    IP = 1
    """It makes an IP layer where the row has none."""
    ROW = 2
    """It says something else than the row."""


class AuxKinds:
    """Which aux entries say something else than their rows, each looked at once."""

    def __init__(self, tables: Tables, judge: Callable[[bytes], Contradiction]) -> None:
        self._tables = tables
        self._judge = judge
        self._answers = np.zeros(1, np.int8)

    def contradicting(self, rows: Rows) -> Bools:
        """Rows to be handled as messages: gaps, rows without time, rows with such aux."""
        odd: Bools = rows["kind"] != Kind.FLOW
        foreign = (rows["bits"] & Bit.FOREIGN) != 0
        if foreign.any():
            odd |= foreign & ((rows["ts_ns"] <= 0) | (rows["ts_ns"] == LATEST_NS))
        aux = np.where(odd, 0, rows["aux"])
        size = len(self._tables.aux)
        if size > len(self._answers):
            self._answers = np.concatenate([self._answers, np.full(size - len(self._answers), -1, np.int8)])
        answers = self._answers.take(aux)
        unknown = answers < 0
        if unknown.any():
            for index in np.unique(aux[unknown]).tolist():
                self._answers[index] = self._judge(self._tables.aux[index] or b"")
            answers = self._answers.take(aux)
        odd |= answers == Contradiction.ROW
        odd |= (answers == Contradiction.IP) & (rows["ip_version"] == 0)
        return odd


def _contradiction(aux: bytes) -> Contradiction:
    found = Contradiction.NONE
    for field, value in flow_pb2.Flow.FromString(aux).ListFields():
        if field.name in _IN_ROW:
            return Contradiction.ROW
        if field.name == "IP":
            found = Contradiction.IP
            if any(inner.name in _ADDRESSES for inner, _ in value.ListFields()):
                return Contradiction.ROW
        if field.name == "l4" and value.WhichOneof("protocol") not in ("VRRP", "IGMP"):
            return Contradiction.ROW
    return found


class SlowRows:
    """Rows one by one, as messages."""

    def __init__(self, look: Look, tables: Tables, *, masked: bool) -> None:
        self._look = look
        self._encoder = Encoder(tables, FieldMask.parse(SHOWN_FIELDS) if masked else None)

    def texts(self, rows: Rows, chosen: Bools) -> dict[int, str]:
        """The record of each chosen row, by its number."""
        places = np.flatnonzero(chosen)
        if not len(places):
            return {}
        encoded = self._encoder.responses(take(rows, places))
        responses = [observer_pb2.GetFlowsResponse.FromString(encoded.payload(at)) for at in range(len(encoded))]
        return dict(zip(places.tolist(), map(self._text, responses), strict=True))

    def _text(self, response: observer_pb2.GetFlowsResponse) -> str:
        return (flow_text if response.HasField("flow") else lost_text)(response, self._look)


__all__: Sequence[str] = ("AuxKinds", "RowText", "SlowRows")
