"""What a proxy has to know about an endpoint: which peers may ask what, on which ports.

In:        the rules that select the endpoint, what their peers stand for, what port names mean.
Out:       a ProxyView for each endpoint; prefixes of identities, for proxies that know peers by address.
Elsewhere: compiling.py decides which packets reach a proxy, and denials; mesh/envoy and mesh/dns judge by the view.

Ports that overlap are cut into pieces that do not, so that a port is looked for in one place. What packets reach the
proxy is the kernel's business: a peer that a view allows may still be denied before.

Source: spec/policy.md, sections 6 to 8 and 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import pairwise
from typing import Any, Final

from mesh import identities
from mesh.policy.documents.fields import Network
from mesh.policy.rules import TCP, Entry, L7Match, Ports

Span = tuple[int, int, int]
"""Protocol (0: any), first and last port."""
Spans = Callable[[Ports, bool], Iterable[Span]]
"""Where some ports of a direction are; more than one place, or none, for those that have names."""

CONFLICTING: Final = frozenset({"http", "dns"})
"""Proxies that read what is said. Two of them cannot read the same port."""


class PolicyConflict(ValueError):
    """Rules that cannot hold together; the endpoint keeps its old policy."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What some peers may ask."""

    peers: frozenset[int] | None
    """Identities; None: any."""
    matches: tuple[L7Match, ...] | None
    """Any of these passes; None: everything does. Never empty."""


@dataclass(frozen=True, slots=True)
class ProxyPort:
    """A piece of an endpoint's ports that one proxy judges. What nothing here allows is refused."""

    egress: bool
    protocol: int
    first: int
    last: int
    """Both ends belong to it."""
    parser: str
    """As in rules.Ports."""
    allowed: tuple[Allowed, ...]


ProxyView = tuple[ProxyPort, ...]
"""All of an endpoint, by direction, protocol and port; pieces of one parser do not overlap."""


@dataclass(frozen=True, slots=True)
class _Said:
    first: int
    last: int
    peers: frozenset[int] | None
    parser: str
    matches: tuple[L7Match, ...] | None


def proxy_view(
    entries: Sequence[Entry], numbers: Callable[[Any], Iterable[int]], spans: Spans, *, host_passes: bool
) -> ProxyView:
    """The view of an endpoint whose rules have these entries.

    `numbers` tells the identities of a peer. With `host_passes`, the node itself is never refused by ingress rules.
    Raises: PolicyConflict when two proxies would have to read the same port.
    """
    found: list[ProxyPort] = []
    for egress in (False, True):
        mine = [entry for entry in entries if entry.egress is egress and not entry.deny]
        if not any(ports.parser for entry in mine for ports in entry.ports):
            continue
        always = [Allowed(frozenset({identities.HOST}), None)] if host_passes and not egress else []
        by_protocol = _statements(mine, numbers, spans)
        for protocol in sorted(by_protocol.keys() - {0}):
            said = [*by_protocol[protocol], *by_protocol.get(0, ())]
            for first, last, here in _pieces(said):
                for parser in _parsers(here, first):
                    allowed = _merged(
                        [*always, *(Allowed(one.peers, one.matches) for one in here if one.parser in ("", parser))]
                    )
                    found.append(ProxyPort(egress, protocol, first, last, parser, allowed))
    return tuple(found)


def _statements(
    entries: Iterable[Entry], numbers: Callable[[Any], Iterable[int]], spans: Spans
) -> dict[int, list[_Said]]:
    """By protocol. A proxy for any protocol is one for TCP."""
    found: dict[int, list[_Said]] = {}
    for entry in entries:
        peers = None if entry.peers is None else frozenset[int]().union(*map(numbers, entry.peers))
        if peers is not None and not peers:
            continue
        for ports in entry.ports:
            matches = (ports.l7 or None) if ports.parser else None
            for protocol, first, last in spans(ports, entry.egress):
                place = protocol or (TCP if ports.parser else 0)
                found.setdefault(place, []).append(_Said(first, last, peers, ports.parser, matches))
    return found


def _pieces(said: Sequence[_Said]) -> Iterable[tuple[int, int, list[_Said]]]:
    """Ranges within which the same statements hold, as far as a proxy is asked there."""
    cuts = sorted({one.first for one in said} | {one.last + 1 for one in said})
    starts: dict[int, list[_Said]] = {}
    for one in said:
        starts.setdefault(one.first, []).append(one)
    active: list[_Said] = []
    for first, after in pairwise(cuts):
        active = [one for one in active if one.last >= first] + starts.get(first, [])
        if any(one.parser for one in active):
            yield first, after - 1, active


def _parsers(here: Iterable[_Said], port: int) -> list[str]:
    """In the order in which they were named. Raises: PolicyConflict."""
    parsers = list(dict.fromkeys(one.parser for one in here if one.parser))
    reading = [parser for parser in parsers if parser in CONFLICTING]
    if len(reading) > 1:
        raise PolicyConflict(f"port {port} has {reading[0]} rules and {reading[1]} rules for one endpoint")
    return parsers


def _merged(allowed: Iterable[Allowed]) -> tuple[Allowed, ...]:
    """One statement for each set of peers; those that say nothing beside a wider one are left out."""
    by_peers: dict[frozenset[int] | None, set[L7Match] | None] = {}
    for one in allowed:
        known = by_peers.setdefault(one.peers, set())
        by_peers[one.peers] = None if known is None or one.matches is None else known.union(one.matches)
    free = [peers for peers, matches in by_peers.items() if matches is None]
    if None in free:
        return (Allowed(None, None),)
    unrestricted = frozenset[int]().union(*(peers for peers in free if peers is not None))
    found = [Allowed(unrestricted, None)] if unrestricted else []
    for peers, matches in by_peers.items():
        if matches is not None and (peers is None or not peers <= unrestricted):
            found.append(Allowed(peers, tuple(sorted(matches, key=repr))))
    return tuple(sorted(found, key=_order))


def _order(one: Allowed) -> tuple[bool, bool, list[int]]:
    return one.peers is not None, one.matches is not None, sorted(one.peers or ())


def prefixes_by_identity(ipcache: Iterable[Mapping[str, Any]]) -> dict[int, tuple[Network, ...]]:
    """Where identities are, from the `ipcache` list of state.json. An address belongs to its longest prefix."""
    found: dict[int, list[Network]] = {}
    for one in ipcache:
        found.setdefault(one["identity"], []).append(ip_network(one["prefix"]))
    return {number: tuple(sorted(prefixes, key=str)) for number, prefixes in found.items()}
