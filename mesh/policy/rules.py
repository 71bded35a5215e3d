"""Rules: the one form that every kind of policy is brought into.

In:        nothing; these are the words.
Out:       frozen values that compare and hash by content.
Elsewhere: translate.py makes them; compiling.py and the reference evaluator of the tests read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mesh.policy.peers import LabelPeer, Peer

TCP: Final = 6
UDP: Final = 17
SCTP: Final = 132
ICMP: Final = 1
ICMPV6: Final = 58
PROTOCOLS: Final = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP, "VRRP": 112, "IGMP": 2}

AUTH_REQUIRED: Final = 1
AUTH_TYPES: Final = {"disabled": 0, "required": AUTH_REQUIRED, "test-always-fail": 2}


@dataclass(frozen=True, slots=True, order=True)
class HeaderMatch:
    """What a request's header has to be."""

    name: str
    value: str = ""
    """Empty: any value, the header only has to be there."""
    mismatch: str = ""
    """What happens when it is not so; empty: the request does not match. Else LOG, ADD, DELETE or REPLACE."""


@dataclass(frozen=True, slots=True, order=True)
class HttpMatch:
    """Requests: all members have to hold. Regular expressions match whole values; an empty one matches anything."""

    path: str = ""
    """Of `:path`, its query string included."""
    method: str = ""
    host: str = ""
    """Of `:authority`, with the port if the client sent it."""
    headers: tuple[HeaderMatch, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class DnsMatch:
    """Names in queries: one name, or a pattern."""

    name: str = ""
    pattern: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ServerName:
    """The name that a TLS client asks for; `*` stands for characters of one label."""

    pattern: str


L7Match = HttpMatch | DnsMatch | ServerName


@dataclass(frozen=True, slots=True)
class Ports:
    """A protocol and a range of its ports, perhaps behind a proxy."""

    protocol: int = 0
    """IP protocol; 0: any."""
    first: int = 0
    last: int = 65535
    """Both ends belong to it; ICMP: the type."""
    name: str = ""
    """Instead of a number: what pods call the port."""
    parser: str = ""
    """Which proxy has to judge further: http, dns or tls; empty: none."""
    priority: int = 0
    """Of that proxy's listener, 1 is strongest; 0: it has none."""
    l7: tuple[L7Match, ...] = ()
    """What the proxy lets pass: any of these. Empty: anything."""


ALL_PORTS: Final = Ports()


@dataclass(frozen=True, slots=True)
class Entry:
    """What a rule says about some peers and some ports."""

    egress: bool
    deny: bool = False
    peers: tuple[Peer, ...] | None = ()
    """None: any peer. Empty: nobody; such an entry only turns default deny on."""
    ports: tuple[Ports, ...] = (ALL_PORTS,)
    auth: int = 0
    """Type, with AUTH_EXPLICIT where the entry names it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one policy."""

    subject: LabelPeer
    entries: tuple[Entry, ...]
    deny_ingress_by_default: bool
    """Whether this rule alone is enough to refuse what nothing allows."""
    deny_egress_by_default: bool
    labels: tuple[str, ...] = ()
    """Where it comes from; shown with flows it decides about."""
    log: str = ""
    of_nodes: bool = False
    """Whether `subject` selects nodes, by the labels of their resources, and not pods."""

    def speaks_of(self, egress: bool) -> bool:
        """Whether it has anything for a direction."""
        return any(entry.egress is egress for entry in self.entries)

    def denies_by_default(self, egress: bool) -> bool:
        return self.deny_egress_by_default if egress else self.deny_ingress_by_default
