"""Policy of the node's ingress endpoint: who may come to its load balancers, and to which backends these may go.

In:        whole policies of the ingress endpoint and of this node's pods; where identities are; known backends.
Out:       contents of three filters: for requests that come, connections that come, and requests to a chosen backend.
Elsewhere: mesh/envoyconfig/listeners.py has listeners ask them; files.py hands them to Envoy apart from listeners, so
           that no connection ends when a policy changes.

A load balancer has two doors. At the first one the ingress endpoint's ingress policy decides, by the client's address
and the port it wanted. At the second one Envoy has chosen a backend and has not connected yet: the egress policy of the
ingress endpoint has to allow it, and that of the client, if it is a pod of this node whose address is not kept (of one
whose address is kept, the kernel asks). Where no requests are seen, a backend is chosen when it is too late to refuse:
there the client's egress policy has to allow the ingress endpoint, at the first door.

Source: spec/mesh.md section 4, "Policy with ingress".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final

import re2

from mesh import identities
from mesh.envoy.matching import DENY, Changes, NodeView, Peers, by_address, by_port, hosts
from mesh.policy.documents.fields import Network
from mesh.policy.judging import Answer, Whole
from mesh.policy.rules import HttpMatch

Tree = dict[str, Any]
Address = IPv4Address | IPv6Address
Backend = tuple[Address, int]

ENTRY_HTTP: Final = "entry-http"
ENTRY_TCP: Final = "entry-tcp"
EXIT_HTTP: Final = "exit-http"
NAMES: Final = (ENTRY_HTTP, ENTRY_TCP, EXIT_HTTP)

HTTP_RBAC: Final = "envoy.extensions.filters.http.rbac.v3.RBAC"
TCP_RBAC: Final = "envoy.extensions.filters.network.rbac.v3.RBAC"
_TYPE: Final = "type.googleapis.com/"
_UPSTREAM: Final = "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher"
_INPUT: Final = "DirectSourceIPInput"
"""Where the connection comes from, whatever a header says."""
_NOBODY: Final[Tree] = {"not_id": {"any": True}}


def filters(view: NodeView, backends: Iterable[Backend]) -> dict[str, Tree]:
    """The contents of the filters, by name."""
    return {
        ENTRY_HTTP: {"@type": _TYPE + HTTP_RBAC, **_requests_entry(view)},
        ENTRY_TCP: {"@type": _TYPE + TCP_RBAC, "stat_prefix": f"{ENTRY_TCP}.", **_connections_entry(view)},
        EXIT_HTTP: {"@type": _TYPE + HTTP_RBAC, **_exit(view, sorted(set(backends), key=_order))},
    }


def known_backends(resources: Iterable[Tree]) -> Iterator[Backend]:
    """Endpoints in ClusterLoadAssignments, and in clusters that have one."""
    for one in resources:
        for locality in (one.get("load_assignment") or one).get("endpoints", ()):
            for endpoint in locality.get("lb_endpoints", ()):
                socket = endpoint.get("endpoint", {}).get("address", {}).get("socket_address", {})
                try:
                    yield ip_address(socket.get("address", "")), int(socket.get("port_value", 0))
                except ValueError:
                    # A name: whose it is, Envoy finds out by itself.
                    continue


# ---- the first door ----


def _requests_entry(view: NodeView) -> Tree:
    """What follows for who sends a request, {"matcher": ...}; empty when everybody may come."""
    judged = _judged(view, lambda answer: answer)
    denied = [one for one, policy in view.pods.items() if policy.is_denied(True, identities.INGRESS)]
    if denied:
        return by_address(_INPUT, [hosts(denied, DENY)], judged or _passing(view))
    return judged


def _connections_entry(view: NodeView) -> Tree:
    """The same for who speaks something else. There is no second door behind: pods have to be allowed to go here."""
    judged = _judged(view, _without_requests)
    alike: dict[tuple[tuple[int, int, bool], ...], list[Address]] = {}
    for address, whole in view.pods.items():
        pieces = tuple(
            (first, last, whole.answer(True, identities.INGRESS, first) is None) for first, last in whole.pieces(True)
        )
        if not all(allowed for _, _, allowed in pieces):
            alike.setdefault(pieces, []).append(address)
    if not alike:
        return judged
    then = judged or _passing(view)
    ranges = [
        hosts(addresses, by_port([(first, last, then if allowed else DENY) for first, last, allowed in pieces]))
        for pieces, addresses in alike.items()
    ]
    return by_address(_INPUT, ranges, then)


def _judged(view: NodeView, about: Callable[[Answer], Answer]) -> Tree:
    """The ingress policy of the ingress endpoint; empty when it lets everybody come."""
    whole = view.ingress
    peers = _peers(view)
    pieces: list[tuple[int, int, Answer, dict[int, Answer]]] = []
    if whole.is_enforced(False):
        for first, last in whole.pieces(False):
            named = {number: about(whole.answer(False, number, first)) for number in whole.named(False)}
            pieces.append((first, last, about(whole.answer(False, 0, first)), named))
    restricted = any(others is not None or set(named.values()) - {None} for _, _, others, named in pieces)
    if not restricted:
        return {}
    return by_port([(first, last, peers.by_identity(others, named)) for first, last, others, named in pieces])


def _without_requests(answer: Answer) -> Answer:
    """What of it can hold where no requests are seen."""
    return answer and tuple(one for one in answer if not isinstance(one, HttpMatch))


def _passing(view: NodeView) -> Tree:
    return _peers(view).by_identity(None, {})


def _peers(view: NodeView) -> Peers:
    return Peers(view.prefixes, _INPUT, Changes())


# ---- the second door ----


def _exit(view: NodeView, backends: Sequence[Backend]) -> Tree:
    """RBAC's rules; empty when everybody may go everywhere."""
    numbers = _Numbers(view.prefixes)
    wanted = [(backend, numbers.of(backend[0])) for backend in backends]

    def answers(whole: Whole) -> tuple[Answer, ...]:
        return tuple(whole.answer(True, number, port) for (_, port), number in wanted)

    mine = answers(view.ingress)
    everything = (None,) * len(mine)
    alike: dict[tuple[Answer, ...], list[Address]] = {}
    for address, whole in view.pods.items():
        alike.setdefault(answers(whole), []).append(address)
    # A client whose policy has nothing against any backend is like one without a policy.
    alike.pop(everything, None)
    if mine == everything and not alike:
        return {}
    pods = [one for addresses in alike.values() for one in addresses]
    policies = {"others": _policy(backends, (mine,), {"not_id": _clients(pods)})}
    for number, (theirs, addresses) in enumerate(alike.items()):
        policies[f"pods-{number}"] = _policy(backends, (mine, theirs), _clients(addresses))
    return {"rules": {"action": "ALLOW", "policies": policies}}


def _policy(backends: Sequence[Backend], said: Sequence[tuple[Answer, ...]], clients: Tree) -> Tree:
    """Backends to which all that is said lets these clients go."""
    groups: dict[tuple[Answer, ...], list[Backend]] = {}
    for backend, answers in zip(backends, zip(*said, strict=True), strict=True):
        if () not in answers:
            groups.setdefault(answers, []).append(backend)
    permissions = [
        _all([_any([_is_backend(one) for one in members]), *(_requests(one) for one in answers if one is not None)])
        for answers, members in groups.items()
    ]
    if all(answer is None for answers in said for answer in answers):
        permissions = [{"any": True}]
    return {"permissions": permissions or [{"not_rule": {"any": True}}], "principals": [clients]}


def _clients(addresses: Iterable[Address]) -> Tree:
    ids = [
        {"direct_remote_ip": {"address_prefix": str(one), "prefix_len": one.max_prefixlen}}
        for one in sorted(addresses, key=lambda one: (one.version, int(one)))
    ]
    return {"or_ids": {"ids": ids}} if ids else _NOBODY


def _is_backend(backend: Backend) -> Tree:
    address, port = backend
    matcher = {
        "@type": _TYPE + _UPSTREAM,
        "upstream_ip": {"address_prefix": str(address), "prefix_len": address.max_prefixlen},
        "upstream_port_range": {"start": port, "end": port + 1},
    }
    return {"matcher": {"name": "backend", "typed_config": matcher}}


def _requests(answer: tuple[object, ...]) -> Tree:
    """Requests that a rule lets pass; of rules that are about requests."""
    return _any([_request(one) for one in answer if isinstance(one, HttpMatch)])


def _request(match: HttpMatch) -> Tree:
    wanted = ((":path", match.path), (":method", match.method), (":authority", match.host))
    terms = [_header(name, pattern) for name, pattern in wanted if pattern]
    for one in match.headers:
        if not one.mismatch:
            value = _header(one.name, re2.escape(one.value))
            terms.append(value if one.value else {"header": {"name": one.name, "present_match": True}})
    return _all(terms)


def _header(name: str, pattern: str) -> Tree:
    return {"header": {"name": name, "string_match": {"safe_regex": {"regex": pattern}}}}


def _all(rules: Sequence[Tree]) -> Tree:
    return {"and_rules": {"rules": list(rules)}} if rules else {"any": True}


def _any(rules: Sequence[Tree]) -> Tree:
    return {"or_rules": {"rules": list(rules)}} if rules else {"not_rule": {"any": True}}


class _Numbers:
    """Identities of addresses."""

    def __init__(self, prefixes: Mapping[Network, int]) -> None:
        self._prefixes = prefixes
        self._lengths = {
            version: sorted({one.prefixlen for one in prefixes if one.version == version}, reverse=True)
            for version in (4, 6)
        }

    def of(self, address: Address) -> int:
        for length in self._lengths[address.version]:
            found = self._prefixes.get(ip_network((address, length), strict=False))
            if found is not None:
                return found
        return identities.WORLD


def _order(backend: Backend) -> tuple[int, int, int]:
    address, port = backend
    return address.version, int(address), port
