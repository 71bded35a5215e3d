"""Who may ask what: the agent's view of dns rules, made fast to ask.

In:        a Rules value from the agent; addresses of a client and of the server it asks.
Out:       a Scope: who these are, and which names may be asked there.
Elsewhere: mesh/policy/view.py makes the rules; keeper.py sends them; udp.py and tcp.py obey.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

from mesh import identities
from mesh.dns.patterns import NameRules

_REMEMBERED: Final = 16_384
"""Decisions about names in one scope, and scopes; more are decided again."""


@dataclass(frozen=True, slots=True)
class Permission:
    """What may be asked of some servers on some ports."""

    protocol: int
    first: int
    last: int
    peers: frozenset[int] | None
    """Identities; None: any."""
    rules: tuple[str, ...] | None
    """Names and patterns; None: everything."""


@dataclass(frozen=True, slots=True)
class Client:
    """One endpoint of this node that has dns rules."""

    endpoint: int
    identity: int
    ipv4: str
    ipv6: str
    labels: tuple[str, ...]
    permissions: tuple[Permission, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """Everything that the proxy has to know; sent whole, as JSON."""

    clients: tuple[Client, ...] = ()
    servers: tuple[tuple[str, int], ...] = ()
    """Prefixes and their identities, of whoever may be asked; an address belongs to its longest prefix."""
    labels: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """Of the servers' identities."""
    selectors: tuple[str, ...] = ()
    """toFQDNs: answers about these names wait until the policy knows their addresses."""

    def as_json(self) -> dict[str, Any]:
        """For the wire."""
        return {
            "clients": [
                {
                    "endpoint": one.endpoint,
                    "identity": one.identity,
                    "ipv4": one.ipv4,
                    "ipv6": one.ipv6,
                    "labels": one.labels,
                    "permissions": [
                        [each.protocol, each.first, each.last, _sorted(each.peers), each.rules]
                        for each in one.permissions
                    ],
                }
                for one in self.clients
            ],
            "servers": self.servers,
            "labels": self.labels,
            "selectors": self.selectors,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Rules:
        """The inverse of as_json."""
        clients = tuple(
            Client(
                one["endpoint"],
                one["identity"],
                one["ipv4"],
                one["ipv6"],
                tuple(one["labels"]),
                tuple(
                    Permission(
                        protocol,
                        first,
                        last,
                        None if peers is None else frozenset(peers),
                        None if rules is None else tuple(rules),
                    )
                    for protocol, first, last, peers, rules in one["permissions"]
                ),
            )
            for one in told["clients"]
        )
        return cls(
            clients,
            tuple((prefix, number) for prefix, number in told["servers"]),
            tuple((number, tuple(labels)) for number, labels in told["labels"]),
            tuple(told["selectors"]),
        )


def _sorted(peers: frozenset[int] | None) -> list[int] | None:
    return None if peers is None else sorted(peers)


@dataclass(slots=True)
class Scope:
    """One client, asking one server."""

    client: Client
    server: str
    port: int
    protocol: int
    server_identity: int
    server_labels: tuple[str, ...]
    rules: NameRules | None
    """None: nothing is known for this server, so nothing can be judged."""
    waiting: int = 0
    """Queries of it that have no answer yet."""
    _decided: dict[str, bool] = field(default_factory=dict)

    def allows(self, name: str) -> bool:
        """Whether a name in its normal form may be asked."""
        found = self._decided.get(name)
        if found is None:
            if len(self._decided) >= _REMEMBERED:
                self._decided.clear()
            found = self._decided[name] = self.rules is not None and self.rules.match(name)
        return found


class Judge:
    """Knows the present rules."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._exact: dict[str, int] = {}
        self._wide: list[tuple[IPv4Network | IPv6Network, int]] = []
        self._labels: dict[int, tuple[str, ...]] = {}
        self._scopes: dict[tuple[str, str, int, int], Scope | None] = {}
        self._selectors = NameRules()
        self._relevant: dict[str, bool] = {}

    def update(self, rules: Rules) -> None:
        """These are the rules from now on."""
        self._clients = {address: one for one in rules.clients for address in (one.ipv4, one.ipv6) if address}
        self._exact, self._wide = {}, []
        for text, number in rules.servers:
            prefix = ip_network(text)
            if prefix.prefixlen == prefix.max_prefixlen:
                self._exact[str(prefix.network_address)] = number
            else:
                self._wide.append((prefix, number))
        self._wide.sort(key=lambda one: -one[0].prefixlen)
        self._labels = dict(rules.labels)
        self._selectors = NameRules.of(rules.selectors)
        self._scopes.clear()
        self._relevant.clear()

    def scope(self, client: str, server: str, port: int, protocol: int) -> Scope | None:
        """Who asks whom; None for a client that is not known."""
        key = (client, server, port, protocol)
        try:
            return self._scopes[key]
        except KeyError:
            pass
        if len(self._scopes) >= _REMEMBERED:
            self._scopes.clear()
        found = self._scopes[key] = self._scope(*key)
        return found

    def is_selected(self, name: str) -> bool:
        """Whether a toFQDNs selector means a name in its normal form."""
        found = self._relevant.get(name)
        if found is None:
            if len(self._relevant) >= _REMEMBERED:
                self._relevant.clear()
            found = self._relevant[name] = self._selectors.match(name)
        return found

    def _scope(self, address: str, server: str, port: int, protocol: int) -> Scope | None:
        client = self._clients.get(address)
        if client is None:
            return None
        identity = self._identity(server)
        meant = [
            one.rules
            for one in client.permissions
            if one.protocol in (0, protocol)
            and one.first <= port <= one.last
            and (one.peers is None or identity in one.peers)
        ]
        rules = None
        if meant:
            rules = NameRules.of(_texts(meant))
        return Scope(client, server, port, protocol, identity, self._labels.get(identity, ()), rules)

    def _identity(self, server: str) -> int:
        found = self._exact.get(server)
        if found is not None:
            return found
        address = ip_address(server)
        return next((number for prefix, number in self._wide if address in prefix), identities.WORLD)


def _texts(meant: Iterable[tuple[str, ...] | None]) -> Iterable[str]:
    for rules in meant:
        yield from ("*",) if rules is None else rules
