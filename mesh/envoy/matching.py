"""What policies allow, as trees of Envoy's matchers.

In:        views of the node's endpoints, their addresses, prefixes of identities.
Out:       the `matcher` of Envoy's RBAC filters, for requests and for TLS server names.
Elsewhere: listeners.py puts them into filters; mesh/policy/view.py says what the views mean.

A request is looked up, not searched for: own address, port and the peer's address are maps and prefix tries, and only
the rules of one peer are tried one after the other. Endpoints with equal views share one branch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, collapse_addresses
from typing import Any, Final

import re2

from mesh.policy.documents.fields import Network, is_inside
from mesh.policy.judging import Answer, Whole
from mesh.policy.rules import TCP, HeaderMatch, HttpMatch, L7Match, ServerName
from mesh.policy.view import Allowed, ProxyView

Tree = dict[str, Any]
"""A piece of Envoy's configuration."""
Address = IPv4Address | IPv6Address

ANYTHING: Final = r"\C*"
"""Any bytes, valid UTF-8 or not."""
_INPUTS: Final = "type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3."
_HEADER: Final = "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
_ACTION: Final = "type.googleapis.com/envoy.config.rbac.v3.Action"
_IP_MATCHER: Final = "type.googleapis.com/xds.type.matcher.v3.IPMatcher"
_PIECE: Final = re.compile(r"\\[\x01-/:-@\[-^`{-\x7f]|[^\\.+*?()|\[\]{}^$]")
"""A character of a pattern that stands for itself: punctuation behind a backslash, or what has no other meaning."""
SINGLE_PORTS: Final = 64
"""Ranges up to this size are listed port by port."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """What a proxy of a node has to know."""

    endpoints: Mapping[Address, ProxyView] = field(default_factory=dict)
    """By the endpoints' addresses."""
    prefixes: Mapping[Network, int] = field(default_factory=dict)
    """Identities. The longest prefix of an address counts."""
    ingress: Whole = field(default_factory=Whole)
    """Policy of the ingress endpoint, in whose name load balancers speak."""
    pods: Mapping[Address, Whole] = field(default_factory=dict)
    """Policies of pods, by address: those that have one for egress."""


@dataclass(slots=True)
class Changes:
    """Headers that requests get or lose. The name of a matched RBAC action says which."""

    names: dict[tuple[HeaderMatch, ...], str] = field(default_factory=dict)

    def name(self, match: HttpMatch) -> str:
        """The name for what a rule does to headers; empty when it does nothing."""
        actions = tuple(one for one in match.headers if one.mismatch)
        return self.names.setdefault(actions, f"headers-{len(self.names)}") if actions else ""


def relevant(view: NodeView, egress: bool) -> NodeView:
    """What one direction's proxies look at; what else changes is no change for them."""
    endpoints: dict[Address, ProxyView] = {}
    known: dict[int, tuple[ProxyView, ProxyView]] = {}
    for address, ports in view.endpoints.items():
        # Most endpoints share the view of others. It is kept beside its part, so that no other one gets its id.
        _, mine = known.setdefault(id(ports), (ports, ()))
        if not mine:
            mine = tuple(one for one in ports if one.egress == egress and one.protocol == TCP)
            known[id(ports)] = ports, mine
        if mine:
            endpoints[address] = mine
    allowed = {one.peers for _, mine in known.values() for port in mine for one in port.allowed if one.peers}
    named = frozenset[int]().union(*allowed)
    outer = [one for one, number in view.prefixes.items() if number in named and not _is_host(one)]
    prefixes = {
        one: number
        for one, number in view.prefixes.items()
        if number in named or any(is_inside(one, each) for each in outer)
    }
    return NodeView(endpoints, prefixes)


def tree(view: NodeView, parser: str, egress: bool, changes: Changes) -> Tree:
    """The matcher for one direction and kind of proxy; `changes` learns what rules do to headers."""
    alike: dict[ProxyView, list[Address]] = {}
    for address, ports in view.endpoints.items():
        mine = tuple(one for one in ports if (one.egress, one.parser, one.protocol) == (egress, parser, TCP))
        if mine:
            alike.setdefault(mine, []).append(address)
    peers = Peers(view.prefixes, "DestinationIPInput" if egress else "SourceIPInput", changes)
    ranges = [
        hosts(addresses, by_port([(one.first, one.last, peers.judge(one.allowed)) for one in ports]))
        for ports, addresses in alike.items()
    ]
    return by_address("SourceIPInput" if egress else "DestinationIPInput", ranges) if ranges else _NOTHING


def by_port(pieces: Iterable[tuple[int, int, Tree]]) -> Tree:
    """What follows from the port: first and last of each piece, and what then."""
    single: dict[str, Tree] = {}
    wide: list[tuple[str, Tree]] = []
    for first, last, then in pieces:
        if last - first < SINGLE_PORTS:
            single |= {str(port): then for port in range(first, last + 1)}
        else:
            wide.append((range_pattern(first, last), then))
    # Pieces do not overlap, so what is not among the single ports can be looked for among the ranges.
    rest = _first_of([(_predicate(_input("DestinationPortInput"), pattern), then) for pattern, then in wide])
    if not single:
        return rest
    found: Tree = {"matcher_tree": {"input": _input("DestinationPortInput"), "exact_match_map": {"map": single}}}
    return {"matcher": found | ({"on_no_match": rest} if wide else {})}


class Peers:
    """Judges by the peer's address."""

    def __init__(self, prefixes: Mapping[Network, int], source: str, changes: Changes) -> None:
        """`source` is the input of Envoy's that has the peer's address."""
        self._where: dict[int, list[Network]] = {}
        for prefix, number in prefixes.items():
            self._where.setdefault(number, []).append(prefix)
        self._prefixes = prefixes
        self._input = source
        self._changes = changes
        self._widest = {
            version: 1
            + max((one.prefixlen for one in prefixes if one.version == version and not _is_host(one)), default=0)
            for version in (4, 6)
        }
        """Shorter prefixes of hosts than these could be inside of somebody else's."""
        self._known: dict[tuple[Allowed, ...], Tree] = {}

    def judge(self, allowed: tuple[Allowed, ...]) -> Tree:
        """What follows for a peer."""
        found = self._known.get(allowed)
        if found is None:
            found = self._known[allowed] = self._make(allowed)
        return found

    def _make(self, allowed: tuple[Allowed, ...]) -> Tree:
        anybody = _union(one.matches for one in allowed if one.peers is None)
        named = {number for one in allowed for number in one.peers or ()}
        return self.by_identity(
            anybody,
            {
                number: _union(one.matches for one in allowed if one.peers is None or number in one.peers)
                for number in named
            },
        )

    def by_identity(self, anybody: Answer, named: Mapping[int, Answer]) -> Tree:
        """What follows for these identities, and for others."""
        groups: dict[Answer, list[Network]] = {}
        other = {number: matches for number, matches in named.items() if matches != anybody}
        for number, matches in other.items():
            groups.setdefault(matches, []).extend(self._where.get(number, ()))
        outer = [
            prefix for prefixes in groups.values() for prefix in prefixes if prefix.prefixlen < prefix.max_prefixlen
        ]
        if outer:
            # Who lives inside of a peer's prefix and has a name of their own is not that peer.
            inner = [
                prefix
                for prefix, number in self._prefixes.items()
                if number not in other and any(is_inside(prefix, one) for one in outer)
            ]
            groups.setdefault(anybody, []).extend(inner)
        ranges = [
            ip_range(
                sorted((str(one.network_address), one.prefixlen) for one in joined(prefixes, self._widest)),
                self._requests(matches),
            )
            for matches, prefixes in groups.items()
            if prefixes
        ]
        return by_address(self._input, ranges, self._requests(anybody)) if ranges else self._requests(anybody)

    def _requests(self, matches: Answer) -> Tree:
        if matches is None:
            return _allow()
        return _first_of(
            [
                (_http(one), _allow(self._changes.name(one)))
                if isinstance(one, HttpMatch)
                else (_server(one), _allow())
                for one in matches
                if isinstance(one, HttpMatch | ServerName)
            ]
        )


def joined(prefixes: Sequence[Network], widest: Mapping[int, int]) -> list[Network]:
    """The same addresses in fewer prefixes: neighbours are taken together, up to a length for each IP version."""
    found: list[Network] = [one for one in prefixes if not _is_host(one)]
    for version in (4, 6):
        hosts = [one for one in prefixes if one.version == version and _is_host(one)]
        for one in collapse_addresses(hosts):  # type: ignore[type-var]
            found += one.subnets(new_prefix=max(one.prefixlen, min(widest[version], one.max_prefixlen)))
    return found


def _is_host(prefix: Network) -> bool:
    return prefix.prefixlen == prefix.max_prefixlen


def _union(said: Iterable[Answer]) -> Answer:
    found: dict[L7Match, None] = {}
    for matches in said:
        if matches is None:
            return None
        found.update(dict.fromkeys(matches))
    return tuple(found)


def _http(match: HttpMatch) -> Tree:
    wanted = [(":path", match.path), (":method", match.method), (":authority", match.host)]
    patterns = [(name, pattern) for name, pattern in wanted if pattern]
    patterns += [
        (one.name, re2.escape(one.value) if one.value else ANYTHING) for one in match.headers if not one.mismatch
    ]
    # Every request has a method.
    terms = [_predicate(_header(name), pattern) for name, pattern in patterns or [(":method", ANYTHING)]]
    return terms[0] if len(terms) == 1 else {"and_matcher": {"predicate": terms}}


def _server(match: ServerName) -> Tree:
    return _predicate(_input("ServerNameInput"), server_name_pattern(match.pattern))


def server_name_pattern(text: str) -> str:
    """The regular expression of a server name: `*` is part of a label, `**.` in front one or more labels."""
    every, text = ("([^.]+[.])+", text[3:]) if text.startswith("**.") else ("", text)
    return every + "[^.]*".join(re2.escape(part) for part in text.split("*"))


# ---- pieces ----


def _allow(name: str = "") -> Tree:
    return {"action": {"name": "allow", "typed_config": {"@type": _ACTION, "name": name or "allow", "action": "ALLOW"}}}


DENY: Final[Tree] = {"action": {"name": "deny", "typed_config": {"@type": _ACTION, "name": "deny", "action": "DENY"}}}
_NOTHING: Final[Tree] = {"on_no_match": DENY}


def _first_of(cases: Sequence[tuple[Tree, Tree]]) -> Tree:
    """The first case whose predicate holds; none: denied."""
    if not cases:
        return DENY
    matchers = [{"predicate": predicate, "on_match": then} for predicate, then in cases]
    return {"matcher": {"matcher_list": {"matchers": matchers}, "on_no_match": DENY}}


def by_address(name: str, ranges: Sequence[Tree], otherwise: Tree | None = None) -> Tree:
    """What follows from an address; without `otherwise`, others are denied, and it is the whole matcher."""
    matcher = {
        "matcher_tree": {
            "input": _input(name),
            "custom_match": {"name": "addresses", "typed_config": {"@type": _IP_MATCHER, "range_matchers": ranges}},
        },
        "on_no_match": otherwise or DENY,
    }
    return {"matcher": matcher} if otherwise is not None else matcher


def hosts(addresses: Iterable[Address], then: Tree) -> Tree:
    """What follows for these addresses."""
    return ip_range([(str(one), one.max_prefixlen) for one in sorted(addresses, key=_order)], then)


def ip_range(prefixes: Sequence[tuple[str, int]], then: Tree) -> Tree:
    """What follows for addresses of these prefixes, and of no longer ones."""
    return {
        "ranges": [{"address_prefix": address, "prefix_len": length} for address, length in prefixes],
        "on_match": then,
        # Without it, a wider prefix would be asked when the rules of this one do not hold.
        "exclusive": True,
    }


def _input(name: str) -> Tree:
    return {"name": name, "typed_config": {"@type": _INPUTS + name}}


def _header(name: str) -> Tree:
    return {"name": name, "typed_config": {"@type": _HEADER, "header_name": name}}


def _predicate(source: Tree, pattern: str) -> Tree:
    only = only_text(pattern)
    # To compare texts costs less than to look for a pattern, and nearly all patterns are texts.
    match = {"safe_regex": {"google_re2": {}, "regex": pattern}} if only is None else {"exact": only}
    return {"single_predicate": {"input": source, "value_match": match}}


def only_text(pattern: str) -> str | None:
    """The text that a regular expression stands for; None: there may be others, or none."""
    pieces = _PIECE.findall(pattern)
    if sum(map(len, pieces)) < len(pattern):
        return None
    return "".join(one[-1] for one in pieces)


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def range_pattern(first: int, last: int) -> str:
    """A regular expression of the decimal numbers from `first` to `last`."""
    return "|".join(_blocks(first, last))


def _blocks(first: int, last: int) -> Iterable[str]:
    while first <= last:
        size = 1
        while first % (size * 10) == 0 and first + size * 10 - 1 <= last and (first or size * 10 <= 10):
            size *= 10
        digits = len(str(size)) - 1
        head, free = str(first)[: len(str(first)) - digits], "[0-9]" * digits
        yield f"{head}{free}"
        first += size
