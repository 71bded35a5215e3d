"""The legs of a connection: proxies end one and open another, nodes send on under an address of their own.

In:        the ring and one row.
Out:       rows by leg, from the end that opened the connection to the end that answers it.
Elsewhere: connection.py words them.

The end that opened a connection keeps its address and port through the translation of services, so all rows with this
end on one side are one leg. No flow says which leg goes on as which: two legs belong together when one node saw both,
to the same backend, at the same time, and the one goes into a proxy (or is translated) where the other comes out.
Several may fit; the nearest in time is taken, and the others are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model.flow_parts import split_aux
from model.ring import Ring
from model.row import L4, Kind, Reply, Rows, TcpFlag, empty_rows
from model.tables import Tables
from model.whole_rows import joined, take
from proto.flow import flow_pb2

Bools = npt.NDArray[np.bool_]
Address = tuple[int, int]
"""Both halves, as rows hold them."""
End = tuple[int, int, int]
"""Address and port."""

CHUNK: Final = 16_384
NEAR_NS: Final = 600 * 1_000_000_000
"""Ports are used again; what happened ten minutes away is another connection."""
PAUSE_NS: Final = 5_000_000_000
"""Silence before a SYN that opens another connection; the first repetitions of a lost SYN come sooner."""
EARLY_NS: Final = 5_000_000
LATE_NS: Final = 20_000_000
"""How far what a proxy opens may reach beyond what it took: it may be left open, and serve others."""
MOST_LEGS: Final = 5
MOST_CANDIDATES: Final = 64
INGRESS: Final = 8
"""Identity of proxies that speak for clients outside."""
RESERVED: Final = 256
"""Identities below are shared by all nodes, or by the world."""


class Via(StrEnum):
    """What made a leg out of the one before."""

    NOTHING = ""
    PROXY = "proxy"
    NAT = "nat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Rows of one opener, in order of time."""

    opener: End
    rows: Rows
    via: Via = Via.NOTHING
    others: int = 0
    """More legs that may be this one."""


def legs_of(ring: Ring, row: Rows) -> list[Leg]:
    """At least the leg of the row itself, though the row may have left the ring."""
    near, at_ns, opener = _near(ring, row), int(row["ts_ns"][0]), _opener(row)
    own = Leg(opener=opener, rows=_one_life(take(near, _same_connection(near, row, opener)), at_ns))
    if row[0]["l4"] not in (L4.TCP, L4.UDP, L4.SCTP) or not len(own.rows):
        return [own]
    legs = [own]
    while len(legs) < MOST_LEGS and (found := _behind(near, ring.tables, legs, at_ns)):
        legs.append(found)
    while len(legs) < MOST_LEGS and (pair := _before(near, ring.tables, legs, at_ns)):
        legs[:1] = pair
    return legs


def end_of(one: Any, side: str, port: str) -> End:
    """One side of a row."""
    return int(one[f"{side}_ip_hi"]), int(one[f"{side}_ip_lo"]), int(one[port])


def address_of(end: End) -> IPv4Address | IPv6Address:
    """Its address, as text shows it."""
    return IPv6Address(end[0] << 64 | end[1]) if end[0] else IPv4Address(end[1])


def _near(ring: Ring, row: Rows) -> Rows:
    """Flows of the same protocol around the row, in order of time."""
    parts: list[Rows] = []
    for _, rows in ring.backwards(CHUNK, CHUNK):
        near = np.abs(rows["ts_ns"] - row["ts_ns"][0]) < NEAR_NS
        parts.insert(0, take(rows, near & (rows["kind"] == Kind.FLOW) & (rows["l4"] == row["l4"][0])))
    found = joined([empty_rows(0), *parts])
    return take(found, np.argsort(found["ts_ns"], kind="stable"))


def _one_life(rows: Rows, at_ns: int) -> Rows:
    """The rows from one opening to the next: a port that is used again is another connection."""
    times = rows["ts_ns"]
    opens = (rows["tcp_flags"] & (TcpFlag.SYN | TcpFlag.ACK)) == TcpFlag.SYN
    begins = np.flatnonzero(opens[1:] & (np.diff(times) > PAUSE_NS)) + 1
    first = int(times[begins[times[begins] <= at_ns]].max(initial=0))
    last = int(times[begins[times[begins] > at_ns]].min(initial=2**62))
    return take(rows, (times >= first) & (times < last))


def _opener(row: Rows) -> End:
    """The end that opened the connection: the one with the higher port, replies aside."""
    one = row[0]
    source, target = end_of(one, "src", "sport"), end_of(one, "dst", "dport")
    if one["is_reply"] == Reply.TRUE:
        return target
    return source if one["is_reply"] == Reply.FALSE or source[2] >= target[2] else target


def _same_connection(rows: Rows, row: Rows, opener: End) -> Bools:
    one = row[0]
    if one["l4"] in (L4.TCP, L4.UDP, L4.SCTP):
        return _of_opener(rows, opener)
    source, target = end_of(one, "src", "sport")[:2], end_of(one, "dst", "dport")[:2]
    return _between(rows, source, target) | _between(rows, target, source)


def _has_end(rows: Rows, side: str, port: str, end: End) -> Bools:
    found: Bools = _has_address(rows, side, end[:2]) & (rows[port] == end[2])
    return found


def _has_address(rows: Rows, side: str, address: Address) -> Bools:
    found: Bools = (rows[f"{side}_ip_hi"] == address[0]) & (rows[f"{side}_ip_lo"] == address[1])
    return found


def _between(rows: Rows, source: Address, target: Address) -> Bools:
    return _has_address(rows, "src", source) & _has_address(rows, "dst", target)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What decides whether two legs belong together. Nodes are table indices."""

    opener: End
    into_proxy: frozenset[int]
    """Nodes whose proxy takes the opener's packets or requests."""
    out_of_proxy: frozenset[int]
    """Nodes whose proxy gets the answers."""
    nodes: frozenset[int]
    backends: frozenset[End]
    translated: frozenset[str]
    """What answers carry in place of the backend's address, on their way to the opener."""
    identities: frozenset[int]
    """The opener's."""


def _behind(near: Rows, tables: Tables, legs: list[Leg], at_ns: int) -> Leg | None:
    """What the last leg goes on as."""
    leg = legs[-1]
    mine = _facts(leg, tables)
    found = []
    for other in _candidates(near, mine, legs):
        via = _link(mine, _facts(other, tables))
        if via is Via.PROXY:
            other = _within(other, leg)
        if via and len(other.rows):
            found.append((_distance(leg, other) + _apart(other, at_ns), replace(other, via=via)))
    if not found:
        return None
    return replace(min(found, key=lambda one: one[0])[1], others=len(found) - 1)


def _before(near: Rows, tables: Tables, legs: list[Leg], at_ns: int) -> tuple[Leg, Leg] | None:
    """What goes on as the first leg, and the first leg as its continuation."""
    leg = legs[0]
    mine = _facts(leg, tables)
    found = []
    for other in _candidates(near, mine, legs):
        if via := _link(_facts(other, tables), mine):
            # A candidate has only what touches the backend; the client may speak to a service's address.
            whole = _one_life(take(near, _of_opener(near, other.opener)), int(other.rows["ts_ns"][0]))
            found.append((_distance(other, leg) + _apart(other, at_ns), via, replace(other, rows=whole)))
    if not found:
        return None
    _, via, best = min(found, key=lambda one: one[0])
    part = _within(leg, best) if via is Via.PROXY else leg
    if not len(part.rows) or not part.rows["ts_ns"][0] <= at_ns <= part.rows["ts_ns"][-1]:
        part = leg  # a proxy left it open, and what was asked for came long after
    return best, replace(part, via=via, others=len(found) - 1)


def _link(first: _Facts, second: _Facts) -> Via:
    """How the first leg goes on as the second, if it does."""
    if not first.nodes & second.nodes:
        return Via.NOTHING
    if str(address_of(second.opener)) in first.translated:
        return Via.NAT
    opened = second.out_of_proxy
    same_sender = second.opener[:2] != first.opener[:2] and any(
        identity >= RESERVED for identity in first.identities & second.identities
    )
    if INGRESS in second.identities or same_sender:
        opened = second.nodes
    return Via.PROXY if first.into_proxy & opened and first.backends & second.backends else Via.NOTHING


def _candidates(near: Rows, mine: _Facts, known: list[Leg]) -> list[Leg]:
    """Legs of other openers to the same backends, while the last known leg lived."""
    first, last = (known[-1].rows["ts_ns"][end] for end in (0, -1))
    start, stop = np.searchsorted(near["ts_ns"], [first - EARLY_NS, last + LATE_NS])
    rows = near[start:stop]
    forth, back = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    for address in {end[:2] for end in mine.backends}:
        forth |= _has_address(rows, "dst", address) & (rows["is_reply"] != Reply.TRUE)
        back |= _has_address(rows, "src", address) & (rows["is_reply"] == Reply.TRUE)
    rows, forth = take(rows, forth | back), forth[forth | back]
    ends = np.empty(len(rows), [("hi", "<u8"), ("lo", "<u8"), ("port", "<u8")])
    for name, source, target in (("hi", "src_ip_hi", "dst_ip_hi"), ("lo", "src_ip_lo", "dst_ip_lo")):
        ends[name] = np.where(forth, rows[source], rows[target])
    ends["port"] = np.where(forth, rows["sport"], rows["dport"])
    openers, group = np.unique(ends, return_inverse=True)
    legs = []
    have = {leg.opener for leg in known}
    for number, opener in enumerate(openers.tolist()[:MOST_CANDIDATES]):
        if opener not in have:
            legs.append(Leg(opener=opener, rows=take(rows, group == number)))
    return legs


def _facts(leg: Leg, tables: Tables) -> _Facts:
    rows = leg.rows
    forth = _has_end(rows, "src", "sport", leg.opener)
    at_proxy = rows["obs_point"] == flow_pb2.TO_PROXY
    requests = rows["flow_type"] == flow_pb2.L7
    sent, answered = take(rows, forth), take(rows, ~forth)
    targets = {end_of(one, "dst", "dport") for one in sent} | {end_of(one, "src", "sport") for one in answered}
    return _Facts(
        opener=leg.opener,
        into_proxy=frozenset(rows["node"][(forth & at_proxy) | requests].tolist()),
        out_of_proxy=frozenset(rows["node"][~forth & at_proxy].tolist()),
        nodes=frozenset(rows["node"].tolist()),
        backends=frozenset(targets),
        translated=frozenset(address for address, _ in translated(answered, tables)),
        identities=frozenset(
            flow_pb2.Endpoint.FromString(tables.endpoints[index] or b"").identity
            for index in np.unique(sent["src"]).tolist()
        ),
    )


def translated(rows: Rows, tables: Tables) -> list[tuple[str, int]]:
    """What stands in packets in place of their sender's own address, with the port beside it, in order of time."""
    found: dict[tuple[str, int], None] = {}
    for index, port in dict.fromkeys(zip(rows["aux"].tolist(), rows["sport"].tolist(), strict=True)):
        flow = flow_pb2.Flow.FromString(split_aux(tables.aux[index] or b"")[0])
        if flow.IP.source_xlated:
            found[flow.IP.source_xlated, port] = None
    return list(found)


def _within(leg: Leg, outer: Leg) -> Leg:
    times = leg.rows["ts_ns"]
    first, last = (int(outer.rows["ts_ns"][end]) for end in (0, -1))
    return replace(leg, rows=take(leg.rows, (times >= first - EARLY_NS) & (times <= last + LATE_NS)))


def _distance(first: Leg, second: Leg) -> float:
    """Mean time from a row of the first leg to the next one of the second, in ns."""
    times, others = first.rows["ts_ns"], second.rows["ts_ns"]
    place = np.searchsorted(others, times)
    after, before = others[np.minimum(place, len(others) - 1)], others[np.maximum(place - 1, 0)]
    return float(np.minimum(np.abs(after - times), np.abs(times - before)).mean())


def _apart(leg: Leg, at_ns: int) -> float:
    return float(np.abs(leg.rows["ts_ns"] - at_ns).min())


def _of_opener(rows: Rows, opener: End) -> Bools:
    return _has_end(rows, "src", "sport", opener) | _has_end(rows, "dst", "dport", opener)
