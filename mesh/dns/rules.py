"""From policies to what the DNS proxy has to know.

In:        the view of each endpoint; state.json, which has addresses, identities and labels.
Out:       Rules for the proxy.
Elsewhere: mesh/policy/view.py makes views; judge.py reads the rules; this is the agent's part, kept out of the proxy's
           process, which starts faster without what policies need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mesh import identities
from mesh.dns.judge import Client, Permission, Rules
from mesh.policy.rules import DnsMatch
from mesh.policy.view import ProxyView

PARSER: Final = "dns"


def permissions_of(view: ProxyView) -> tuple[Permission, ...]:
    """What a view says about DNS."""
    return tuple(
        Permission(
            port.protocol,
            port.first,
            port.last,
            allowed.peers,
            None
            if allowed.matches is None
            else tuple(one.name or one.pattern for one in allowed.matches if isinstance(one, DnsMatch)),
        )
        for port in view
        if port.egress and port.parser == PARSER
        for allowed in port.allowed
    )


def proxy_rules(views: Mapping[int, ProxyView], state: Mapping[str, Any], selectors: Iterable[str]) -> Rules:
    """Everything for the proxy. `state` is state.json of the same moment."""
    clients = []
    for one in state["local_endpoints"]:
        permissions = permissions_of(views.get(one["id"], ()))
        labels = tuple(one["labels"])
        for ipv4, ipv6 in _addresses(one, state) if permissions else ():
            clients.append(Client(one["id"], one["identity"], ipv4, ipv6, labels, permissions))
    said = [permission.peers for client in clients for permission in client.permissions]
    peers = frozenset[int]().union(*(each for each in said if each is not None))
    anybody = None in said
    servers = tuple(
        sorted(
            (_prefix(entry["prefix"]), entry["identity"])
            for entry in (state["ipcache"] if clients else ())
            if entry["identity"] != identities.WORLD and (anybody or entry["identity"] in peers)
        )
    )
    numbers = {number for _, number in servers}
    labels_of = {one["id"]: tuple(one["labels"]) for one in (*state["reserved_identities"], *state["identities"])}
    named = tuple((number, labels_of[number]) for number in sorted(numbers & labels_of.keys()))
    return Rules(tuple(clients), servers, named, tuple(sorted(selectors)))


def _addresses(endpoint: Mapping[str, Any], state: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of an IPv4 and an IPv6 address by which a client may ask; either may be empty.

    A pod has one. The node's own processes ask with that of the device by which they do: its router's, to ask pods.
    """
    found = [(endpoint.get("ipv4", ""), endpoint.get("ipv6", ""))]
    if endpoint["identity"] != identities.HOST:
        return found
    own = {entry["prefix"].partition("/")[0] for entry in state["ipcache"] if entry["identity"] == identities.HOST}
    others = sorted(own.difference(*found))
    return found + [("", address) if ":" in address else (address, "") for address in others]


def _prefix(text: str) -> str:
    return text if "/" in text else f"{text}/{128 if ':' in text else 32}"
